"""One run of a job, from the start of its process to a line of history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from drd.daemon.history import stored_text
from drd.daemon.model import Job, JobRun, Listener, Plan, RunOutcome
from drd.daemon.runner import Ended, JobProcess
from drd.daemon.waiting import Due
from drd.daemon.world import World
from drd.errors import (
    Cancelled,
    CatalogError,
    DrdError,
    IntegrityError,
    JobError,
    LeaseError,
    PartialError,
)
from drd.events import Delivery, Event, PeerResult
from drd.model import Json
from drd.ops.announce import failed_events
from drd.ops.announce_drill import DrillSummary, drill_events
from drd.repository.layout import is_backup_id, new_backup_id

KILL_AFTER_S = 60.0
"""How long a job that was asked to end may take to undo what it began."""
DRILL_FAILED = 21
_log = structlog.get_logger("drd.daemon")


@dataclass
class Active:
    """A run under way. ``phase`` and ``progress`` are the job's own words, as of its last event.

    ``began_s`` is when it was started by the monotonic clock: the other one may be set meanwhile.
    """

    plan: Plan
    due: Due
    world: World
    started_at: datetime
    began_s: float
    attempt: int
    process: JobProcess
    phase: str = ""
    progress: float | None = None
    asked: bool = field(default=False)


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, and whether trying it again cannot help."""

    run: JobRun
    final: bool


def process_of(world: World, job: Job, listener: Listener, heard: Any) -> JobProcess:
    """Make the process of a job; ``heard`` is called with each progress event."""

    def said(event: dict[str, Json]) -> None:
        if event.get("event") == "progress":
            heard(event)
        elif event.get("event") == "delivery":
            listener.told(_delivery(event))
        else:
            listener.job_said(job, event)

    return JobProcess(world.argv, environ=world.environ, folder=world.folder, said=said)


def carry_out(active: Active, listener: Listener) -> Result:
    """Run the process to its end and say what came of it; raises nothing that a job can cause."""
    plan, world = active.plan, active.world
    try:
        ended = active.process.run(world.request(plan), deadline_s=plan.deadline_s, grace_s=KILL_AFTER_S)
    except DrdError as error:
        outcome: RunOutcome = "cancelled" if active.asked else "failed"
        return _result(active, outcome, error.exit_code, error.message, error.hint, listener)
    return _judge(active, ended, listener)


def too_late(active: Active) -> Result:
    """Say that a run came so long after its time that it is left to the next one."""
    wait_s = (active.started_at - active.due.planned_at).total_seconds()
    message = f"its turn came {wait_s:.0f} s after its time, which is more than its misfire_grace"
    hint = "raise daemon.concurrency, or plan it for a quieter hour"
    return Result(_run(active, "skipped", 0, message, hint), final=True)


def broken(active: Active, bug: Exception) -> Result:
    """Say that drd itself is at fault."""
    active.process.kill()
    message = f"unexpected {type(bug).__name__}: {bug}"
    hint = "this is a bug in drd: please report it"
    return Result(_run(active, "failed", DrdError.exit_code, message, hint), final=False)


def _judge(active: Active, ended: Ended, listener: Listener) -> Result:
    report = ended.report
    if ended.late and (report is None or report.get("exit_code") != 0):
        message = f"not done within its deadline of {active.plan.deadline_s:.0f} s, and stopped"
        hint = "look what the server waits for, or raise the deadline of the schedule or source"
        return _result(active, "failed", JobError.exit_code, message, hint, listener)
    if report is None:
        outcome: RunOutcome = "cancelled" if active.asked else "failed"
        code = Cancelled.exit_code if active.asked else JobError.exit_code
        how = f"by signal {-ended.status}" if ended.status < 0 else f"with exit code {ended.status}"
        hint = "look at its last lines in the daemon's log, and for the kernel's out-of-memory killer"
        return _result(active, outcome, code, f"the job's process ended {how}, without a report", hint, listener)
    code = _number(report.get("exit_code"))
    error = report.get("error")
    told: Mapping[str, Json] = error if isinstance(error, dict) else {}
    words = (_text(told, "message"), _text(told, "hint"))
    final = code in {DRILL_FAILED, IntegrityError.exit_code} and active.plan.job.kind in {"drill", "verify"}
    nothing_yet = code == CatalogError.exit_code and active.plan.job.kind in {"verify", "prune"}
    return _result(
        active, _outcome(code, nothing_yet), code, *words, listener, report=report, final=final or nothing_yet
    )


def _outcome(code: int, nothing_yet: bool) -> RunOutcome:  # noqa: FBT001
    if code == 0:
        return "ok"
    if code == PartialError.exit_code:
        return "partial"
    if code == Cancelled.exit_code:
        return "cancelled"
    return "skipped" if code == LeaseError.exit_code or nothing_yet else "failed"


def _result(
    active: Active,
    outcome: RunOutcome,
    code: int,
    message: str,
    hint: str,
    listener: Listener,
    *,
    report: Mapping[str, Json] | None = None,
    final: bool = False,
) -> Result:
    """Make the line of history; tell of a failed backup or drill where its process could not do so itself."""
    if outcome == "failed" and report is None and (events := _untold(active, JobError(message, hint=hint))):
        listener.told(active.world.notifier.notify(events))
    return Result(_run(active, outcome, code, message, hint, report), final)


def _untold(active: Active, error: JobError) -> tuple[Event, ...]:
    """Return what to tell of a job whose process died: a backup that failed, a drill that proves nothing."""
    world, job = active.world, active.plan.job
    now = world.ports.now()
    if job.kind == "drill":
        summary = DrillSummary(
            drill=job.subject,
            at=now,
            verdict="unverified",
            sources=tuple(world.drilled.get(job.subject, ())),
            trials=(),
            error=error.message,
            hint=error.hint,
        )
        return drill_events(summary, new_backup_id(now))
    engine = world.engine_of(job.subject)
    return failed_events({job.subject: engine}, error, now) if job.kind == "backup" and engine else ()


def _run(
    active: Active, outcome: RunOutcome, code: int, message: str, hint: str, report: Mapping[str, Json] | None = None
) -> JobRun:
    """Make the line of history: by the clock as it is now, and as long as it took whatever happened to that clock."""
    job, ports = active.plan.job, active.world.ports
    ended_at = ports.now()
    return JobRun(
        job=job.name,
        kind=job.kind,
        subject=job.subject,
        planned_at=active.due.planned_at,
        started_at=ended_at - timedelta(seconds=ports.monotonic() - active.began_s),
        finished_at=ended_at,
        outcome=outcome,
        attempt=active.attempt,
        exit_code=code,
        message=stored_text(message),
        hint=stored_text(hint),
        backup=_id(report, "backup"),
        run=_id(report, "run"),
    )


def _delivery(event: Mapping[str, Json]) -> Delivery:
    told = event.get("peers")
    peers = [
        PeerResult(
            _text(peer, "peer"),
            "ok" if peer.get("outcome") == "ok" else "failed",
            _number(peer.get("attempts")),
            _text(peer, "message"),
        )
        for peer in (told if isinstance(told, list) else [])
        if isinstance(peer, dict)
    ]
    return Delivery(_number(event.get("events")), tuple(peers))


def _id(report: Mapping[str, Json] | None, name: str) -> str:
    value = (report or {}).get(name)
    return value if isinstance(value, str) and is_backup_id(value) else ""


def _text(values: Mapping[str, Json], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _number(value: Json) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 1
