"""A store in memory, for tests: the simplest thing that obeys the protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from drd.errors import ObjectExists, ObjectMissing
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Clock
from drd.stores.checking import check_store
from drd.stores.keys import check_delimiter, check_key, check_prefix, check_range
from drd.stores.ordering import grouped
from drd.stores.times import utc_now


class MemoryStore:
    """Objects in a dictionary; gone with the process."""

    def __init__(self, *, clock: Clock = utc_now) -> None:
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()
        self._clock = clock

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Keep a copy of ``data``; raise ObjectExists when it should be absent and is not."""
        check_key(key)
        entry = (bytes(data), self._clock())
        with self._lock:
            if if_absent and key in self._objects:
                raise ObjectExists(f"{key} exists already", op="write", subject=key)
            self._objects[key] = entry

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return the object or a range of it; raise ObjectMissing."""
        check_range(start, length)
        data, _ = self._find(key)
        return data[start:] if length is None else data[start : start + length]

    def stat(self, key: str) -> ObjectInfo:
        """Return size and time of the last put; raise ObjectMissing."""
        data, modified_at = self._find(key)
        return ObjectInfo(key, len(data), modified_at)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """Yield a snapshot of what is below ``prefix``, ascending."""
        check_prefix(prefix)
        check_delimiter(delimiter)
        with self._lock:
            found = [
                ObjectInfo(key, len(data), at) for key, (data, at) in self._objects.items() if key.startswith(prefix)
            ]
        found.sort(key=lambda info: info.key)
        return grouped(found, prefix) if delimiter else iter(found)

    def delete(self, keys: Iterable[str]) -> None:
        """Forget the objects."""
        checked = [check_key(key) for key in keys]
        with self._lock:
            for key in checked:
                self._objects.pop(key, None)

    def check(self) -> Sequence[CheckItem]:
        """Try everything with a probe object."""
        return check_store(self)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _find(self, key: str) -> tuple[bytes, datetime]:
        check_key(key)
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise ObjectMissing(f"{key} does not exist", op="read", subject=key)
        return found
