"""Remove drill reports that no rule keeps: a plan by default, on demand the deed, report first, then signature."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from drd.drills import keeping
from drd.drills.history import History, RecordedRun
from drd.drills.keeping import Decision, Policy, Report
from drd.errors import DrdError, ObjectMissing
from drd.ops.failures import of_source
from drd.ops.ports import Ports
from drd.ops.prune import PruneReport

_NOTHING = Decision((), ())


@dataclass(frozen=True, slots=True)
class LockedReport:
    """A report that no rule keeps and the store's object lock does."""

    drill: str
    id: str
    until: datetime


@dataclass(frozen=True, slots=True)
class PrunedReports:
    """What was decided of drill reports and, when applied, done. ``locked`` ones stay for now: nothing failed."""

    applied: bool
    decision: Decision = _NOTHING
    removed: tuple[str, ...] = ()
    locked: tuple[LockedReport, ...] = ()
    error: DrdError | None = None


def prune_reports(
    ports: Ports, pruned: PruneReport, policy: Policy, *, apply: bool, sources: Collection[str] = ()
) -> PrunedReports:
    """Decide which reports stay once ``pruned`` is so, and with ``apply`` remove the rest.

    With ``sources``, of those alone. Changes nothing without ``apply``. Raises nothing but Cancelled: a store that
    refuses is in the answer.
    """
    history = History(ports.store, ports.catalog.signing)
    decision, removed, locked = _NOTHING, list[str](), list[LockedReport]()
    try:
        found = [_report(history, item) for item in history.newest_first()]
        decision = keeping.decide(found, _existing(ports, pruned), policy)
        if sources:
            meant = {(report.drill, report.id) for report in found if report.source in sources}
            decision = replace(decision, remove=tuple(r for r in decision.remove if (r.drill, r.id) in meant))
        for item in decision.remove:
            ports.cancel.raise_if_cancelled()
            try:
                until = history.locked_until(item.drill, item.id)
            except ObjectMissing:  # another prune was quicker
                continue
            if until is not None and until > ports.now():
                locked.append(LockedReport(item.drill, item.id, until))
            elif apply:
                history.remove(item.drill, item.id)
                removed.append(item.id)
    except DrdError as error:
        if ports.cancel.cancelled:
            raise
        of_source(error, "prune", "drill reports")
        return PrunedReports(apply, decision, tuple(removed), tuple(locked), error)
    return PrunedReports(apply, decision, tuple(removed), tuple(locked))


def _report(history: History, found: RecordedRun) -> Report:
    run = found.run
    if run is None:
        return Report(found.drill, found.id, readable=False)
    proof = run.verdict == "passed" and history.is_believed(found)
    return Report(found.drill, found.id, run.source, run.backup, proof=proof)


def _existing(ports: Ports, pruned: PruneReport) -> Sequence[str]:
    """Return the ids of all backups, those aside that go by the plan as well: what is locked or failed to go stays."""
    going = set[str]()
    for source in pruned.sources:
        held = {item.id for item in source.locked}
        if source.error is None and not pruned.applied:
            going |= {item.id for item in source.decision.remove} - held
    return [
        entry.id
        for source in ports.catalog.sources()
        for entry in ports.catalog.survey(source).entries
        if entry.id not in going
    ]
