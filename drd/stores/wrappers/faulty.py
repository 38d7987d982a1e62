"""A store that fails as it is told, to prove that its users survive."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from drd.errors import StoreError, StoreUnavailable
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Store
from drd.stores.checking import check_store

Operation = Literal["put", "get", "stat", "list", "delete", "any"]
Effect = Literal["fail", "fail after", "truncate", "flip a bit", "delay"]


def _unavailable() -> StoreError:
    return StoreUnavailable("a fault was injected", hint="this store is made to fail, for tests")


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail, and when.

    ``nth`` picks single calls (counted from 1 among those that match ``operation`` and ``key_contains``), ``every``
    each n-th, ``rate`` a share by the store's seed, and none of them all. ``fail`` raises ``error()`` instead of
    acting, ``fail after`` acts first (an answer that is lost; a listing breaks off after its first entry),
    ``truncate`` and ``flip a bit`` damage what a get returns, ``delay`` waits ``delay_s``.
    """

    operation: Operation = "any"
    effect: Effect = "fail"
    nth: tuple[int, ...] = ()
    every: int = 0
    rate: float = 0.0
    key_contains: str = ""
    delay_s: float = 0.0
    error: Callable[[], StoreError] = _unavailable


class FaultyStore:
    """Plays a script of faults over a store. Thread-safe; ``calls`` lists what was asked, in order."""

    def __init__(
        self, store: Store, faults: Sequence[Fault] = (), *, seed: int = 0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self._store = store
        self._faults = tuple(faults)
        self._matches = [0] * len(self._faults)
        self._rng = random.Random(seed)  # noqa: S311  repeatable on purpose
        self._sleep = sleep
        self._lock = threading.Lock()

    def _due(self, operation: str, key: str) -> list[Fault]:
        due = []
        with self._lock:
            self.calls.append((operation, key))
            for index, fault in enumerate(self._faults):
                if fault.operation not in {operation, "any"} or fault.key_contains not in key:
                    continue
                self._matches[index] += 1
                count = self._matches[index]
                always = not (fault.nth or fault.every or fault.rate)
                by_count = count in fault.nth or (fault.every > 0 and count % fault.every == 0)
                if always or by_count or (fault.rate > 0 and self._rng.random() < fault.rate):
                    due.append(fault)
        return due

    def _before(self, due: Iterable[Fault]) -> None:
        for fault in due:
            if fault.effect == "delay":
                self._sleep(fault.delay_s)
            elif fault.effect == "fail":
                raise fault.error()

    @staticmethod
    def _after(due: Iterable[Fault]) -> None:
        for fault in due:
            if fault.effect == "fail after":
                raise fault.error()

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Put, unless a fault is due."""
        due = self._due("put", key)
        self._before(due)
        self._store.put(key, data, if_absent=if_absent)
        self._after(due)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Get, unless a fault is due; the bytes may be damaged."""
        due = self._due("get", key)
        self._before(due)
        data = self._store.get(key, start=start, length=length)
        self._after(due)
        for fault in due:
            if fault.effect == "truncate":
                data = data[: len(data) // 2]
            elif fault.effect == "flip a bit" and data:
                data = self._flipped(data)
        return data

    def _flipped(self, data: bytes) -> bytes:
        with self._lock:
            bit = self._rng.randrange(len(data) * 8)
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        return bytes(damaged)

    def stat(self, key: str) -> ObjectInfo:
        """Stat, unless a fault is due."""
        due = self._due("stat", key)
        self._before(due)
        info = self._store.stat(key)
        self._after(due)
        return info

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """List, unless a fault is due when the first entry is asked for."""
        return self._listed(self._store.list(prefix, delimiter=delimiter), prefix)

    def _listed(self, found: Iterator[ObjectInfo], prefix: str) -> Iterator[ObjectInfo]:
        due = self._due("list", prefix)
        self._before(due)
        for info in found:
            yield info
            self._after(due)
        self._after(due)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete, unless a fault is due; the faults see the first key."""
        wanted = list(keys)
        due = self._due("delete", wanted[0] if wanted else "")
        self._before(due)
        self._store.delete(wanted)
        self._after(due)

    def check(self) -> Sequence[CheckItem]:
        """Try everything with a probe object, through the faults."""
        return check_store(self)

    def close(self) -> None:
        """Close the store inside."""
        self._store.close()
