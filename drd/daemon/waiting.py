"""The jobs that are due: who waits, and who may start. Pure bookkeeping without a clock; one thread at a time uses it.

A job is in it at most once (runs that fall due meanwhile are one run), jobs of one subject's data are done one after
the other, and no more than a number at once. Who waits longest starts first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from drd.daemon.model import Job

Why = Literal["planned", "retry", "missed", "asked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """That a job is to run, not before a time. ``tries`` counts retries since the planned run."""

    job: Job
    planned_at: datetime
    not_before: datetime
    why: Why = "planned"
    tries: int = 0


def resource_of(job: Job) -> str:
    """Return what two jobs must not work on at once: a source's data, or one drill."""
    return f"drill/{job.subject}" if job.kind == "drill" else f"source/{job.subject}"


class Waiting:
    """The jobs that wait, in the order they came."""

    def __init__(self) -> None:
        self._due: dict[str, Due] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, due: Due) -> None:
        """Put a job in; one that waits already keeps its place and starts at the earlier of both times.

        A planned run takes the place of a retry of an earlier one: its retries count from the beginning.
        """
        before = self._due.get(due.job.name)
        if before is None:
            self._due[due.job.name] = due
            return
        kept = due if before.why == "retry" else before
        self._due[due.job.name] = replace(kept, not_before=min(before.not_before, due.not_before))

    def of(self, job: str) -> Due | None:
        """Return what waits of a job."""
        return self._due.get(job)

    def take(self, now: datetime, running: Iterable[Job], at_once: int) -> Due | None:
        """Take out who may start now, None when nobody may."""
        busy = {resource_of(job) for job in running}
        if len(busy) >= at_once:
            return None
        for name, due in self._due.items():
            if due.not_before <= now and resource_of(due.job) not in busy:
                return self._due.pop(name)
        return None

    def next_at(self, after: datetime) -> datetime | None:
        """Return when the next job that is not due yet will be."""
        return min((due.not_before for due in self._due.values() if due.not_before > after), default=None)

    def drop(self, kept: Iterable[str] = ()) -> None:
        """Forget all jobs but those named."""
        names = set(kept)
        self._due = {name: due for name, due in self._due.items() if name in names}
