"""When something is to be done again and again, as a person writes it, and how far clocks are believed. Pure values.

Cron lines mean what crontab(5) says: 0 and 7 are Sunday, and where both the day of the month and the day of the week
are given, either will do.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise

CLOCK_SLACK = timedelta(minutes=1)
"""How far the clocks of hosts and people may differ: what is later than now by more is of a clock that is wrong."""
LONGEST_LEASE = timedelta(minutes=15)
"""No lease lives longer without being renewed, whatever a holder's clock says of its expiry."""
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ITEM = re.compile(r"(?:(?P<all>\*)|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d{1,2}))?")
_FIRST_DAY = date(2000, 1, 1).toordinal()
_CYCLE_DAYS = 9 * 366
"""As long as the rarest day, 29 February, needs to come twice and once more."""
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line as sets of numbers, ascending; ``weekdays`` count from Sunday, 0. An empty tuple: any."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]

    @property
    def every_hour(self) -> bool:
        """Whether no hour is left out, so that a night with an hour more or less is nothing special."""
        return len(self.hours) == 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A schedule: ``cron`` or ``interval_s``, exactly one of them.

    ``zone`` is the name of the time zone a cron line is read in. Each job starts up to ``jitter_s`` later than planned,
    always by the same share of it (see :func:`share_of`). A run that could not start on time still starts if it is late
    by at most ``grace_s``.
    """

    cron: Cron | None = None
    interval_s: float | None = None
    zone: str = "UTC"
    jitter_s: float = 0.0
    grace_s: float = 3600.0


@lru_cache(maxsize=1024)  # it looks at years of days, and a schedule has a job for each source
def longest_gap_s(timing: Timing) -> float:
    """Return the longest time between two runs that follow each other, in seconds; nights of clock change aside."""
    cron = timing.cron
    if cron is None:
        return timing.interval_s or 0.0
    minutes = sorted({60 * hour + minute for hour in cron.hours for minute in cron.minutes})
    longest = max((later - earlier for earlier, later in pairwise(minutes)), default=0)
    days = [day for day in range(_FIRST_DAY, _FIRST_DAY + _CYCLE_DAYS) if _has_day(cron, date.fromordinal(day))]
    apart = max(later - earlier for earlier, later in pairwise(days))
    return 60.0 * max(longest, 1440 * apart + minutes[0] - minutes[-1])


def _has_day(cron: Cron, day: date) -> bool:
    by_day, by_weekday = day.day in cron.days, day.isoweekday() % 7 in cron.weekdays
    if day.month not in cron.months:
        return False
    return by_day or by_weekday if cron.days or cron.weekdays else True


def share_of(name: str) -> float:
    """Return a number from 0 to below 1 that is always the same for a name: which part of the jitter a job gets.

    Many jobs of one schedule are spread by it, and each keeps its distance from one run to the next.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / (1 << 48)


def parse_cron(text: str) -> Cron:
    """Parse five fields, or ``@hourly`` and its like; raises ValueError, which says what is allowed."""
    fields = _SHORT.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise ValueError("allowed: five fields (minute hour day month weekday), or @hourly, @daily, @weekly, @monthly")
    minutes = _numbers(fields[0], "minute", 0, 59)
    hours = _numbers(fields[1], "hour", 0, 23)
    days = _numbers(fields[2], "day", 1, 31)
    months = _numbers(fields[3], "month", 1, 12, _MONTHS)
    weekdays = tuple(sorted({number % 7 for number in _numbers(fields[4], "weekday", 0, 7, _DAYS)}))
    any_day, any_weekday = len(days) == 31, len(weekdays) == 7
    if any_weekday and not any(day <= _LONGEST_MONTH.get(month, 31) for day in days for month in months):
        raise ValueError("allowed: a day that one of the months has; this one never comes")
    return Cron(minutes, hours, () if any_day else days, months, () if any_weekday else weekdays)


def _numbers(text: str, what: str, low: int, high: int, names: dict[str, int] | None = None) -> tuple[int, ...]:
    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{what} {item!r}: allowed: *, a number, a range a-b, a step */n, or a list of them")
        step = int(match["step"] or 1)
        first, last = low, high
        if not match["all"]:
            first = _number(match["low"], names)
            last = _number(match["high"], names) if match["high"] else high if match["step"] else first
        if not low <= first <= last <= high or not 1 <= step <= high - low:
            raise ValueError(f"{what} {item!r}: allowed: {low} to {high}, ascending")
        found.update(range(first, last + 1, step))
    return tuple(sorted(found))


def _number(text: str, names: dict[str, int] | None) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    return (names or {}).get(text.lower(), -1)
