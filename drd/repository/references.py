"""Which backups of a source need which others: the last look before anything is deleted.

A backup needs its parent, and every backup in whose folder a part of it lies; in a sound chain the latter are ancestors
too. A manifest that cannot be read may need any backup that is not newer than itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from drd.errors import IntegrityError
from drd.model import Backup
from drd.repository import layout

__all__ = ["Entry", "References", "needed_by"]


class Entry(Protocol):
    """One backup as the catalog lists it."""

    @property
    def id(self) -> str:
        """Return the backup's id."""

    @property
    def claimed(self) -> Backup | None:
        """Return what its manifest says, trusted or not; None where it cannot be read."""


def needed_by(backup: Backup) -> frozenset[str]:
    """Return the ids of the other backups without which this one cannot be restored, as its manifest names them."""
    owners = {layout.owner_of(part.key) for artifact in backup.artifacts for part in artifact.parts}
    return frozenset(owners | ({backup.parent} if backup.parent is not None else set())) - {backup.id}


class References:
    """What the backups of one source need of each other; :meth:`forget` those that are gone."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        known = list(entries)
        self._needs = {entry.id: needed_by(entry.claimed) for entry in known if entry.claimed is not None}
        self._unreadable = {entry.id for entry in known if entry.claimed is None}

    def users_of(self, backup_id: str) -> list[str]:
        """Return the backups that need, or may need, this one (or the unfinished one of that id), ascending."""
        certain = {user for user, needs in self._needs.items() if backup_id in needs}
        possible = {user for user in self._unreadable if user != backup_id and backup_id[:16] <= user[:16]}
        return sorted(certain | possible)

    def require_unused(self, backup_id: str) -> None:
        """Raise IntegrityError, naming who needs it, unless this backup can go without harm to any other."""
        if users := self.users_of(backup_id):
            more = f" and {len(users) - 3} more" if len(users) > 3 else ""
            raise IntegrityError(
                f"{backup_id} was not deleted: {', '.join(users[:3])}{more} cannot be restored without it",
                subject=backup_id,
                hint="delete those that need it first, or let drd prune decide",
            )

    def forget(self, backup_id: str) -> None:
        """Note that a backup is gone, and with it its needs."""
        self._needs.pop(backup_id, None)
        self._unreadable.discard(backup_id)
