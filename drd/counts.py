"""Counts of what is asked of a store: kept where the calls are made, added up where they are told. No I/O, no clock."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

from drd.model import Json

_Word = TypeVar("_Word", bound=str)

StoreOperation: TypeAlias = Literal["put", "get", "stat", "list", "delete"]
StoreOutcome: TypeAlias = Literal["ok", "error", "refused"]
Direction: TypeAlias = Literal["put", "get"]
OPERATIONS: tuple[StoreOperation, ...] = ("put", "get", "stat", "list", "delete")
OUTCOMES: tuple[StoreOutcome, ...] = ("ok", "error", "refused")
DIRECTIONS: tuple[Direction, ...] = ("put", "get")
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the buckets of durations; one more is without end."""


@dataclass
class Durations:
    """A histogram. ``buckets`` counts each alone, not summed up; the last is what took longer than all ``ends_s``."""

    seconds: float = 0.0
    buckets: list[int] = field(default_factory=list)
    ends_s: tuple[float, ...] = BUCKETS_S

    def __post_init__(self) -> None:
        self.buckets = self.buckets or [0] * (len(self.ends_s) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.seconds += seconds
        self.buckets[bisect_left(self.ends_s, seconds)] += 1

    @property
    def cumulative(self) -> list[tuple[str, float]]:
        """Return ``le`` and how many took at most that long, as Prometheus counts."""
        out, total = [], 0
        for end, count in zip((*map(str, self.ends_s), "+Inf"), self.buckets, strict=True):
            total += count
            out.append((end, float(total)))
        return out


@dataclass
class StoreTotals:
    """What was asked of a store, since its counts began or since they were last taken."""

    operations: dict[tuple[StoreOperation, StoreOutcome], int] = field(default_factory=dict)
    durations: dict[StoreOperation, Durations] = field(default_factory=dict)
    retries: dict[StoreOperation, int] = field(default_factory=dict)
    bytes: dict[Direction, int] = field(default_factory=dict)
    clock_skew_s: float | None = None
    """By how much the clock of this process was ahead of the store's when they were last compared, at least."""

    def __bool__(self) -> bool:
        return bool(self.operations or self.retries or self.bytes)


class StoreCounts:
    """Running totals; thread-safe. A process that works for another one hands its own over with :meth:`take`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = StoreTotals()

    def operation(self, operation: StoreOperation, outcome: StoreOutcome, seconds: float) -> None:
        """Count one call, each try of a repeated one."""
        with self._lock:
            counted = self._totals.operations
            counted[operation, outcome] = counted.get((operation, outcome), 0) + 1
            self._totals.durations.setdefault(operation, Durations()).add(seconds)

    def retry(self, operation: StoreOperation) -> None:
        """Count a call that failed and is tried again."""
        with self._lock:
            self._totals.retries[operation] = self._totals.retries.get(operation, 0) + 1

    def moved(self, direction: Direction, size_bytes: int) -> None:
        """Count bytes that were put or got."""
        with self._lock:
            self._totals.bytes[direction] = self._totals.bytes.get(direction, 0) + size_bytes

    def skewed(self, seconds: float | None) -> None:
        """Note by how much the clock here is ahead of the store's; None: not known, as of a store not asked yet."""
        with self._lock:
            self._totals.clock_skew_s = seconds

    def take(self) -> Json:
        """Return what was counted since the last time, as a JSON document for :meth:`add`; None when nothing was."""
        with self._lock:
            taken, self._totals = self._totals, StoreTotals()
        if not taken:
            return None
        return {
            "operations": [[*key, count] for key, count in taken.operations.items()],
            "durations": [[name, held.seconds, list(held.buckets)] for name, held in taken.durations.items()],
            "retries": dict(taken.retries.items()),
            "bytes": dict(taken.bytes.items()),
        }

    def add(self, document: Json) -> None:
        """Add what another process took; raises ValueError, with nothing added, for anything else."""
        added = _parse(document)
        with self._lock:
            totals = self._totals
            for key, count in added.operations.items():
                totals.operations[key] = totals.operations.get(key, 0) + count
            for name, more in added.durations.items():
                held = totals.durations.setdefault(name, Durations())
                held.seconds += more.seconds
                held.buckets = [a + b for a, b in zip(held.buckets, more.buckets, strict=True)]
            for name, count in added.retries.items():
                totals.retries[name] = totals.retries.get(name, 0) + count
            for direction, size in added.bytes.items():
                totals.bytes[direction] = totals.bytes.get(direction, 0) + size

    def totals(self) -> StoreTotals:
        """Return a copy of the totals."""
        with self._lock:
            now = self._totals
            held = {name: Durations(item.seconds, list(item.buckets)) for name, item in now.durations.items()}
            return StoreTotals(dict(now.operations), held, dict(now.retries), dict(now.bytes), now.clock_skew_s)


def _parse(document: Json) -> StoreTotals:
    match document:
        case {"operations": list() as operations, "durations": list() as durations, "retries": dict() as retries,
              "bytes": dict() as moved}:  # fmt: skip
            totals = StoreTotals()
            totals.operations = dict(map(_operation, operations))
            totals.durations = dict(map(_durations, durations))
            totals.retries = {_one_of(name, OPERATIONS): _count(count) for name, count in retries.items()}
            totals.bytes = {_one_of(name, DIRECTIONS): _count(count) for name, count in moved.items()}
            return totals
        case _:
            raise ValueError("these are no counts of a store")


def _operation(item: Json) -> tuple[tuple[StoreOperation, StoreOutcome], int]:
    match item:
        case [name, outcome, count]:
            return (_one_of(name, OPERATIONS), _one_of(outcome, OUTCOMES)), _count(count)
        case _:
            raise ValueError("an operation has a name, an outcome and a count")


def _durations(item: Json) -> tuple[StoreOperation, Durations]:
    match item:
        case [name, int() | float() as seconds, list() as buckets] if len(buckets) == len(BUCKETS_S) + 1:
            return _one_of(name, OPERATIONS), Durations(float(seconds), [_count(bucket) for bucket in buckets])
        case _:
            raise ValueError("durations have a name, seconds and buckets")


def _one_of(value: Json, words: tuple[_Word, ...]) -> _Word:
    for word in words:
        if word == value:
            return word
    raise ValueError("an unknown word")


def _count(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a count is a whole number, not negative")
    return value
