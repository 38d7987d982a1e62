"""APScheduler, told when jobs are due, and kept from being fooled by a clock that is set.

Its own loop sleeps until the next job by the wall clock of the moment it fell asleep. Here it wakes every other
second, compares the wall clock with the monotonic one, and when they went apart asks for a new plan instead of
firing what the jump passed over. Its store is in memory: the past lies in the jobs' history.
Outside facts: APScheduler 3.11, ``schedulers/base.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from apscheduler.executors.base import BaseExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from drd.daemon.planning import TICK
from drd.daemon.triggers import PlannedTrigger

WAKE_S = 30.0
"""How long a part of the daemon that has nothing to do sleeps at most."""
LOOK_S = 2.0
"""How soon a clock that was set is noticed."""
JUMP_S = 60.0
"""The wall clock is taken as set when it moved by so much more or less than time passed; smaller steps harm nobody."""


class _Announcer(BaseExecutor):  # type: ignore[misc]  # the library has no types
    """Does no job: says that one is due, and for when it was planned."""

    def __init__(self, due: Callable[[str, datetime], None]) -> None:
        super().__init__()
        self._due = due

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self._due(job.id, run_times[-1].astimezone(UTC))

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:
        """Say that the job is due; it has ended, as far as the library is concerned, at once."""
        self._do_submit_job(job, run_times)


class Scheduler(BackgroundScheduler):  # type: ignore[misc]  # the library has no types
    """Says when planned runs are due. Thread-safe.

    ``due`` is called with a job's name and its planned time; ``jumped`` with how many seconds the wall clock was set
    forward (or back, negative), before anything is found due by it, and makes a new plan. Both in the scheduler's
    thread, and quick.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        due: Callable[[str, datetime], None],
        jumped: Callable[[float], None],
    ) -> None:
        super().__init__(timezone=UTC, executors={"default": _Announcer(due)}, daemon=True)
        self._now = now
        self._monotonic = monotonic
        self._jumped = jumped
        self._apart: float | None = None
        self.ticked_at = monotonic()
        """When it last looked for due jobs, by the monotonic clock: whether it lives."""

    def plan(self, triggers: Mapping[str, PlannedTrigger], now: datetime) -> None:
        """Plan these jobs, each from now on, and no others."""
        with self._jobstores_lock:
            self.remove_all_jobs()
            for name, trigger in triggers.items():
                due = trigger.after(now - TICK)
                if due is not None:
                    self.add_job(
                        _nothing,
                        trigger,
                        id=name,
                        next_run_time=due,
                        coalesce=True,
                        misfire_grace_time=None,
                        max_instances=1,
                    )

    def next_at(self, job: str) -> datetime | None:
        """Return when a job is due next."""
        found = self.get_job(job)
        at: datetime | None = found.next_run_time if found else None
        return at.astimezone(UTC) if at else None

    def _process_jobs(self) -> float:
        self.ticked_at = self._monotonic()
        apart = self._now().timestamp() - self._monotonic()
        before, self._apart = self._apart, apart
        if before is not None and abs(apart - before) > JUMP_S:
            self._jumped(apart - before)
        wait_s: float | None = super()._process_jobs()
        return LOOK_S if wait_s is None else min(wait_s, LOOK_S)


def _nothing() -> None:
    """Stand for what is done when a job is due; it is never called, since :class:`_Announcer` does no job."""
