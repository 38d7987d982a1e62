"""The catalog: which backups exist, read from the bucket and nothing else.

A backup exists if and only if its manifest does. A folder without one is what an interrupted run left: it is never
listed as a backup, only as unfinished.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from drd.errors import IntegrityError, NoSuchBackup, ObjectExists, StoreForbidden, StoreRefused
from drd.model import Backup
from drd.protocols import Store
from drd.repository import layout, manifest
from drd.repository.abbreviation import meant_by
from drd.repository.entries import CatalogEntry, Content, Content_co, Entry, HeadEntry, Survey, SweepReport
from drd.repository.folders import Folders
from drd.repository.manifests import Manifests, read_all
from drd.repository.planning import broken_chain
from drd.repository.references import References
from drd.repository.remembered import WORTH_WRITING, RememberedHeads
from drd.repository.signing import Signing, refusal

__all__ = ["Catalog", "CatalogEntry", "Content", "Content_co", "Entry", "HeadEntry", "Survey", "SweepReport"]

_AT_ONCE = 64  # whole manifests in memory


class Catalog(Folders):
    """The backups in a store. It remembers none, so it is never stale; thread-safe.

    ``signing`` signs what is published and decides what counts as a backup; without it nothing is signed, and every
    well-formed manifest counts. Whatever lists backups raises IntegrityError when a newer drd made the repository.
    """

    def __init__(self, store: Store, signing: Signing | None = None) -> None:
        super().__init__(store)
        self.signing = signing or Signing()
        self._manifests = Manifests(store, self.signing)
        self._remembered = RememberedHeads(store, self._manifests, self.signing)

    def entries(self, source: str | None = None) -> list[CatalogEntry]:
        """Return the backups of a source, or of all, ascending by id; a damaged manifest is an entry with a problem.

        A source that was never backed up has none. Manifests are read side by side; parts are never listed.
        """
        places = [(name, found) for name in self._named(source) for found in self.ids(name)]
        entries = [entry for entry in read_all(self._manifests.read, places) if entry is not None]
        return sorted(entries, key=lambda entry: (entry.id, entry.source))

    def stream(self, source: str) -> Iterator[CatalogEntry]:
        """Yield what :meth:`entries` returns for one source, a few manifests in memory at a time."""
        places = [(source, found) for found in self.ids(source)]
        for start in range(0, len(places), _AT_ONCE):
            found = read_all(self._manifests.read, places[start : start + _AT_ONCE])
            yield from (entry for entry in found if entry is not None)

    def survey(self, source: str) -> Survey:
        """Return what :meth:`entries` and :meth:`unfinished` do, quickly also for 10,000 backups.

        Most heads come from the source's index, all at once; the others are read from their manifests, and where
        signatures are demanded from whole ones, as a signature is of the whole. What other hands damaged or took away
        since the index was written, and a manifest whose rest alone is damaged, are no problem here: read it whole
        (:meth:`read`) before anything is done with the backup.
        """
        ids = self.ids(source)
        return self._survey(source, ids, self._remembered_of(source, ids))

    def refresh(self, source: str, known: Mapping[str, HeadEntry]) -> Survey:
        """Return what :meth:`survey` does, for one who has surveyed the source before: only what is new is read.

        ``known`` are the entries of an earlier survey, by id. One of them is believed while its folder is there and no
        mark says that it is being removed, since a manifest is never rewritten; one that had a problem is read again.
        Some stores go on listing folders that were emptied: there a backup that was removed may show until the next
        whole survey.
        """
        ids, marks = self.ids(source), self._remembered.marks(source)
        believed = {found: entry for found, entry in known.items() if entry.backup and found not in marks}
        new = [found for found in ids if found not in believed]
        try:
            return self._survey(source, ids, {**self._remembered_of(source, new), **believed})
        finally:
            self._remembered.forget(source)  # whoever refreshes lives long

    def _survey(self, source: str, ids: Sequence[str], believed: Mapping[str, HeadEntry]) -> Survey:
        new = [found for found in ids if found not in believed]
        read = dict(zip(new, read_all(self._manifests.head, [(source, found) for found in new]), strict=True))
        unfinished = tuple(found for found in new if read[found] is None and self.is_unfinished(source, found))
        heads = (believed.get(found) or read[found] for found in ids)
        return Survey(tuple(head for head in heads if head is not None), unfinished)

    def _remembered_of(self, source: str, ids: Collection[str]) -> dict[str, HeadEntry]:
        """Return what the index says; it is not asked about so few that reading them is as quick."""
        if len(ids) < WORTH_WRITING:
            return {}
        return {found: Entry(source, found, head, None) for found, head in self._remembered.of(source).items()}

    def unfinished(self, source: str) -> list[str]:
        """Return the ids that have objects and no manifest, ascending: interrupted, or under way right now.

        A folder alone is nothing: some stores (SeaweedFS) go on listing one that was emptied.
        """
        ids = self.ids(source)
        remembered = self._remembered_of(source, ids)
        new = [(source, found) for found in ids if found not in remembered]
        wanted = read_all(self.is_unfinished, new)
        return [found for (_, found), is_one in zip(new, wanted, strict=True) if is_one]

    def disown(self, source: str, backup_id: str) -> bool:
        """Note that a manifest of which a survey told is not there, so that no survey tells of it again.

        Returns whether other hands than drd's took it away: its parts are there, and nothing is removing it. Needs no
        lease, and no right to write. Raises store errors that may pass.
        """
        if backup_id in self._remembered.marks(source) or not self.is_unfinished(source, backup_id):
            return False
        with suppress(StoreRefused):
            self._remembered.mark(source, backup_id)
        return True

    def renew_index(self, source: str) -> None:
        """Bring the index of a source's heads up to date where that is worth it; the caller holds the source's lease.

        Does nothing where this role may not read the index, or could not sign one. Raises store errors.
        """
        with suppress(StoreForbidden):
            self._remembered.renew(source, self.ids(source))
        self._remembered.forget(source)

    def tidy_index(self, source: str) -> None:
        """Delete what is left of removals beside the index; the caller holds the lease. Raises store errors."""
        with suppress(StoreForbidden):
            self._remembered.tidy(source)

    def read(self, source: str, backup_id: str) -> CatalogEntry | None:
        """Return a backup of which source and whole id are known, None when there is no such one."""
        return self._manifests.read(source, backup_id)

    def entry(self, backup_id: str) -> CatalogEntry:
        """Find a backup by its id, or by a beginning or end of it that only one has.

        Raises NoSuchBackup when there is none, when several match, or when it is only an unfinished one.
        """
        places = self._matching(backup_id)
        found = [entry for entry in read_all(self._manifests.read, places) if entry is not None]
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
        return entry.backup or self._manifests.whole(entry.source, entry.id)

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
        self._remembered.mark(backup.source, backup.id)
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
        references = References(self._that_may_need(source))
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

    def _that_may_need(self, source: str) -> list[HeadEntry]:
        """Return the backups of a source: by their heads, and whole where an ancestor of theirs is missing.

        The parts of a backup lie in its own folder and its ancestors', so no other can need what has no manifest.
        """
        entries = self.survey(source).entries
        by_id = {entry.id: entry.backup for entry in entries if entry.backup is not None}
        broken = {found for found, head in by_id.items() if broken_chain(head, by_id)}
        wholes = ((self.read(source, entry.id) if entry.id in broken else entry) for entry in entries)
        return [entry for entry in wholes if entry is not None]

    def remove(self, source: str, backup_id: str, references: References | None = None) -> tuple[int, int]:
        """Delete a backup: its manifest first, from which moment it is none, then its parts.

        Returns how many other objects went, and their bytes. Resumable: what an interrupted removal left is unfinished,
        and swept. The caller holds the source's lease since before ``references`` were read, of all backups of the
        source (they are read now where none are given); the removed one is forgotten there. Raises IntegrityError, with
        nothing deleted, while another backup needs it, and store errors.
        """
        references = references or References(self.entries(source))
        references.require_unused(backup_id)
        self._remembered.mark(source, backup_id)
        self._store.delete([layout.manifest_key(source, backup_id)])
        references.forget(backup_id)
        return self.discard(source, backup_id)

    def _named(self, source: str | None) -> list[str]:
        return self.sources() if source is None else [source]

    def _matching(self, text: str) -> list[tuple[str, str]]:
        places = [(source, found) for source in self.sources() for found in self.ids(source)]
        return meant_by(text, places, lambda place: place[1])
