"""Say what is to be told of a run of backups: which states hold now, and which are over. Pure functions.

Three states a source: ``DrdBackupFailed`` (over with the next backup that exists), ``DrdBackupShrunken`` (over with
the next one that is not oddly small), and ``DrdBackupLate``, which a daemon tells of (over with one that is young
enough). Their labels are stable, so that the next run speaks of the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from drd.errors import Cancelled, DrdError, LeaseError
from drd.events import Event
from drd.model import BackupHead
from drd.ops.backup import BackupReport, SourceReport
from drd.repository.oddness import ODD_CODES
from drd.wording import when

BACKUP_FAILED = "DrdBackupFailed"
BACKUP_SHRUNKEN = "DrdBackupShrunken"
BACKUP_LATE = "DrdBackupLate"


def backup_events(report: BackupReport, at: datetime) -> tuple[Event, ...]:
    """Return what to tell of a run that ended at ``at``.

    A source that was interrupted is told of neither as failed nor as good: a person stopped it, and knows. Nor is one
    that another drd is at already: that one tells how it went.
    """
    return tuple(event for source in report.sources for event in _of_source(source, at))


def failed_events(engines: Mapping[str, str], error: DrdError, at: datetime) -> tuple[Event, ...]:
    """Return what to tell when a run ended before any source had its turn; ``engines`` are by source."""
    if isinstance(error, Cancelled):
        return ()
    return tuple(_failed(source, engine, error, at) for source, engine in engines.items())


def late_event(source: str, engine: str, why: str, newest: BackupHead | None, at: datetime) -> Event:
    """Return what to tell of the age of a source's newest backup: that it is late for the reason ``why``, or is not."""
    facts = {} if newest is None else {"backup": newest.id}
    good = f"the newest backup of {source} is young enough"
    return Event(
        name=BACKUP_LATE,
        nature="state",
        severity="critical",
        at=at,
        firing=bool(why),
        labels={"source": source, "engine": engine},
        annotations={
            "summary": f"a backup of {source} is late: {why}" if why else good,
            "description": f"At {at:%Y-%m-%d %H:%M:%S} UTC. Nobody need have failed: perhaps nothing ran.",
            "action": f"Look at the daemon, then: drd backup now {source}",
            **facts,
        }
        if why
        else {"summary": good, **facts},
    )


def _of_source(report: SourceReport, at: datetime) -> Sequence[Event]:
    if report.backup is None:
        if report.error is None or isinstance(report.error, (Cancelled, LeaseError)):
            return ()
        return (_failed(report.source, report.engine, report.error, at),)
    backup = report.backup
    labels = {"source": report.source, "engine": report.engine}
    good = f"{report.source} is backed up: {backup.id}"
    odd = [notice.message for notice in report.notices if notice.code in ODD_CODES]
    facts = {
        "backup": backup.id,
        "description": f"Recovery point {when(backup.recovery_point)}.",
    }
    failed = Event(
        name=BACKUP_FAILED,
        nature="state",
        severity="critical",
        at=at,
        firing=False,
        labels=labels,
        annotations={"summary": good, **facts},
    )
    shrunken = Event(
        name=BACKUP_SHRUNKEN,
        nature="state",
        severity="warning",
        at=at,
        firing=bool(odd),
        labels=labels,
        annotations={
            "summary": f"the backup of {report.source} holds oddly less: {odd[0].partition(';')[0]}",
            "description": "\n".join(odd),
            "backup": backup.id,
            "action": "Look whether data was lost before an older backup expires; keep that one with: drd pin BACKUP",
        }
        if odd
        else {"summary": f"{good}, of a usual size", **facts},
    )
    return failed, shrunken


def _failed(source: str, engine: str, error: DrdError, at: datetime) -> Event:
    return Event(
        name=BACKUP_FAILED,
        nature="state",
        severity="critical",
        at=at,
        labels={"source": source, "engine": engine},
        annotations={
            "summary": f"the backup of {source} failed: {error.message}",
            "description": f"At {when(at)}. Earlier backups are as they were.",
            "action": error.hint,
            "code": error.code,
        },
    )
