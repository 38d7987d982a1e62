"""Unit tests of how sizes, durations, ages and times are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from drd import wording

NOW = datetime(2026, 11, 22, 18, 14, 55, 250_000, UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60.9, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (86399, "23 h 59 min"),
        (86400 + 3599, "1 d"),
        (40 * 86400 + 7200, "40 d 2 h"),
        (-75, "-1 min 15 s"),
    ],
)
def test_spans(seconds: float | None, words: str) -> None:
    """A duration is written in its two largest units, never rounded up to what has not passed."""
    assert wording.span(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (412 << 20, "412 MiB"),
        (8 << 30, "8.0 GiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_sizes(count: int | None, words: str) -> None:
    """A size is written in the largest binary unit that it fills."""
    assert wording.size(count) == words


def test_ages() -> None:
    """A time is said as it lies before now, or after it."""
    assert wording.ago(NOW - timedelta(hours=2, minutes=3), NOW) == "2 h 3 min ago"
    assert wording.ago(NOW + timedelta(minutes=5), NOW) == "in 5 min"
    assert wording.ago(None, NOW, "never") == "never"


def test_times() -> None:
    """Times are written in UTC, recovery points rounded up so that the printed time reaches them."""
    assert wording.when(NOW) == "2026-11-22 18:14:55 UTC"
    assert wording.when(NOW.astimezone(timezone(timedelta(hours=-5)))) == "2026-11-22 18:14:55 UTC"
    assert wording.point(NOW) == "2026-11-22 18:14:56 UTC"
    assert wording.point(NOW.replace(microsecond=0)) == "2026-11-22 18:14:55 UTC"
    assert wording.when(None, "unknown") == wording.point(None, "unknown") == "unknown"
