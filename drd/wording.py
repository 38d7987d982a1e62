"""How drd writes sizes, durations, ages, times and counts for people, alike in all that it prints, mails and shows.

Pure functions of what they are given; nothing here decides anything. ``unknown`` is what stands for None.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DASH = "–"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def size(count_bytes: float | None, unknown: str = DASH) -> str:
    """Return a size in binary units, with a decimal below a hundred of them, such as ``412 MiB`` or ``8.0 MiB``."""
    if count_bytes is None:
        return unknown
    count = count_bytes
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def span(seconds: float | None, unknown: str = DASH) -> str:
    """Return a duration in the one or two units that matter, cut off below them, such as ``59 min 59 s``."""
    if seconds is None:
        return unknown
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    at = next(index for index, (_, length) in enumerate(_UNITS) if whole >= length)
    (unit, length), (smaller, small) = _UNITS[at : at + 2]
    rest = whole % length // small
    return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")


def ago(moment: datetime | None, now: datetime, unknown: str = DASH) -> str:
    """Return how far ``moment`` lies before ``now``, such as ``2 h 3 min ago``, or after it: ``in 5 min``."""
    if moment is None:
        return unknown
    age_s = (now - moment).total_seconds()
    return f"{span(age_s)} ago" if age_s >= 0 else f"in {span(-age_s)}"


def when(moment: datetime | None, unknown: str = DASH) -> str:
    """Return an aware time as ``2026-11-22 18:14:55 UTC``, cut off below the second."""
    return unknown if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def point(moment: datetime | None, unknown: str = DASH) -> str:
    """Return a recovery point as :func:`when` does, rounded up: asking for the printed time then reaches it."""
    return when(moment and moment + timedelta(microseconds=999_999), unknown)


def number(count: int | None, unknown: str = DASH) -> str:
    """Return a count with thousands separated."""
    return unknown if count is None else f"{count:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """Return ``1 source`` or ``2 sources``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
