"""A repository in memory whose clock is turned by hand, for tests of what the daemon says of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drd.daemon.model import Board, Job, JobRun, JobView
from drd.daemon.overview import Overviews, Watched
from drd.drills.history import History
from drd.drills.report import DrillRun
from drd.drills.suite import Objectives
from drd.model import Backup, Finding
from drd.ops.ports import Ports
from drd.repository import layout
from tests.support.backups import describe
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class OverviewSite:
    """The store, ports over it at ``now``, the scheduler's ``board``; heads and reports are written, no data."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.store = HookedStore()
        self.ports: Ports = replace(make_ports(self.store, folder), now=lambda: self.now)
        self.board: Board | None = None

    def overviews(self, *watched: Watched | str, drills: tuple[str, ...] = ("nightly",)) -> Overviews:
        """Make the keeper of an overview; a name alone is a PostgreSQL source without an objective."""
        sources = [item if isinstance(item, Watched) else Watched(item, "postgres") for item in watched]
        return Overviews(self.ports, sources, drills, lambda: self.board)

    def later(self, **span: float) -> None:
        """Turn the clock."""
        self.now += timedelta(**span)

    def backup(self, source: str, **changes: object) -> Backup:
        """Publish a backup made now."""
        head = describe(backup_id=layout.new_backup_id(self.now), source=source, recovery_point=self.now)
        return self.ports.catalog.publish(replace(head, **{"plain_bytes": 1000, "stored_bytes": 400, **changes}))

    def drill(self, source: str, **changes: object) -> DrillRun:
        """Record a drill that ran just now, and passed unless ``changes`` say otherwise."""
        values: dict[str, object] = {
            "id": layout.new_backup_id(self.now), "drill": "nightly", "source": source, "how": "latest",
            "backup": None, "engine": "postgres", "verdict": "passed", "started_at": self.now - timedelta(seconds=90),
            "finished_at": self.now, "recovery_point": self.now, "newest_data": self.now - timedelta(seconds=100),
            "phases": {"choose": 0.5, "restore": 60.0}, "objectives": Objectives(1800.0, 3600.0),
            "checks": tuple(Finding(f"check {n}", "passed", "equal") for n in range(9)),
            "environment": {"runtime": "process"},
        }  # fmt: skip
        run = DrillRun(**{**values, **changes})  # type: ignore[arg-type]
        History(self.store, self.ports.catalog.signing).record(run)
        return run

    def read_keys(self) -> list[str]:
        """Return what was read from the store since the last call."""
        keys = [key for method, key in self.store.calls if method == "get"]
        self.store.calls.clear()
        return keys


def job_view(kind: str, subject: str, *, schedule: str = "hourly", gap_s: float = 3600.0, **values: object) -> JobView:
    """Make what a board says of a job; due in ten minutes of the site's first moment unless ``values`` say else."""
    name = f"{kind}/{schedule}/{subject}" if kind != "drill" else f"drill/{subject}"
    job = Job(name=name, kind=kind, schedule=schedule, subject=subject, longest_gap_s=gap_s)  # type: ignore[arg-type]
    return JobView(job=job, **{"next_run_at": START + timedelta(minutes=10), **values})  # type: ignore[arg-type]


def job_run(
    view: JobView, outcome: str = "ok", *, at: datetime = START, took_s: float = 5.0, **values: object
) -> JobRun:
    """Make one attempt of a job."""
    return JobRun(
        job=view.job.name,
        kind=view.job.kind,
        subject=view.job.subject,
        planned_at=at,
        started_at=at,
        finished_at=at + timedelta(seconds=took_s),
        outcome=outcome,  # type: ignore[arg-type]
        **values,  # type: ignore[arg-type]
    )


def board_of(*jobs: JobView, **values: object) -> Board:
    """Make the board of a scheduler that has run since the site's first moment."""
    given: dict[str, object] = {"at": START, "started_at": START, "state": "running", "paused": False, "jobs": jobs}
    return Board(**{**given, **values})  # type: ignore[arg-type]
