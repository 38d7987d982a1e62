"""Answer the one question: could we recover now, and to when?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from drd.drills.history import History
from drd.drills.report import DrillRun
from drd.errors import StoreForbidden
from drd.model import BackupHead, Notice
from drd.ops.choosing import choose_whole
from drd.ops.coverage import Coverage, coverage
from drd.ops.ports import Ports
from drd.ops.presence import why_no_repository
from drd.repository.catalog import Survey
from drd.repository.planning import broken_chain
from drd.timing import CLOCK_SLACK

DRILLS_UNREAD = "drill-reports-unread"
"""Code of the notice that this identity may not read reports of drills: nobody knows here what they proved."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What the store holds of one source. ``within_rpo`` is None where no RPO is configured.

    ``damaged`` counts what cannot be restored by its manifest or an ancestor's; ``newest`` and ``oldest`` can be.
    ``from_future`` backups have a recovery point that is yet to come, as a clock was wrong: none is the newest before
    its time, or it would hide for so long that no backup is taken. ``untrusted`` backups are not signed by anyone who
    is believed, or in the clear where backups are encrypted: they are in none of the other numbers. ``drills_unread``:
    this identity may not read reports of drills, so that a source without ``last_drill`` may have been proven.
    """

    source: str
    configured: bool
    backups: int
    damaged: int
    newest: BackupHead | None
    oldest: BackupHead | None
    age_s: float | None
    rpo_s: float | None
    unfinished: int
    coverage: Coverage
    untrusted: int = 0
    from_future: int = 0
    last_drill: DrillRun | None = None
    drills_unread: bool = False

    @property
    def within_rpo(self) -> bool | None:
        """Whether the newest backup is as young as the objective asks."""
        if self.rpo_s is None:
            return None
        return self.age_s is not None and self.age_s <= self.rpo_s


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The state of every configured source, and of those that only the store knows."""

    at: datetime
    sources: tuple[SourceStatus, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def drills_unread(self) -> bool:
        """Whether the reports of drills may not be read from here."""
        return any(item.drills_unread for item in self.sources)

    @property
    def proven_at(self) -> datetime | None:
        """Return since when all configured sources have passed their last drill; None when one has not."""
        drills = [s.last_drill for s in self.sources if s.configured]
        passed = [drill.finished_at for drill in drills if drill is not None and drill.verdict == "passed"]
        return min(passed) if passed and len(passed) == len(drills) else None

    @property
    def recoverable_to(self) -> datetime | None:
        """Return the oldest of the sources' newest recovery points: what all sources held then is not lost."""
        points = [s.newest.recovery_point for s in self.sources if s.configured and s.newest]
        complete = all(s.newest for s in self.sources if s.configured)
        return min(points) if points and complete else None

    @property
    def ask_for(self) -> datetime | None:
        """Return the time to ask a restore for that brings the newest backup of every source: the latest of them.

        At :attr:`recoverable_to` itself only the oldest of them is in reach; the others would come from one before.
        """
        points = [s.newest.recovery_point for s in self.sources if s.configured and s.newest]
        return max(points) if self.recoverable_to is not None else None


@dataclass(frozen=True, slots=True)
class Look:
    """What lies in the store of one source. ``good`` backups can be restored, by their manifests; oldest point first.

    ``newest`` is the one that a restore would use at the time of the look; its manifest, and its ancestors', were read
    whole. ``damaged``, ``untrusted`` and ``unfinished`` are counts as in :class:`SourceStatus`.
    """

    good: tuple[BackupHead, ...]
    newest: BackupHead | None
    damaged: int
    untrusted: int
    unfinished: int
    coverage: Coverage


def look_at(ports: Ports, source: str, survey: Survey, now: datetime) -> Look:
    """Judge what a survey of a source found; reads the newest backup whole. Raises store errors."""
    # The one that would be restored is read whole: nobody shall hear "yes" because nobody looked.
    entries, choice = choose_whole(ports.catalog, survey.entries, now + CLOCK_SLACK, source)
    by_id = {entry.id: entry.backup for entry in entries if entry.backup}
    sound = (backup for backup in by_id.values() if not broken_chain(backup, by_id))
    good = tuple(sorted(sound, key=lambda b: b.recovery_point))
    return Look(
        good=good,
        newest=choice.backup if choice else None,
        damaged=sum(entry.distrusted is None for entry in entries) - len(good),
        untrusted=sum(entry.distrusted is not None for entry in entries),
        unfinished=len(survey.unfinished),
        coverage=coverage(ports, source, good),
    )


def status_of(
    source: str,
    look: Look,
    now: datetime,
    *,
    configured: bool,
    rpo_s: float | None,
    last_drill: DrillRun | None,
    drills_unread: bool = False,
) -> SourceStatus:
    """Say what a look means at ``now``."""
    newest = look.newest
    return SourceStatus(
        source=source,
        configured=configured,
        backups=len(look.good),
        damaged=look.damaged,
        newest=newest,
        oldest=look.good[0] if look.good else None,
        age_s=(now - newest.recovery_point).total_seconds() if newest else None,
        rpo_s=rpo_s,
        unfinished=look.unfinished,
        from_future=sum(b.recovery_point > now + CLOCK_SLACK for b in look.good),
        coverage=look.coverage,
        untrusted=look.untrusted,
        last_drill=last_drill,
        drills_unread=drills_unread,
    )


def unread_drills(error: StoreForbidden) -> Notice:
    """Say that reports of drills may not be read, as a host that only backs up should not: no reason to say nothing."""
    return Notice(
        DRILLS_UNREAD, f"what drills proved is not known here, as their reports may not be read: {error.message}"
    )


def status(ports: Ports, configured: Sequence[tuple[str, float | None]]) -> StatusReport:
    """Say per source what could be recovered. ``configured``: names with their RPO in seconds, or None."""
    now = ports.now()
    rpo_of = dict(configured)
    names = [*rpo_of, *(name for name in ports.catalog.sources() if name not in rpo_of)]
    drills, notices = dict[str, DrillRun](), list[Notice]()
    try:
        drills = History(ports.store, ports.catalog.signing).last_of(names)
    except StoreForbidden as error:
        notices.append(unread_drills(error))
    out: list[SourceStatus] = []
    for name in names:
        look = look_at(ports, name, ports.catalog.survey(name), now)
        known, last, unread = name in rpo_of, drills.get(name), bool(notices)
        out.append(
            status_of(name, look, now, configured=known, rpo_s=rpo_of.get(name), last_drill=last, drills_unread=unread)
        )
    absent = None if any(item.backups for item in out) else why_no_repository(ports)
    notices += [Notice("no-repository", f"{absent.message}; {absent.hint}")] if absent else []
    return StatusReport(now, tuple(out), tuple(notices))
