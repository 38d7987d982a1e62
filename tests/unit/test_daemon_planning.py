"""What is due, missed and tried again: tables and properties without a clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.daemon.model import Job, JobRun, Plan
from drd.daemon.outset import outset
from drd.daemon.planning import (
    MAX_RUNS,
    Record,
    Retry,
    Rules,
    after_run,
    backoff_s,
    is_missed,
    is_worth,
    last_planned,
    retry_now,
)
from drd.daemon.triggers import PlannedTrigger
from drd.daemon.waiting import Due, Waiting
from drd.timing import Timing, parse_cron

NOW = datetime(2026, 11, 23, 4, 10, tzinfo=UTC)
RULES = Rules(first_s=60, longest_s=3600, attempts=3)
HOUR = timedelta(hours=1)


def run(outcome: str = "ok", planned_at: datetime = NOW, job: str = "backup/s/a") -> JobRun:
    return JobRun(
        job=job,
        kind="backup",
        subject="a",
        planned_at=planned_at,
        started_at=planned_at,
        finished_at=planned_at + timedelta(seconds=5),
        outcome=outcome,  # type: ignore[arg-type]
    )


def noted(
    record: Record, outcome: str, *, tries: int = 0, final: bool = False, next_at: datetime | None = None
) -> Record:
    return after_run(record, run(outcome), RULES, tries=tries, final=final, next_at=next_at, draw=0.5)


def test_a_failure_is_tried_again_after_waits_that_double_until_the_attempts_are_used_up() -> None:
    """The series of retries of one planned run: 1, 2 and 4 minutes, then no more; each failure is counted."""
    record, waits = Record(), []
    for tries in range(4):
        record = noted(record, "failed", tries=tries)
        if record.retry:
            waits.append((record.retry.not_before - record.runs[0].finished_at).total_seconds())
            assert record.retry.tries == tries + 1
    assert waits == [60, 120, 240]
    assert record.retry is None
    assert record.failures == 4


@pytest.mark.parametrize(
    ("outcome", "final", "failures", "retry"),
    [
        ("ok", False, 0, False),
        ("partial", False, 0, False),
        ("failed", False, 3, True),
        ("failed", True, 3, False),
        ("skipped", False, 2, True),
        ("skipped", True, 2, False),
        ("cancelled", False, 2, True),
    ],
)
def test_what_an_outcome_means(outcome: str, final: bool, failures: int, retry: bool) -> None:
    """A success ends the failures, another's lease or the daemon's end counts as none, evidence is not tried again."""
    record = noted(Record(failures=2), outcome, final=final)
    assert record.failures == failures
    assert (record.retry is not None) == retry


def test_a_cancelled_run_goes_on_at_once_and_a_skipped_one_soon() -> None:
    """Who was interrupted by the daemon's end is due when the next daemon looks; a held lease is asked again soon."""
    cancelled, skipped = noted(Record(), "cancelled", tries=2).retry, noted(Record(), "skipped", tries=2).retry
    assert cancelled == Retry(tries=2, not_before=NOW + timedelta(seconds=5), planned_at=NOW)
    assert skipped == Retry(tries=2, not_before=NOW + timedelta(seconds=65), planned_at=NOW)


def test_a_planned_run_that_comes_first_is_the_retry() -> None:
    """No retry is kept that the next planned run overtakes."""
    assert noted(Record(), "failed", next_at=NOW + timedelta(seconds=30)).retry is None


@settings(deadline=None)
@given(tries=st.integers(1, 10_000), draw=st.floats(0, 1), first=st.floats(1, 600), factor=st.floats(1, 100))
def test_waits_are_bounded(tries: int, draw: float, first: float, factor: float) -> None:
    """However often it failed: never below three quarters of the first wait, nor above five of the longest."""
    rules = Rules(first_s=first, longest_s=first * factor)
    assert 0.7499 * first <= backoff_s(tries, rules, draw) <= 1.2501 * first * factor


@settings(deadline=None)
@given(st.lists(st.sampled_from(["ok", "partial", "failed", "cancelled", "skipped"]), max_size=150))
def test_failures_are_those_since_the_last_success(outcomes: list[str]) -> None:
    """Whatever the order of outcomes, and however many are forgotten."""
    record = Record()
    for outcome in outcomes:
        record = noted(record, outcome)
    since = next((n for n, o in enumerate(reversed(outcomes)) if o in {"ok", "partial"}), len(outcomes))
    assert record.failures == outcomes[len(outcomes) - since :].count("failed")
    assert len(record.runs) == min(len(outcomes), MAX_RUNS)


@pytest.mark.parametrize(
    ("kind", "cron", "last", "missed"),
    [
        ("backup", "0 4 * * *", "2026-11-23T04:00", False),  # ran
        ("backup", "0 4 * * *", "2026-11-22T04:00", True),  # ten minutes late
        ("drill", "0 4 * * *", "2026-11-22T04:00", True),  # within its grace of an hour
        ("drill", "0 2 * * *", "2026-11-22T02:00", False),  # too late for a drill
        ("prune", "0 2 * * *", "2026-11-22T02:00", False),
        ("backup", "0 2 * * *", "2026-11-22T02:00", True),  # never too late for a backup …
        ("backup", "0 5 * * *", "2026-11-10T05:00", False),  # … but when the next one is near
        ("backup", "0 2 * * *", "2025-11-22T02:00", True),  # a year ago: still once
        ("backup", "0 4 * * *", "2026-11-24T04:00", False),  # the clock was set back
        ("backup", "* * * * *", "2026-11-23T04:05", True),
    ],
)
def test_what_is_missed(kind: str, cron: str, last: str, missed: bool) -> None:
    """The table of catching up, at 04:10."""
    timing = Timing(cron=parse_cron(cron), grace_s=3600)
    trigger = PlannedTrigger(timing, "j", NOW)
    known = last_planned(Record(runs=(run(planned_at=datetime.fromisoformat(last).replace(tzinfo=UTC)),)), NOW)
    found = is_missed(known, trigger.after, NOW, kind=kind, grace_s=3600, longest_gap_s=86400)  # type: ignore[arg-type]
    assert found == missed


def test_a_job_without_a_past_has_missed_nothing() -> None:
    """A new schedule waits for its time; so does one whose history is all from a future that never was."""
    trigger = PlannedTrigger(Timing(cron=parse_cron("* * * * *")), "j", NOW)
    record = Record(runs=(run(planned_at=NOW + timedelta(days=400)),))
    assert last_planned(record, NOW) is None
    assert not is_missed(None, trigger.after, NOW, kind="backup", grace_s=60, longest_gap_s=60)


def test_a_retry_from_a_clock_that_was_ahead_does_not_wait_for_it() -> None:
    """Set a year ahead, it waits no longer than any retry may."""
    record = Record(retry=Retry(tries=1, not_before=NOW + timedelta(days=365), planned_at=NOW + timedelta(days=365)))
    found = retry_now(record, RULES, NOW)
    assert found is not None
    assert found.not_before <= NOW + timedelta(seconds=1.25 * 3600)
    assert found.planned_at <= NOW
    assert retry_now(Record(), RULES, NOW) is None


@pytest.mark.parametrize(
    ("kind", "late_h", "worth"), [("drill", 0.5, True), ("drill", 2, False), ("backup", 200, True)]
)
def test_whether_a_run_that_waited_is_worth_it(kind: str, late_h: float, worth: bool) -> None:
    """A drill that waited for too long in the queue is left to its next time; a backup is not."""
    assert is_worth(NOW - late_h * HOUR, NOW, kind=kind, grace_s=3600) == worth  # type: ignore[arg-type]


def job(subject: str, kind: str = "backup", schedule: str = "s") -> Job:
    return Job(
        name=f"{kind}/{schedule}/{subject}",
        kind=kind,  # type: ignore[arg-type]
        schedule=schedule,
        subject=subject,
        longest_gap_s=60,
    )


def due(subject: str, kind: str = "backup", schedule: str = "s", **values: object) -> Due:
    made = Due(job=job(subject, kind, schedule), planned_at=NOW, not_before=NOW)
    return replace(made, **values)  # type: ignore[arg-type]


def test_fifty_jobs_of_one_second_run_a_few_at_a_time_in_order() -> None:
    """No more than the limit run at once, and who came first starts first."""
    waiting = Waiting()
    for n in range(50):
        waiting.add(due(f"source-{n:02d}"))
    running: list[Job] = []
    started: list[str] = []
    while len(waiting) or running:
        while (found := waiting.take(NOW, running, 3)) is not None:
            running.append(found.job)
            started.append(found.job.subject)
        assert 0 < len(running) <= 3
        running.pop(0)
    assert started == sorted(started)
    assert len(started) == 50


def test_jobs_of_one_source_are_done_one_after_the_other() -> None:
    """Backup, prune and verify of a source exclude each other; another source and a drill go past them."""
    waiting = Waiting()
    for item in (due("a", "prune"), due("a", "verify"), due("b"), due("a", "drill")):
        waiting.add(item)
    running = [job("a")]
    assert [
        found.job.name for _ in range(2) if (found := waiting.take(NOW, running, 9)) and not running.append(found.job)
    ] == [
        "backup/s/b",
        "drill/s/a",
    ]
    assert waiting.take(NOW, running, 9) is None
    found = waiting.take(NOW, running[1:], 9)
    assert found is not None
    assert found.job.kind == "prune"


def test_what_falls_due_while_it_waits_is_one_run() -> None:
    """A job waits at most once, at the earlier time; a planned run ends the counting of an earlier retry."""
    waiting = Waiting()
    waiting.add(due("a", why="retry", tries=4, not_before=NOW + HOUR))
    waiting.add(due("a"))
    waiting.add(due("a", planned_at=NOW + HOUR, not_before=NOW + HOUR))
    assert len(waiting) == 1
    found = waiting.take(NOW, [], 1)
    assert found == due("a")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["backup", "prune", "drill"]), st.integers(0, 5)),
        max_size=40,
    ),
    st.integers(1, 4),
)
def test_nothing_is_lost_and_nothing_overlaps(items: list[tuple[str, str, int]], at_once: int) -> None:
    """Whatever is put in comes out once a job, never two of one source at a time, never before its time."""
    waiting = Waiting()
    for subject, kind, minutes in items:
        waiting.add(due(subject, kind, not_before=NOW + timedelta(minutes=minutes)))
    running: list[Job] = []
    seen: list[str] = []
    clock = NOW
    while len(waiting) or running:
        while (found := waiting.take(clock, running, at_once)) is not None:
            assert found.not_before <= clock
            running.append(found.job)
            seen.append(found.job.name)
        assert len({(j.kind == "drill", j.subject) for j in running}) == len(running) <= at_once
        if running:
            running.pop()
        elif (next_at := waiting.next_at(clock)) is not None:
            clock = next_at
    assert sorted(seen) == sorted({f"{kind}/s/{subject}" for subject, kind, _ in items})


@pytest.mark.parametrize(
    ("record", "running", "expected", "missed"),
    [
        (Record(), {}, {}, False),
        (Record(), {}, {"backup/s/a": NOW - timedelta(hours=5)}, True),  # its first run was passed over by the clock
        (Record(), {}, {"backup/s/a": NOW + timedelta(minutes=50)}, False),
        (Record(), {"backup/s/a": NOW - timedelta(hours=24)}, {}, True),  # a run under way while the clock was set
        (Record(), {"backup/s/a": NOW - timedelta(minutes=10)}, {}, False),
        (Record(retry=Retry(tries=1, not_before=NOW, planned_at=NOW)), {"backup/s/a": NOW}, {}, False),
    ],
)
def test_what_a_clock_that_was_set_passed_over_is_done_once(
    record: Record, running: dict[str, datetime], expected: dict[str, datetime], missed: bool
) -> None:
    """Also the first run of all, and what fell due during a run; a retry of a run under way is not planned."""
    plan = Plan(job=replace(job("a"), name="backup/s/a"), timing=Timing(cron=parse_cron("0 * * * *")), deadline_s=9)
    _, at_once = outset([plan], lambda _: record, running, Rules(), NOW, expected=expected)
    assert [due.why for due in at_once] == ["missed"] * missed
