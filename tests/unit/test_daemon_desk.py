"""The desk: jobs due together, overlapping, late, missed and asked for; a leader that is lost; a clock that is set.

Jobs are processes here as well, but of a script that does nothing for a moment.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apscheduler.schedulers import base

from drd.cancel import CancelToken
from drd.counts import StoreCounts
from drd.daemon import scheduler as scheduler_module
from drd.daemon.desk import Desk
from drd.daemon.history import History
from drd.daemon.leader import Leader
from drd.daemon.model import Job, JobRun, Plan
from drd.daemon.numbers import Numbers
from drd.daemon.overview import Watched
from drd.daemon.planning import Record, Rules
from drd.daemon.scheduler import Scheduler
from drd.daemon.triggers import PlannedTrigger
from drd.daemon.world import World
from drd.errors import ConfigError, LeaseError
from drd.events import Delivery, Event, PeerResult
from drd.model import CheckItem
from drd.notify.null import NullNotifier
from drd.repository.holder import Holder
from drd.stores.memory import MemoryStore
from drd.timing import Timing, parse_cron

SCRIPT = """
import fcntl, json, os, sys, time
request = json.loads(sys.stdin.readline())
log = os.open(os.environ["LOG"], os.O_APPEND | os.O_WRONLY | os.O_CREAT)
def note(what):
    os.write(log, f"{what} {request['subject']} {request['kind']}\\n".encode())
note("begin")
time.sleep(float(os.environ["TAKES"]))
note("end")
print(json.dumps({"event": "report", "exit_code": int(os.environ["CODE"])}), flush=True)
"""


class Set:
    """A desk with its store and what ran."""

    def __init__(self, folder: Path, plans: list[Plan], *, at_once: int = 2, takes: float = 0.0, code: int = 0) -> None:
        self.store = MemoryStore()
        self.log = folder / "log"
        self.ports: Any = SimpleNamespace(
            store=self.store,
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            holder=Holder("host", os.getpid()),
            cancel=CancelToken(),
        )
        self.world = World(
            plans=tuple(plans),
            rules=Rules(first_s=0.2, longest_s=0.2, attempts=2),
            concurrency=at_once,
            grace_s=1,
            heartbeat_s=1,
            lease_ttl_s=5,
            ports=self.ports,
            notifier=NullNotifier(),
            argv=(sys.executable, "-c", SCRIPT),
            environ={**os.environ, "LOG": str(self.log), "TAKES": str(takes), "CODE": str(code)},
            folder=None,
            watched=tuple(Watched(name, "redis") for name in {plan.job.subject for plan in plans}),
            drills=(),
            request=lambda plan: {"subject": plan.job.subject, "kind": plan.job.kind},
            configured_at=datetime.now(UTC),
            close=lambda: None,
        )
        self.leader = Leader(self.ports, ttl_s=5, cancel=CancelToken())
        self.ended: list[JobRun] = []
        self.numbers = Numbers(StoreCounts())
        self.desk = self._desk()

    def _desk(self) -> Desk:
        return Desk(self.world, self.leader, listener=self.numbers, ended=self.ended.append, draw=lambda: 0.5)

    def use(self, **changes: Any) -> None:
        """Change the world before anything began."""
        self.world = replace(self.world, **changes)
        self.desk = self._desk()

    def begin(self) -> Desk:
        assert self.leader.look()
        self.desk.start()
        self.desk.lead()
        return self.desk

    def wait(self, found: Callable[[], Any], timeout_s: float = 30) -> None:
        ends = time.monotonic() + timeout_s
        while not found():
            assert time.monotonic() < ends, [vars(r) if hasattr(r, "__dict__") else r for r in self.ended]
            time.sleep(0.01)

    def most_at_once(self) -> int:
        """Return how many processes ran at the same time, at most; fail when two were of one source."""
        most, running = 0, []
        for line in self.log.read_text().splitlines():
            what, subject, _ = line.split()
            if what == "begin":
                assert subject not in running
                running.append(subject)
            else:
                running.remove(subject)
            most = max(most, len(running))
        return most


def plan(subject: str, kind: str = "backup", schedule: str = "s", **timing: Any) -> Plan:
    job = Job(
        name=f"{kind}/{schedule}/{subject}",
        kind=kind,  # type: ignore[arg-type]
        schedule=schedule,
        subject=subject,
        longest_gap_s=3600,
    )
    return Plan(job=job, timing=Timing(**({"interval_s": 3600.0} | timing)), deadline_s=20)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Set]]:
    """Give a maker of desks that are ended with the test."""
    sets: list[Set] = []

    def make(plans: list[Plan], **options: Any) -> Set:
        sets.append(Set(tmp_path, plans, **options))
        return sets[-1]

    yield make
    for item in sets:
        item.desk.kill_all()
        item.desk.drain()
        item.desk.stop()
        item.leader.release()


def test_fifty_schedules_due_in_the_same_second(made: Callable[..., Set]) -> None:
    """All of them run, once, no more at a time than allowed, never two of one source."""
    plans = [plan(f"source-{n % 25:02d}", schedule=f"schedule-{n}") for n in range(50)]
    it = made(plans, at_once=4, takes=0.02)
    it.begin()
    it.wait(lambda: len(it.ended) == 50)
    assert {run.outcome for run in it.ended} == {"ok"}
    assert 2 <= it.most_at_once() <= 4
    assert len({run.job for run in it.ended}) == 50
    assert History(it.store).of("backup/schedule-7/source-07").runs[0].outcome == "ok"


def test_a_job_that_takes_longer_than_its_interval_does_not_overlap_itself(made: Callable[..., Set]) -> None:
    """What falls due while it runs is one run, afterwards."""
    it = made([plan("a", interval_s=0.2)], takes=0.7)
    it.begin()
    it.wait(lambda: len(it.ended) >= 3)
    assert it.most_at_once() == 1


class Heard:
    """A receiver of events that writes them down."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, events: Sequence[Event]) -> Delivery:
        self.events += events
        return Delivery(len(events), (PeerResult("heard", "ok", 1),))

    def check(self) -> Sequence[CheckItem]:
        return ()


def test_what_a_dead_process_cannot_tell_the_daemon_tells(made: Callable[..., Set]) -> None:
    """A drill that was killed is told of as unverified, by its report and each source's state; a backup as failed."""
    heard = Heard()
    it = made([plan("a"), plan("nightly", kind="drill", schedule="nightly")])
    dies = (sys.executable, "-c", "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)")
    it.use(argv=dies, notifier=heard, drilled={"nightly": ("a", "b")}, rules=Rules(attempts=0))
    it.begin()
    it.wait(lambda: len(it.ended) == 2 and len(heard.events) == 4)
    told = {(e.name, e.labels.get("source"), e.labels.get("verdict")): e for e in heard.events if e.firing}
    assert told.keys() == {
        ("DrdBackupFailed", "a", None),
        ("DrdDrillReport", None, "unverified"),
        ("DrdDrillNotPassed", "a", None),
        ("DrdDrillNotPassed", "b", None),
    }
    for event in told.values():
        assert "ended by signal 9, without a report" in event.annotations["summary"]
        assert "out-of-memory" in event.annotations["action"]
    assert told["DrdDrillNotPassed", "a", None].labels["drill"] == "nightly"
    assert it.numbers.tally().notified == {"ok": 2, "failed": 0}


def test_failures_are_tried_again_and_a_new_daemon_goes_on_with_them(made: Callable[..., Set]) -> None:
    """Two retries after the first failure; who reads the history goes on where the other stopped."""
    it = made([plan("a")], code=13)
    it.begin()
    it.wait(lambda: len(it.ended) == 3)
    assert [run.attempt for run in it.ended] == [1, 2, 3]
    it.wait(lambda: History(it.store).of("backup/s/a").retry is None)
    view = it.desk.board().jobs[0]
    assert (view.failures, view.retry) == (3, False)


@pytest.mark.parametrize(("code", "kind", "outcome", "again"), [
    (21, "drill", "failed", False), (22, "drill", "failed", True), (11, "backup", "skipped", True),
    (10, "verify", "skipped", False), (20, "verify", "failed", False), (3, "backup", "partial", False),
])  # fmt: skip
def test_what_exit_codes_of_a_verb_mean(
    made: Callable[..., Set], code: int, kind: str, outcome: str, again: bool
) -> None:
    """A drill that failed is evidence, a held lease no failure, nothing to verify no alarm."""
    it = made([plan("a", kind)], code=code)
    it.begin()
    it.wait(lambda: it.ended and History(it.store).of(f"{kind}/s/a").runs)
    assert it.ended[0].outcome == outcome
    assert (History(it.store).of(f"{kind}/s/a").retry is not None) == again


def test_a_job_at_its_deadline_is_a_failure_that_says_so(made: Callable[..., Set]) -> None:
    """The process is gone, the run has a message, and the alert that its process could not tell is told."""
    late, told = plan("a"), []
    it = made([Plan(job=late.job, timing=late.timing, deadline_s=0.4)], takes=30)
    notifier: Any = SimpleNamespace(notify=lambda events: told.extend(events) or Delivery())
    it.desk._world = replace(it.world, notifier=notifier)
    it.begin()
    it.wait(lambda: it.ended)
    assert it.ended[0].outcome == "failed"
    assert "not done within its deadline" in it.ended[0].message
    assert [(event.name, event.firing) for event in told] == [("DrdBackupFailed", True)]


def test_a_missed_run_is_caught_up_once(made: Callable[..., Set]) -> None:
    """A daemon that was down for days runs a backup once, and leaves a drill that is too late to its next time."""
    it = made([plan("a", interval_s=300.0), plan("b", "drill", interval_s=90000.0, grace_s=60.0)])
    for name, kind in (("backup/s/a", "backup"), ("drill/s/b", "drill")):
        at = datetime.now(UTC) - timedelta(days=2, seconds=100)
        run = JobRun(job=name, kind=kind, subject=name[-1], planned_at=at, started_at=at, finished_at=at, outcome="ok")  # type: ignore[arg-type]
        History(it.store).save(name, Record(runs=(run,)))
    it.begin()
    it.wait(lambda: it.ended)
    time.sleep(0.3)
    assert [run.job for run in it.ended] == ["backup/s/a"]
    assert it.desk.board().jobs[1].next_run_at > datetime.now(UTC)  # type: ignore[operator]


def test_paused_nothing_new_runs_but_what_a_person_asks_for(made: Callable[..., Set]) -> None:
    """Pause keeps planned runs away, a run by hand goes through, and what was missed is caught up afterwards."""
    it = made([plan("a", interval_s=0.5), plan("b")])
    it.begin()
    it.wait(lambda: len(it.ended) >= 2)
    it.desk.pause(paused=True)
    it.wait(lambda: not it.desk.running())
    count = len(it.ended)
    it.desk.run_now("backup/s/b")
    it.wait(lambda: len(it.ended) > count)
    time.sleep(0.8)
    assert [run.job for run in it.ended[count:]] == ["backup/s/b"]
    assert all(view.next_run_at is None for view in it.desk.board().jobs)
    it.desk.pause(paused=False)
    it.wait(lambda: it.ended[-1].job == "backup/s/a")
    with pytest.raises(ConfigError, match="no job is called"):
        it.desk.run_now("backup/s/c")


def test_a_leader_that_was_followed_starts_nothing_and_writes_nothing(made: Callable[..., Set]) -> None:
    """When another took the lease over, the next job that is due finds it out."""
    it = made([plan("a", interval_s=0.5)])
    it.begin()
    it.wait(lambda: it.ended)
    self = next(iter(info.key for info in it.store.list("leases/daemon/")))
    it.store.put(self.replace("0000000001", "0000000002"), b"{}")
    it.wait(lambda: not it.desk.board().leader)
    count, written = len(it.ended), it.store.get("jobs/backup/s/a.json")
    time.sleep(0.8)
    assert len(it.ended) == count
    assert it.store.get("jobs/backup/s/a.json") == written
    with pytest.raises(LeaseError, match="plans no jobs"):
        it.desk.run_now("backup/s/a")


def test_the_board_is_quick_and_whole_with_a_hundred_sources(made: Callable[..., Set]) -> None:
    """Every job is on it with its next time; asking while jobs run does not wait for them."""
    it = made([plan(f"s{n}", kind) for n in range(100) for kind in ("backup", "prune", "verify")], takes=0.01)
    it.begin()
    began = time.monotonic()
    boards = [it.desk.board() for _ in range(10)]
    assert time.monotonic() - began < 2
    assert all(len(board.jobs) == 300 and board.state == "running" for board in boards)
    assert all(view.next_run_at or view.running_since for view in boards[-1].jobs)


class Clock:
    """A wall clock and a monotonic one, both moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.mono = datetime(2026, 11, 23, 4, 10, tzinfo=UTC), 1000.0
        clock = self

        class Datetime(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return clock.wall.astimezone(tz)

        monkeypatch.setattr(base, "datetime", Datetime)

    def passes(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.mono += seconds


def test_a_clock_that_is_set_fires_no_year_of_jobs_and_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set forward by a year and back: it plans anew, fires nothing that was passed over, and never sleeps for long."""
    clock = Clock(monkeypatch)
    due: list[datetime] = []
    jumps: list[float] = []
    timing = Timing(cron=parse_cron("0 * * * *"))

    def plan_anew(seconds: float = 0.0) -> None:
        jumps.append(seconds)
        trigger = PlannedTrigger(timing, "job", clock.wall)
        planner.plan({"job": trigger}, clock.wall)

    planner = Scheduler(
        now=lambda: clock.wall, monotonic=lambda: clock.mono, due=lambda _, at: due.append(at), jumped=plan_anew
    )
    planner._event, planner._thread = threading.Event(), threading.Thread(target=lambda: None)
    planner._thread.start()
    base.BaseScheduler.start(planner)
    try:
        plan_anew()
        assert planner._process_jobs() <= scheduler_module.WAKE_S
        clock.wall += timedelta(days=365)
        planner._process_jobs()
        assert (due, len(jumps)) == ([], 2)
        clock.wall -= timedelta(days=366)
        planner._process_jobs()
        assert (due, len(jumps)) == ([], 3)
        assert planner.next_at("job") == clock.wall.replace(minute=0) + timedelta(hours=1)
        for _ in range(200):  # 100 minutes
            clock.passes(30)
            assert planner._process_jobs() <= scheduler_module.WAKE_S
        assert [f"{at:%H:%M}" for at in due] == ["05:00"]
    finally:
        planner.shutdown(wait=False)
