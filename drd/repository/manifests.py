"""Reading manifests one by one: whole, or the head alone, judged by whom one believes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from drd.errors import IntegrityError, ObjectMissing
from drd.model import Backup
from drd.protocols import Store
from drd.repository import layout, manifest
from drd.repository.entries import CatalogEntry, Entry, HeadEntry
from drd.repository.signing import Signing

Found = TypeVar("Found")

_READERS = 16
_TRIED = 4  # manifests read one by one, to see how quickly the store answers
_SLOW_ANSWER_S = 0.003
_HEAD_BYTES = (4 << 10, 64 << 10)  # heads have one or two kilobytes; one that is longer than both is read whole


class Manifests:
    """Reads the manifests of a store. Remembers none; thread-safe. Every method raises store errors that may pass."""

    def __init__(self, store: Store, signing: Signing) -> None:
        self._store = store
        self._signing = signing

    def read(self, source: str, backup_id: str) -> CatalogEntry | None:
        """Read a manifest whole; None when there is none."""
        try:
            backup = self.whole(source, backup_id)
            key = layout.manifest_key(source, backup_id)
            doubt = self._signing.doubt(backup, lambda: self._store.stat(key).modified_at)
        except ObjectMissing:
            return None
        except IntegrityError as error:
            return Entry(source, backup_id, None, error.message)
        if doubt:
            return Entry(source, backup_id, None, doubt, backup)
        return Entry(source, backup_id, backup, None)

    def head(self, source: str, backup_id: str) -> HeadEntry | None:
        """Read the head of a manifest, or all of it where a signature is to be checked; None when there is none."""
        if self._signing.trust is not None:  # a signature is of the whole
            return self.read(source, backup_id)
        return self.unproven_head(source, backup_id)

    def unproven_head(self, source: str, backup_id: str) -> HeadEntry | None:
        """Read the head of a manifest, whoever wrote it; None when there is none."""
        key = layout.manifest_key(source, backup_id)
        try:
            for size in _HEAD_BYTES:
                data = self._store.get(key, length=size)
                if head := manifest.head_from_json(data, key=key):
                    if doubt := self._signing.doubt_of_clear(head, lambda: self._store.stat(key).modified_at):
                        return Entry(source, backup_id, None, doubt, head)
                    return Entry(source, backup_id, head, None)
                if len(data) < size:
                    break
        except ObjectMissing:
            return None
        except IntegrityError as error:
            return Entry(source, backup_id, None, error.message)
        return self.read(source, backup_id)

    def whole(self, source: str, backup_id: str) -> Backup:
        """Return what a manifest says, believed or not; raises ObjectMissing, and IntegrityError for a damaged one."""
        key = layout.manifest_key(source, backup_id)
        return manifest.from_json(self._store.get(key, length=manifest.MAX_MANIFEST_BYTES + 1), key=key)


def read_all(read: Callable[[str, str], Found], places: Sequence[tuple[str, str]]) -> list[Found]:
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
