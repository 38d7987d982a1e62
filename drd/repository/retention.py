"""Which backups to keep, and why: a pure function, so that its laws can be stated and tested.

Age is counted from the newest backup of the source, not from the clock: a source that stopped does not expire to
nothing, and a clock that jumped removes nothing. What no rule may remove is listed in :class:`Guard`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum

from drd.timing import CLOCK_SLACK

__all__ = ["Candidate", "Decision", "Guard", "Kept", "Policy", "Removed", "decide"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep of one source. A count of 0 and a ``keep_within`` of None switch a rule off.

    The calendar rules keep the newest backup of each of the last N hours, days, ISO weeks, months or years that have
    one, as ``zone`` divides them.
    """

    keep_last: int = 0
    keep_within: timedelta | None = None
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    zone: tzinfo = UTC

    @property
    def keeps_nothing(self) -> bool:
        """Whether no rule keeps any backup: surely a mistake."""
        counts = (
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        )
        return not any(counts) and self.keep_within is None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What retention needs to know of one backup.

    ``at`` is its recovery point. ``good`` is false when the manifest is damaged or an ancestor is missing, ``readable``
    when it does not even say whom it needs; ``needs`` are backups besides the parent that it cannot be restored
    without; ``proven`` is true when a drill restored it. One that is pinned and ``set_aside`` holds what a restore took
    the place of, perhaps ruined: it counts for no rule. A backup in progress has no manifest and so is no candidate.
    """

    id: str
    at: datetime
    parent: str | None = None
    good: bool = True
    readable: bool = True
    proven: bool = False
    pinned: bool = False
    set_aside: bool = False
    needs: frozenset[str] = frozenset()

    @property
    def aside(self) -> bool:
        """Whether no rule counts it, while it is kept."""
        return self.pinned and self.set_aside

    @property
    def ancestors(self) -> frozenset[str]:
        """The parent and all others that it needs."""
        return self.needs if self.parent is None else self.needs | {self.parent}


class Guard(Enum):
    """Why a backup is kept whatever the policy says."""

    NEWEST_GOOD = "the newest good backup"
    NEWEST_PROVEN = "the newest backup proven by a drill"
    PINNED = "pinned"
    ANCESTOR = "a kept backup needs it"
    MAY_BE_NEEDED = "a newer backup with a damaged manifest may need it"
    FUTURE = "its time lies in the future: a clock was wrong, here or there"
    NOT_GOOD = "damaged or not trusted: look at it before it goes (drd verify)"


_WITHIN = "within the period before the newest"
_IN_ITS_OWN_RIGHT = {_WITHIN, *(guard.value for guard in Guard)} - {Guard.NEWEST_GOOD.value, Guard.NEWEST_PROVEN.value}


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup that stays, with every reason."""

    id: str
    reasons: tuple[str, ...]

    @property
    def displaces(self) -> bool:
        """Whether another backup would be kept in its place if this one were no good."""
        return any(reason not in _IN_ITS_OWN_RIGHT for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Removed:
    """A backup that may go, and why no rule keeps it."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All candidates, newest first, each in exactly one of both; children stand before their parents in ``remove``."""

    keep: tuple[Kept, ...]
    remove: tuple[Removed, ...]


def decide(candidates: Iterable[Candidate], policy: Policy, now: datetime | None = None) -> Decision:
    """Divide the backups of one source into those that stay and those that may go.

    What is from later than ``now`` stays, and no rule counts it: after a clock was set back, backups of the time before
    would else be the newest ones, and push out those that are made. None: the clocks were always right.
    Raises ValueError for a policy that keeps nothing.
    """
    if policy.keeps_nothing:
        raise ValueError("the policy keeps nothing")
    backups = sorted(candidates, key=lambda c: (c.at, c.id), reverse=True)
    good = [c for c in backups if c.good]
    reasons: dict[str, list[str]] = {c.id: [] for c in backups}
    future = [c for c in good if now is not None and c.at > now + CLOCK_SLACK]
    present = [c for c in good[len(future) :] if not c.aside]
    _by_rules(present, policy, reasons)
    _by_guards(backups, future, present, reasons)
    _keep_ancestors({c.id: c for c in backups}, reasons)
    keep = tuple(Kept(c.id, tuple(reasons[c.id])) for c in backups if reasons[c.id])
    reason = f"no rule keeps it: {_in_words(policy)}"
    return Decision(keep, tuple(Removed(c.id, reason) for c in _children_first(backups) if not reasons[c.id]))


def _by_rules(good: Sequence[Candidate], policy: Policy, reasons: dict[str, list[str]]) -> None:
    """Note what the policy keeps; ``good`` is newest first."""
    for number, candidate in enumerate(good[: policy.keep_last], start=1):
        reasons[candidate.id].append(f"last {number} of {policy.keep_last}")
    if good and policy.keep_within is not None:
        edge = good[0].at - policy.keep_within
        for candidate in good:
            if candidate.at >= edge:
                reasons[candidate.id].append(_WITHIN)
    for name, count, period in _calendar(policy):
        seen: list[object] = []
        for candidate in good:
            key = period(candidate.at.astimezone(policy.zone))
            if key not in seen:
                if len(seen) == count:
                    break
                seen.append(key)
                reasons[candidate.id].append(f"{name} {len(seen)} of {count}")


def _calendar(policy: Policy) -> list[tuple[str, int, Callable[[datetime], object]]]:
    """Return the calendar rules in force: name, how many, and what makes two times the same period.

    An hour that a clock change repeats counts twice, as the offset is part of it.
    """
    rules: list[tuple[str, int, Callable[[datetime], object]]] = [
        ("hourly", policy.keep_hourly, lambda t: (t.date(), t.hour, t.utcoffset())),
        ("daily", policy.keep_daily, lambda t: t.date()),
        ("weekly", policy.keep_weekly, lambda t: t.isocalendar()[:2]),
        ("monthly", policy.keep_monthly, lambda t: (t.year, t.month)),
        ("yearly", policy.keep_yearly, lambda t: t.year),
    ]
    return [rule for rule in rules if rule[1] > 0]


def _by_guards(
    backups: Sequence[Candidate],
    future: Sequence[Candidate],
    present: Sequence[Candidate],
    reasons: dict[str, list[str]],
) -> None:
    """Note what must stay whatever the policy says; ``present`` are the good ones that count, ``future`` newer."""
    for candidate in present[:1]:
        reasons[candidate.id].append(Guard.NEWEST_GOOD.value)
    for candidate in future:
        reasons[candidate.id].append(Guard.FUTURE.value)
    if (proven := next((c for c in (*future, *present) if c.proven), None)) is not None:
        reasons[proven.id].append(Guard.NEWEST_PROVEN.value)
    unreadable = False
    for candidate in backups:
        if unreadable:
            reasons[candidate.id].append(Guard.MAY_BE_NEEDED.value)
        unreadable = unreadable or not candidate.readable
        if candidate.pinned:
            reasons[candidate.id].append(Guard.PINNED.value)
        if not candidate.good:
            reasons[candidate.id].append(Guard.NOT_GOOD.value)


def _keep_ancestors(by_id: dict[str, Candidate], reasons: dict[str, list[str]]) -> None:
    """Keep whatever a kept backup needs; what is kept for another reason gets this one too."""
    todo = [c.id for c in by_id.values() if reasons[c.id]]
    seen: set[str] = set()
    while todo:
        kept = todo.pop()
        if kept in seen:
            continue
        seen.add(kept)
        for needed in (by_id[kept].ancestors - {kept}) & by_id.keys():
            if Guard.ANCESTOR.value not in reasons[needed]:
                reasons[needed].append(Guard.ANCESTOR.value)
            todo.append(needed)


def _children_first(backups: Sequence[Candidate]) -> list[Candidate]:
    """Order so that each backup stands before all that it needs, else newest first."""
    by_id = {c.id: c for c in backups}
    users: dict[str, int] = dict.fromkeys(by_id, 0)
    for candidate in backups:
        for needed in (candidate.ancestors - {candidate.id}) & by_id.keys():
            users[needed] += 1
    order: list[Candidate] = []
    rank = {c.id: number for number, c in enumerate(backups)}
    free = [rank[c.id] for c in backups if not users[c.id]]
    heapq.heapify(free)
    while free:
        candidate = backups[heapq.heappop(free)]
        order.append(candidate)
        for needed in (candidate.ancestors - {candidate.id}) & by_id.keys():
            users[needed] -= 1
            if not users[needed]:
                heapq.heappush(free, rank[needed])
    done = {c.id for c in order}
    return order + [c for c in backups if c.id not in done]  # needing each other in a circle: none of drd's making


def _in_words(policy: Policy) -> str:
    words = [f"last {policy.keep_last}"] if policy.keep_last else []
    if policy.keep_within is not None:
        words.append(f"within {policy.keep_within.total_seconds() / 86400:g} d")
    words += [f"{name} {count}" for name, count, _ in _calendar(policy)]
    return ", ".join(words)
