"""The record of one drill run: what was restored from where, what was found, how long it took. Versioned JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from drd.drills.phases import PHASES
from drd.drills.suite import Objectives
from drd.errors import DrdError, IntegrityError
from drd.model import Finding, Json
from drd.repository.fields import Fields, Malformed, parse_strictly, text_of_time, written

Verdict = Literal["passed", "failed", "unverified"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "unverified")
_OUTCOMES = ("passed", "warning", "failed", "unverified", "skipped")
_ENGINES = ("postgres", "redis", "clickhouse")
REPORT_SCHEMA_VERSION = 1
_KIND = "drd-drill-run"
_MAX_TEXT = 1900


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run ended before its checks were made."""

    code: str
    message: str
    hint: str
    phase: str

    @classmethod
    def of(cls, error: DrdError, phase: str) -> RunError:
        """Take what a report needs of an error."""
        return cls(error.code, error.message, error.hint, phase)


@dataclass(frozen=True, slots=True)
class DrillRun:
    """One source's backup, restored into a scratch server and checked.

    ``backup``, ``engine`` and ``recovery_point`` are None when no backup could be chosen. ``how`` says how it was
    chosen. ``phases`` are seconds; their sum is the RTO. ``newest_data`` is the recovery point, or the newest row where
    the suite says so; the RPO is how far it lies before ``started_at``. ``environment`` names runtime, server and
    versions. ``rows_shown`` says whether the report may hold row data.
    """

    id: str
    drill: str
    source: str
    how: str
    backup: str | None
    engine: str | None
    verdict: Verdict
    started_at: datetime
    finished_at: datetime
    recovery_point: datetime | None
    newest_data: datetime | None
    phases: dict[str, float]
    checks: tuple[Finding, ...]
    objectives: Objectives
    plain_bytes: int = 0
    stored_bytes: int = 0
    rows: int | None = None
    chain: tuple[str, ...] = ()
    error: RunError | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def rto_s(self) -> float:
        """Time from the choice of the backup to the last check."""
        return sum(self.phases.values())

    @property
    def rpo_s(self) -> float | None:
        """Age of the newest recovered data when the drill began; None where nothing was recovered."""
        if self.newest_data is None:
            return None
        return max(0.0, (self.started_at - self.newest_data).total_seconds())

    @property
    def over_objective(self) -> tuple[str, ...]:
        """Which objectives were missed: ``rto``, ``rpo``."""
        over = []
        if self.objectives.rto_s is not None and self.rto_s > self.objectives.rto_s:
            over.append("rto")
        if self.objectives.rpo_s is not None and self.rpo_s is not None and self.rpo_s > self.objectives.rpo_s:
            over.append("rpo")
        return tuple(over)


def verdict_of(checks: Sequence[Finding], error: DrdError | None, *, proves_damage: bool) -> Verdict:
    """Return ``failed`` for any finding that failed, ``unverified`` where something could not be looked at.

    ``proves_damage`` says whether ``error`` is the backup's fault rather than the drill's.
    """
    outcomes = {check.outcome for check in checks}
    if "failed" in outcomes or (error is not None and proves_damage):
        return "failed"
    return "unverified" if error is not None or "unverified" in outcomes or not checks else "passed"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of several runs; of none, ``unverified``."""
    return next((v for v in ("failed", "unverified") if v in verdicts), "passed" if verdicts else "unverified")


def dump(run: DrillRun) -> bytes:
    """Return the bytes that are kept, and signed."""
    document: dict[str, Json] = {
        "kind": _KIND,
        "schema_version": REPORT_SCHEMA_VERSION,
        "id": run.id,
        "drill": run.drill,
        "source": run.source,
        "how": run.how,
        "backup": run.backup,
        "engine": run.engine,
        "verdict": run.verdict,
        "started_at": text_of_time(run.started_at),
        "finished_at": text_of_time(run.finished_at),
        "recovery_point": _time(run.recovery_point),
        "newest_data": _time(run.newest_data),
        "phases_ms": {name: round(run.phases.get(name, 0.0) * 1000) for name in PHASES},
        "objectives": {
            "rto_ms": _milliseconds(run.objectives.rto_s),
            "rpo_ms": _milliseconds(run.objectives.rpo_s),
            "strict": run.objectives.strict,
        },
        "plain_bytes": run.plain_bytes,
        "stored_bytes": run.stored_bytes,
        "rows": run.rows,
        "chain": list(run.chain),
        "checks": [_check(check) for check in run.checks],
        "error": None if run.error is None else _error(run.error),
        "environment": {_text(k): _text(v) for k, v in run.environment.items()},
    }
    return written(document)


def parse(data: bytes, key: str) -> DrillRun:
    """Read what :func:`dump` wrote; raises IntegrityError for anything else, and for a newer version by name."""
    try:
        fields = Fields(parse_strictly(data), "report")
        fields.choice("kind", (_KIND,))
        version = fields.count("schema_version")
        run = _run(fields, version)
    except Malformed as error:
        raise IntegrityError(f"{key} {error}", subject=key, hint="it is no report that this drd wrote") from error
    return run


def _run(fields: Fields, version: int) -> DrillRun:
    if version > REPORT_SCHEMA_VERSION:
        raise Malformed(f"has schema version {version}; this drd knows up to {REPORT_SCHEMA_VERSION}")
    objectives = Fields(fields.json_map("objectives"), "objectives")
    phases = Fields(fields.json_map("phases_ms"), "phases")
    failure = fields.optional_map("error")
    run = DrillRun(
        id=fields.text("id"),
        drill=fields.text("drill"),
        source=fields.text("source"),
        how=fields.text("how"),
        backup=fields.optional_text("backup"),
        engine=fields.optional_text("engine"),
        verdict=fields.choice("verdict", VERDICTS),
        started_at=fields.time("started_at"),
        finished_at=fields.time("finished_at"),
        recovery_point=fields.optional_time("recovery_point"),
        newest_data=fields.optional_time("newest_data"),
        phases={name: phases.count(name) / 1000 for name in PHASES},
        objectives=Objectives(
            _seconds(objectives.optional_count("rto_ms")),
            _seconds(objectives.optional_count("rpo_ms")),
            objectives.flag("strict"),
        ),
        plain_bytes=fields.count("plain_bytes"),
        stored_bytes=fields.count("stored_bytes"),
        rows=fields.optional_count("rows"),
        chain=fields.texts("chain"),
        checks=tuple(_finding(item) for item in fields.objects("checks")),
        error=None if failure is None else _run_error(Fields(failure, "error")),
        environment=fields.text_map("environment"),
    )
    if run.engine not in {None, *_ENGINES}:
        raise Malformed(f"has an unknown engine: {run.engine}")
    for inner in (objectives, phases, fields):
        inner.require_nothing_else()
    return run


def _check(check: Finding) -> Json:
    return {
        "name": _text(check.name),
        "outcome": check.outcome,
        "detail": _text(check.detail),
        "expected": _text(check.expected),
        "found": _text(check.found),
        "duration_ms": round(check.duration_s * 1000),
    }


def _finding(fields: Fields) -> Finding:
    found = Finding(
        name=fields.text("name"),
        outcome=fields.choice("outcome", _OUTCOMES),  # type: ignore[arg-type]  # the same words
        detail=fields.text("detail"),
        expected=fields.text("expected"),
        found=fields.text("found"),
        duration_s=fields.count("duration_ms") / 1000,
    )
    fields.require_nothing_else()
    return found


def _error(error: RunError) -> dict[str, Json]:
    return {
        "code": error.code,
        "message": _text(error.message),
        "hint": _text(error.hint),
        "phase": error.phase,
    }


def _run_error(fields: Fields) -> RunError:
    error = RunError(fields.text("code"), fields.text("message"), fields.text("hint"), fields.text("phase"))
    fields.require_nothing_else()
    return error


def _text(value: str) -> str:
    """Return text as the strict reader takes it: printable, bounded, no lone surrogate."""
    clean = "".join(c if c.isprintable() else " " for c in value)
    return clean if len(clean) <= _MAX_TEXT else f"{clean[: _MAX_TEXT - 1]}…"


def _time(at: datetime | None) -> str | None:
    return None if at is None else text_of_time(at)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
