"""Say what is to be told of a drill: its report, once, and for each source whether it is proven now. Pure functions.

The report has a label ``run`` of its own, so that it is always told. The state ``DrdDrillNotPassed`` has stable labels;
it is over with the next pass of the drill's own choice, and not with one of a backup that somebody picked by hand.

Tables go into annotations as one row a text, cells parted by tabs: the mail's template draws them, and every other
receiver has the whole report in ``description``.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from drd.drills.report import DrillRun, Verdict
from drd.drills.suite import Drill
from drd.errors import LeaseError
from drd.events import Event, Severity, clipped, one_line
from drd.wording import span, when

if TYPE_CHECKING:  # a daemon tells of drills as well, and never runs one
    from drd.ops.drill import DrillReport

DRILL_REPORT = "DrdDrillReport"
DRILL_NOT_PASSED = "DrdDrillNotPassed"
MAX_TRIALS = 20
MAX_CHECKS = 12
"""Rows of a table of checks; those that did not pass come first, and the rest is counted."""
_NAME_CHARACTERS, _DETAIL_CHARACTERS, _CAUSE_CHARACTERS = 120, 400, 160
_SIGNS = {"passed": "✓", "warning": "!", "failed": "✗", "unverified": "?", "skipped": "–"}

_SEVERITY: dict[Verdict, Severity] = {"passed": "info", "failed": "critical", "unverified": "warning"}
_ORDER: tuple[Verdict, ...] = ("failed", "unverified", "passed")
_WORD: dict[Verdict, str] = {"passed": "passed", "failed": "FAILED", "unverified": "could not be carried out"}


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One check: ``passed``, ``warning``, ``failed``, ``unverified`` or ``skipped``; ``detail`` holds no row data."""

    name: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """One backup that was restored and checked. ``error`` says why it ended before its checks were made."""

    run: str
    source: str
    backup: str | None
    how: str
    verdict: Verdict
    rto_s: float
    rpo_s: float | None
    rto_objective_s: float | None = None
    rpo_objective_s: float | None = None
    checks: tuple[CheckLine, ...] = ()
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSummary:
    """How a drill went as a whole. ``own_choice``: the drill itself chose the backups, nobody picked one by hand.

    ``sources`` are all that it is about. ``error`` says why it could not even begin.
    """

    drill: str
    at: datetime
    verdict: Verdict
    sources: tuple[str, ...]
    trials: tuple[TrialSummary, ...]
    own_choice: bool = True
    error: str = ""
    hint: str = ""


def summary_of(plan: Drill, report: DrillReport, at: datetime, *, own_choice: bool) -> DrillSummary | None:
    """Return what is told of a drill that ended at ``at``; None when it did not run since another drd was at it.

    What the suite's checks found is left out where the suite lets it hold rows: mails go further than the store.
    """
    if isinstance(report.error, LeaseError):
        return None
    secret = {
        check.name
        for checks in (*plan.suite.by_source.values(), *plan.suite.by_engine.values())
        for check in checks
        if plan.suite.show_rows
    }
    error = report.error
    return DrillSummary(
        drill=plan.name,
        at=at,
        verdict=report.verdict,
        sources=plan.sources,
        trials=tuple(_trial_of(run, secret) for run in report.runs),
        own_choice=own_choice,
        error=error.message if error else "",
        hint=error.hint if error else "",
    )


def _trial_of(run: DrillRun, secret: AbstractSet[str]) -> TrialSummary:
    shown = [
        CheckLine(c.name, c.outcome, "what was found stands in the report alone" if c.name in secret else c.detail)
        for c in run.checks
    ]
    return TrialSummary(
        run=run.id,
        source=run.source,
        backup=run.backup,
        how=run.how,
        verdict=run.verdict,
        rto_s=run.rto_s,
        rpo_s=run.rpo_s,
        rto_objective_s=run.objectives.rto_s,
        rpo_objective_s=run.objectives.rpo_s,
        checks=tuple(shown),
        error=run.error.message if run.error else "",
        hint=run.error.hint if run.error else "",
    )


def drill_events(summary: DrillSummary, run: str) -> tuple[Event, ...]:
    """Return the report, whose label ``run`` must be unique, and the states of all sources."""
    return (_report(summary, run), *_states(summary))


def _report(summary: DrillSummary, run: str) -> Event:
    trials = sorted(summary.trials, key=lambda trial: _ORDER.index(trial.verdict))[:MAX_TRIALS]
    annotations = {
        "summary": _headline(summary),
        "description": _plain(summary, trials),
        "drilled_at": when(summary.at),
        "error": summary.error,
        "action": _action(summary, trials),
    }
    for number, trial in enumerate(trials, start=1):
        annotations[f"trial_{number:02d}"] = _row(
            trial.verdict,
            trial.source,
            trial.backup or "no backup",
            trial.how,
            _measure(trial.rto_s, trial.rto_objective_s),
            _within(trial.rto_s, trial.rto_objective_s),
            _measure(trial.rpo_s, trial.rpo_objective_s),
            _within(trial.rpo_s, trial.rpo_objective_s),
            trial.run,
            clipped(trial.error, _DETAIL_CHARACTERS),
        )
        shown, rest = _shown(trial.checks)
        for line, check in enumerate(shown, start=1):
            annotations[f"check_{number:02d}_{line:02d}"] = _row(check.outcome, check.name, check.detail)
        annotations[f"more_{number:02d}"] = rest
    return Event(
        name=DRILL_REPORT,
        nature="report",
        severity=_SEVERITY[summary.verdict],
        at=summary.at,
        run=_shown_run(summary, trials),
        labels={"run": run, "drill": summary.drill, "verdict": summary.verdict},
        annotations=annotations,
    )


def _states(summary: DrillSummary) -> Sequence[Event]:
    """Return a state a source: firing for any trial that did not pass, over when all of the drill's own choice did."""
    out = []
    for source in summary.sources:
        trials = [trial for trial in summary.trials if trial.source == source]
        bad = next(
            (t for t in trials if t.verdict == "failed"), next((t for t in trials if t.verdict != "passed"), None)
        )
        if not trials and not summary.error:  # not its turn: one backup of another source was asked for
            continue
        if bad is None and trials and not summary.own_choice:
            continue
        run = bad.run if bad else trials[0].run if trials else ""
        out.append(
            Event(
                name=DRILL_NOT_PASSED,
                nature="state",
                severity="critical",
                at=summary.at,
                firing=bool(bad or (summary.error and not trials)),
                run=run,
                labels={"drill": summary.drill, "source": source},
                annotations=_state_words(summary, source, bad, trials),
            )
        )
    return out


def _state_words(
    summary: DrillSummary, source: str, bad: TrialSummary | None, trials: Sequence[TrialSummary]
) -> dict[str, str]:
    if bad is not None:
        return {
            "summary": f"drill {summary.drill} of {source} {_WORD[bad.verdict]}: {_cause(bad)}",
            "description": f"Backup {bad.backup or 'none'} ({bad.how}), {when(summary.at)}.",
            "action": bad.hint or f"See the report: drd drill show {bad.run}",
        }
    if not trials:
        return {
            "summary": f"drill {summary.drill} of {source} could not be carried out: {summary.error}",
            "description": f"At {when(summary.at)}.",
            "action": summary.hint,
        }
    took = span(max(trial.rto_s for trial in trials))
    return {"summary": f"drill {summary.drill} of {source} passed: recovered in {took}"}


def _headline(summary: DrillSummary) -> str:
    if summary.error and not summary.trials:
        return f"drill {summary.drill} {_WORD[summary.verdict]}: {one_line(summary.error, _CAUSE_CHARACTERS)}"
    passed = sum(trial.verdict == "passed" for trial in summary.trials)
    count = f"{passed} of {len(summary.trials)} restore{'s' if len(summary.trials) != 1 else ''} passed"
    worst = next((trial for trial in summary.trials if trial.verdict == summary.verdict != "passed"), None)
    if worst is not None:
        return f"drill {summary.drill} {_WORD[summary.verdict]}: {worst.source}: {_cause(worst)} ({count})"
    slowest = max((trial.rto_s for trial in summary.trials), default=0.0)
    over = [name for name, missed in (("RTO", _over(summary, "rto")), ("RPO", _over(summary, "rpo"))) if missed]
    suffix = f", over its {' and '.join(over)} objective" if over else ""
    return f"drill {summary.drill} {_WORD[summary.verdict]}: {count}, the slowest in {span(slowest)}{suffix}"


def _over(summary: DrillSummary, which: Literal["rto", "rpo"]) -> bool:
    pairs = [(t.rto_s, t.rto_objective_s) if which == "rto" else (t.rpo_s, t.rpo_objective_s) for t in summary.trials]
    return any(_within(value, objective) == "over" for value, objective in pairs)


def _cause(trial: TrialSummary) -> str:
    if trial.error:
        return one_line(trial.error, _CAUSE_CHARACTERS)
    bad = next((c for c in trial.checks if c.outcome == trial.verdict), None)
    return one_line(f"{bad.name}: {bad.detail}", _CAUSE_CHARACTERS) if bad else "see the report"


def _shown(checks: Sequence[CheckLine]) -> tuple[Sequence[CheckLine], str]:
    """Return the checks that get a row, worst first, and words for the rest."""
    order = ("failed", "unverified", "warning", "skipped", "passed")
    ranked = sorted(checks, key=lambda check: order.index(check.outcome) if check.outcome in order else 0)
    rest = ranked[MAX_CHECKS:]
    if not rest:
        return ranked, ""
    passed = sum(check.outcome == "passed" for check in rest)
    return ranked[:MAX_CHECKS], f"and {len(rest)} more, of which {'all' if passed == len(rest) else passed} passed"


def _plain(summary: DrillSummary, trials: Sequence[TrialSummary]) -> str:
    """Write the whole report as plain text of about 72 columns."""
    lines = [f"Drill {summary.drill}, {when(summary.at)}: {_WORD[summary.verdict]}", ""]
    if summary.error:
        lines += [f"  {one_line(summary.error, _DETAIL_CHARACTERS)}", ""]
    for trial in trials:
        lines += [
            f"{_SIGNS[trial.verdict]} {trial.source}: {_WORD[trial.verdict]}",
            f"    backup  {trial.backup or 'none'} ({trial.how})",
            f"    RTO     {_measure(trial.rto_s, trial.rto_objective_s)}{_note(trial.rto_s, trial.rto_objective_s)}",
            f"    RPO     {_measure(trial.rpo_s, trial.rpo_objective_s)}{_note(trial.rpo_s, trial.rpo_objective_s)}",
        ]
        if trial.error:
            lines.append(f"    ended   {one_line(trial.error, _DETAIL_CHARACTERS)}")
        shown, rest = _shown(trial.checks)
        lines += [
            f"    {_SIGNS.get(c.outcome, '?')} {one_line(c.name)}: {one_line(c.detail, _DETAIL_CHARACTERS)}"
            for c in shown
        ]
        lines += [f"    {rest}"] * bool(rest) + [f"    run     {trial.run}", ""]
    if len(summary.trials) > len(trials):
        lines += [f"and {len(summary.trials) - len(trials)} more restores: drd drill list {summary.drill}", ""]
    return "\n".join(lines).rstrip()


def _shown_run(summary: DrillSummary, trials: Sequence[TrialSummary]) -> str:
    """Return the run that a link leads to: the first with the drill's verdict, or none."""
    return next((trial.run for trial in trials if trial.verdict == summary.verdict), trials[0].run if trials else "")


def _action(summary: DrillSummary, trials: Sequence[TrialSummary]) -> str:
    run = _shown_run(summary, trials)
    return f"drd drill show {run} --html report.html" if run else summary.hint


def _row(*cells: str) -> str:
    limits = [_NAME_CHARACTERS] * (len(cells) - 1) + [_DETAIL_CHARACTERS]
    return "\t".join(one_line(cell, limit) for cell, limit in zip(cells, limits, strict=True))


def _measure(value_s: float | None, objective_s: float | None) -> str:
    text = span(value_s, "unknown")
    return text if objective_s is None else f"{text} of {span(objective_s)}"


def _note(value_s: float | None, objective_s: float | None) -> str:
    return " – over the objective" if _within(value_s, objective_s) == "over" else ""


def _within(value_s: float | None, objective_s: float | None) -> Literal["ok", "over", "free"]:
    if value_s is None or objective_s is None:
        return "free"
    return "over" if value_s > objective_s else "ok"
