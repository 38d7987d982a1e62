"""When schedules and drills are due: the keys that both have."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, WithJsonSchema

from drd.config_values import Duration, Section
from drd.timing import Timing, parse_cron

MIN_INTERVAL = timedelta(seconds=1)
_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"


def _cron(text: str) -> str:
    parse_cron(text)
    return text


def _zone(name: str) -> str:
    try:
        if re.fullmatch(_ZONE_PATTERN, name):
            ZoneInfo(name)
            return name
    except (ZoneInfoNotFoundError, OSError, ValueError):  # a folder of zones, or no such file
        pass
    raise ValueError("allowed: the name of a time zone, such as UTC or Europe/Berlin")


CronLine: TypeAlias = Annotated[
    str, AfterValidator(_cron), WithJsonSchema({"type": "string", "examples": ["0 * * * *", "30 1 * * mon-fri"]})
]
TimeZone: TypeAlias = Annotated[
    str, AfterValidator(_zone), WithJsonSchema({"type": "string", "pattern": _ZONE_PATTERN, "examples": ["UTC"]})
]


class TimedSection(Section):
    """What is done again and again by the daemon."""

    cron: CronLine | None = Field(
        default=None, description="When, as crontab(5) has it: minute hour day month weekday; or @hourly, @daily, …"
    )
    interval: Duration | None = Field(
        default=None, description="Instead of cron: how often. It counts from the last run, or from the daemon's start."
    )
    jitter: Duration | None = Field(
        default=None, description="Each job starts later by its own, always equal, share of this; it spreads load."
    )
    time_zone: TimeZone | None = Field(default=None, description="Zone that cron is read in. Default: the daemon's.")
    misfire_grace: Duration = Field(
        default=timedelta(hours=1),
        description="How late a run that was missed may still start. Backups catch up once even when it is over.",
    )

    def _timing_problems(self) -> dict[str, str]:
        """Say what is wrong with the keys together; the caller refuses them."""
        problems: dict[str, str] = {}
        if self.cron is not None and self.interval is not None:
            problems["interval"] = "given beside cron; allowed: one of them"
        if self.interval is not None and self.interval < MIN_INTERVAL:
            problems["interval"] = "allowed: 1s or more"
        if self.cron is None and self.interval is None:
            idle = [name for name in ("jitter", "time_zone") if getattr(self, name) is not None]
            problems |= dict.fromkeys(idle, "has no effect without cron or interval")
        elif self.cron is None and self.time_zone is not None:
            problems["time_zone"] = "has no effect without cron: an interval is the same everywhere"
        return problems

    def timing(self, zone: str) -> Timing | None:
        """Return when it is due, None when the daemon has nothing to do with it; ``zone`` is the default zone."""
        if self.cron is None and self.interval is None:
            return None
        return Timing(
            cron=parse_cron(self.cron) if self.cron is not None else None,
            interval_s=self.interval.total_seconds() if self.interval is not None else None,
            zone=self.time_zone or zone,
            jitter_s=self.jitter.total_seconds() if self.jitter else 0.0,
            grace_s=self.misfire_grace.total_seconds(),
        )
