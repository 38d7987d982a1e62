"""Which backup a restore uses: pure functions over the catalog, so that they can be tested to death.

The rule: per source, the newest good backup whose recovery point is not later than the asked time. When there is
none, that is an error with the recoverable window: never a later one, never "the latest" instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic

from drd.errors import IntegrityError, NoRecoveryPath
from drd.model import BackupHead
from drd.repository.entries import Content, Content_co, Entry, HeadEntry
from drd.repository.layout import backup_time
from drd.repository.signing import refusal
from drd.wording import point


@dataclass(frozen=True)
class Choice(Generic[Content_co]):
    """One source's way back: ``backup`` needs ``ancestors`` (oldest first) and lies ``gap_s`` before the asked time.

    ``passed_over`` says why newer candidates could not be used: pairs of id and reason.
    """

    source: str
    backup: Content_co
    gap_s: float
    ancestors: tuple[Content_co, ...]
    passed_over: tuple[tuple[str, str], ...] = ()


def plan_restore(
    entries: Iterable[Entry[Content]], at: datetime, sources: Sequence[str]
) -> tuple[Choice[Content], ...]:
    """Choose a backup for every source, in the order of ``sources``.

    Raises NoRecoveryPath, naming all sources that cannot reach ``at`` and what each could reach, when there is any; and
    IntegrityError when what would reach it is not signed by anyone who is believed.
    """
    known = list(entries)
    choices: list[Choice[Content]] = []
    refusals: list[str] = []
    for source in sources:
        own = [entry for entry in known if entry.source == source]
        choice = choose(own, at, source)
        if choice is None:
            _refuse_distrusted(own, at)
            refusals.append(_refusal(own, at, source))
        else:
            choices.append(choice)
    if refusals:
        raise NoRecoveryPath(
            "; ".join(refusals),
            subject=", ".join(sources) if len(sources) == 1 else "",
            hint="choose a time inside the recoverable window; drd list shows every recovery point",
        )
    return tuple(choices)


def _refuse_distrusted(entries: Sequence[HeadEntry], at: datetime) -> None:
    """Raise for the newest backup that would reach ``at`` if it were believed; "there is none" would hide it."""
    for entry in sorted(entries, key=lambda entry: entry.id, reverse=True):
        if entry.distrusted is not None and entry.distrusted.recovery_point <= at:
            raise refusal(entry.id, entry.problem or "")


def choose(entries: Sequence[Entry[Content]], at: datetime, source: str) -> Choice[Content] | None:
    """Return the newest good backup of one source not later than ``at``, or None. ``entries`` are that source's."""
    by_id = {entry.id: entry.backup for entry in entries if entry.backup is not None}
    passed_over = [
        (entry.id, entry.problem or "unreadable")
        for entry in entries
        if entry.backup is None and backup_time(entry.id) <= at  # a later one was no candidate
    ]
    reachable = [backup for backup in by_id.values() if backup.recovery_point <= at]
    for backup in sorted(reachable, key=lambda b: (b.recovery_point, b.id), reverse=True):
        try:
            ancestors = chain(backup, by_id)
        except IntegrityError as error:
            passed_over.append((backup.id, error.message))
            continue
        gap_s = (at - backup.recovery_point).total_seconds()
        newer = tuple(sorted(pair for pair in passed_over if pair[0][:16] >= backup.id[:16]))
        return Choice(source, backup, gap_s, ancestors, newer)
    return None


def chain(backup: Content, by_id: Mapping[str, Content]) -> tuple[Content, ...]:
    """Return the ancestors that ``backup`` needs, the full one first; none for a full backup.

    Raises IntegrityError naming the ancestor that is missing, unreadable, of another source or not older.
    """
    ancestors: list[Content] = []
    child = backup
    while child.parent is not None:
        parent = by_id.get(child.parent)
        if parent is None:
            raise IntegrityError(
                f"backup {backup.id} needs {child.parent}, which is missing, unreadable or not trusted",
                subject=child.parent,
            )
        if parent.source != backup.source or parent.id[:16] > child.id[:16] or parent.id in _ids(backup, ancestors):
            raise IntegrityError(
                f"backup {backup.id} names {parent.id} as an ancestor, which cannot be", subject=parent.id
            )
        ancestors.append(parent)
        child = parent
    return tuple(reversed(ancestors))


def recoverable_window(entries: Iterable[HeadEntry]) -> tuple[datetime, datetime] | None:
    """Return the oldest and the newest recovery point of the restorable ones of one source's backups."""
    backups = [entry.backup for entry in entries if entry.backup is not None]
    by_id = {backup.id: backup for backup in backups}
    points = [backup.recovery_point for backup in backups if not broken_chain(backup, by_id)]
    return (min(points), max(points)) if points else None


def _ids(backup: BackupHead, ancestors: Sequence[BackupHead]) -> set[str]:
    return {backup.id, *(ancestor.id for ancestor in ancestors)}


def broken_chain(backup: BackupHead, by_id: Mapping[str, BackupHead]) -> str:
    """Say in a line why :func:`chain` refuses; an empty line when every ancestor is there."""
    try:
        chain(backup, by_id)
    except IntegrityError as error:
        return error.message
    return ""


def _refusal(entries: Sequence[HeadEntry], at: datetime, source: str) -> str:
    window = recoverable_window(entries)
    if window is None:
        damaged = f" ({len(entries)} cannot be used)" if entries else ""
        return f"{source} has no backup that can be restored{damaged}"
    return (
        f"{source} cannot be restored to {point(at)}: it is recoverable from {point(window[0])} to {point(window[1])}"
    )
