"""The heartbeat: who leads, is the store there, what is new; and whether all parts of the daemon still move."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

import structlog

from drd.daemon.desk import Desk
from drd.daemon.lateness import LateAlerts
from drd.daemon.leader import Leader
from drd.daemon.model import Listener, Overview
from drd.daemon.world import World
from drd.errors import Cancelled, CatalogError, DrdError, StoreForbidden
from drd.model import Notice

ONLY_IF_ABSENT = "store: conditional put"
FOLLOW_BEATS = 5
_log = structlog.get_logger("drd.daemon")


class Heart:
    """A thread that asks the store every while. ``refresh`` is called when it answered, and returns what is so now."""

    def __init__(
        self, world: World, leader: Leader, desk: Desk, *, listener: Listener, refresh: Callable[[], Overview]
    ) -> None:
        self._world = world
        self._leader = leader
        self._desk = desk
        self._listener = listener
        self._refresh = refresh
        self._late = LateAlerts(listener.told)
        self._tried = False
        self._folder_notice: Notice | None = None
        self._were_late: list[str] = []
        self._poked = threading.Event()
        self._stop = threading.Event()
        self._next: queue.SimpleQueue[tuple[World, Leader, Callable[[], None]]] = queue.SimpleQueue()
        self._beats_behind = 0
        self._repository: str | None = None
        self._thread = threading.Thread(target=self._beat_on, name="drd-heart", daemon=True)
        self.store_error = ""
        """Why the store did not answer the last time it was asked, or empty."""
        self._away_as: type[DrdError] | None = None
        self._answered_s: float | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def poke(self) -> None:
        """Beat at once."""
        self._poked.set()

    def adopt(self, world: World, leader: Leader, retire: Callable[[], None]) -> None:
        """Go on with a new configuration; ``retire`` is called, in this thread, before the first beat of the new one.

        Returns at once: a beat of the old one may be waiting for a store that is away.
        """
        self._next.put((world, leader, retire))
        self.poke()

    @property
    def alive(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    @property
    def silent_s(self) -> float | None:
        """How long ago the store last answered, by the monotonic clock; None when it never did."""
        answered_s = self._answered_s
        return None if answered_s is None else self._world.ports.monotonic() - answered_s

    def stop(self) -> None:
        """End; a beat that waits for the store is left to the daemon's end."""
        self._stop.set()
        self._poked.set()
        self._thread.join(2)

    def _beat_on(self) -> None:
        while not self._stop.is_set():
            try:
                self._adopt_newest()
                self._look_at_folder()
                self._beat()
            except Exception:  # noqa: BLE001  # the outermost place of the thread: without it nobody leads
                _log.exception("heart.failed")
            self._poked.wait(min(self._world.heartbeat_s, self._world.lease_ttl_s / 2))
            self._poked.clear()

    def _adopt_newest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._world, self._leader, retire = self._next.get_nowait()
                self._tried = False
                self._folder_notice = None
                self._repository = None  # another place may be meant now
                retire()

    def _beat(self) -> None:
        world = self._world
        try:
            self._demand_same_repository(world)
            leads = self._leader.look()
            if leads:
                self._desk.lead()
                self._desk.flush()
            else:
                self._desk.step_down(self._leader.problem)
                self._follow()
        except Cancelled:
            return
        except DrdError as error:
            if not self.store_error or type(error) is not self._away_as:  # its words differ by how often it was tried
                _log.error("store.away", reason=error.message, hint=error.hint)
            self.store_error, self._away_as = error.message, type(error)
            return
        if self.store_error or self._answered_s is None:
            _log.info("store.answers", leader=leads)
        self.store_error, self._answered_s = "", world.ports.monotonic()
        self._listener.store_answered(world.ports.now())
        self._try_store(world)
        overview = self._refresh()
        if leads:
            board = self._desk.board()
            late = self._late.look(overview, board.started_at, world.ports.now(), world.notifier)
            if late != self._were_late:
                _log.warning("backups.late", sources=late) if late else _log.info("backups.in_time")
                self._were_late = late

    def _demand_same_repository(self, world: World) -> None:
        """Raise CatalogError, and plan nothing more, where the repository of before is gone: a disk that was unmounted.

        Else the next backup would make a new repository in the empty place, and fill whatever disk that is.
        """
        try:
            found = world.ports.repository.peek()
        except StoreForbidden:  # a role that may not read is kept from nothing else
            return
        if self._repository is None:
            self._repository = found.id if found else None
            return
        if found is not None and found.id == self._repository:
            return
        what = "is not there any more" if found is None else f"is another one now ({found.id})"
        error = CatalogError(
            f"the repository that this daemon works on ({self._repository}) {what}",
            hint="is its disk or share mounted? if the change is meant, restart the daemon or send it SIGHUP",
        )
        self._desk.step_down(error.message)
        raise error

    def _follow(self) -> None:
        """Read now and then what the leader has written, for this replica's own page and metrics."""
        if self._beats_behind % FOLLOW_BEATS == 0:
            self._desk.follow()
        self._beats_behind += 1

    def _try_store(self, world: World) -> None:
        """Find out, once, whether the store can keep two daemons apart, and say so where it cannot."""
        if self._tried:
            return
        self._tried = True
        for item in world.ports.store.check():
            if item.name == ONLY_IF_ABSENT and item.outcome == "warning":
                _log.warning("store.one_replica_only", reason=item.detail, hint=item.hint)
                told = Notice("one-replica-only", f"run one daemon only: {item.detail}")
                self._desk.notice(told.code, told)

    def _look_at_folder(self) -> None:
        """Say that no job can run for want of its folder, and when one can again."""
        found, before = self._world.look_at_folder(), self._folder_notice
        if found == before:
            return
        self._folder_notice = found
        if before is not None:
            self._desk.notice(before.code, None)
        if found is not None:
            self._desk.notice(found.code, found)
            _log.warning("config.notice", code=found.code, reason=found.message)
        elif before is not None:
            _log.info("config.notice_over", code=before.code)
