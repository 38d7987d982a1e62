"""What a daemon will do next and how its last attempts went, as the store tells someone who is not that daemon."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from drd.daemon.history import History
from drd.daemon.leader import LEASE_NAME
from drd.daemon.model import JobRun, Plan
from drd.daemon.planning import Record, last_planned
from drd.daemon.triggers import PlannedTrigger
from drd.errors import StoreError
from drd.ops.ports import Ports
from drd.repository import lease as leases
from drd.repository.fields import Malformed

_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """The next backup of a source. ``retry``: it is one that failed, tried again. ``failed``: the last attempt did."""

    next_at: datetime | None
    retry: bool = False
    failed: JobRun | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is planned, by source. ``running``: whether a daemon is there to do it; ``problem``: why all is unknown."""

    running: bool = False
    sources: dict[str, Upcoming] = field(default_factory=dict)
    problem: str = ""


def outlook(ports: Ports, plans: Iterable[Plan], *, lease_ttl_s: float) -> Outlook:
    """Ask the store about the planned backups; raises store errors that may pass.

    A role that may not read leases or the jobs' history gets an outlook with the problem.
    """
    backups = [plan for plan in plans if plan.job.kind == "backup"]
    now, history = ports.now(), History(ports.store)
    try:
        running = leases.is_held(ports.store, LEASE_NAME, ttl_s=lease_ttl_s, now=now, holder=ports.holder)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="drd-outlook") as pool:
            records = list(pool.map(lambda plan: _record(history, plan.job.name), backups))
    except StoreError as error:
        if error.retryable:
            raise
        return Outlook(problem=error.message)
    found: dict[str, list[Upcoming]] = {}
    for plan, record in zip(backups, records, strict=True):
        found.setdefault(plan.job.subject, []).append(_upcoming(plan, record, now))
    return Outlook(running=running, sources={name: _first(several) for name, several in found.items()})


def _record(history: History, job: str) -> Record:
    """Read a job's record; one that cannot be understood tells nothing, as to the daemon itself."""
    try:
        return history.of(job)
    except Malformed:
        return Record()


def _upcoming(plan: Plan, record: Record, now: datetime) -> Upcoming:
    last = record.runs[0] if record.runs else None
    failed = last if last is not None and last.outcome == "failed" else None
    if record.retry is not None:
        return Upcoming(next_at=max(record.retry.not_before, now), retry=True, failed=failed)
    anchor = last_planned(record, now)
    if anchor is None and plan.timing.cron is None:  # counts from the daemon's start
        return Upcoming(next_at=None, failed=failed)
    return Upcoming(next_at=PlannedTrigger(plan.timing, plan.job.name, anchor or now).after(now), failed=failed)


def _first(several: list[Upcoming]) -> Upcoming:
    """Return what comes first of several schedules, with the latest attempt where that failed."""
    known = [item for item in several if item.next_at is not None]
    first = min(known, key=lambda item: (item.next_at is None, item.next_at), default=several[0])
    runs = [item.failed for item in several if item.failed is not None]
    failed = max(runs, key=lambda run: run.finished_at, default=None)
    return Upcoming(next_at=first.next_at, retry=first.retry, failed=failed)
