"""The times people type for ``--at``: parsed once, here, into an aware UTC time. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from drd.errors import ConfigError
from drd.timing import CLOCK_SLACK
from drd.wording import when

_ISO = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:(?:[Tt]|\s+)(?P<time>\d{2}:\d{2}(?::\d{2})?)(?P<fraction>[.,]\d{1,9})?\s*(?P<zone>[Zz]|UTC|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
_COMPACT = re.compile(r"\d{8}T\d{6}Z", re.ASCII)  # as backup ids begin
_DAY = re.compile(
    r"(?P<day>today|yesterday)(?:\s+(?P<time>\d{1,2}:\d{2}(?::\d{2})?)\s*(?P<zone>Z|UTC)?)?", re.ASCII | re.IGNORECASE
)
_AGO = re.compile(r"(?:\d+(?:\.\d+)?\s*[a-z]+\s*)+\s+ago", re.ASCII | re.IGNORECASE)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII | re.IGNORECASE)
_UNITS_S = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400),
}
_NAMED_ZONE = re.compile(r"(?<=[0-9]|\s)(?:[A-Z]{3,4}|[A-Z][A-Za-z]+/[A-Za-z_]+)\Z", re.ASCII)
_EXAMPLES = 'for example 2026-11-22T18:14:55Z, "2026-11-22 20:14 +02:00", now, "2h ago", "yesterday 03:00"'


@dataclass(frozen=True, slots=True)
class ParsedTime:
    """A time in UTC; ``naive`` when the text named no zone and was therefore taken as UTC, which should be said."""

    at: datetime
    naive: bool


def parse_time(text: str, now: datetime) -> ParsedTime:
    """Return the time that ``text`` means at ``now`` (aware).

    ISO 8601 with ``Z``, ``UTC`` or an offset; without a zone, or a date alone (its midnight), in UTC and flagged;
    ``now``; ``90m ago``, ``1d 2h ago``; ``today 14:00`` and ``yesterday 03:00``, in UTC and flagged.

    Raises ConfigError for anything else, and for a time more than a minute after ``now``.
    """
    text = text.strip()
    try:
        parsed = _parse(text, now.astimezone(UTC)) if len(text) <= 100 else None
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"no such time: {text[:80]!r} ({error})", subject="--at", hint=_EXAMPLES) from error
    if parsed is None:
        named = _NAMED_ZONE.search(text)
        why = f" (a zone is an offset such as +01:00, not {named[0]})" if named else ""
        raise ConfigError(f"not a time: {text[:80]!r}{why}", subject="--at", hint=_EXAMPLES)
    if parsed.at > now + CLOCK_SLACK:
        taken = " (no zone was given: taken as UTC)" if parsed.naive else ""
        asked, current = (when(at) for at in (parsed.at, now))
        raise ConfigError(
            f"{asked} is in the future{taken}; it is {current}",
            subject="--at",
            hint="give a time in the past, with its zone, or: now",
        )
    return parsed


def _parse(text: str, now: datetime) -> ParsedTime | None:
    if text.lower() == "now":
        return ParsedTime(now, naive=False)
    if match := _ISO.fullmatch(text):
        return _iso(match)
    if _COMPACT.fullmatch(text):
        return ParsedTime(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC), naive=False)
    if match := _DAY.fullmatch(text):
        return _of_day(match, now)
    if _AGO.fullmatch(text):
        return _ago(text, now)
    return None


def _iso(match: re.Match[str]) -> ParsedTime:
    clock, fraction, zone = match["time"] or "00:00", match["fraction"] or "", match["zone"] or ""
    if fraction and clock.count(":") != 2:
        raise ValueError("a fraction belongs to seconds")
    micro = int((fraction[1:] + "000000")[:6])  # finer digits are cut: never later than asked
    offset = "+00:00" if zone.upper() in {"", "Z", "UTC"} else zone
    if int(offset[1:3]) > 14 or int(offset[-2:]) > 59:
        raise ValueError(f"no zone is {zone} off UTC")
    at = datetime.fromisoformat(f"{match['date']}T{clock}{offset}").replace(microsecond=micro)
    return ParsedTime(at.astimezone(UTC), naive=not zone)


def _of_day(match: re.Match[str], now: datetime) -> ParsedTime:
    day = now.date() - timedelta(days=match["day"].lower() == "yesterday")
    hour, _, rest = (match["time"] or "00:00").partition(":")
    clock = time.fromisoformat(f"{hour:0>2}:{rest}")
    return ParsedTime(datetime.combine(day, clock, UTC), naive=not match["zone"])


def _ago(text: str, now: datetime) -> ParsedTime | None:
    seconds = 0.0
    for number, unit in _AMOUNT.findall(text[: -len("ago")]):
        if unit.lower() not in _UNITS_S:
            return None
        seconds += float(number) * _UNITS_S[unit.lower()]
    return ParsedTime(now - timedelta(seconds=seconds), naive=False)
