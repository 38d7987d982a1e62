"""Drill: restore backups into throw-away servers from the store alone, read everything, compare, time it, keep proof.

The only endpoints that are written to come from a scratch runtime: nothing here takes a URL, a source or a target.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from drd.drills import selection
from drd.drills.history import History
from drd.drills.phases import Phases
from drd.drills.report import DrillRun, RunError, Verdict, verdict_of, worst
from drd.drills.suite import Drill, Objectives, Selection
from drd.errors import DrdError, IntegrityError, NoSuchBackup
from drd.model import Backup, Finding
from drd.ops.choosing import choose_backups, choose_whole
from drd.ops.failures import of_source
from drd.ops.ports import Ports
from drd.ops.presence import is_removed
from drd.ops.trial import Bind, Bound, Trial
from drd.protocols import ScratchRuntime
from drd.repository import layout
from drd.repository.catalog import Entry
from drd.repository.planning import Choice
from drd.wording import when

__all__ = ["Bind", "Bound", "DrillReport", "Request", "Tick", "drill", "runs_of"]

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for beside the drill's own choice: one backup, or a time; and to keep the server."""

    backup: str | None = None
    at: datetime | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Something that just happened in a drill: a phase began, or a check was made. May come from any thread."""

    kind: Literal["phase", "check"]
    source: str
    phase: str
    finding: Finding | None = None


@dataclass(frozen=True, slots=True)
class DrillReport:
    """How a drill went, run by run.

    ``error`` says why it could not even begin. ``unrecorded`` says why a report is not in the store. ``connect`` are
    lines for a person, by run, where servers were kept.
    """

    drill: str
    runs: tuple[DrillRun, ...]
    error: DrdError | None = None
    unrecorded: DrdError | None = None
    connect: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of its runs."""
        return "unverified" if self.error else worst([run.verdict for run in self.runs])


@dataclass
class _Under:
    """A drill under way."""

    ports: Ports
    plan: Drill
    runtime: ScratchRuntime
    bind: Bind
    request: Request
    tell: Callable[[Tick], None]
    history: History


def drill(
    ports: Ports, plan: Drill, runtime: ScratchRuntime, bind: Bind, request: Request, tell: Callable[[Tick], None]
) -> DrillReport:
    """Carry out one drill, a source after the other, and record each run in the store.

    ``bind`` makes engine and examiner for an endpoint that ``runtime`` made. Raises Cancelled when a person interrupts
    (nothing is left behind, and what is done is recorded); everything else is in the report.
    """
    under = _Under(ports, plan, runtime, bind, request, tell, History(ports.store, ports.catalog.signing))
    runs: list[DrillRun] = []
    connect: list[tuple[str, tuple[str, ...]]] = []
    try:
        with ports.lease(f"drill-{plan.name}"):
            unrecorded = _runs(under, runs, connect)
    except DrdError as error:
        if ports.cancel.cancelled:
            raise
        return DrillReport(plan.name, tuple(runs), error.during("drill", plan.name), connect=tuple(connect))
    return DrillReport(plan.name, tuple(runs), unrecorded=unrecorded, connect=tuple(connect))


def _runs(under: _Under, runs: list[DrillRun], connect: list[tuple[str, tuple[str, ...]]]) -> DrdError | None:
    """Make every run of the drill; return why one of them could not be recorded, if so."""
    unrecorded: DrdError | None = None
    tried: set[str] = set()
    for source, how in _wanted(under):
        under.ports.cancel.raise_if_cancelled()
        run, lines = _run(under, source, how, tried)
        if run is None:
            continue
        runs.append(run)
        if lines:
            connect.append((run.id, lines))
        try:
            under.history.record(run)
        except DrdError as error:
            unrecorded = error.during("record the drill", run.id)
    return unrecorded


def _wanted(under: _Under) -> Sequence[tuple[str, str]]:
    if under.request.backup is not None:
        entry = under.ports.catalog.entry(under.request.backup)
        return [(entry.source, f"backup {entry.id}")]
    if under.request.at is not None:
        return [(source, f"at {when(under.request.at)}") for source in under.plan.sources]
    return [(source, how) for source in under.plan.sources for how in under.plan.select]


def _run(under: _Under, source: str, how: str, tried: set[str]) -> tuple[DrillRun | None, tuple[str, ...]]:
    """Choose a backup of a source and put it on trial; None for one that this drill has just tried."""
    ports, plan = under.ports, under.plan
    started_at = ports.now()
    run_id = layout.new_backup_id(started_at)
    phases = Phases(ports.monotonic, lambda phase: under.tell(Tick("phase", source, phase)))

    def found(finding: Finding) -> None:
        under.tell(Tick("check", source, phases.now, finding))

    def report(trial: Trial | None, error: DrdError | None, *, damage: bool) -> DrillRun:
        return _report(under, source, how, run_id, started_at, phases, trial, error, damage=damage)

    try:
        with phases.phase("choose"):
            choice = _choose(under, source, how)
    except DrdError as error:
        if ports.cancel.cancelled:
            raise
        of_source(error, "drill", source)
        return report(None, error, damage=isinstance(error, IntegrityError)), ()
    if choice.backup.id in tried:
        return None, ()
    tried.add(choice.backup.id)
    trial = Trial(ports, plan, choice, run_id, started_at, phases, found, keep=under.request.keep)
    if how == "latest" and choice.passed_over:
        trial.add(_passed_over(choice))
    trial.carry_out(under.runtime, under.bind)
    if trial.error is not None:
        of_source(trial.error, "drill", source)
    return report(trial, trial.error, damage=trial.damage), trial.connect


def _choose(under: _Under, source: str, how: str) -> Choice[Backup]:
    """Choose by the heads of the manifests, then read what was chosen whole; nothing local is asked."""
    ports, request = under.ports, under.request
    if request.at is not None:
        return choose_backups(ports, request.at, [source])[0]
    entries = ports.catalog.survey(source).entries
    if how == "latest" and request.backup is None:
        known, choice = choose_whole(ports.catalog, entries, _END_OF_TIME, source)
        if choice is None:
            raise selection.nothing(known, source)
        return choice
    if request.backup is not None:
        wanted = ports.catalog.entry(request.backup)
        head = selection.of_entry(Entry(source, wanted.id, wanted.backup, wanted.problem), entries)
    else:
        drilled = under.history.proven(source) if how == "random" else set()
        word: Selection = how  # type: ignore[assignment]  # one of plan.select
        head = selection.select(entries, source, word, drilled=drilled, pick=random.SystemRandom().choice)
    return _whole(ports, head)


def _whole(ports: Ports, head: selection.HeadChoice) -> Choice[Backup]:
    """Read the manifests of a backup and its ancestors; raises IntegrityError for one that is damaged."""
    whole: list[Backup] = []
    for item in (*head.ancestors, head.backup):
        entry = ports.catalog.read(head.source, item.id)
        if entry is None and is_removed(ports, head.backup):
            raise NoSuchBackup(f"backup {head.backup.id} was removed just now", subject=item.id, hint="drd drill now")
        if entry is None or entry.backup is None:
            why = entry.problem if entry else "its manifest is gone"
            raise IntegrityError(f"backup {item.id} cannot be restored: {why}", subject=item.id, hint="drd verify")
        whole.append(entry.backup)
    return Choice(head.source, whole[-1], head.gap_s, tuple(whole[:-1]), head.passed_over)


def _passed_over(choice: Choice[Backup]) -> Finding:
    """Say that the newest backup is not the one that can be restored: a recovery now would lose what is newer."""
    named = "; ".join(f"{backup_id}: {reason}" for backup_id, reason in choice.passed_over[:3])
    return Finding(
        "newest backup is usable",
        "failed",
        f"a newer backup cannot be used, so {choice.backup.id} was drilled: {named}",
        expected=choice.passed_over[-1][0],
        found=choice.backup.id,
    )


def _report(
    under: _Under,
    source: str,
    how: str,
    run_id: str,
    started_at: datetime,
    phases: Phases,
    trial: Trial | None,
    error: DrdError | None,
    *,
    damage: bool,
) -> DrillRun:
    backup = trial.choice.backup if trial else None
    restored = any(finding.name == "restored" for finding in trial.findings) if trial else False
    recovery_point = backup.recovery_point if backup else None
    newest = (trial.newest or recovery_point) if trial and restored else None
    findings = list(trial.findings) if trial else []
    if trial and restored:
        for finding in _objectives(under.plan.objectives, phases.total_s, started_at, newest):
            findings.append(finding)
            under.tell(Tick("check", source, "check", finding))
    return DrillRun(
        id=run_id,
        drill=under.plan.name,
        source=source,
        how=how,
        backup=backup.id if backup else None,
        engine=backup.engine if backup else None,
        verdict=verdict_of(findings, error, proves_damage=damage),
        started_at=started_at,
        finished_at=under.ports.now(),
        recovery_point=recovery_point,
        newest_data=newest,
        phases=dict(phases.seconds),
        checks=tuple(findings),
        objectives=under.plan.objectives,
        plain_bytes=backup.plain_bytes if backup else 0,
        stored_bytes=backup.stored_bytes if backup else 0,
        rows=backup.rows if backup else None,
        chain=tuple(ancestor.id for ancestor in trial.choice.ancestors) if trial else (),
        error=None if error is None else RunError.of(error, phases.now),
        environment={
            "suite": under.plan.suite.origin or "none: the checks that every drill makes",
            **({"backup engine version": backup.engine_version} if backup else {}),
            **(trial.environment if trial else {}),
        },
    )


def _objectives(wanted: Objectives, rto_s: float, started_at: datetime, newest: datetime | None) -> list[Finding]:
    """Compare time and age with the objectives; being over one fails a drill only where it is strict."""
    measured = [("RTO", rto_s, wanted.rto_s)]
    if newest is not None:
        measured.append(("RPO", max(0.0, (started_at - newest).total_seconds()), wanted.rpo_s))
    out: list[Finding] = []
    for name, found, limit in measured:
        if limit is None:
            continue
        over = found > limit
        detail = f"{found:.1f} s, {'over' if over else 'within'} the objective of {limit:.0f} s"
        outcome: Literal["passed", "warning", "failed"] = "passed"
        if over:
            outcome = "failed" if wanted.strict else "warning"
        out.append(Finding(f"{name} objective", outcome, detail, f"at most {limit:.0f} s", f"{found:.1f} s"))
    return out


def runs_of(ports: Ports) -> History:
    """Return the recorded runs of the repository."""
    return History(ports.store, ports.catalog.signing)
