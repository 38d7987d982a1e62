"""The heads that the bucket remembers: kept by whoever holds a source's lease, believed with care by everybody.

What the index says of a backup counts while the backup's folder is there and no mark says that it is being removed. The
mark is put before the manifest is deleted, and goes when the index no longer names the backup: so a removal that is
interrupted anywhere, and a store that goes on listing emptied folders, leave nothing that looks like a backup.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from drd.errors import ObjectMissing, StoreForbidden
from drd.model import BackupHead
from drd.protocols import Store
from drd.repository import layout, manifest
from drd.repository.index import MAX_STORED_BYTES, Index, NewerIndex, Unusable, dump, parse
from drd.repository.manifests import Manifests, read_all
from drd.repository.signing import Signing

WORTH_WRITING = 8
"""An index is written anew when that much of it changes: so it costs little beside a backup, and few heads are read."""
MOST_AT_ONCE = 1000
"""How many manifests are read to be added: a large repository without an index gets one over several runs."""


class RememberedHeads:
    """Reads and writes the indexes of a store. Thread-safe.

    Every answer comes from the store; an index that was parsed before is only not parsed again.
    """

    def __init__(self, store: Store, manifests: Manifests, signing: Signing) -> None:
        self._parsed: dict[str, tuple[bytes, Index]] = {}
        self._store = store
        self._manifests = manifests
        self._signing = signing

    def of(self, source: str) -> dict[str, BackupHead]:
        """Return what is known of backups that may be there, by id: two requests, however many there are.

        Nothing where there is no index, where it is not to be believed, or not for this role to read.
        """
        try:
            index = self._index(source)
        except (Unusable, StoreForbidden):
            return {}
        if index is None:
            return {}
        marks = self.marks(source)
        return {found: head for found, head in index.heads.items() if found not in marks} if marks else index.heads

    def marks(self, source: str) -> set[str]:
        """Return the ids of backups that are being removed, or were: nothing that is remembered of them counts."""
        prefix = layout.removed_prefix(source)
        return {info.key.removeprefix(prefix) for info in self._store.list(prefix)}

    def mark(self, source: str, backup_id: str) -> None:
        """Say that what the index has of a backup does not count any more; to be called before it is removed.

        Needs no lease. Does nothing where there is no index, or none that this role may look at.
        """
        try:
            self._store.stat(layout.heads_key(source))
        except (ObjectMissing, StoreForbidden):
            return
        self._store.put(layout.removed_key(source, backup_id), b"")

    def renew(self, source: str, ids: Sequence[str]) -> None:
        """Bring the index of a source up to date, if that is worth it; the caller holds the source's lease.

        ``ids`` are those that have a folder. Where backups are signed, only manifests whose signatures are good are
        named in it. One that was signed elsewhere, or by a newer drd, is left as it is. Raises store errors.
        """
        try:
            index = self._index(source)
        except NewerIndex:
            return
        except Unusable:
            index = None
        signing = self._signing
        if not signing.signs and (signing.trust is not None or (index is not None and index.signed)):
            return
        if index is not None and signing.signs and not index.proven:
            index = None
        known = index.heads if index else {}
        marks = self.marks(source)
        gone = known.keys() - (set(ids) - marks)
        new = [found for found in reversed(ids) if found not in known and found not in marks][:MOST_AT_ONCE]
        if len(gone) + len(new) < WORTH_WRITING:
            return
        added = self._readable(source, new)
        if len(gone) + len(added) < WORTH_WRITING:
            return
        heads = {found: head for found, head in (known | added).items() if found not in gone}
        data = dump(source, (heads[found] for found in sorted(heads)), signing)
        if len(data) <= MAX_STORED_BYTES:
            self._store.put(layout.heads_key(source), data)

    def forget(self, source: str) -> None:
        """Free what is held so that an index is not parsed twice in a row: some megabytes where it is large."""
        self._parsed.pop(source, None)

    def tidy(self, source: str) -> None:
        """Delete the marks that say nothing any more; the caller holds the source's lease. Raises store errors."""
        marks = self.marks(source)
        if not marks:
            return
        try:
            index = self._index(source)
        except Unusable:
            index = None
        named = index.heads.keys() if index else set[str]()
        if idle := sorted(marks - named):
            self._store.delete([layout.removed_key(source, found) for found in idle])

    def _index(self, source: str) -> Index | None:
        try:
            data = self._store.get(layout.heads_key(source), length=MAX_STORED_BYTES + 1)
        except ObjectMissing:
            return None
        digest = hashlib.sha256(data).digest()
        known = self._parsed.get(source)
        if known is None or known[0] != digest:
            self._parsed[source] = known = (digest, parse(data, source, self._signing))
        return known[1]

    def _readable(self, source: str, ids: Sequence[str]) -> dict[str, BackupHead]:
        """Return the heads that may be named in an index, by id."""
        entries = read_all(self._manifests.unproven_head, [(source, found) for found in ids])
        heads = {entry.id: entry.backup for entry in entries if entry is not None and entry.backup is not None}
        if not self._signing.signs:
            return heads
        signed = [(source, found) for found, head in heads.items() if head.signature is not None]
        return {head.id: head for head in read_all(self._proven_head, signed) if head is not None}

    def _proven_head(self, source: str, backup_id: str) -> BackupHead | None:
        """Read a manifest whole and return its head if its signature is good: what an index says is signed again."""
        entry = self._manifests.read(source, backup_id)
        if entry is None or entry.backup is None or not self._signing.proves(entry.backup):
            return None
        return manifest.head_of(entry.backup)
