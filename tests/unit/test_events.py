"""Events and what is told of backups and drills: bounded, with stable states, and no rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.drills.report import DrillRun, RunError
from drd.drills.suite import Drill, Objectives, Suite, SuiteCheck
from drd.errors import Cancelled, LeaseError, SourceUnreachable, StoreUnavailable
from drd.events import (
    LABEL_NAME,
    MAX_ANNOTATIONS,
    MAX_EVENT_CHARACTERS,
    MAX_LABEL_CHARACTERS,
    MAX_LABELS,
    RESERVED_LABELS,
    Event,
)
from drd.model import Finding, Notice
from drd.ops.announce import backup_events, failed_events
from drd.ops.announce_drill import MAX_CHECKS, MAX_TRIALS, CheckLine, drill_events, summary_of
from drd.ops.backup import BackupReport, SourceReport
from drd.ops.drill import DrillReport
from drd.repository.oddness import ODD_CODES
from tests.support.drill_summaries import AT, failed, passed, trial

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
TEXTS = st.dictionaries(st.text(max_size=70) | st.sampled_from(["summary", "source", "a_1"]), st.text(max_size=400))


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS, st.integers(1, 30_000))
def test_an_event_is_bounded_whatever_is_put_in(labels, annotations, repeat):
    """Names, lengths and numbers are kept to, labels and the summary are one printable line, nothing is empty."""
    huge = {f"a{n}": "x" * repeat for n in range(400)}
    many = {f"l{n}": "y" for n in range(40)}
    event = Event(
        name="DrdX", nature="state", severity="info", at=NOW, labels=labels | many, annotations=annotations | huge
    )
    assert 0 < len(event.labels) <= MAX_LABELS
    assert len(event.annotations) <= MAX_ANNOTATIONS
    assert sum(map(len, event.annotations.values())) <= MAX_EVENT_CHARACTERS
    for name, value in event.labels.items():
        assert LABEL_NAME.fullmatch(name)
        assert 0 < len(value) <= MAX_LABEL_CHARACTERS
        assert value.isprintable() or all(c.isprintable() or c.isspace() for c in value)
        assert "\n" not in value
    assert "\n" not in event.annotations.get("summary", "")
    "".join([*event.labels.values(), *event.annotations.values()]).encode()  # no lone surrogate


def of_source(outcome, error=None, codes=()):
    """Make the report of one source."""
    backup = SimpleNamespace(id="20261123T030000Z-aaaaaa", recovery_point=NOW) if outcome == "ok" else None
    notices = tuple(Notice(code, f"61 % fewer rows than in X; what is gone: drd show {code}") for code in codes)
    return SourceReport("shop", "redis", outcome, 1.0, backup, error, notices)


def told(*sources):
    """Return the events of a run by name."""
    return {event.name: event for event in backup_events(BackupReport(NOW, 1.0, sources), NOW)}


def test_a_failed_backup_fires_and_the_next_good_one_ends_that_very_state():
    """The same name and labels; the failure says why and what to do, and says nothing of the size."""
    bad = told(of_source("failed", SourceUnreachable("cannot connect", hint="start it")))
    good = told(of_source("ok"))
    assert list(bad) == ["DrdBackupFailed"]
    assert bad["DrdBackupFailed"].firing
    assert bad["DrdBackupFailed"].annotations["action"] == "start it"
    assert not good["DrdBackupFailed"].firing
    assert good["DrdBackupFailed"].labels == bad["DrdBackupFailed"].labels
    assert not good["DrdBackupShrunken"].firing


@pytest.mark.parametrize("code", sorted(ODD_CODES))
def test_a_shrunken_backup_fires_a_state_of_its_own(code):
    """It exists, so the failure is over; that it holds less is a warning."""
    events = told(of_source("ok", codes=[code, "swept"]))
    assert not events["DrdBackupFailed"].firing
    shrunken = events["DrdBackupShrunken"]
    assert (shrunken.firing, shrunken.severity) == (True, "warning")
    assert shrunken.annotations["summary"].endswith("61 % fewer rows than in X")


def test_an_interrupted_backup_is_told_of_to_nobody():
    """A person stopped it: neither failed nor good."""
    assert told(of_source("cancelled", Cancelled("interrupted"))) == {}
    assert failed_events({"shop": "redis"}, Cancelled("interrupted"), NOW) == ()


def test_a_run_that_ended_before_any_source_had_its_turn_fails_each():
    """An unreachable store is a failed backup of every source."""
    events = failed_events({"a": "redis", "b": "postgres"}, StoreUnavailable("the store is away"), NOW)
    assert [(e.labels["source"], e.firing) for e in events] == [("a", True), ("b", True)]
    assert all("the store is away" in e.annotations["summary"] for e in events)


def test_a_drill_is_a_report_of_its_own_and_a_state_a_source():
    """The report has its run and verdict as labels; states have stable ones; the bad one fires, the good one ends."""
    report, first, second = drill_events(failed("weekly", "pg", "ch"), "R1")
    assert (report.nature, report.labels) == ("report", {"run": "R1", "drill": "weekly", "verdict": "failed"})
    assert report.run.endswith("bbbbbb")
    assert "ch: " in report.annotations["summary"]
    assert (first.firing, first.labels) == (False, {"drill": "weekly", "source": "pg"})
    assert (second.firing, second.labels) == (True, {"drill": "weekly", "source": "ch"})
    again = drill_events(passed("weekly", "pg", "ch"), "R2")
    assert [e.labels for e in again[1:]] == [first.labels, second.labels]
    assert not any(e.firing for e in again[1:])


def test_the_plain_text_is_complete_and_the_bad_comes_first():
    """Verdict, every check, RTO and RPO against objectives, and the run, without any markup."""
    text = drill_events(failed("weekly", "pg", "ch"), "R1")[0].annotations["description"]
    assert text.index("✗ ch: FAILED") < text.index("✓ pg: passed")
    assert "RTO     39 min 5 s of 30 min – over the objective" in text
    assert "RPO     14 min 13 s of 1 h 5 min\n" in text
    assert "✗ CHECK TABLE: market_data.ticks" in text
    assert "run     20261123T040059Z-bbbbbb" in text


def test_a_backup_picked_by_hand_can_fire_a_state_and_not_end_one():
    """That an old backup restores says nothing of the newest."""
    assert [e.nature for e in drill_events(passed("weekly", "pg", own_choice=False), "R")] == ["report"]
    assert drill_events(failed("weekly", "pg", own_choice=False), "R")[1].firing


def test_sources_that_had_no_turn_keep_their_state():
    """A drill of one backup says nothing of the other sources."""
    summary = replace(passed("weekly", "pg"), sources=("pg", "ch"))
    assert [e.labels.get("source") for e in drill_events(summary, "R")[1:]] == ["pg"]


def test_a_drill_that_could_not_begin_is_unverified_for_each_source():
    """Its report has no table and its states fire with the reason."""
    summary = replace(passed("weekly", "pg", "ch"), verdict="unverified", trials=(), error="no store", hint="try this")
    report, *states = drill_events(summary, "R")
    assert "could not be carried out: no store" in report.annotations["summary"]
    assert not any(name.startswith("trial_") for name in report.annotations)
    assert [(e.firing, e.annotations["action"]) for e in states] == [(True, "try this")] * 2


def test_tables_are_bounded_and_say_what_is_left_out():
    """However many restores and checks: the worst rows stay, the rest is counted, and all fits into one event."""
    good = (CheckLine(f"check {n}", "passed", "d" * 5000) for n in range(99))
    checks = (*good, CheckLine("bad", "failed", "e\tf"))
    trials = tuple(trial(f"s{n}", f"r{n:02d}", "failed", checks=checks) for n in range(30))
    summary = replace(failed("weekly", "s0"), trials=trials)
    annotations = drill_events(summary, "R")[0].annotations
    assert sum(name.startswith("trial_") for name in annotations) == MAX_TRIALS
    assert sum(name.startswith("check_01_") for name in annotations) == MAX_CHECKS
    assert annotations["check_01_01"] == "failed\tbad\te f"
    assert annotations["more_01"] == f"and {100 - MAX_CHECKS} more, of which all passed"
    assert len(annotations["description"]) <= 16_000


def run_of(**values):
    """Make a recorded run."""
    given = {
        "verdict": "failed",
        "checks": (Finding("mine", "failed", "found alice@example.net"), Finding("content", "passed", "equal")),
    }
    return DrillRun(
        id="20261123T040000Z-aaaaaa",
        drill="d",
        source="pg",
        how="latest",
        backup="b",
        engine="postgres",
        started_at=AT,
        finished_at=AT,
        recovery_point=AT,
        newest_data=AT,
        phases={"restore": 2.0},
        objectives=Objectives(60.0, 60.0),
        **(given | values),
    )


@pytest.mark.parametrize("show_rows", [True, False])
def test_what_may_be_a_row_is_never_mailed(show_rows):
    """Where a suite lets its checks show rows, what they found stays in the report; other checks are told whole."""
    plan = Drill("d", ("pg",), suite=Suite({"pg": (SuiteCheck("mine"),)}, show_rows=show_rows))
    summary = summary_of(plan, DrillReport("d", (run_of(),)), AT, own_choice=True)
    told_of = str(drill_events(summary, "R"))
    assert ("alice@example.net" in told_of) is not show_rows
    assert "content" in told_of


def test_a_run_that_ended_early_says_why():
    """The error of the run is the cause in summary and state, with its hint."""
    error = RunError("scratch", "no room on the disk", "free some", "provision")
    run = run_of(verdict="unverified", checks=(), error=error)
    plan = Drill("d", ("pg",))
    report, state = drill_events(summary_of(plan, DrillReport("d", (run,)), AT, own_choice=True), "R")
    assert "pg: no room on the disk" in report.annotations["summary"]
    assert (state.firing, state.annotations["action"]) == (True, "free some")


def test_a_drill_that_runs_elsewhere_is_told_of_there():
    """A held lease is no result."""
    report = DrillReport("d", (), error=LeaseError("held"))
    assert summary_of(Drill("d", ("pg",)), report, AT, own_choice=True) is None


def test_the_labels_that_drd_sets_are_reserved():
    """A configuration cannot give two alerts one identity by overriding what tells them apart."""
    events = [*drill_events(failed("w", "pg"), "R"), *told(of_source("ok")).values()]
    used = {name for event in events for name in event.labels}
    assert used | {"alertname", "drd", "severity"} <= set(RESERVED_LABELS)
