"""The smallest store that obeys the protocol, for tests of what lies above stores; it can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from drd.errors import ObjectExists, ObjectMissing
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike
from drd.repository.layout import validate_key


class DictStore:
    """Objects in a dict. ``before`` is called with the method's name and the key, and may raise or wait."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda _method, _key: None
        self.modified_at = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
        self._lock = threading.Lock()

    def _note(self, method: str, key: str) -> None:
        with self._lock:
            self.calls.append((method, key))
        self.before(method, key)

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        self._note("put", validate_key(key))
        with self._lock:
            if if_absent and key in self.objects:
                raise ObjectExists(f"{key} exists")
            self.objects[key] = bytes(data)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._note("get", validate_key(key))
        with self._lock:
            if key not in self.objects:
                raise ObjectMissing(f"{key} is missing")
            data = self.objects[key]
        return data[start:] if length is None else data[start : start + length]

    def stat(self, key: str) -> ObjectInfo:
        self._note("stat", validate_key(key))
        with self._lock:
            if key not in self.objects:
                raise ObjectMissing(f"{key} is missing")
            return ObjectInfo(key, len(self.objects[key]), self.modified_at)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        self._note("list", prefix)
        with self._lock:
            found = {key: len(data) for key, data in self.objects.items() if key.startswith(prefix)}
        entries: dict[str, int] = {}
        for key, size in found.items():
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            entries[prefix + head + cut if cut else key] = 0 if cut else size
        for key in sorted(entries):
            yield ObjectInfo(key, entries[key], None if delimiter and key.endswith(delimiter) else self.modified_at)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._note("delete", validate_key(key))
            with self._lock:
                self.objects.pop(key, None)

    def check(self) -> Sequence[CheckItem]:
        return []

    def close(self) -> None:
        pass
