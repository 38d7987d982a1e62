"""Clocks: of stores that are not given one, and how far ours is from a store's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_RESOLUTION = timedelta(seconds=1)
_LONGEST = timedelta(seconds=5)


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def skew_s(before: datetime, seen: datetime, after: datetime) -> float:
    """Return by how many seconds our clock is ahead of a store's at least; negative: behind; 0: within a second.

    ``seen`` is a time that the store gave, cut to whole seconds, between two looks at our clock.
    """
    least, most = before - seen - _RESOLUTION, after - seen
    if least > timedelta(0):
        return least.total_seconds()
    return min(most.total_seconds(), 0.0)


def is_sharp(before: datetime, after: datetime) -> bool:
    """Whether two looks at our clock are close enough to tell a small skew; after a step of the clock they are not."""
    return timedelta(0) <= after - before <= _LONGEST


def ignore_skew(_seconds: float) -> None:
    """Take note of nothing, where nobody asks for the skew."""
