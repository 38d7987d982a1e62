"""When a job is due next: APScheduler's triggers, made to mean what crontab(5) means, also on nights of clock change.

All times that go in and come out are in UTC. A night that has no 02:30 runs a job of 02:30 when it would have been
(03:30), a night that has it twice runs it the first time alone; a job of every hour runs each hour that passes.
Outside facts: APScheduler 3.11, ``triggers/cron`` and ``triggers/interval``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from drd.timing import Cron, Timing, share_of

_TICK = timedelta(microseconds=1)
_LONGEST_SKIP = timedelta(hours=3)
"""No change of clocks leaves out more, but where a zone goes over the date line."""
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class PlannedTrigger(BaseTrigger):  # type: ignore[misc]  # the library has no types
    """Fires as a :class:`~drd.timing.Timing` says, later by the job's own share of the jitter.

    ``anchor`` is the moment that intervals are counted from. Stateless: the same question has the same answer.
    """

    def __init__(self, timing: Timing, job: str, anchor: datetime) -> None:
        self._offset = timedelta(seconds=timing.jitter_s * share_of(job))
        self._zone = ZoneInfo(timing.zone)
        self._once = timing.cron is not None and not timing.cron.every_hour
        self._inner = _inner(timing, self._zone, anchor - self._offset)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the first time after the previous one, or, without one, not before ``now``."""
        return self.after(previous_fire_time or now - _TICK)

    def after(self, moment: datetime) -> datetime | None:
        """Return the first time after ``moment``, in UTC; None where there is none within the library's reach."""
        asked = moment.astimezone(UTC) - self._offset
        start = asked - _LONGEST_SKIP if self._once and _skipped_time(asked, self._zone) else asked
        while True:
            found = self._inner.get_next_fire_time(None, (start + _TICK).astimezone(self._zone))
            if found is None:
                return None
            due: datetime = found.astimezone(UTC)
            if due > asked and not (self._once and _is_repeated(due, self._zone)):
                return due + self._offset
            start = max(due, start + timedelta(minutes=1))


def _skipped_time(moment: datetime, zone: ZoneInfo) -> bool:
    """Whether clocks in the zone were put forward shortly before: a job of a time that they left out is still to come.

    The library knows such a time only when it is asked from before the gap.
    """
    before = (moment - _LONGEST_SKIP).astimezone(zone).utcoffset()
    return before != moment.astimezone(zone).utcoffset()


def _is_repeated(moment: datetime, zone: ZoneInfo) -> bool:
    """Whether clocks in the zone show this time for the second time."""
    local = moment.astimezone(zone)
    return local.fold == 1 and local.utcoffset() != local.replace(fold=0).utcoffset()


def _inner(timing: Timing, zone: ZoneInfo, anchor: datetime) -> BaseTrigger:
    if timing.cron is None:
        return IntervalTrigger(seconds=timing.interval_s or 1, start_date=anchor, timezone=UTC)
    cron = timing.cron
    if cron.days and cron.weekdays:
        return OrTrigger([_cron(cron, zone, days=True), _cron(cron, zone, days=False)])
    return _cron(cron, zone, days=not cron.weekdays)


def _cron(cron: Cron, zone: ZoneInfo, *, days: bool) -> CronTrigger:
    return CronTrigger(
        second=0,
        minute=_listed(cron.minutes),
        hour=_listed(cron.hours),
        day=_listed(cron.days) if days and cron.days else "*",
        month=_listed(cron.months),
        day_of_week="*" if days else ",".join(_WEEKDAYS[number] for number in cron.weekdays),
        timezone=zone,
    )


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
