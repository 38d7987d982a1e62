"""What the board says of one job: pure, from what the desk knows of it."""

from __future__ import annotations

from datetime import datetime

from drd.daemon.model import JobView, Plan
from drd.daemon.planning import Record
from drd.daemon.waiting import Due
from drd.daemon.work import Active


def view_of(
    plan: Plan, record: Record, *, active: Active | None, due: Due | None, planned_at: datetime | None
) -> JobView:
    """Return the view of a job: ``active`` is its run under way, ``due`` what waits of it."""
    times = [at for at in (planned_at, due.not_before if due else None) if at is not None]
    next_at = min(times, default=None)
    return JobView(
        job=plan.job,
        next_run_at=next_at,
        retry=due is not None and due.why == "retry" and due.not_before == next_at,
        running_since=active.started_at if active else None,
        phase=active.phase if active else "",
        progress=active.progress if active else None,
        failures=record.failures,
        runs=record.runs,
    )
