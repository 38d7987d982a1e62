"""From start to end: signals, readiness, reload, and an end that leaves nothing half done.

The main thread does nothing but this. Signals only put a number in a queue (``SimpleQueue.put`` may be called where
anything was interrupted); they are acted upon here, one after the other.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import structlog

from drd.cancel import CancelToken
from drd.daemon.desk import Desk
from drd.daemon.heart import Heart
from drd.daemon.leader import Leader
from drd.daemon.model import JobRun, Listener, Overview
from drd.daemon.overview import Overviews
from drd.daemon.scheduler import WAKE_S
from drd.daemon.systemd import ServiceManager
from drd.daemon.work import KILL_AFTER_S
from drd.daemon.world import World
from drd.errors import Cancelled, DrdError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WRITE_S = 10.0
"""How long the history of the last runs may take to be written when the daemon ends."""
_LOOK_S = 1.0
_STUCK_S = 4 * WAKE_S
_SAME_S = 0.3
_log = structlog.get_logger("drd.daemon")


class Shown(Protocol):
    """What shows the daemon to the outside, while it is entered."""

    def adopt(self) -> str:
        """Follow a new configuration; return why that cannot be, or nothing."""

    def tick(self) -> None:
        """Do what is due; called about once a second."""


class Daemon:
    """The running daemon. ``load`` makes a world of the configuration as it is now; raises ConfigError.

    ``desk`` is its :class:`~drd.daemon.model.Controls`, :meth:`overview` what is known of every source, ``heart`` knows
    whether the store answers. ``serve`` is entered while it runs: health, metrics and page. ``watchdog_s`` is how often
    systemd wants to hear of it, 0 for never.
    """

    def __init__(
        self,
        load: Callable[[], World],
        *,
        listener: Listener,
        serve: Callable[[Daemon], AbstractContextManager[Shown]],
        manager: ServiceManager,
        watchdog_s: float,
        cancel: CancelToken,
    ) -> None:
        self._load = load
        self._listener = listener
        self._serve = serve
        self._manager = manager
        self._watchdog_s = watchdog_s
        self._cancel = cancel
        self.world = load()
        self._leader = Leader(self.world.ports, ttl_s=self.world.lease_ttl_s, cancel=cancel)
        self.desk = Desk(self.world, self._leader, listener=listener, ended=self._ran)
        self.heart = Heart(self.world, self._leader, self.desk, listener=listener, refresh=self._refresh)
        self._overviews = self._overviews_of(self.world)
        self._alive_at = 0.0

    def run(self) -> int:
        """Run until a signal ends it; return the exit code: 0 after a clean end, 130 after a forced one."""
        with _signals() as signals, self._serve(self) as shown:
            self.desk.start()
            self.heart.start()
            _log.info("daemon.started", jobs=len(self.world.plans), pid=os.getpid())
            self._say_notices()
            self._manager.ready()
            while True:
                number = _next(signals, _LOOK_S)
                if number == signal.SIGHUP:
                    self.reload(shown)
                elif number is not None:
                    return self._end(signals, number)
                self._show_life()
                shown.tick()

    def reload(self, shown: Shown) -> None:
        """Take the configuration as it is now, as a whole; when anything is wrong with it, the old one stays."""
        self._manager.reloading(time.monotonic_ns() // 1000)
        try:
            world = self._load()
        except DrdError as error:
            _log.error("config.refused", reason=error.message, hint=error.hint)
            self.desk.refuse(error.message)
            self._listener.reloaded(ok=False)
        else:
            old, leader = self.world, self._leader
            self.world = world
            self._leader = Leader(world.ports, ttl_s=world.lease_ttl_s, cancel=self._cancel)
            self.desk.adopt(world, self._leader)
            self._overviews = self._overviews_of(world, self._overviews.now())

            def retire() -> None:
                leader.release()
                old.close()

            self.heart.adopt(world, self._leader, retire)
            if refusal := shown.adopt():
                self.desk.refuse(f"daemon.listen: {refusal}")
            _log.info("config.reloaded", jobs=len(world.plans))
            self._say_notices()
            self._listener.reloaded(ok=not refusal)
        self._manager.ready()

    def _say_notices(self) -> None:
        """Log what a person should know of the configuration in force; the page shows it too."""
        for notice in self.world.notices:
            _log.warning("config.notice", code=notice.code, reason=notice.message)

    def overview(self) -> Overview:
        """Return what is known of every source now; never waits for the store."""
        return self._overviews.now()

    def _overviews_of(self, world: World, before: Overview | None = None) -> Overviews:
        return Overviews(world.ports, world.watched, world.drills, self.desk.board, before=before)

    def _refresh(self) -> Overview:
        self._overviews.refresh()
        return self._overviews.now()

    def _ran(self, run: JobRun) -> None:
        """Look at what a run has changed."""
        if run.kind == "drill":
            self._overviews.refresh()
        else:
            self._overviews.refresh([run.subject], whole=run.kind == "prune")

    def _show_life(self) -> None:
        """Tell systemd that the daemon lives, if its scheduler does."""
        now = time.monotonic()
        if self._watchdog_s and now - self._alive_at >= self._watchdog_s / 3:
            if now - self.desk.ticked_at < _STUCK_S and self.desk.alive and self.heart.alive:
                self._manager.alive()
                self._alive_at = now
            else:
                _log.error("scheduler.stuck", seconds=round(now - self.desk.ticked_at))

    def _end(self, signals: queue.SimpleQueue[int], number: int) -> int:
        """Start nothing more, give what runs its time, then have it undone; a second signal ends everything at once."""
        began = time.monotonic()
        grace_s = self.world.grace_s
        self._manager.stopping()
        self._manager.extend(grace_s + 2 * KILL_AFTER_S)
        self.desk.drain()
        running = [active.plan.job.name for active in self.desk.running()]
        _log.info("daemon.draining", signal=signal.Signals(number).name, running=running, grace_s=grace_s)
        asked = False
        while self.desk.running():
            second = _next(signals, 0.1)
            waited = time.monotonic() - began
            if second in {signal.SIGTERM, signal.SIGINT} and waited > _SAME_S:
                return self._end_at_once()
            if not asked and waited >= grace_s:
                asked = True
                _log.warning("daemon.cancelling", running=[a.plan.job.name for a in self.desk.running()])
                self.desk.cancel_all()
            if waited >= grace_s + KILL_AFTER_S:
                self.desk.kill_all()
        written_by = time.monotonic() + WRITE_S
        while self.desk.writing and time.monotonic() < written_by:
            time.sleep(0.02)
        self.heart.stop()
        self._cancel.cancel()  # nobody waits for a store that is away
        self._leader.release()
        self.desk.stop()
        self.world.close()
        _log.info("daemon.ended", duration_s=round(time.monotonic() - began, 3))
        return 0

    def _end_at_once(self) -> int:
        _log.warning("daemon.forced", running=[active.plan.job.name for active in self.desk.running()])
        self.desk.kill_all()
        return Cancelled.exit_code


def _next(signals: queue.SimpleQueue[int], wait_s: float) -> int | None:
    try:
        return signals.get(timeout=wait_s)
    except queue.Empty:
        return None


@contextmanager
def _signals() -> Iterator[queue.SimpleQueue[int]]:
    """Have signals put into a queue, in the main thread's name; what was in force before comes back."""
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = {number: signal.signal(number, lambda n, _: arrived.put(n)) for number in _SIGNALS}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
