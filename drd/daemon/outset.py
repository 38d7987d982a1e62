"""What is planned when planning begins: at the start, with a new configuration, when the clock was set. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from drd.daemon import planning
from drd.daemon.model import Plan
from drd.daemon.planning import Record, Rules
from drd.daemon.triggers import PlannedTrigger
from drd.daemon.waiting import Due
from drd.timing import share_of


def outset(
    plans: Iterable[Plan],
    record_of: Callable[[str], Record],
    running: Mapping[str, datetime],
    rules: Rules,
    now: datetime,
    *,
    expected: Mapping[str, datetime],
) -> tuple[dict[str, PlannedTrigger], list[Due]]:
    """Return when each job is due from now on, and what is to be done before that: what was missed, and retries.

    ``running`` are the jobs under way with the time each was planned for: that time is taken care of. What was due
    since is done once, after it; its retry is not planned, as that is up to how it ends.
    ``expected`` is when jobs were to run as planned before: a first run that was passed over was missed as well.
    """
    triggers: dict[str, PlannedTrigger] = {}
    at_once: list[Due] = []
    for plan in plans:
        name = plan.job.name
        record = record_of(name)
        last = planning.last_planned(record, now)
        if name in running:
            planned_at = min(running[name], now)
            last = max(last or planned_at, planned_at)
        share = timedelta(seconds=plan.timing.jitter_s * share_of(name))
        trigger = triggers[name] = PlannedTrigger(plan.timing, name, last or now + share)
        if last is None and name in expected:
            last = expected[name] - planning.TICK
        if last is None:
            continue
        known = record if name not in running else replace(record, retry=None)
        if due := _at_once(plan, known, last, trigger, rules, now):
            at_once.append(due)
    return triggers, at_once


def _at_once(
    plan: Plan, record: Record, last: datetime, trigger: PlannedTrigger, rules: Rules, now: datetime
) -> Due | None:
    job = plan.job
    if planning.is_missed(
        last, trigger.after, now, kind=job.kind, grace_s=plan.timing.grace_s, longest_gap_s=job.longest_gap_s
    ):
        return Due(job=job, planned_at=now, not_before=now, why="missed")
    retry = planning.retry_now(record, rules, now)
    if retry is None:
        return None
    return Due(job=job, planned_at=retry.planned_at, not_before=retry.not_before, why="retry", tries=retry.tries)
