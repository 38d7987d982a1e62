"""The daemon's nouns: frozen values that its parts hand to each other. No I/O, no clock.

A *schedule* is what a person wrote down; it gives one *job* for each thing worked on (a source, a drill), so that each
is retried, counted and kept from overlapping by itself. A *run* is one attempt of a job. The *board* is what the
scheduler knows of all jobs at one moment, the *overview* what can be said of every source; page and metrics read both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from drd.drills.report import DrillRun
from drd.events import Delivery
from drd.model import BackupHead, Json, Notice
from drd.ops.status import SourceStatus
from drd.timing import Timing

JobKind = Literal["backup", "prune", "verify", "drill", "heartbeat"]
RunOutcome = Literal["ok", "partial", "failed", "cancelled", "skipped"]
"""``skipped``: another drd was at work on it, or this run of the schedule came too late to be worth it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing done again and again. ``name`` is unique: ``backup/hourly/trading-postgres``, ``drill/nightly``.

    ``subject`` is what it works on: a source, a drill, or empty for what concerns the whole repository.
    ``longest_gap_s`` is the longest time between two planned runs, for whoever asks whether one is missing.
    """

    name: str
    kind: JobKind
    schedule: str
    subject: str
    longest_gap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job with all that doing it needs: when it is due, how long a run may take, and the verb's options.

    ``options`` are words of the command line, such as ``--kind full``.
    """

    job: Job
    timing: Timing
    deadline_s: float
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """How one attempt went, in one line. ``backup`` or ``run`` names what it made, if anything.

    ``attempt`` counts from 1 since the last success; ``exit_code`` is what the same verb would have exited with;
    ``message`` and ``hint`` are of the error, without secrets or rows, and empty when there was none.
    """

    job: str
    kind: JobKind
    subject: str
    planned_at: datetime
    started_at: datetime
    finished_at: datetime
    outcome: RunOutcome
    attempt: int = 1
    exit_code: int = 0
    message: str = ""
    hint: str = ""
    backup: str = ""
    run: str = ""

    @property
    def duration_s(self) -> float:
        """How long it took."""
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """What the scheduler knows of a job now. ``next_run_at`` includes retries; None when it is paused.

    ``runs`` are the latest first; ``failures`` counts the failed ones since the last success. ``progress`` is a share
    from 0 to 1 of the run under way, None where it is not known; ``phase`` is a word for what it does.
    """

    job: Job
    next_run_at: datetime | None
    retry: bool = False
    running_since: datetime | None = None
    phase: str = ""
    progress: float | None = None
    failures: int = 0
    runs: tuple[JobRun, ...] = ()

    @property
    def last(self) -> JobRun | None:
        """The latest attempt."""
        return self.runs[0] if self.runs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The scheduler at one moment. ``reload_error`` is why the newest configuration was not taken, or empty.

    ``leader`` tells whether this replica plans jobs; ``history_error`` why the jobs' history could not be kept or read
    in the store, or empty.
    """

    at: datetime
    started_at: datetime
    state: Literal["starting", "running", "draining"]
    paused: bool
    jobs: tuple[JobView, ...]
    leader: bool = True
    configured_at: datetime | None = None
    reload_error: str = ""
    history_error: str = ""
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceView:
    """All there is to say of one source: its status, backups (oldest first), drill runs and jobs (latest first)."""

    name: str
    engine: str
    status: SourceStatus
    backups: tuple[BackupHead, ...] = ()
    drills: tuple[DrillRun, ...] = ()
    jobs: tuple[JobView, ...] = ()
    longest_gap_s: float | None = None
    """The longest time between two planned backups of it; None when no schedule has it."""

    @property
    def next_backup_at(self) -> datetime | None:
        """When its next backup is planned."""
        planned = [view.next_run_at for view in self.jobs if view.job.kind == "backup" and view.next_run_at]
        return min(planned, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the store and the scheduler say, as of ``at``. ``error`` is why it is older than it should be, or empty.

    ``drills`` are the newest runs of every drill, latest first.
    """

    at: datetime
    sources: tuple[SourceView, ...]
    drills: tuple[DrillRun, ...] = ()
    board: Board | None = None
    error: str = ""
    notices: tuple[Notice, ...] = field(default=())
    known: bool = True
    """False until the store was read once: then nothing is known, which is not the same as no backups."""

    @property
    def recoverable_to(self) -> datetime | None:
        """Return the oldest of the newest recovery points of all configured sources; None when one has none."""
        newest = [view.status.newest for view in self.sources if view.status.configured]
        points = [head.recovery_point for head in newest if head is not None]
        return min(points) if points and len(points) == len(newest) else None


class Listener(Protocol):
    """Who is told of what happens in the daemon, for its numbers. Called from any thread; quick, and raises nothing."""

    def job_ended(self, run: JobRun) -> None:
        """Take note of a run that ended, whatever its outcome."""

    def job_said(self, job: Job, event: Mapping[str, Json]) -> None:
        """Take note of an event of the job's process: ``store`` with its numbers, for instance."""

    def told(self, delivery: Delivery) -> None:
        """Take note of how telling the receivers went; a job's own telling comes through here as well."""

    def reloaded(self, *, ok: bool) -> None:
        """Take note of an attempt to take a new configuration."""

    def store_answered(self, at: datetime) -> None:
        """Take note that the store answered the heartbeat."""

    def leads(self, *, leader: bool, lost: bool = False) -> None:
        """Take note of who plans the jobs; ``lost`` when the lease was taken over from this replica."""


class Controls(Protocol):
    """What the outside may ask of the scheduler; thread-safe, and quick: nothing here waits for a job."""

    def board(self) -> Board:
        """Return what is known now."""

    def run_now(self, job: str) -> None:
        """Plan a run of the job for this moment; raises :class:`~drd.errors.ConfigError` for a name that is none."""

    def pause(self, *, paused: bool) -> None:
        """Stop or resume planning new runs; those under way go on."""
