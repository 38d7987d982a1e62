"""The folders of a repository: which backups may be there, and what an interrupted one left. Reads no manifest."""

from __future__ import annotations

from datetime import datetime

from drd.errors import IntegrityError, ObjectMissing, StoreForbidden
from drd.protocols import Store
from drd.repository import layout
from drd.repository.repository import NewerFormat, Repository

_DELETE_BATCH = 1000


class Folders:
    """The folders below ``backups/`` of a store. Remembers none; thread-safe.

    Whatever lists them raises IntegrityError when a newer drd made the repository.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._format_is_known = False

    def sources(self) -> list[str]:
        """Return the sources that have a folder, by name."""
        names = self._folders(layout.sources_prefix())
        return [name for name in names if layout.is_source_name(name)]

    def ids(self, source: str) -> list[str]:
        """Return the ids that have a folder, ascending: backups, and what is unfinished."""
        return [name for name in self._folders(layout.source_prefix(source)) if layout.is_backup_id(name)]

    def locked_until(self, source: str, backup_id: str) -> datetime | None:
        """Return until when an object lock of the store holds a backup, or what is there of an unfinished one.

        None when it may go now. Asks for one object: the manifest, which is written last and so locked longest. On a
        versioned store a deletion would only hide what is locked, so whoever deletes asks before. Raises store errors.
        """
        try:
            return self._store.stat(layout.manifest_key(source, backup_id)).locked_until
        except ObjectMissing:
            first = next(iter(self._store.list(layout.backup_prefix(source, backup_id))), None)
        try:
            return None if first is None else self._store.stat(first.key).locked_until
        except (ObjectMissing, StoreForbidden):  # parts are not for every role to look at
            return None

    def discard(self, source: str, backup_id: str) -> tuple[int, int]:
        """Delete all objects of one unfinished backup; return how many, and their bytes.

        Raises IntegrityError when it has a manifest (then it is a backup, and nothing is deleted), and store errors.
        """
        key = layout.manifest_key(source, backup_id)
        # Taken whole before deleting: not every store lists well while it is being emptied. Asked for the manifest
        # before and after, since it may have been published just now.
        known = self.exists(key)
        found = [] if known else list(self._store.list(layout.backup_prefix(source, backup_id)))
        if known or any(info.key == key for info in found):
            raise IntegrityError(f"{backup_id} is a backup and was not deleted", subject=key)
        objects = size = 0
        batch: list[str] = []
        for info in found:
            batch.append(info.key)
            objects, size = objects + 1, size + info.size_bytes
            if len(batch) == _DELETE_BATCH:
                self._store.delete(batch)
                batch = []
        if batch:
            self._store.delete(batch)
        return objects, size

    def is_unfinished(self, source: str, backup_id: str) -> bool:
        """Whether there are objects of that id and no manifest."""
        if self.exists(layout.manifest_key(source, backup_id)):
            return False
        first = next(iter(self._store.list(layout.backup_prefix(source, backup_id))), None)
        return first is not None and first.key != layout.manifest_key(source, backup_id)

    def exists(self, key: str) -> bool:
        """Whether there is an object of that key."""
        try:
            self._store.stat(key)
        except ObjectMissing:
            return False
        return True

    def _refuse_newer_format(self) -> None:
        """Raise IntegrityError when a newer drd made the repository; looked up once.

        A ``drd.json`` that is damaged or missing hinders nothing: each backup stands by its own manifest.
        """
        if self._format_is_known:
            return
        try:
            Repository(self._store).peek()
        except NewerFormat:
            raise
        except (IntegrityError, StoreForbidden):  # damaged, as drd check says; or not for this role to read
            pass
        self._format_is_known = True

    def _folders(self, prefix: str) -> list[str]:
        self._refuse_newer_format()
        listed = self._store.list(prefix, delimiter="/")
        return [info.key[len(prefix) : -1] for info in listed if info.key.endswith("/")]
