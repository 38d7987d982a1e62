"""Whether a backup that is not encrypted counts where backups are: not, unless it is older than one says.

A signature says who took a backup, not that nobody else could read it on its way. So what lies in the clear is somebody
else's, or was taken where encryption is not configured, and either is something to be told of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from drd.model import Backup, BackupHead
from drd.repository.layout import backup_time
from drd.wording import when

_KEY = "encryption.accept_clear_before"


@dataclass(frozen=True, slots=True)
class Sealing:
    """Backups are encrypted by this configuration.

    ``accept_clear_before``: one in the clear counts too when both its id and the store's own time of its manifest are
    earlier. ``sources`` are those none of whose objects a server may write in the clear by itself: where it does (mode
    direct of ClickHouse), that was chosen by name.
    """

    accept_clear_before: datetime | None = None
    sources: frozenset[str] = frozenset()

    def doubt(self, head: BackupHead, stored_at: Callable[[], datetime | None]) -> str:
        """Return why a backup does not count, or nothing when it does; see :meth:`Signing.doubt`."""
        clear = self._clear(head)
        if not clear:
            return ""
        limit = self.accept_clear_before
        if limit is None:
            return f"{clear}, though encryption is configured"
        since = f"and such ones count only from before {when(limit)} ({_KEY})"
        if backup_time(head.id) >= limit:
            return f"{clear}, {since}"
        stored = stored_at()
        if stored is None or stored >= limit:  # an id can be made up by whoever writes it, the store's time cannot
            at = "an unknown time" if stored is None else when(stored)
            return f"{clear} and was put into the store at {at}, {since}"
        return ""

    def _clear(self, head: BackupHead) -> str:
        if head.encryption == "none":
            return "is not encrypted"
        chosen = head.engine == "clickhouse" and head.source not in self.sources
        if isinstance(head, Backup) and not chosen and any(artifact.raw for artifact in head.artifacts):
            return "holds objects that are not encrypted"
        return ""


def clear_hint(backup_id: str) -> str:
    """Return what to do about a backup that :meth:`Sealing.doubt` does not let count."""
    return (
        f"somebody planted it, or a host takes backups without encryption: look at it with drd show {backup_id}; those"
        f" that are from before encryption was configured count with {_KEY}: TIME"
    )
