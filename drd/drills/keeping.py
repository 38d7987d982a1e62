"""Which drill reports to keep, and why: a pure function, so that its laws can be stated and tested.

Age is counted from the newest report of a drill, not from the clock: a drill that stopped keeps its history, and a
clock that jumped removes nothing. Whatever the rules say, the proof of a backup that exists stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from drd.repository.layout import backup_time

__all__ = ["Decision", "Guard", "Kept", "Policy", "Removed", "Report", "decide"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep of each drill: its last ``keep_last`` runs, and all of ``keep_within`` before its newest one."""

    keep_last: int
    keep_within: timedelta


@dataclass(frozen=True, slots=True)
class Report:
    """What must be known of one report. ``backup`` is None where none was chosen.

    ``readable`` is false for what is no report that this drd understands; ``proof`` is true for one that says that the
    backup passed, and is believed.
    """

    drill: str
    id: str
    source: str = ""
    backup: str | None = None
    readable: bool = True
    proof: bool = False


class Guard(Enum):
    """Why a report is kept whatever the policy says."""

    PROOF = "it proves a backup that exists"
    LAST_OF_BACKUP = "the last drill of a backup that exists"
    LAST_OF_SOURCE = "the last drill of its source"
    UNREADABLE = "it cannot be read: look at it before it goes (drd drill show)"


@dataclass(frozen=True, slots=True)
class Kept:
    """A report that stays, with every reason."""

    drill: str
    id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """A report that may go, and why no rule keeps it."""

    drill: str
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All reports, newest first, each in exactly one of both."""

    keep: tuple[Kept, ...]
    remove: tuple[Removed, ...]


def decide(reports: Iterable[Report], existing: Collection[str], policy: Policy) -> Decision:
    """Divide reports into those that stay and those that may go; ``existing`` are the ids of the backups there are.

    Of each existing backup the newest proof stays, and the newest report; of each source the newest report.
    """
    ordered = sorted(reports, key=lambda r: (r.id, r.drill), reverse=True)
    reasons = _by_rules(ordered, policy)
    seen: set[tuple[Guard, str]] = set()

    def first(guard: Guard, what: str, report: Report) -> None:
        if (guard, what) not in seen:
            seen.add((guard, what))
            reasons[report].append(guard.value)

    for report in ordered:
        if not report.readable:
            reasons[report].append(Guard.UNREADABLE.value)
            continue
        first(Guard.LAST_OF_SOURCE, report.source, report)
        if report.backup in existing and report.backup is not None:
            first(Guard.LAST_OF_BACKUP, report.backup, report)
            if report.proof:
                first(Guard.PROOF, report.backup, report)
    why = f"no rule keeps it: last {policy.keep_last}, within {policy.keep_within.total_seconds() / 86400:g} d"
    return Decision(
        tuple(Kept(r.drill, r.id, tuple(reasons[r])) for r in ordered if reasons[r]),
        tuple(Removed(r.drill, r.id, why) for r in ordered if not reasons[r]),
    )


def _by_rules(ordered: Sequence[Report], policy: Policy) -> dict[Report, list[str]]:
    """Note what the policy keeps of each drill; ``ordered`` is newest first."""
    reasons: dict[Report, list[str]] = {}
    newest: dict[str, datetime] = {}
    counts: Counter[str] = Counter()
    for report in ordered:
        at = backup_time(report.id)
        newest.setdefault(report.drill, at)
        counts[report.drill] += 1
        reasons[report] = []
        if counts[report.drill] <= policy.keep_last:
            reasons[report].append(f"last {counts[report.drill]} of {policy.keep_last}")
        if at >= newest[report.drill] - policy.keep_within:
            reasons[report].append("within the period before the newest")
    return reasons
