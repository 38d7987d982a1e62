"""``drd status``: could we recover now, and to when?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render
from drd.cli.session import Session

if TYPE_CHECKING:  # pulls in the repository
    from drd.ops.status import SourceStatus, StatusReport

_MARKS = {"act": "failed", "look": "warning", "note": "planned"}


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
    from drd.ops.remarks import remarks

    out = []
    if report.ask_for is not None:
        out.append(f'{render.mark("planned")} the newest of each: drd restore --at "{render.point(report.ask_for)}"')
    for remark in remarks(report):
        if remark.code == "no-backup":  # the answer says it
            continue
        out.append(f"{render.mark(_MARKS[remark.urgency])} {remark.message}{_try(remark.commands)}")
    return out


def _try(commands: tuple[str, ...]) -> str:
    return f". Try: {'; '.join(commands)}" if commands else ""
