"""What can be said of every source now: put together from the store, the drills and the scheduler, and kept warm.

The store is asked on heartbeats and after jobs, in a thread of the daemon's. Page and metrics read
:meth:`Overviews.now`, which asks nobody but the scheduler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from drd.daemon.model import Board, JobView, Overview, SourceView
from drd.daemon.warm_drills import WarmDrills
from drd.daemon.warm_sources import WarmSources
from drd.drills.history import History
from drd.drills.report import DrillRun
from drd.errors import DrdError, StoreForbidden
from drd.model import Notice
from drd.ops.coverage import Coverage
from drd.ops.ports import Ports
from drd.ops.presence import why_no_repository
from drd.ops.status import Look, status_of, unread_drills

SOURCES_A_TURN = 25
"""Looked at on one heartbeat, besides those of which something is new: 200 sources take eight."""
NOT_YET = "the store was not read yet"


@dataclass(frozen=True, slots=True)
class Watched:
    """A configured source: its name, kind of database, and RPO in seconds, None where it has none."""

    name: str
    engine: str
    rpo_s: float | None = None


class Overviews:
    """Keeps the overview of one repository. Thread-safe; :meth:`refresh` by one caller at a time, others wait.

    ``board`` returns what the scheduler knows, quickly, or None where there is none; ``drills`` are the names of the
    configured drills. ``before`` is shown until the store was read: after a reload nobody shall see less for a moment.
    Memory is bounded: see :mod:`drd.daemon.warm_sources` and :mod:`drd.daemon.warm_drills`.
    """

    def __init__(
        self,
        ports: Ports,
        watched: Sequence[Watched],
        drills: Sequence[str],
        board: Callable[[], Board | None],
        *,
        before: Overview | None = None,
    ) -> None:
        self._ports = ports
        self._watched = {source.name: source for source in watched}
        self._drill_names = tuple(drills)
        self._board = board
        self._before = before
        self._sources, self._drills = WarmSources(), WarmDrills()
        self._refreshing = threading.Lock()
        self._read: _Reading | None = None
        self._error = NOT_YET

    def refresh(self, changed: Collection[str] = (), *, whole: bool = False) -> str:
        """Ask the store what is new, first of the sources ``changed``; return why that failed, or nothing.

        With ``whole`` everything is read again of them (after a prune). Every call looks at some of the other sources
        as well, so that what others do to the store is seen within minutes. When the store fails, the overview stays
        as it was, with the error.
        """
        with self._refreshing:
            try:
                self._read = self._ask(changed, whole=whole)
            except DrdError as error:
                self._error = error.message
            else:
                self._error = ""
            return self._error

    def now(self) -> Overview:
        """Return what is known, with the scheduler's board of this moment; never waits for the store.

        Ages are as of this moment. Before the first success it has no sources and an error.
        """
        at, board, read = self._ports.now(), self._board(), self._read
        if read is None:
            before = self._before or Overview(at=at, sources=(), known=False)
            return replace(before, board=board, error=self._error)
        jobs = _by_subject(board.jobs if board else ())
        drills = _by_source(read.drills)
        views = tuple(
            self._view(name, look, at, drills.get(name, ()), jobs.get(name, ()), drills_unread=read.drills_unread)
            for name, look in read.looks.items()
        )
        return Overview(
            at=read.at, sources=views, drills=read.drills, board=board, error=self._error, notices=read.notices
        )

    def _ask(self, changed: Collection[str], *, whole: bool) -> _Reading:
        ports = self._ports
        at = ports.now()
        self._sources.refresh(ports, tuple(self._watched), changed, limit=SOURCES_A_TURN, whole=whole)
        unread: tuple[Notice, ...] = ()
        try:
            self._drills.refresh(History(ports.store, ports.catalog.signing), self._drill_names, at)
        except StoreForbidden as error:  # a host that only backs up: it shall still see its backups
            unread = (unread_drills(error),)
        looks = {name: look or _unknown(name) for name, look in self._sources.looks().items()}
        notices = (*self._sources.notices(), *self._drills.notices(), *unread)
        if not any(look.good for look in looks.values()) and (absent := why_no_repository(ports)):
            notices = (Notice("no-repository", f"{absent.message}; {absent.hint}"), *notices)
        return _Reading(at, looks, self._drills.newest_first(), notices, drills_unread=bool(unread))

    def _view(
        self,
        name: str,
        look: Look,
        at: datetime,
        drills: tuple[DrillRun, ...],
        jobs: tuple[JobView, ...],
        *,
        drills_unread: bool,
    ) -> SourceView:
        known = self._watched.get(name)
        last = drills[0] if drills else None
        rpo_s = known.rpo_s if known else None
        gaps = [view.job.longest_gap_s for view in jobs if view.job.kind == "backup"]
        return SourceView(
            name=name,
            engine=known.engine if known else next((head.engine for head in look.good[-1:]), "unknown"),
            status=status_of(
                name,
                look,
                at,
                configured=known is not None,
                rpo_s=rpo_s,
                last_drill=last,
                drills_unread=drills_unread,
            ),
            backups=look.good,
            drills=drills,
            jobs=jobs,
            longest_gap_s=min(gaps, default=None),
        )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one refresh found."""

    at: datetime
    looks: dict[str, Look]
    drills: tuple[DrillRun, ...]
    notices: tuple[Notice, ...]
    drills_unread: bool


def _unknown(source: str) -> Look:
    return Look((), None, 0, 0, 0, Coverage(source, 0, 0, None, 0, "it could not be read"))


def _by_subject(views: Iterable[JobView]) -> dict[str, tuple[JobView, ...]]:
    """Group the jobs of sources by the source."""
    out: dict[str, tuple[JobView, ...]] = {}
    for view in views:
        if view.job.kind != "drill":
            out[view.job.subject] = (*out.get(view.job.subject, ()), view)
    return out


def _by_source(runs: Iterable[DrillRun]) -> dict[str, tuple[DrillRun, ...]]:
    grouped: dict[str, list[DrillRun]] = {}
    for run in runs:
        grouped.setdefault(run.source, []).append(run)
    return {name: tuple(found) for name, found in grouped.items()}
