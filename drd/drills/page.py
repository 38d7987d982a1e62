"""A drill report as one self-contained page: verdict, timeline, evidence, environment, how to repeat it."""

from __future__ import annotations

from html import escape

from drd.drills.history import RecordedRun
from drd.drills.look import LOOK
from drd.drills.phases import PHASES
from drd.drills.report import DrillRun
from drd.model import Finding
from drd.wording import number, size, span, when

STYLE = (
    LOOK
    + """
body{max-width:60rem}
h1{font-size:1.7rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.passed{color:var(--good)}.failed{color:var(--bad)}.unverified,.warning{color:var(--doubt)}.skipped,.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;
border-bottom:1px solid var(--line)}
td.seen{overflow-wrap:anywhere}td.outcome,th{white-space:nowrap}
th{font-weight:600;font-size:.9rem;color:var(--dim)}
td.time{white-space:nowrap;text-align:right}
pre{background:var(--soft);padding:.8rem;white-space:pre-wrap;overflow-wrap:anywhere;user-select:all}svg{width:100%;height:auto}
svg text{font:14px system-ui,sans-serif;fill:var(--ink)}
.drawing{overflow-x:auto}.drawing svg{min-width:34rem}
@media (max-width:40rem){body{padding:1rem}
.evidence tr{display:block;border-bottom:1px solid var(--line);padding:.4rem 0}
.evidence td{display:block;border:0;padding:0}.evidence th{display:none}td.time{text-align:left;color:var(--dim)}}
@media print{body{max-width:none}}
"""
)
_WORDS = {
    "passed": "Passed",
    "failed": "Failed",
    "unverified": "Unverified",
    "warning": "Warning",
    "skipped": "Skipped",
}
_MARKS = {"passed": "✓", "failed": "✗", "unverified": "?", "warning": "!", "skipped": "·"}
_WIDTH, _LEFT, _ROW = 900, 110, 30


def page(found: RecordedRun, *, home: str = "") -> str:
    """Return the page of a run that can be read: HTML with no external resource; everything in it is escaped.

    ``home`` is the address of the daemon's page, to be linked to; a page in a file has none.
    """
    run = found.run
    if run is None:
        raise ValueError("a run that cannot be read has no page")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Drill {_WORDS[run.verdict].lower()}: {_e(run.source)} {_e(run.id)}</title>"
        f"<style>{STYLE}</style></head>\n<body><main>\n"
        + (f'<p><a href="{_e(home)}">All sources and drills</a></p>\n' if home else "")
        + _verdict(run)
        + _error(run)
        + _trouble(run)
        + f"<h2>How long it took</h2>\n{_timeline(run)}\n"
        + _evidence(run)
        + _environment(run, found)
        + _repeat(run)
        + "</main></body></html>\n"
    )


def _e(value: object) -> str:
    return escape(str(value), quote=True)


def _verdict(run: DrillRun) -> str:
    what = f"backup <code>{_e(run.backup)}</code>" if run.backup else "no backup"
    lines = [
        f'<p class="dim">Restore drill {_e(run.drill)}, {when(run.started_at)}</p>',
        f'<h1 class="{run.verdict}">{_MARKS[run.verdict]} {_WORDS[run.verdict]}: {_e(run.source)}</h1>',
        f"<p>{_sentence(run)}</p>",
        f"<p>Restored: {what} ({_e(run.how)}), state as of {when(run.recovery_point, 'unknown')}, "
        f"{size(run.plain_bytes)}, {number(run.rows, 'unknown')} rows or keys"
        + (f", on {len(run.chain)} ancestors" if run.chain else "")
        + ".</p>",
        "<table><tr><td></td><th>Found</th><th>Objective</th></tr>",
        _objective("Recovery time (RTO)", run.rto_s, run.objectives.rto_s, "rto" in run.over_objective),
        _objective("Age of the data (RPO)", run.rpo_s, run.objectives.rpo_s, "rpo" in run.over_objective),
        "</table>\n",
    ]
    return "\n".join(lines)


def _sentence(run: DrillRun) -> str:
    if run.verdict == "passed":
        return "This backup was restored from the store and the identity alone, read whole, and is what it was."
    if run.verdict == "failed":
        return "This backup did not prove to be what it should be. Do not rely on it before the cause is known."
    return "The drill could not be carried out. Nothing is known of the backup."


def _objective(name: str, found_s: float | None, limit_s: float | None, over: bool) -> str:  # noqa: FBT001 - private
    mark = "" if limit_s is None else (' class="warning"' if over else ' class="passed"')
    limit = "none stated" if limit_s is None else f"{span(limit_s)}{' — over' if over else ''}"
    return f"<tr><td>{name}</td><td{mark}>{span(found_s, 'unknown')}</td><td>{limit}</td></tr>"


def _error(run: DrillRun) -> str:
    if run.error is None:
        return ""
    hint = f"<p>{_e(run.error.hint)}</p>" if run.error.hint else ""
    text = f'<p class="{run.verdict}">{_e(run.error.message)}</p>{hint}'
    return f"<h2>It ended in the phase {_e(run.error.phase)}</h2>\n{text}\n"


def _timeline(run: DrillRun) -> str:
    """Draw each phase where it lay in the whole."""
    total = run.rto_s or 1.0
    scale = (_WIDTH - _LEFT - 110) / total
    label = f"Phases of the drill, {span(run.rto_s)} in all"
    out = [f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(PHASES) + 4}" role="img" aria-label="{_e(label)}">']
    x = float(_LEFT)
    for row, name in enumerate(PHASES):
        seconds, y = run.phases.get(name, 0.0), row * _ROW + 4
        width = max(1.5, seconds * scale)
        out.append(
            f'<text x="0" y="{y + 17}">{name}</text>'
            f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 10}" rx="2" fill="currentColor" '
            f'opacity="0.55"/><text x="{x + width + 6:.1f}" y="{y + 17}">{_e(span(seconds))}</text>'
        )
        x += seconds * scale
    return f'<div class="drawing" tabindex="0">{"".join(out)}</svg></div>'


def _evidence(run: DrillRun) -> str:
    rows = [
        f'<tr><td class="outcome {c.outcome}">{_MARKS[c.outcome]} {_WORDS[c.outcome]}</td><td>{_e(c.name)}</td>'
        f'<td class="seen">{_e(c.detail)}{_expected(c)}</td><td class="time">{_e(span(c.duration_s))}</td></tr>'
        for c in run.checks
    ]
    if not rows:
        return "<h2>Evidence</h2>\n<p>No check was made.</p>\n"
    head = "<tr><th>Outcome</th><th>Check</th><th>What was seen</th><th>Time</th></tr>"
    return f'<h2>Evidence</h2>\n<table class="evidence">{head}{"".join(rows)}</table>\n'


def _expected(check: Finding) -> str:
    if check.outcome not in {"failed", "warning"} or not (check.expected or check.found):
        return ""
    return f'<br><span class="dim">expected {_e(check.expected)}; found {_e(check.found)}</span>'


def _trouble(run: DrillRun) -> str:
    """Say at the top what did not pass; the evidence below has it in its place."""
    lines = [
        f'<p class="{c.outcome}">{_MARKS[c.outcome]} {_e(c.name)}: {_e(c.detail)}</p>'
        for c in run.checks
        if c.outcome in {"failed", "unverified", "warning"}
    ]
    return f"<h2>What did not pass</h2>\n{''.join(lines)}\n" if lines else ""


def _environment(run: DrillRun, found: RecordedRun) -> str:
    signature = (
        f"signed by {found.signer}" if found.signer else "signed, by no key known here" if found.signed else "none"
    )
    facts = {**run.environment, "run": run.id, "signature of this report": signature}
    rows = "".join(f"<tr><td>{_e(name)}</td><td>{_e(value)}</td></tr>" for name, value in facts.items())
    return f"<h2>Environment</h2>\n<table>{rows}</table>\n"


def _repeat(run: DrillRun) -> str:
    if run.backup is None:
        command = "drd drill now"
    else:
        name = "" if run.drill == "default" else f" {run.drill}"
        command = f"drd drill now{name} --backup {run.backup}"
    return f"<h2>How to repeat it</h2>\n<pre>{_e(command)}</pre>\n"
