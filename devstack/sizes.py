"""What a scale means in rows and keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BATCH = 500_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows and keys a scale means."""

    users: int
    orders: int
    strategies: int
    api_keys: int
    redis_keys: int
    ticks: int
    kline_minutes: int
    executions: int
    metrics: int

    @classmethod
    def of(cls, scale: float) -> Sizes:
        """Return the sizes of a scale; 1 is a few seconds of loading, 0.01 a fraction of one."""

        def scaled(at_one: int, least: int = 10) -> int:
            return max(least, round(at_one * scale))

        return cls(
            users=scaled(20_000),
            orders=scaled(100_000),
            strategies=scaled(15_000),
            api_keys=scaled(10_000),
            redis_keys=scaled(50_000, 100),
            ticks=scaled(500_000, 1000),
            kline_minutes=scaled(2 * 1440, 60),
            executions=scaled(20_000),
            metrics=scaled(50_000),
        )


def batches(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Cut ``first..last`` (inclusive) into ranges of at most half a million."""
    for start in range(first, last + 1, _BATCH):
        yield start, min(start + _BATCH - 1, last)


def now() -> datetime:
    """Return the present, in UTC."""
    return datetime.now(UTC)
