"""The desk: knows every job, starts those that are due, and writes down how they went.

Threads: the scheduler says what is due and one dispatcher starts it; each run has a thread that waits for its process.
One lock guards what is known; nothing slow happens under it. The order of locks is this one, then the scheduler's.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

import structlog

from drd.daemon import planning
from drd.daemon.leader import Leader
from drd.daemon.model import Board, JobRun, JobView, Listener, Plan
from drd.daemon.notebook import Notebook
from drd.daemon.outset import outset
from drd.daemon.scheduler import WAKE_S, Scheduler
from drd.daemon.showing import view_of
from drd.daemon.waiting import Due, Waiting
from drd.daemon.work import Active, broken, carry_out, process_of, too_late
from drd.daemon.world import World
from drd.errors import ConfigError, LeaseError
from drd.model import Json, Notice

_log = structlog.get_logger("drd.daemon")
_SHORTEST_WAIT_S = 0.02


class Desk:
    """Implements :class:`~drd.daemon.model.Controls`. ``ended`` is called after each run, from its thread."""

    def __init__(
        self,
        world: World,
        leader: Leader,
        *,
        listener: Listener,
        ended: Callable[[JobRun], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._lock = threading.RLock()
        self._world = world
        self._leader = leader
        self._listener = listener
        self._ended = ended
        self._draw = draw
        self._started_at = world.ports.now()
        self._notebook = Notebook()
        self._planning = False
        self._draining = False
        self._paused = False
        self._reload_error = ""
        self._notices: tuple[Notice, ...] = ()
        self._waiting = Waiting()
        self._active: dict[str, Active] = {}
        self._unwritten = 0
        self._inbox: queue.SimpleQueue[tuple[str, datetime] | None] = queue.SimpleQueue()
        self._scheduler = Scheduler(
            now=world.ports.now,
            monotonic=world.ports.monotonic,
            due=lambda job, at: self._inbox.put((job, at)),
            jumped=self._jumped,
        )
        self._dispatcher = threading.Thread(target=self._dispatch, name="drd-dispatcher", daemon=True)
        self._stopped = False

    def start(self) -> None:
        """Start both threads; nothing is planned before :meth:`lead`."""
        self._scheduler.start()
        self._dispatcher.start()

    # What the outside asks

    def board(self) -> Board:
        """Return what is known now."""
        with self._lock:
            world = self._world
            known: Literal["starting", "running"] = "running" if self._planning or self._leader.problem else "starting"
            return Board(
                at=world.ports.now(),
                started_at=self._started_at,
                state="draining" if self._draining else known,
                paused=self._paused,
                jobs=tuple(self._view(plan) for plan in world.plans),
                leader=self._planning,
                configured_at=world.configured_at,
                reload_error=self._reload_error,
                history_error=self._notebook.problem,
                notices=(*world.notices, *self._notices),
            )

    def run_now(self, job: str) -> None:
        """Plan a run of the job for this moment."""
        with self._lock:
            plan = self._world.plan_of(job)
            if plan is None:
                known = ", ".join(plan.job.name for plan in self._world.plans) or "none"
                raise ConfigError(f"no job is called {job}", subject=job, hint=f"jobs: {known}")
            if self._draining or not self._planning:
                why = "it is ending" if self._draining else self._leader.problem or "it has not asked the store yet"
                raise LeaseError(f"this daemon plans no jobs: {why}", subject=job, hint="ask the one that does")
            now = self._world.ports.now()
            self._waiting.add(Due(job=plan.job, planned_at=now, not_before=now, why="asked"))
        self._inbox.put(None)

    def pause(self, *, paused: bool) -> None:
        """Stop or resume planning new runs; those under way go on. It does not outlast the daemon."""
        with self._lock:
            if paused == self._paused:
                return
            self._paused = paused
            _log.info("scheduler.paused" if paused else "scheduler.resumed")
            if paused:
                self._waiting.drop()
                self._scheduler.plan({}, self._world.ports.now())
            elif self._planning:
                self._plan_all("resumed")
        self._inbox.put(None)

    @property
    def ticked_at(self) -> float:
        """When the scheduler last looked for due jobs, by the monotonic clock."""
        return self._scheduler.ticked_at

    # What the heart and the lifecycle ask

    def lead(self) -> None:
        """Begin to plan: read the history and catch up once what was missed. Raises store errors: nothing began."""
        with self._lock:
            if self._planning or self._draining:
                return
            world = self._world
        records = self._notebook.read(world)
        with self._lock:
            if world is not self._world or self._draining:
                return
            self._notebook.take(records)
            self._planning = True
            self._plan_all("leading")
        _log.info("leader.gained", jobs=len(world.plans))
        self._listener.leads(leader=True)
        self._inbox.put(None)

    def step_down(self, why: str) -> None:
        """Plan nothing more: another daemon does. Runs under way go on, under leases of their own."""
        with self._lock:
            if not self._planning:
                return
            self._planning = False
            self._scheduler.plan({}, self._world.ports.now())
            self._waiting.drop()
        _log.warning("leader.lost", reason=why)
        self._listener.leads(leader=False, lost=True)

    def adopt(self, world: World, leader: Leader) -> None:
        """Go on with a new configuration and its leader; what runs ends as it began."""
        with self._lock:
            self._world, self._leader, self._notices = world, leader, ()
            self._planning = False
            self._reload_error = ""
            self._waiting.drop()
            self._scheduler.plan({}, world.ports.now())

    def notice(self, code: str, found: Notice | None) -> None:
        """Show this to people or, with None, no longer; it ends with the configuration in force anyway."""
        with self._lock:
            self._notices = (*(n for n in self._notices if n.code != code), *((found,) if found else ()))

    def refuse(self, why: str) -> None:
        """Take note that a new configuration was no good: the old one stays."""
        with self._lock:
            self._reload_error = why

    def follow(self) -> None:
        """Read what the leader has written, to show it; raises store errors."""
        self._notebook.take(self._notebook.read(self._world))

    def flush(self) -> None:
        """Write the history that could not be written before."""
        if self._planning and self._leader.still():
            self._notebook.flush(self._world)

    def drain(self) -> None:
        """Start nothing more; what waits is forgotten, as it is in the history or will be missed."""
        with self._lock:
            self._draining = True
            self._waiting.drop()
        self._scheduler.shutdown(wait=False)

    def running(self) -> list[Active]:
        """Return the runs under way."""
        with self._lock:
            return list(self._active.values())

    @property
    def alive(self) -> bool:
        """Whether the thread that starts jobs is there."""
        return self._dispatcher.is_alive()

    @property
    def writing(self) -> bool:
        """Whether a run that has ended is still being written down."""
        return self._unwritten > 0

    def cancel_all(self) -> None:
        """Ask every run to end and to undo what it began."""
        for active in self.running():
            active.asked = True
            active.process.ask()

    def kill_all(self) -> None:
        """End every process of a job at once."""
        for active in self.running():
            active.asked = True
            active.process.kill()

    def stop(self) -> None:
        """End the dispatcher."""
        self._stopped = True
        self._inbox.put(None)
        self._dispatcher.join(5)

    # Planning

    def _plan_all(self, why: str, expected: Mapping[str, datetime] | None = None) -> None:
        """Plan every job from now on, and put in once what was missed; the caller holds the lock.

        ``expected`` is when jobs were to run as planned before.
        """
        world = self._world
        now = world.ports.now()
        if not self._paused:
            running = {name: active.due.planned_at for name, active in self._active.items()}
            triggers, at_once = outset(
                world.plans, self._notebook.of, running, world.rules, now, expected=expected or {}
            )
            for due in at_once:
                self._waiting.add(due)
            self._scheduler.plan(triggers, now)
            self._scheduler.wakeup()
        _log.info("scheduler.planned", reason=why, jobs=len(world.plans), waiting=len(self._waiting))

    def _jumped(self, seconds: float) -> None:
        _log.warning("clock.jumped", seconds=round(seconds, 1))
        with self._lock:
            if self._planning and not self._draining:
                self._waiting.drop()
                planned = ((plan.job.name, self._scheduler.next_at(plan.job.name)) for plan in self._world.plans)
                self._plan_all("clock", {name: at for name, at in planned if at is not None})
        self._inbox.put(None)

    # Doing

    def _dispatch(self) -> None:
        while not self._stopped:
            try:
                with contextlib.suppress(queue.Empty):
                    item = self._inbox.get(timeout=self._wait_s())
                    while True:
                        if item is not None:
                            self._put_in(*item)
                        item = self._inbox.get_nowait()
                self._start_ready()
            except Exception:  # noqa: BLE001  # the outermost place of the thread: without it no job starts again
                _log.exception("dispatcher.failed")
                time.sleep(1)

    def _wait_s(self) -> float:
        with self._lock:
            now = self._world.ports.now()
            at = self._waiting.next_at(now)
        return WAKE_S if at is None else min(max((at - now).total_seconds(), _SHORTEST_WAIT_S), WAKE_S)

    def _put_in(self, job: str, planned_at: datetime) -> None:
        with self._lock:
            plan = self._world.plan_of(job)
            if plan is not None and self._planning and not self._paused and not self._draining:
                self._waiting.add(Due(job=plan.job, planned_at=planned_at, not_before=planned_at))

    def _start_ready(self) -> None:
        with self._lock:
            while not self._draining and self._planning:
                now = self._world.ports.now()
                jobs = [active.plan.job for active in self._active.values()]
                due = self._waiting.take(now, jobs, self._world.concurrency)
                if due is None:
                    return
                plan = self._world.plan_of(due.job.name)
                if plan is not None:
                    self._start(plan, due, now)

    def _start(self, plan: Plan, due: Due, now: datetime) -> None:
        job, world = plan.job, self._world
        attempt = self._notebook.of(job.name).failures + 1

        def heard(event: dict[str, Json]) -> None:
            phase, share = event.get("phase"), event.get("share")
            active.phase = phase if isinstance(phase, str) else ""
            active.progress = share if isinstance(share, float) else None

        process = process_of(world, job, self._listener, heard)
        active = Active(plan, due, world, now, world.ports.monotonic(), attempt, process)
        self._active[job.name] = active
        threading.Thread(target=self._work, args=(active,), name=f"drd-job-{job.name}", daemon=True).start()

    def _work(self, active: Active) -> None:
        """See one run through; the outermost place of a job."""
        job = active.plan.job
        log = _log.bind(job=job.name, **({"drill": job.subject} if job.kind == "drill" else {"source": job.subject}))
        if not self._leader.still(lambda error: log.warning("leader.unknown", reason=error.message)):
            with self._lock:
                self._active.pop(job.name, None)
            self.step_down(self._leader.problem)
            return
        log.info(
            "job.started", why=active.due.why, attempt=active.attempt, planned_at=active.due.planned_at.isoformat()
        )
        due, now = active.due, active.started_at
        worth = due.why == "asked" or planning.is_worth(
            due.planned_at, now, kind=job.kind, grace_s=active.plan.timing.grace_s
        )
        try:
            result = carry_out(active, self._listener) if worth else too_late(active)
        except Exception as bug:  # the outermost place of a job
            log.exception("job.broken")
            result = broken(active, bug)
        run = result.run
        say = log.info if run.outcome in {"ok", "cancelled", "skipped"} else log.error
        say(
            "job.ended",
            outcome=run.outcome,
            exit_code=run.exit_code,
            duration_s=round(run.duration_s, 3),
            **{name: value for name in ("backup", "run", "message", "hint") if (value := getattr(run, name))},
        )
        self._listener.job_ended(run)
        self._note(active, run, final=result.final)
        self._ended(run)

    def _note(self, active: Active, run: JobRun, *, final: bool) -> None:
        """Write a run down, here and in the store, and plan its retry."""
        name = run.job
        with self._lock:
            self._active.pop(name, None)
            self._unwritten += 1
            world = self._world
            record = planning.after_run(
                self._notebook.of(name),
                run,
                world.rules,
                tries=active.due.tries,
                final=final,
                next_at=self._scheduler.next_at(name) if self._planning and not self._paused else None,
                draw=self._draw(),
            )
            known = world.plan_of(name) is not None
            if known:
                self._notebook.put(name, record)
            retry = record.retry if known else None
            if retry is not None and self._planning and not self._paused and not self._draining:
                self._waiting.add(
                    Due(
                        job=active.plan.job,
                        planned_at=retry.planned_at,
                        not_before=retry.not_before,
                        why="retry",
                        tries=retry.tries,
                    )
                )
        self._inbox.put(None)
        try:
            if not self._leader.still():
                self.step_down(self._leader.problem)
                self._notebook.keep(name)
            elif known:
                self._notebook.save(world, name)
        finally:
            with self._lock:
                self._unwritten -= 1

    # Showing

    def _view(self, plan: Plan) -> JobView:
        name = plan.job.name
        planned_at = self._scheduler.next_at(name) if self._planning and not self._paused else None
        return view_of(
            plan,
            self._notebook.of(name),
            active=self._active.get(name),
            due=self._waiting.of(name),
            planned_at=planned_at,
        )
