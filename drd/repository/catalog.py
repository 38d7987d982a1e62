"""The catalog: which backups exist, read from the bucket and nothing else.

A backup exists if and only if its manifest does. A folder without one is what an interrupted run left: it is never
listed as a backup, only as unfinished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeAlias, TypeVar

from drd.errors import IntegrityError, NoSuchBackup, ObjectExists, ObjectMissing, StoreForbidden
from drd.model import Backup, BackupHead
from drd.protocols import Store
from drd.repository import layout, manifest
from drd.repository.references import References
from drd.repository.repository import NewerFormat, Repository
from drd.repository.signing import Signing, refusal

_READERS = 16
_TRIED = 4  # manifests read one by one, to see how quickly the store answers
_SLOW_ANSWER_S = 0.003
_AT_ONCE = 64  # whole manifests in memory
_DELETE_BATCH = 1000
_MIN_ABBREVIATION = 4
_HEAD_BYTES = (4 << 10, 64 << 10)  # heads have one or two kilobytes; one that is longer than both is read whole

Content = TypeVar("Content", bound=BackupHead)
Content_co = TypeVar("Content_co", bound=BackupHead, covariant=True)


@dataclass(frozen=True)
class Entry(Generic[Content_co]):
    """One backup: what its manifest says, or the ``problem`` with the manifest. Exactly one of both is set.

    ``distrusted`` is what a well-formed manifest says that does not count, since nobody who is believed signed it.
    """

    source: str
    id: str
    backup: Content_co | None
    problem: str | None
    distrusted: Content_co | None = None

    @property
    def claimed(self) -> Content_co | None:
        """What the manifest says, believed or not: for references that must not be broken, never for a restore."""
        return self.backup or self.distrusted


CatalogEntry: TypeAlias = Entry[Backup]
"""An entry whose manifest was read whole and checked by its digest."""
HeadEntry: TypeAlias = Entry[BackupHead]
"""An entry of which the head was read: to list, and to choose what is then read whole before it is used."""


@dataclass(frozen=True, slots=True)
class Survey:
    """All that lies in one source's folder: its backups by id, and the ids that are ``unfinished``."""

    entries: tuple[HeadEntry, ...]
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep removed; ``kept`` are unfinished ids that a backup refers to, or may refer to."""

    ids: tuple[str, ...]
    objects: int
    bytes: int
    kept: tuple[str, ...] = ()


class Catalog:
    """The backups in a store. It remembers none, so it is never stale; thread-safe.

    ``signing`` signs what is published and decides what counts as a backup; without it nothing is signed, and every
    well-formed manifest counts. Whatever lists backups raises IntegrityError when a newer drd made the repository.
    """

    def __init__(self, store: Store, signing: Signing | None = None) -> None:
        self._store = store
        self.signing = signing or Signing()
        self._format_is_known = False

    def sources(self) -> list[str]:
        """Return the sources that have a folder, by name."""
        names = self._folders(layout.sources_prefix())
        return [name for name in names if layout.is_source_name(name)]

    def ids(self, source: str) -> list[str]:
        """Return the ids that have a folder, ascending: backups, and what is unfinished."""
        return self._ids(source)

    def entries(self, source: str | None = None) -> list[CatalogEntry]:
        """Return the backups of a source, or of all, ascending by id; a damaged manifest is an entry with a problem.

        A source that was never backed up has none. Manifests are read side by side; parts are never listed.
        """
        places = [(name, found) for name in self._named(source) for found in self._ids(name)]
        entries = [entry for entry in _read_all(self._read, places) if entry is not None]
        return sorted(entries, key=lambda entry: (entry.id, entry.source))

    def stream(self, source: str) -> Iterator[CatalogEntry]:
        """Yield what :meth:`entries` returns for one source, a few manifests in memory at a time."""
        places = [(source, found) for found in self._ids(source)]
        for start in range(0, len(places), _AT_ONCE):
            yield from (entry for entry in _read_all(self._read, places[start : start + _AT_ONCE]) if entry is not None)

    def survey(self, source: str) -> Survey:
        """Return what :meth:`entries` and :meth:`unfinished` do, quickly also for 10,000 backups: heads alone are read.

        Where signatures are demanded, whole manifests are read all the same, as a signature is of the whole.
        A manifest whose head is well and whose rest is damaged is no problem here: read it whole (:meth:`read`) before
        anything is done with the backup.
        """
        places = [(source, found) for found in self._ids(source)]
        heads = _read_all(self._read_head, places)
        missing = [found for (_, found), head in zip(places, heads, strict=True) if head is None]
        unfinished = tuple(found for found in missing if self._is_unfinished(source, found))
        return Survey(tuple(head for head in heads if head is not None), unfinished)

    def read(self, source: str, backup_id: str) -> CatalogEntry | None:
        """Return a backup of which source and whole id are known, None when there is no such one."""
        return self._read(source, backup_id)

    def unfinished(self, source: str) -> list[str]:
        """Return the ids that have objects and no manifest, ascending: interrupted, or under way right now.

        A folder alone is nothing: some stores (SeaweedFS) go on listing one that was emptied.
        """
        ids = self._ids(source)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="drd-catalog") as pool:
            wanted = pool.map(lambda found: self._is_unfinished(source, found), ids)
            return [found for found, is_one in zip(ids, wanted, strict=True) if is_one]

    def entry(self, backup_id: str) -> CatalogEntry:
        """Find a backup by its id, or by a beginning or end of it that only one has.

        Raises NoSuchBackup when there is none, when several match, or when it is only an unfinished one.
        """
        places = self._matching(backup_id)
        found = [entry for entry in _read_all(self._read, places) if entry is not None]
        if len(found) > 1:  # a planted copy of an id must not make it ambiguous
            found = [entry for entry in found if entry.distrusted is None] or found
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(sorted(entry.id for entry in found)[:5])
            raise NoSuchBackup(
                f"{backup_id!r} means several backups: {shown}{' and more' if len(found) > 5 else ''}",
                subject=backup_id,
                hint="give more of the id",
            )
        if places:
            raise NoSuchBackup(
                f"{places[0][1]} was never finished, so it is no backup",
                subject=backup_id,
                hint="drd list shows the backups there are",
            )
        raise NoSuchBackup(
            f"no backup has the id {backup_id!r}",
            subject=backup_id,
            hint="drd list shows the backups there are; an id may be shortened to the six characters at its end",
        )

    def get(self, backup_id: str) -> Backup:
        """Return a backup as :meth:`entry` finds it.

        Raises IntegrityError when its manifest is damaged, or not signed by anyone who is believed.
        """
        entry = self.entry(backup_id)
        if entry.distrusted is not None:
            raise refusal(entry.id, entry.problem or "")
        return entry.backup or self._read_manifest(entry.source, entry.id)

    def publish(self, backup: Backup) -> Backup:
        """Sign and write the manifest: the moment from which the backup exists. All its parts must be stored by now.

        Returns the backup as it is stored. Raises ConfigError when it cannot be signed, IntegrityError when another
        manifest has this id; a repeated put of the same one is fine.
        """
        backup = self.signing.signed(backup)
        key = layout.manifest_key(backup.source, backup.id)
        data = manifest.to_json(backup)
        try:
            self._store.put(key, data, if_absent=True)
        except ObjectExists as error:
            # A put whose answer was lost is repeated by the store and then finds itself.
            if not self._is_published(key, data):
                raise IntegrityError(f"another backup with the id {backup.id} exists already", subject=key) from error
        return backup

    def _is_published(self, key: str, data: bytes) -> bool:
        """Whether the manifest there is this one.

        A role that may only write goes by its size: nobody else knows the id of a backup that is being made.
        """
        try:
            return self._store.get(key, length=len(data) + 1) == data
        except StoreForbidden:
            return any(info.key == key and info.size_bytes == len(data) for info in self._store.list(key))

    def withdraw(self, backup: Backup) -> None:
        """Delete a manifest that must not stand, because what it refers to may be gone. Raises store errors."""
        self._store.delete([layout.manifest_key(backup.source, backup.id)])

    def sweep(self, source: str, *, older_than: datetime | None = None, keep: Collection[str] = ()) -> SweepReport:
        """Delete what unfinished backups of a source left; the caller holds the source's lease.

        Only ids that began before ``older_than`` (if given) and are not in ``keep``. Never touches a folder that a
        manifest refers to, nor one that an unreadable manifest may refer to. Raises store errors; what was deleted
        until then stays deleted, and a rerun goes on.
        """
        candidates = [
            found
            for found in self.unfinished(source)
            if found not in keep and (older_than is None or layout.backup_time(found) < older_than)
        ]
        if not candidates:  # the rule, which must not cost a look into every manifest
            return SweepReport((), 0, 0)
        references = References(self.entries(source))
        kept = [found for found in candidates if references.users_of(found)]
        swept: list[str] = []
        objects = size = 0
        for found in candidates:
            if found not in kept:
                try:
                    count, freed = self.discard(source, found)
                except IntegrityError:  # its manifest was published since it was looked for: it is a backup now
                    kept.append(found)
                    continue
                if count:
                    swept.append(found)
                objects, size = objects + count, size + freed
        return SweepReport(tuple(swept), objects, size, tuple(kept))

    def remove(self, source: str, backup_id: str, references: References | None = None) -> tuple[int, int]:
        """Delete a backup: its manifest first, from which moment it is none, then its parts.

        Returns how many other objects went, and their bytes. Resumable: what an interrupted removal left is unfinished,
        and swept. The caller holds the source's lease since before ``references`` were read, of all backups of the
        source (they are read now where none are given); the removed one is forgotten there. Raises IntegrityError, with
        nothing deleted, while another backup needs it, and store errors.
        """
        references = references or References(self.entries(source))
        references.require_unused(backup_id)
        self._store.delete([layout.manifest_key(source, backup_id)])
        references.forget(backup_id)
        return self.discard(source, backup_id)

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
        known = self._exists(key)
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

    def _is_unfinished(self, source: str, backup_id: str) -> bool:
        if self._exists(layout.manifest_key(source, backup_id)):
            return False
        first = next(iter(self._store.list(layout.backup_prefix(source, backup_id))), None)
        return first is not None and first.key != layout.manifest_key(source, backup_id)

    def _named(self, source: str | None) -> list[str]:
        return self.sources() if source is None else [source]

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

    def _ids(self, source: str) -> list[str]:
        return [name for name in self._folders(layout.source_prefix(source)) if layout.is_backup_id(name)]

    def _matching(self, text: str) -> list[tuple[str, str]]:
        places = [(source, found) for source in self.sources() for found in self._ids(source)]
        if exact := [place for place in places if place[1] == text]:
            return exact
        if len(text) < _MIN_ABBREVIATION:
            return []
        return [place for place in places if place[1].startswith(text) or place[1].endswith(text)]

    def _read(self, source: str, backup_id: str) -> CatalogEntry | None:
        try:
            backup = self._read_manifest(source, backup_id)
            key = layout.manifest_key(source, backup_id)
            doubt = self.signing.doubt(backup, lambda: self._store.stat(key).modified_at)
        except ObjectMissing:
            return None
        except IntegrityError as error:
            return Entry(source, backup_id, None, error.message)
        if doubt:
            return Entry(source, backup_id, None, doubt, backup)
        return Entry(source, backup_id, backup, None)

    def _read_head(self, source: str, backup_id: str) -> HeadEntry | None:
        if self.signing.trust is not None:  # a signature is of the whole
            return self._read(source, backup_id)
        key = layout.manifest_key(source, backup_id)
        try:
            for size in _HEAD_BYTES:
                data = self._store.get(key, length=size)
                if head := manifest.head_from_json(data, key=key):
                    return Entry(source, backup_id, head, None)
                if len(data) < size:
                    break
        except ObjectMissing:
            return None
        except IntegrityError as error:
            return Entry(source, backup_id, None, error.message)
        return self._read(source, backup_id)

    def _read_manifest(self, source: str, backup_id: str) -> Backup:
        key = layout.manifest_key(source, backup_id)
        return manifest.from_json(self._store.get(key, length=manifest.MAX_MANIFEST_BYTES + 1), key=key)

    def _exists(self, key: str) -> bool:
        try:
            self._store.stat(key)
        except ObjectMissing:
            return False
        return True


def _read_all(
    read: Callable[[str, str], Entry[Content] | None], places: Sequence[tuple[str, str]]
) -> list[Entry[Content] | None]:
    """Read many manifests, in order: side by side from a store that makes one wait.

    One that answers at once, such as a local disk, is read no faster by threads: they hinder each other.
    """
    started = time.perf_counter()
    first = [read(*place) for place in places[:_TRIED]]
    waits = time.perf_counter() - started > _TRIED * _SLOW_ANSWER_S
    rest = places[_TRIED:]
    if not waits or len(rest) < 2:
        return first + [read(*place) for place in rest]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="drd-catalog") as pool:
        return first + list(pool.map(lambda place: read(*place), rest))
