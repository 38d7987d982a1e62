"""Drills as the announcements see them: one that passed, one that failed, one that could not be carried out."""

from __future__ import annotations

from datetime import UTC, datetime

from drd.ops.announce_drill import CheckLine, DrillSummary, TrialSummary

AT = datetime(2026, 11, 23, 4, 0, 12, tzinfo=UTC)

GOOD_CHECKS = (
    CheckLine("restored", "passed", "412 MiB in 23 tables, no error"),
    CheckLine("content is what was backed up", "passed", "23 of 23 tables equal by rows and SHA-256"),
    CheckLine("every index is valid", "passed", "41 indexes"),
    CheckLine("orders have users", "passed", "no row"),
    CheckLine("newest order", "passed", "14 min before the drill, 65 min allowed"),
)
BAD_CHECKS = (
    CheckLine("restored", "passed", "market_data: 101 parts"),
    CheckLine("content is what was backed up", "failed", 'ticks: 3 of 101 parts differ <by hash> & "more"'),
    CheckLine("CHECK TABLE", "failed", "market_data.ticks: checksum of part all_7_7_0 does not match"),
    CheckLine("external engines", "warning", "2 tables of engine URL were cut off"),
    CheckLine("ticks per symbol", "passed", "12 symbols, at least 10"),
)


def trial(source: str, run: str, verdict: str = "passed", **values) -> TrialSummary:
    """Make a trial; what is not said is as in a good one."""
    given = {
        "backup": f"20261123T034600Z-{run[-6:]}",
        "how": "latest",
        "rto_s": 112.0,
        "rpo_s": 853.0,
        "rto_objective_s": 1800.0,
        "rpo_objective_s": 3900.0,
        "checks": GOOD_CHECKS if verdict == "passed" else BAD_CHECKS,
        **values,
    }
    return TrialSummary(run=run, source=source, verdict=verdict, **given)


def passed(drill: str, *sources: str, **values) -> DrillSummary:
    """Make a drill whose restores all passed."""
    trials = tuple(trial(source, f"20261123T0400{n:02d}Z-aaaaa{n}") for n, source in enumerate(sources))
    return DrillSummary(drill=drill, at=AT, verdict="passed", sources=sources, trials=trials, **values)


def failed(drill: str, *sources: str, **values) -> DrillSummary:
    """Make a drill whose last restore failed, late and with data too old."""
    *good, bad = sources
    trials = [trial(source, f"20261123T0400{n:02d}Z-aaaaa{n}") for n, source in enumerate(good)]
    trials.append(trial(bad, "20261123T040059Z-bbbbbb", "failed", rto_s=2345.0, rpo_s=60_400.0))
    return DrillSummary(drill=drill, at=AT, verdict="failed", sources=sources, trials=tuple(trials), **values)
