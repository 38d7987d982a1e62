"""What is due, what was missed, and when to try again: pure decisions, handed every time and every random number.

The history of a job (:class:`Record`) is all that is remembered of it; it lies in the store, so whoever plans next,
here or elsewhere, decides the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from drd.daemon.model import JobKind, JobRun
from drd.timing import CLOCK_SLACK

MAX_RUNS = 100
"""As many runs of a job are remembered."""
NEAR_SHARE = 0.1
"""A backup that was missed for longer than its grace is not caught up if the next one comes within this share of its
longest gap."""

TICK = timedelta(microseconds=1)

After = Callable[[datetime], datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How failed jobs are tried again: after about ``first_s``, doubled up to ``longest_s``, ``attempts`` times."""

    first_s: float = 60.0
    longest_s: float = 3600.0
    attempts: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """That a run is to be tried again, not before a time. ``tries`` counts those since the planned run."""

    tries: int
    not_before: datetime
    planned_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is remembered of a job: its runs, latest first, how many failed since the last good one, and a retry."""

    runs: tuple[JobRun, ...] = ()
    failures: int = 0
    retry: Retry | None = None


def after_run(
    record: Record, run: JobRun, rules: Rules, *, tries: int, final: bool, next_at: datetime | None, draw: float
) -> Record:
    """Return the record with a run that ended.

    ``tries`` is how often the planned run was tried again before; ``final`` says that trying again cannot help (a drill
    that failed is evidence, not a hiccup). ``next_at`` is when the next planned run is due: where that is sooner than a
    retry, it is the retry. ``draw`` is a random number from 0 to 1.
    """
    failures = record.failures
    if run.outcome in {"ok", "partial"}:
        failures = 0
    elif run.outcome == "failed":
        failures += 1
    retry = _retry(run, rules, tries=tries, final=final, draw=draw)
    if retry is not None and next_at is not None and next_at <= retry.not_before:
        retry = None
    return Record(runs=(run, *record.runs)[:MAX_RUNS], failures=failures, retry=retry)


def _retry(run: JobRun, rules: Rules, *, tries: int, final: bool, draw: float) -> Retry | None:
    if run.outcome == "cancelled":  # the daemon ended: whoever comes next goes on with it
        return Retry(tries=tries, not_before=run.finished_at, planned_at=run.planned_at)
    if run.outcome == "skipped" and not final:
        wait_s = backoff_s(1, rules, draw)
        return Retry(tries=tries, not_before=run.finished_at + timedelta(seconds=wait_s), planned_at=run.planned_at)
    if run.outcome != "failed" or final or tries >= rules.attempts:
        return None
    wait_s = backoff_s(tries + 1, rules, draw)
    return Retry(tries=tries + 1, not_before=run.finished_at + timedelta(seconds=wait_s), planned_at=run.planned_at)


def backoff_s(tries: int, rules: Rules, draw: float) -> float:
    """Return how long to wait before the ``tries``-th retry: doubled each time, up to a quarter less or more."""
    doubled = rules.first_s * 2.0 ** min(tries - 1, 60)
    return min(doubled, rules.longest_s) * (0.75 + 0.5 * draw)


def together(one: Record, other: Record) -> Record:
    """Return what two records of a job know together; what is to be done next is as the newest run left it."""
    runs = sorted({*one.runs, *other.runs}, key=lambda run: run.finished_at, reverse=True)
    newest = one if runs and runs[0] in one.runs else other
    return replace(newest, runs=tuple(runs)[:MAX_RUNS])


def last_planned(record: Record, now: datetime) -> datetime | None:
    """Return the newest time that a run was planned for; what lies in the future is not believed."""
    return max((run.planned_at for run in record.runs if run.planned_at <= now + CLOCK_SLACK), default=None)


def retry_now(record: Record, rules: Rules, now: datetime) -> Retry | None:
    """Return the retry that waits, not later than any can be: the clock may have been ahead when it was set."""
    retry = record.retry
    if retry is None:
        return None
    latest = now + timedelta(seconds=1.25 * rules.longest_s)
    planned_at = min(retry.planned_at, now)
    return replace(retry, not_before=min(retry.not_before, latest), planned_at=planned_at)


def is_missed(
    last: datetime | None, after: After, now: datetime, *, kind: JobKind, grace_s: float, longest_gap_s: float
) -> bool:
    """Whether a planned run did not happen and is to be caught up, once, now.

    ``last`` is the newest planned time that was taken care of; ``after`` returns the first planned time after another.
    Within its grace every kind of job is caught up; later, only a backup, unless the next one is near. A job without a
    past has missed nothing.
    """
    if last is None:
        return False
    first = after(last)
    if first is None or first >= now:
        return False
    recent = after(max(last, now - timedelta(seconds=grace_s)))
    if recent is not None and recent < now:
        return True
    if kind != "backup":
        return False
    coming = after(now - TICK)
    return coming is None or (coming - now).total_seconds() > NEAR_SHARE * longest_gap_s


def is_worth(planned_at: datetime, now: datetime, *, kind: JobKind, grace_s: float) -> bool:
    """Whether a run that waited for its turn is still to be started; a backup always is."""
    return kind == "backup" or (now - planned_at).total_seconds() <= grace_s
