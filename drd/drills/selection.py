"""Which backup a drill takes: pure functions over the heads of a catalog."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from drd.drills.suite import Selection
from drd.errors import CatalogError, IntegrityError
from drd.model import BackupHead
from drd.repository.catalog import HeadEntry
from drd.repository.planning import Choice, chain

HeadChoice = Choice[BackupHead]


def select(
    entries: Sequence[HeadEntry],
    source: str,
    how: Selection,
    *,
    drilled: Collection[str] = (),
    pick: Callable[[Sequence[HeadChoice]], HeadChoice],
) -> HeadChoice:
    """Return the backup of ``source`` to drill, for every selection but ``latest``; ``entries`` are its own.

    ``random`` lets ``pick`` choose among those that are not in ``drilled``, or among all when every one was. Raises
    what :func:`nothing` makes when there is none that can be restored.
    """
    usable = _usable(entries, source)
    if not usable:
        raise nothing(entries, source)
    if how == "oldest":
        return min(usable, key=lambda c: (c.backup.recovery_point, c.backup.id))
    if how == "longest-chain":
        return max(usable, key=lambda c: (len(c.ancestors), c.backup.recovery_point, c.backup.id))
    return pick([c for c in usable if c.backup.id not in drilled] or usable)


def of_entry(entry: HeadEntry, entries: Sequence[HeadEntry]) -> HeadChoice:
    """Return the choice of one backup by name; raises IntegrityError when its manifest or its chain is no good."""
    if entry.backup is None:
        raise IntegrityError(
            f"backup {entry.id} cannot be restored: {entry.problem or 'its manifest is unreadable'}",
            subject=entry.id,
            hint=f"see: drd verify {entry.id}",
        )
    return Choice(entry.source, entry.backup, 0.0, chain(entry.backup, _by_id(entries)))


def nothing(entries: Sequence[HeadEntry], source: str) -> CatalogError | IntegrityError:
    """Make the error for a source without a backup (CatalogError), or without one that can be restored."""
    if not entries:
        return CatalogError(
            f"{source} has no backup yet", subject=source, hint=f"take one with: drd backup now {source}"
        )
    problem = next((entry.problem for entry in reversed(entries) if entry.problem), "their chains are broken")
    return IntegrityError(
        f"none of the {len(entries)} backups of {source} can be restored, such as {entries[-1].id}: {problem}",
        subject=source,
        hint=f"see: drd verify {source}",
    )


def _usable(entries: Sequence[HeadEntry], source: str) -> list[HeadChoice]:
    by_id = _by_id(entries)
    out: list[HeadChoice] = []
    for backup in by_id.values():
        try:
            out.append(Choice(source, backup, 0.0, chain(backup, by_id)))
        except IntegrityError:  # drd verify names it; a drill takes one that claims to be restorable
            continue
    return out


def _by_id(entries: Sequence[HeadEntry]) -> dict[str, BackupHead]:
    return {entry.id: entry.backup for entry in entries if entry.backup is not None}
