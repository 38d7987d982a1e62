"""The wall clock of a running daemon is set, forward and back, and its time zone has the nights of clock change."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.faults.conftest import MakeSite, slow_down
from tests.faults.subjects import RedisSubject, parts_in_store
from tests.support.daemons import RunningDaemon, backups, history, timed, wait_until
from tests.support.set_clock import SetClock

pytestmark = pytest.mark.faults
HOURLY = "backup/hourly/redis"
DAY_S, WAIT_S = 86400.0, 90.0


@pytest.fixture
def clock(tmp_path: Path) -> SetClock:
    """Give a wall clock that can be set."""
    return SetClock(tmp_path)


def done(daemon: RunningDaemon, times: int) -> None:
    """Wait until so many runs have ended well, and their history is written."""
    daemon.wait("job.ended", outcome="ok", times=times, timeout_s=WAIT_S)
    wait_until("the history", lambda: len(history(daemon.site, HOURLY)["runs"]) >= times, said=daemon.said)


def shortly_before(minute: int, clock: SetClock) -> str:
    """Set the clock forward to some seconds before an hour's minute; return that time as a run's planned one."""
    due = clock.now().replace(minute=minute, second=0, microsecond=0)
    while due < clock.now() + timedelta(seconds=10):
        due += timedelta(hours=1)
    clock.set(due - timedelta(seconds=4))
    return due.isoformat()


def test_the_clock_is_set_forward_by_a_day_and_back(
    make_site: MakeSite, small_redis: RedisSubject, clock: SetClock
) -> None:
    """A backup under way is published, what was passed over is done once, and what comes next is made and kept."""
    small_redis.fill(3)
    minute = (clock.now() + timedelta(minutes=20)).minute
    site = timed(make_site(small_redis), hourly={"cron": f"{minute} * * * *"})
    site.config["retention"] = {"auto": True, "keep_last": 2, "keep_within": None, "keep_daily": 0, "keep_weekly": 0,
                                "keep_monthly": 0}  # fmt: skip
    site.env |= clock.environment
    slow_down(site, "1MiB")
    made: list[str] = []

    def new() -> str:
        (found,) = set(backups(site, "redis")) - set(made)
        made.append(found)
        return found

    with RunningDaemon(site) as daemon:
        daemon.wait("leader.gained", timeout_s=WAIT_S)
        first = shortly_before(minute, clock)
        wait_until("the backup's first part", lambda: parts_in_store(site, "redis"), WAIT_S, daemon.said)
        clock.move(DAY_S)
        done(daemon, 1)
        new()
        done(daemon, 2)
        assert new() > made[0]
        assert daemon.get("/readyz")[0] == 200
        assert daemon.series('drd_job_duration_seconds_sum{kind="backup"}')[0] < 2 * WAIT_S
        assert daemon.series("drd_job_next_run_timestamp_seconds")[0] < clock.now().timestamp() + 3600

        clock.move(-DAY_S - 3 * 3600)  # the database's clock is right all the time
        daemon.wait("clock.jumped", times=3, timeout_s=WAIT_S)
        second = shortly_before(minute, clock)
        done(daemon, 3)
        assert new() < made[0]
        assert len(backups(site, "redis")) == 3, "from the future, as far as one knows: nothing may push it out"
        assert daemon.get("/readyz")[0] == 200

        clock.move(-clock.ahead_s)
        done(daemon, 4)
        newest = new()
        assert backups(site, "redis") == sorted([made[2], newest])
        assert not daemon.of("leader.lost")
        assert not daemon.of("job.ended", outcome="failed")
        jumps = [round(event["seconds"] / 3600) for event in daemon.of("clock.jumped")]
        assert jumps[1:3] == [24, -27]
        runs = [(event["why"], event["planned_at"]) for event in daemon.of("job.started")]
        assert [why for why, _ in runs] == ["planned", "missed", "planned", "missed"]
        assert [at for why, at in runs if why == "planned"] == [first, second]
        daemon.end(timeout_s=60).succeeds()
    site.env = {name: value for name, value in site.env.items() if name not in clock.environment}
    planned = site("restore", "--at", "now", "--dry-run", "--json", write_config=False).succeeds().json
    assert planned["restores"][0]["backup"] == newest
    site("verify", write_config=False).succeeds()


NIGHTS = {"autumn": datetime(2026, 10, 25, tzinfo=UTC), "spring": datetime(2027, 3, 28, tzinfo=UTC)}
"""In Berlin the clocks go from 03:00 to 02:00 and from 02:00 to 03:00 then, at 01:00 UTC."""


def test_nights_of_clock_change(make_site: MakeSite, small_redis: RedisSubject, tmp_path: Path) -> None:
    """A job of 02:30 runs once where the night has it twice and where it has it not; one of every hour each hour."""
    with ExitStack() as stack:
        clocks: list[SetClock] = []
        daemons: list[RunningDaemon] = []
        for season, night in NIGHTS.items():
            clocks.append(SetClock(tmp_path, season))
            clocks[-1].set(night - timedelta(minutes=10))
            site = timed(
                make_site(small_redis, name=season),
                hourly={"cron": "0 * * * *", "sources": ["redis"]},
                nightly={"cron": "30 2 * * *", "sources": ["other"]},
            )
            site.sources["other"] = site.sources["redis"]
            site.config["daemon"]["time_zone"] = "Europe/Berlin"
            site.env |= clocks[-1].environment
            daemons.append(stack.enter_context(RunningDaemon(site)))
        for daemon in daemons:
            daemon.wait("leader.gained", timeout_s=WAIT_S)
        for half_hours, so_far in enumerate([(1, 1), (2, 1), (3, 2), (3, 3)]):
            for clock, night in zip(clocks, NIGHTS.values(), strict=True):
                clock.set(night + timedelta(hours=half_hours / 2, seconds=-2.5))
            time.sleep(4)
            for daemon, times in zip(daemons, so_far, strict=True):
                daemon.wait("job.ended", outcome="ok", times=times, timeout_s=WAIT_S)
        for daemon in daemons:
            daemon.end(timeout_s=60).succeeds()
        autumn, spring = daemons
    assert _started(autumn) == [("hourly", "02:00"), ("nightly", "02:30"), ("hourly", "02:00")]
    assert _started(spring) == [("hourly", "01:00"), ("hourly", "03:00"), ("nightly", "03:30")]


def _started(daemon: RunningDaemon) -> list[tuple[str, str]]:
    """Return the schedule of each job that was started, and for which time in Berlin.

    A busy machine may notice that the clock was set when the time has come: then it is caught up, in that second.
    """
    zone, slack = ZoneInfo("Europe/Berlin"), timedelta(seconds=10)
    return [
        (event["job"].split("/")[1], f"{(datetime.fromisoformat(event['planned_at']) + slack).astimezone(zone):%H:%M}")
        for event in daemon.of("job.started")
    ]
