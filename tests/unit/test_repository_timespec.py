"""The times people type for --at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.errors import ConfigError
from drd.repository.timespec import parse_time

NOW = datetime(2026, 11, 22, 18, 14, 55, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected", "naive"),
    [
        ("2026-11-22T18:14:55Z", "2026-11-22T18:14:55", False),
        ("2026-11-22 18:14:55 UTC", "2026-11-22T18:14:55", False),
        ("2026-11-22T18:14:55.25z", "2026-11-22T18:14:55.250000", False),
        ("2026-11-22T18:14:55.123456999Z", "2026-11-22T18:14:55.123456", False),
        ("2026-11-22T18:14+02:00", "2026-11-22T16:14:00", False),
        ("2026-11-22 13:14:55 -0500", "2026-11-22T18:14:55", False),
        ("2026-11-22T12:00", "2026-11-22T12:00:00", True),
        ("2026-11-22 12:00:01", "2026-11-22T12:00:01", True),
        ("2026-11-22", "2026-11-22T00:00:00", True),
        ("20261122T181455Z", "2026-11-22T18:14:55", False),
        ("now", "2026-11-22T18:14:55.123456", False),
        ("2h ago", "2026-11-22T16:14:55.123456", False),
        ("90m ago", "2026-11-22T16:44:55.123456", False),
        ("1d 2h ago", "2026-11-21T16:14:55.123456", False),
        ("1.5 hours ago", "2026-11-22T16:44:55.123456", False),
        ("2 Weeks  ago", "2026-11-08T18:14:55.123456", False),
        ("yesterday 03:00", "2026-11-21T03:00:00", True),
        ("today 14:00", "2026-11-22T14:00:00", True),
        ("today 9:05:07 UTC", "2026-11-22T09:05:07", False),
        ("Yesterday", "2026-11-21T00:00:00", True),
        ("  2026-11-22T18:15:54Z ", "2026-11-22T18:15:54", False),
    ],
)
def test_what_people_type(text: str, expected: str, naive: bool) -> None:
    """Each documented form gives the right UTC time, and says whether the zone was assumed."""
    parsed = parse_time(text, NOW)
    assert (parsed.at, parsed.naive) == (datetime.fromisoformat(expected).replace(tzinfo=UTC), naive)
    assert parsed.at.tzinfo == UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "tomorrow",
        "yesterday 25:00",
        "2026-02-30",
        "2026-11-22T24:00Z",
        "2026-13-01",
        "12:00",
        "2 ago",
        "ago",
        "h ago",
        "2 fortnights ago",
        "2026-11-22T12:00.5Z",
        "-2h ago",
        "99999999999999999d ago",
        "0001-01-01T00:00+23:59",
        "2026-11-22T12:00+25:00",
        "1732300000",
        "2026-W01",
        "2026-11-22T12",
        "２０２６-11-22",
        "22.11.2026",
        "2026-11-22T18:14:60Z",
    ],
)
def test_nonsense_is_refused_with_examples(text: str) -> None:
    """What is not a time is a configuration error with examples to type."""
    with pytest.raises(ConfigError) as caught:
        parse_time(text, NOW)
    assert "2h ago" in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("zone", [" CET", " Europe/Berlin", "+26:00", "+14:60"])
def test_a_zone_that_is_none_is_named(zone: str) -> None:
    """The refusal says that the zone is what is wrong, in words of people."""
    with pytest.raises(ConfigError, match="zone") as caught:
        parse_time(f"2026-11-22 12:00{zone}", NOW)
    assert zone.strip() in caught.value.message
    assert "timedelta" not in caught.value.message


def test_the_future_is_refused() -> None:
    """More than a minute ahead is refused; a naive local time is the usual cause, and the message says so."""
    assert parse_time("2026-11-22T18:15:55Z", NOW).at < NOW + timedelta(minutes=1)
    with pytest.raises(ConfigError, match="future"):
        parse_time("2026-11-22T18:15:56Z", NOW)
    with pytest.raises(ConfigError, match="taken as UTC"):
        parse_time("2026-11-22 20:14", NOW)
    with pytest.raises(ConfigError, match="future"):
        parse_time("today 23:00", NOW)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=120) | st.from_regex(r"[0-9a-zA-Z :+.-]{0,30}( ago)?", fullmatch=True))
def test_no_text_crashes(text: str) -> None:
    """Any text is a time not in the future, or a configuration error."""
    try:
        parsed = parse_time(text, NOW)
    except ConfigError:
        return
    assert parsed.at <= NOW + timedelta(minutes=1)


@settings(max_examples=200, deadline=None)
@given(age=st.timedeltas(timedelta(0), timedelta(days=20_000)), minutes=st.integers(-14 * 60, 14 * 60))
def test_isoformat_round_trips(age: timedelta, minutes: int) -> None:
    """What Python writes, with any offset, is read as the same instant."""
    at = (NOW - age).astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_time(at.isoformat(), NOW).at == at
