"""A memory store whose calls can be counted, delayed and refused, for tests of what lies above stores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from drd.model import ObjectInfo
from drd.protocols import BytesLike, Clock
from drd.stores.memory import MemoryStore


class HookedStore(MemoryStore):
    """Calls ``before`` with the method's name and the key (or prefix); it may raise or wait."""

    def __init__(self, objects: dict[str, bytes] | None = None, *, clock: Clock = lambda: datetime.now(UTC)) -> None:
        super().__init__(clock=clock)
        self.before: Callable[[str, str], object] = lambda _method, _key: None
        self.calls: list[tuple[str, str]] = []
        self._calls_lock = threading.Lock()
        for key, data in (objects or {}).items():
            super().put(key, data)

    def _note(self, method: str, key: str) -> None:
        with self._calls_lock:
            self.calls.append((method, key))
        self.before(method, key)

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        self._note("put", key)
        super().put(key, data, if_absent=if_absent)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._note("get", key)
        return super().get(key, start=start, length=length)

    def stat(self, key: str) -> ObjectInfo:
        self._note("stat", key)
        return super().stat(key)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        self._note("list", prefix)
        return super().list(prefix, delimiter=delimiter)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = [*keys]
        for key in wanted:
            self._note("delete", key)
        super().delete(wanted)

    def contents(self) -> dict[str, bytes]:
        """Return every object, without calling ``before``."""
        return {info.key: MemoryStore.get(self, info.key) for info in MemoryStore.list(self, "")}

    def plant(self, key: str, data: bytes) -> None:
        """Put an object behind everybody's back."""
        MemoryStore.put(self, key, data)

    def remove(self, key: str) -> None:
        """Delete an object behind everybody's back."""
        MemoryStore.delete(self, [key])
