"""Which backups of a source need which others: the last look before anything is deleted.

A backup needs its parent, and every backup in whose folder a part of it lies. The latter are ancestors too: a backup
refers to parts of its parent alone, wherever they lie. A head names the parent, a whole manifest all of them.
A manifest that cannot be read may need any backup that is not newer than itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from drd.errors import IntegrityError
from drd.model import Backup, BackupHead
from drd.repository import layout
from drd.repository.entries import HeadEntry

__all__ = ["References", "needed_by"]


def needed_by(backup: BackupHead) -> frozenset[str]:
    """Return the ids of the other backups without which this one cannot be restored, as far as it names them."""
    artifacts = backup.artifacts if isinstance(backup, Backup) else ()
    owners = {layout.owner_of(part.key) for artifact in artifacts for part in artifact.parts}
    return frozenset(owners | ({backup.parent} if backup.parent is not None else set())) - {backup.id}


class References:
    """What the backups of one source need of each other; :meth:`forget` those that are gone."""

    def __init__(self, entries: Iterable[HeadEntry]) -> None:
        self._needs: dict[str, frozenset[str]] = {}
        self._users: dict[str, set[str]] = {}
        self._unreadable: set[str] = set()
        for entry in entries:
            if entry.claimed is None:
                self._unreadable.add(entry.id)
                continue
            self._needs[entry.id] = needed_by(entry.claimed)
            for needed in self._needs[entry.id]:
                self._users.setdefault(needed, set()).add(entry.id)

    def users_of(self, backup_id: str) -> list[str]:
        """Return the backups that need, or may need, this one (or the unfinished one of that id), ascending."""
        possible = {user for user in self._unreadable if user != backup_id and backup_id[:16] <= user[:16]}
        return sorted(self._users.get(backup_id, set()) | possible)

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
        for needed in self._needs.pop(backup_id, frozenset()):
            self._users[needed].discard(backup_id)
        self._unreadable.discard(backup_id)
