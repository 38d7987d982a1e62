"""Tell an empty repository from none, and a backup that was removed from a damaged one.

An unmounted disk and a wrong prefix must not look like "no backups yet"; what a prune takes away while it is read must
not look like damage.
"""

from __future__ import annotations

from drd.errors import CatalogError, DrdError, IntegrityError, NoSuchBackup
from drd.model import BackupHead
from drd.ops.ports import Ports


def demand_repository(ports: Ports) -> list[str]:
    """Return the sources in the store; raises :class:`~drd.errors.CatalogError` when no repository is there at all.

    Where only ``drd.json`` was lost there are backups still, and each stands by its own manifest.
    """
    sources = ports.catalog.sources()
    if not sources and ports.repository.peek() is None:
        ports.repository.open()
    return sources


def why_no_repository(ports: Ports) -> CatalogError | None:
    """Return what :func:`demand_repository` raises, None when there is a repository."""
    try:
        demand_repository(ports)
    except CatalogError as error:
        return error
    return None


def is_removed(ports: Ports, backup: BackupHead) -> bool:
    """Whether a backup that was there is none any more: its manifest is gone, which is what a removal takes first."""
    return ports.catalog.read(backup.source, backup.id) is None


def unless_removed(ports: Ports, backup: BackupHead, error: DrdError) -> DrdError:
    """Return ``error``, or what to say in its stead where the backup was removed while it was read.

    Raises nothing: where the store does not tell, ``error`` stands.
    """
    if not isinstance(error, IntegrityError):
        return error
    try:
        removed = is_removed(ports, backup)
    except DrdError:
        return error
    if not removed:
        return error
    found = NoSuchBackup(
        f"{backup.id} was removed while it was being read; retention does that (drd prune, retention.auto)",
        subject=backup.source,
        hint="choose one that stays (drd prune says which, drd pin keeps one), and stop schedules while you restore",
    )
    found.__cause__ = error
    return found
