"""The shape of ``retention`` and ``oddness``: what to keep and what to wonder at, in general and for one source."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from drd.config_values import Count, Duration, Section, Share, refuse
from drd.drills import keeping
from drd.repository.retention import Policy


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("allowed: a time zone such as UTC, Europe/Berlin or Asia/Shanghai") from error
    return value


Keep: TypeAlias = Annotated[Count, Field(ge=0, le=100_000)]


class RetentionRules(Section):
    """What to keep of a source: a backup stays when any rule keeps it. Age counts from the source's newest backup."""

    keep_last: Keep = Field(default=7, description="How many of the newest backups stay. 0 switches the rule off.")
    keep_within: Duration | None = Field(
        default=timedelta(days=30), description="All backups of this long before the newest one stay. null: rule off."
    )
    keep_hourly: Keep = Field(default=0, description="The newest backup of each of the last N hours that have one.")
    keep_daily: Keep = Field(default=30, description="The newest backup of each of the last N days that have one.")
    keep_weekly: Keep = Field(default=12, description="The same for ISO weeks.")
    keep_monthly: Keep = Field(default=12, description="The same for months.")
    keep_yearly: Keep = Field(default=0, description="The same for years.")
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Zone whose midnights divide the days, weeks, months and years."
    )

    def policy(self) -> Policy:
        """Return the rules as retention takes them."""
        return Policy(
            keep_last=self.keep_last,
            keep_within=self.keep_within,
            keep_hourly=self.keep_hourly,
            keep_daily=self.keep_daily,
            keep_weekly=self.keep_weekly,
            keep_monthly=self.keep_monthly,
            keep_yearly=self.keep_yearly,
            zone=ZoneInfo(self.time_zone),
        )

    @model_validator(mode="after")
    def _keeps_something(self) -> RetentionRules:
        if self.policy().keeps_nothing:
            refuse({"keep_last": "no rule keeps anything; allowed: at least one rule above 0"})
        return self


class RetentionConfig(RetentionRules):
    """What drd prune keeps of every source that has no rules of its own."""

    auto: bool = Field(
        default=False, description="Prune a source after each successful backup of it, never after a failed one."
    )


class DrillHistoryConfig(Section):
    """What drd prune keeps of the reports of each drill, besides the proof of every backup that exists."""

    keep_last: Annotated[Keep, Field(ge=1)] = Field(default=100, description="How many of its newest reports stay.")
    keep_within: Duration = Field(
        default=timedelta(days=365), description="All reports of this long before its newest one stay."
    )

    def policy(self) -> keeping.Policy:
        """Return the rules as they are decided by."""
        return keeping.Policy(self.keep_last, self.keep_within)


class OddnessConfig(Section):
    """When a backup holds so much less than the one before it that a person should look."""

    fall: Share | None = Field(
        default=0.3,
        description="Warn when rows (or keys), or bytes of data, fell by more than this since the backup before. "
        "null: never.",
    )
