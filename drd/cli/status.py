"""``drd status``: could we recover now, and to when?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render
from drd.cli.session import Session
from drd.cli.verify import coverage_words

if TYPE_CHECKING:  # pulls in the repository
    from drd.ops.status import SourceStatus, StatusReport


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "status",
        help="could we recover now?",
        parents=[common],
        description="Say what could be recovered now, and to when.",
    )
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace, session: Session) -> int:
    """Print the answer first, then a row per source."""
    from drd.ops.status import status

    services = session.services
    wanted = [(name, s.rpo.total_seconds() if s.rpo else None) for name, s in services.config.sources.items()]
    report = status(services.ports, wanted)
    if session.as_json:
        documents.emit(documents.status_report(report))
        return 0
    print(_answer(report))
    if report.sources:
        rows = [(*_row(item), _last_drill(item, report)) for item in report.sources]
        print(render.table(("SOURCE", "NEWEST (UTC)", "AGE", "RPO", "WINDOW", "LAST DRILL"), rows))
    for line in _remarks(report):
        print(line)
    return 0


def _answer(report: StatusReport) -> str:
    configured = [item for item in report.sources if item.configured]
    if report.recoverable_to is not None:
        age = render.ago(report.recoverable_to, report.at)
        which = "the one source" if len(configured) == 1 else f"all {len(configured)} sources"
        point = render.point(report.recoverable_to)
        return f"Recoverable now: yes, {which}, to {point} ({age}). {_proof(report)}"
    lacking = [item.source for item in configured if item.newest is None]
    if not lacking:
        return "Recoverable now: no source is configured."
    return f"Recoverable now: NO, no backup of {', '.join(lacking)}. Take one with: drd backup now {' '.join(lacking)}"


def _proof(report: StatusReport) -> str:
    """Say whether that was proven, and how long it took then."""
    if report.proven_at is None:
        return "Not proven by a drill."
    took_s = sum(s.last_drill.rto_s for s in report.sources if s.configured and s.last_drill)
    return f"Proven by a drill {render.ago(report.proven_at, report.at)}, in {render.span(took_s)}."


def _last_drill(item: SourceStatus, report: StatusReport) -> str:
    run = item.last_drill
    if run is None:
        return "never"
    mark = {"passed": "✓", "failed": "✗"}.get(run.verdict, "?")
    return f"{mark} {run.verdict} {render.ago(run.finished_at, report.at)}"


def _row(item: SourceStatus) -> tuple[str, ...]:
    newest, rpo, window = "–", "–", "–"
    if item.within_rpo is not None:
        rpo = ("✓ " if item.within_rpo else "✗ ") + render.span(item.rpo_s)
    if item.oldest and item.newest:
        newest = render.point(item.newest.recovery_point).removesuffix(" UTC")
        length_s = (item.newest.recovery_point - item.oldest.recovery_point).total_seconds()
        window = f"{render.span(length_s)}, {render.plural(item.backups, 'backup')}"
    return (item.source, newest, render.span(item.age_s), rpo, window)


def _remarks(report: StatusReport) -> list[str]:
    out = [f"{render.mark('failed')} {notice.message}" for notice in report.notices]
    if report.ask_for is not None:
        out.append(f'{render.mark("planned")} the newest of each: drd restore --at "{render.point(report.ask_for)}"')
    for item in report.sources:
        name, failed, warning = item.source, render.mark("failed"), render.mark("warning")
        if item.damaged:
            out.append(f"{failed} {name}: {render.plural(item.damaged, 'damaged backup')}; see: drd verify {name}")
        if item.untrusted:
            held = render.plural(item.untrusted, "backup")
            out.append(f"{failed} {name}: {held} not signed by a trusted key, and not counted; see: drd verify {name}")
        if item.last_drill is not None and item.last_drill.verdict != "passed":
            run = item.last_drill
            why = run.error.message if run.error else next((c.detail for c in run.checks if c.outcome == "failed"), "")
            what = "failed" if run.verdict == "failed" else "could not be carried out"
            mark = failed if run.verdict == "failed" else warning
            out.append(f"{mark} {name}: its last drill {what}: {why}. See: drd drill show {run.id}")
        if item.within_rpo is False:
            out.append(f"{failed} {name} is past its RPO. Try: drd check {name}; drd backup now {name}")
        if item.from_future:
            taken = render.plural(item.from_future, "backup")
            out.append(f"{warning} {name}: {taken} dated in the future: a clock was wrong, here or when taken")
        if item.coverage.damaged:
            damaged = render.plural(item.coverage.damaged, "object")
            out.append(f"{failed} {name}: {damaged} damaged when last read; see: drd verify {name} --sample 1%")
        if item.coverage.read_bytes and not item.coverage.unknown:
            out.append(f"{render.mark('planned')} {name}: {coverage_words(item.coverage)} (drd verify)")
        if not item.configured:
            out.append(f"{warning} {name} is in the store but not in the configuration")
    return out
