"""Pins: marks in the bucket that keep a backup from every retention rule."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from drd.errors import ObjectMissing, StoreForbidden
from drd.protocols import Store
from drd.repository import layout
from drd.repository.fields import Malformed, parse_strictly, text_of_time

_MAX_BYTES = 4 << 10


class Pins:
    """The pins of a repository: one small object each, which existing means pinned. Holds no state; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, source: str) -> set[str]:
        """Return the ids of the pinned backups of a source."""
        prefix = layout.pin_prefix(source)
        names = (info.key.removeprefix(prefix).removesuffix(".json") for info in self._store.list(prefix))
        return {name for name in names if layout.is_backup_id(name)}

    def pin(self, source: str, backup_id: str, now: datetime, *, restore: str | None = None) -> None:
        """Pin a backup; idempotent. The caller holds the source's lease, so that no prune overtakes it.

        ``restore`` is the restore in place whose way back the backup is.
        """
        document = {"backup": backup_id, "pinned_at": text_of_time(now)} | ({"restore": restore} if restore else {})
        self._store.put(layout.pin_key(source, backup_id), (json.dumps(document) + "\n").encode("ascii"))

    def unpin(self, source: str, backup_id: str) -> None:
        """Take the pin away; one that is not there is fine."""
        self._store.delete([layout.pin_key(source, backup_id)])

    def made_by(self, source: str, restore: str) -> set[str]:
        """Return the backups of a source that a restore in place pinned, also one that was killed before it said so."""
        return {found for found in self.of(source) if self._restore_of(source, found) == restore}

    def set_aside(self, source: str, pinned: Iterable[str]) -> set[str]:
        """Return those of the pinned backups that restores in place made of the data they replaced.

        A role that may not read pins is told of none.
        """
        try:
            return {found for found in pinned if self._restore_of(source, found) is not None}
        except StoreForbidden:
            return set()

    def _restore_of(self, source: str, backup_id: str) -> object:
        try:
            document = parse_strictly(self._store.get(layout.pin_key(source, backup_id), length=_MAX_BYTES))
        except (ObjectMissing, Malformed):  # a pin is one whatever it says
            return None
        return document.get("restore")
