"""Cron lines and intervals mean what crontab(5) says, on every night of the year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.daemon.triggers import PlannedTrigger
from drd.timing import Timing, longest_gap_s, parse_cron, share_of

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(cron: str, since: str, count: int, zone: str = "UTC", **timing: float) -> list[str]:
    """Return the next times in UTC, to the minute."""
    trigger = PlannedTrigger(Timing(cron=parse_cron(cron), zone=zone, **timing), "job", at(since))
    found, moment = [], at(since)
    for _ in range(count):
        due = trigger.after(moment)
        assert due is not None
        found.append(f"{due:%m-%d %H:%M}")
        moment = due
    return found


@pytest.mark.parametrize(
    ("cron", "since", "expected"),
    [
        ("30 2 * * *", "2026-03-28T00:00", ["03-28 01:30", "03-29 01:30", "03-30 00:30"]),  # 29 March has no 02:30
        ("30 2 * * *", "2026-03-29T01:10", ["03-29 01:30", "03-30 00:30"]),  # also for who asks when it was left out
        ("30 2 * * *", "2026-10-24T00:00", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),  # 25 October has it twice
        ("30 * * * *", "2026-10-24T23:00", ["10-24 23:30", "10-25 00:30", "10-25 01:30", "10-25 02:30"]),
        ("30 * * * *", "2026-03-29T00:00", ["03-29 00:30", "03-29 01:30", "03-29 02:30"]),
        ("0 3 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-30 01:00"]),
        ("*/20 2-3 * * *", "2026-03-29T00:50", ["03-29 01:00", "03-29 01:20", "03-29 01:40", "03-30 00:00"]),
    ],
)
def test_nights_of_clock_change(cron: str, since: str, expected: list[str]) -> None:
    """A time that is skipped runs once, a time that comes twice runs once, and every hour runs each hour."""
    assert fires(cron, since, len(expected), BERLIN) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 4 * * 0", ["11-29 04:00", "12-06 04:00"]),  # Sunday is 0 …
        ("0 4 * * 7", ["11-29 04:00", "12-06 04:00"]),  # … and 7
        ("0 4 * * mon-fri", ["11-23 04:00", "11-24 04:00"]),
        ("0 4 1 * fri", ["11-27 04:00", "12-01 04:00", "12-04 04:00"]),  # the first, and every Friday
        ("0 0 31 * *", ["12-31 00:00", "01-31 00:00", "03-31 00:00"]),
        ("5/20 0 * * *", ["11-23 00:05", "11-23 00:25", "11-23 00:45"]),
        ("@weekly", ["11-29 00:00"]),
        ("0 0 29 FEB *", ["02-29 00:00"]),
    ],
)
def test_cron_lines(cron: str, expected: list[str]) -> None:
    """Days of the week, steps, names and short forms are those of crontab(5)."""
    assert fires(cron, "2026-11-22T23:59", len(expected)) == expected


@pytest.mark.parametrize("cron", ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * fun"])
def test_wrong_lines(cron: str) -> None:
    """What is no cron line is refused."""
    with pytest.raises(ValueError, match="allowed"):
        parse_cron(cron)


@settings(deadline=None, max_examples=40)
@given(
    hours=st.sets(st.integers(0, 23), min_size=1),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=3),
    start=st.integers(0, 366 * 86400),
    zone=st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
)
def test_times_ascend_and_gaps_are_bounded(hours: set[int], minutes: set[int], start: int, zone: str) -> None:
    """Whatever the zone and night: each time is later than the one before, by at most the longest gap and an hour."""
    line = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    timing = Timing(cron=parse_cron(line), zone=zone)
    since = at("2026-01-01T00:00") + timedelta(seconds=start)
    trigger = PlannedTrigger(timing, "job", since)
    moment = trigger.after(since)
    for _ in range(20):
        assert moment is not None
        due = trigger.after(moment)
        assert due is not None
        assert timedelta(0) < due - moment <= timedelta(seconds=longest_gap_s(timing), hours=1)
        moment = due


@pytest.mark.parametrize(
    ("cron", "hours"),
    [("* * * * *", 1 / 60), ("0 */6 * * *", 6), ("0 4 * * 1-5", 72), ("0 4 29 2 *", 1461 * 24), ("0 0 1 * 1", 168)],
)
def test_longest_gap(cron: str, hours: float) -> None:
    """The longest time between two runs follows from the line."""
    assert longest_gap_s(Timing(cron=parse_cron(cron))) == pytest.approx(hours * 3600)


def test_intervals_keep_their_distance_whenever_they_are_asked() -> None:
    """An interval counts from its anchor, before and after a gap, and is not shifted by jitter again and again."""
    trigger = PlannedTrigger(Timing(interval_s=600, jitter_s=300), "job", at("2026-01-01T00:00"))
    assert trigger.after(at("2026-01-01T00:00")) == at("2026-01-01T00:10")
    assert trigger.after(at("2026-01-01T05:03")) == at("2026-01-01T05:10")
    assert trigger.get_next_fire_time(None, at("2026-01-01T00:10")) == at("2026-01-01T00:10")


def test_jitter_is_a_jobs_own_share() -> None:
    """Jobs of one schedule are spread over the jitter, each always by the same."""
    names = [f"backup/hourly/source-{n}" for n in range(50)]
    line = parse_cron("0 * * * *")
    due = [PlannedTrigger(Timing(cron=line, jitter_s=300), name, at("2026-01-01T00:00")) for name in names]
    first = [trigger.after(at("2026-01-01T00:10")) for trigger in due]
    second = [trigger.after(moment) for trigger, moment in zip(due, first, strict=True) if moment]
    assert all(b - a == timedelta(hours=1) for a, b in zip(first, second, strict=True) if a and b)
    assert len(set(first)) == 50
    assert all(0 <= share_of(name) < 1 for name in names)
