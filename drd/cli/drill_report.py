"""Drill reports as JSON documents and as text for people: the verdict first, then the evidence."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from drd.cli import documents, render
from drd.drills.phases import PHASES
from drd.drills.report import worst

if TYPE_CHECKING:  # made by whoever ran the drill
    from drd.drills.history import RecordedRun
    from drd.drills.report import DrillRun
    from drd.model import Json
    from drd.ops.drill import DrillReport

_BARS = "▁▂▃▄▅▆▇█"
_MARKS = {"passed": "ok", "warning": "warning", "failed": "failed", "unverified": "warning", "skipped": "planned"}
_WORDS = {"passed": "passed", "failed": "FAILED", "unverified": "UNVERIFIED"}


def sign(outcome: str, stream: TextIO | None = None) -> str:
    """Return ✓, !, ✗ or · for a verdict or the outcome of a check; ? where nothing is known."""
    if outcome == "unverified":
        return render.paint("?", "yellow", stream or sys.stdout)
    return render.mark(_MARKS[outcome], stream)


def document(reports: Sequence[DrillReport]) -> dict[str, Json]:
    """Return the document of ``drill now``."""
    runs: list[Json] = [run_document(run) for report in reports for run in report.runs]
    errors: list[Json] = [{"drill": r.drill, **documents.error(r.error)} for r in reports if r.error]
    return {
        "verdict": worst([report.verdict for report in reports]),
        "runs": runs,
        "errors": errors,
        "unrecorded": [{"drill": r.drill, **documents.error(r.unrecorded)} for r in reports if r.unrecorded],
        "kept": [{"run": run, "connect": list(lines)} for report in reports for run, lines in report.connect],
    }


def run_document(run: DrillRun) -> dict[str, Json]:
    """Return one run."""
    return {
        "run": run.id,
        "drill": run.drill,
        "source": run.source,
        "how": run.how,
        "backup": run.backup,
        "engine": run.engine,
        "verdict": run.verdict,
        "started_at": documents.moment(run.started_at),
        "finished_at": documents.moment(run.finished_at),
        "recovery_point": documents.moment(run.recovery_point),
        "newest_data": documents.moment(run.newest_data),
        "rto_s": round(run.rto_s, 3),
        "rpo_s": None if run.rpo_s is None else round(run.rpo_s, 3),
        "objectives": {
            "rto_s": run.objectives.rto_s,
            "rpo_s": run.objectives.rpo_s,
            "strict": run.objectives.strict,
        },
        "over_objective": list(run.over_objective),
        "phases": {name: round(run.phases.get(name, 0.0), 3) for name in PHASES},
        "plain_bytes": run.plain_bytes,
        "stored_bytes": run.stored_bytes,
        "rows": run.rows,
        "chain": list(run.chain),
        "checks": [
            {
                "name": check.name,
                "outcome": check.outcome,
                "detail": check.detail,
                "expected": check.expected,
                "found": check.found,
                "duration_s": round(check.duration_s, 3),
            }
            for check in run.checks
        ],
        "error": None
        if run.error is None
        else {
            "code": run.error.code,
            "message": run.error.message,
            "hint": run.error.hint,
            "phase": run.error.phase,
        },
        "environment": dict(run.environment),
    }


def signature_document(found: RecordedRun) -> dict[str, Json]:
    """Return who signed a recorded run."""
    return {"signed": found.signed, "signed_by": found.signer}


def text(reports: Sequence[DrillReport]) -> str:
    """Return what is printed after drills: each run, and the verdict of all as the last line."""
    lines: list[str] = []
    for report in reports:
        if report.error:
            lines += [render.error_lines(report.error), ""]
        for run in report.runs:
            lines += [*_headline(run), *_trouble(run), ""]
        if report.unrecorded:
            lines += [render.error_lines(report.unrecorded), ""]
        for run_id, connect in report.connect:
            lines += [
                f"{render.mark('warning')} kept for a day, run {run_id}; sooner gone with: drd drill clean",
                *(f"    {line}" for line in connect),
                "",
            ]
    runs = [run for report in reports for run in report.runs]
    verdict = worst([report.verdict for report in reports])
    passed = sum(run.verdict == "passed" for run in runs)
    rto_s = sum(run.rto_s for run in runs)
    lines.append(
        f"{sign(verdict)} drill {_WORDS[verdict]}: {passed} of {render.plural(len(runs), 'backup')} proven"
        f" in {render.span(rto_s)}{_aims(runs)}"
    )
    return "\n".join(lines)


def _aims(runs: Sequence[DrillRun]) -> str:
    over = [f"{run.source} {word.upper()}" for run in runs for word in run.over_objective]
    if over:
        return f"; over the objective: {', '.join(over)}"
    return ", within the objectives" if any(r.objectives.rto_s or r.objectives.rpo_s for r in runs) else ""


def _headline(run: DrillRun) -> list[str]:
    what = f"{run.backup} ({run.how})" if run.backup else run.how
    out = [f"{sign(run.verdict)} {run.source}  {_WORDS[run.verdict]}  {what}  run {run.id}"]
    spent = "  ".join(f"{name} {render.span(run.phases.get(name, 0.0))}" for name in PHASES)
    rto = render.span(run.rto_s) + (f" of {render.span(run.objectives.rto_s)}" if run.objectives.rto_s else "")
    rpo = render.span(run.rpo_s) + (f" of {render.span(run.objectives.rpo_s)}" if run.objectives.rpo_s else "")
    out.append(f"    RTO {rto}   RPO {rpo}   {render.size(run.plain_bytes)}")
    out.append(f"    {spent}")
    return out


def _trouble(run: DrillRun) -> list[str]:
    """List what did not pass, and count what did."""
    out: list[str] = []
    if run.error:
        out.append(f"    {sign(run.verdict)} in the phase {run.error.phase}: {run.error.message}")
        if run.error.hint:
            out.append(f"      {run.error.hint}")
    out.extend(
        f"    {sign(check.outcome)} {check.name}: {check.detail}"
        for check in run.checks
        if check.outcome in {"failed", "unverified", "warning"}
    )
    passed = sum(check.outcome == "passed" for check in run.checks)
    skipped = sum(check.outcome == "skipped" for check in run.checks)
    if run.checks:
        more = f", {skipped} skipped" if skipped else ""
        out.append(f"    {passed} of {render.plural(len(run.checks), 'check')} passed{more}")
    return out


def run_text(found: RecordedRun) -> str:
    """Return one recorded run in full."""
    run = found.run
    if run is None:
        return f"{sign('failed')} {found.drill} {found.id}: {found.problem}"
    lines = [
        *_headline(run),
        f"    drill {run.drill}, {render.when(run.started_at)}; state as of {render.point(run.recovery_point)}",
    ]
    if run.error:
        lines += [
            f"    {sign(run.verdict)} in the phase {run.error.phase}: {run.error.message}",
            f"      {run.error.hint}",
        ]
    lines.append("")
    for check in run.checks:
        lines.append(f"    {sign(check.outcome)} {check.name}: {check.detail}  {render.span(check.duration_s)}")
        if check.outcome == "failed" and check.expected:
            lines.append(f"        expected {check.expected}; found {check.found}")
    lines.append("")
    lines += [f"    {name}: {value}" for name, value in run.environment.items()]
    lines.append(f"    {signature_text(found)}")
    return "\n".join(lines)


def signature_text(found: RecordedRun) -> str:
    """Say who vouches for a report."""
    if found.signer:
        return f"signed by {found.signer}"
    return "signed by nobody that is known here" if found.signed else "not signed"


def list_document(found: Sequence[RecordedRun], backups: Mapping[str, Sequence[str]]) -> dict[str, Json]:
    """Return the document of ``drill list``: the runs, newest first, and how many backups of each source passed."""
    runs: list[Json] = [
        run_document(item.run) | {"believed": item.believed}
        if item.run
        else {"run": item.id, "drill": item.drill, "verdict": None, "problem": item.problem}
        for item in found
    ]
    coverage: list[Json] = []
    for source, ids in backups.items():
        proven: list[Json] = [*sorted(_proven(found, source) & set(ids))]
        coverage.append({"source": source, "backups": len(ids), "proven": proven})
    return {"runs": runs, "coverage": coverage}


def list_text(found: Sequence[RecordedRun], backups: Mapping[str, Sequence[str]]) -> str:
    """Return past runs as a table, then a trend and the coverage of each source."""
    if not found:
        return "No drill was run yet. Run one: drd drill now"
    rows = [_row(item) for item in found]
    lines = [render.table(("RUN", "DRILL", "SOURCE", "BACKUP", "VERDICT", "RTO", "RPO", "DATA"), rows), ""]
    for source in sorted({item.run.source for item in found if item.run}):
        runs = [item.run for item in reversed(found) if item.run and item.run.source == source]
        times = [run.rto_s for run in runs if run.verdict == "passed"][-30:]
        ids = backups.get(source, ())
        proven = len(_proven(found, source) & set(ids))
        trend = f"RTO {sparkline(times)} {render.span(times[-1])}" if times else "never passed"
        lines.append(f"  {source}: {trend}; {proven} of {render.plural(len(ids), 'backup')} proven by a drill")
    return "\n".join(lines)


def _row(item: RecordedRun) -> tuple[str, ...]:
    run = item.run
    if run is None:
        return (item.id, item.drill, "–", "–", "unreadable", "–", "–", "–")
    return (
        run.id,
        run.drill,
        run.source,
        run.backup or "–",
        _WORDS[run.verdict] + ("" if item.believed else ", not trusted"),
        render.span(run.rto_s),
        render.span(run.rpo_s),
        render.size(run.plain_bytes),
    )


def _proven(found: Sequence[RecordedRun], source: str) -> set[str]:
    return {
        item.run.backup
        for item in found
        if item.believed and item.run and item.run.source == source and item.run.verdict == "passed" and item.run.backup
    }


def sparkline(values: Sequence[float]) -> str:
    """Draw values as a line of bars, the largest one full."""
    most = max(values, default=0.0)
    if not most:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * (len(_BARS) - 1) + 0.5))] for value in values)
