"""The jobs' history in the store: one small object a job, so that a new daemon knows what happened before it came.

The leader alone writes. What is damaged is begun anew; what a newer drd wrote is neither believed nor replaced.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from drd.daemon.model import JobKind, JobRun, RunOutcome
from drd.daemon.planning import MAX_RUNS, Record, Retry
from drd.errors import ObjectMissing
from drd.model import Json
from drd.protocols import Store
from drd.repository import layout
from drd.repository.fields import Fields, Malformed, parse_strictly, text_of_time

VERSION = 1
MAX_TEXT = 1000
_KIND = "drd-job"
_MAX_BYTES = 4 << 20
_KINDS: tuple[JobKind, ...] = ("backup", "prune", "verify", "drill", "heartbeat")
_OUTCOMES: tuple[RunOutcome, ...] = ("ok", "partial", "failed", "cancelled", "skipped")
_MAX_RUNS_READ = 200


class NewerRecord(Malformed):
    """A newer drd wrote it."""


class History:
    """Reads and writes records. Holds no state; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, job: str) -> Record:
        """Return what is known of a job; raises :class:`Malformed` and store errors."""
        try:
            data = self._store.get(layout.job_key(job), length=_MAX_BYTES + 1)
        except ObjectMissing:
            return Record()
        return parse(data, job)

    def save(self, job: str, record: Record) -> None:
        """Write what is known of a job in place of what was; raises store errors."""
        self._store.put(layout.job_key(job), dump(job, record))


def dump(job: str, record: Record) -> bytes:
    """Return a record as it is stored, a line a run."""
    head: dict[str, Json] = {"kind": _KIND, "version": VERSION, "job": job, "failures": record.failures}
    retry = record.retry
    head["retry"] = (
        None
        if retry is None
        else {
            "tries": retry.tries,
            "not_before": text_of_time(retry.not_before),
            "planned_at": text_of_time(retry.planned_at),
        }
    )
    lines = ",\n".join(json.dumps(_document(run), ensure_ascii=True) for run in record.runs)
    return f'{json.dumps(head, ensure_ascii=True)[:-1]}, "runs": [\n{lines}]}}\n'.encode("ascii")


def parse(data: bytes, job: str) -> Record:
    """Return what a record of that job says; raises :class:`Malformed` for what :func:`dump` does not write."""
    if len(data) > _MAX_BYTES:
        raise Malformed("is too large")
    fields = Fields(parse_strictly(data), "object")
    fields.choice("kind", (_KIND,))
    version = fields.count("version")
    if version > VERSION:
        raise NewerRecord(f"has version {version}; this drd knows versions up to {VERSION}")
    if fields.text("job") != job:
        raise Malformed("is of another job")
    failures = fields.count("failures")
    told = fields.optional_map("retry")
    runs = tuple(_run(item, job) for item in fields.objects("runs"))
    fields.require_nothing_else()
    if len(runs) > _MAX_RUNS_READ:
        raise Malformed("tells of too many runs")
    return Record(
        runs=runs[:MAX_RUNS], failures=failures, retry=None if told is None else _retry(Fields(told, "retry"))
    )


def stored_text(text: str) -> str:
    """Return text as a record can hold it: one printable line, not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def _document(run: JobRun) -> dict[str, Json]:
    return {
        "kind": run.kind,
        "subject": run.subject,
        "planned_at": text_of_time(run.planned_at),
        "started_at": text_of_time(run.started_at),
        "finished_at": text_of_time(run.finished_at),
        "outcome": run.outcome,
        "attempt": run.attempt,
        "exit_code": run.exit_code,
        "message": stored_text(run.message),
        "hint": stored_text(run.hint),
        "backup": run.backup,
        "run": run.run,
    }


def _run(fields: Fields, job: str) -> JobRun:
    run = JobRun(
        job=job,
        kind=fields.choice("kind", _KINDS),
        subject=fields.text("subject"),
        planned_at=_utc(fields.time("planned_at")),
        started_at=_utc(fields.time("started_at")),
        finished_at=_utc(fields.time("finished_at")),
        outcome=fields.choice("outcome", _OUTCOMES),
        attempt=fields.count("attempt"),
        exit_code=fields.count("exit_code"),
        message=fields.text("message"),
        hint=fields.text("hint"),
        backup=fields.text("backup"),
        run=fields.text("run"),
    )
    fields.require_nothing_else()
    if any(name and not layout.is_backup_id(name) for name in (run.backup, run.run)):
        raise Malformed("names an unusable backup or run")
    return run


def _retry(fields: Fields) -> Retry:
    retry = Retry(
        tries=fields.count("tries"),
        not_before=_utc(fields.time("not_before")),
        planned_at=_utc(fields.time("planned_at")),
    )
    fields.require_nothing_else()
    return retry


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)
