"""``drd status``: could we recover now, and to when?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render
from drd.cli.session import Session

if TYPE_CHECKING:  # pulls in the repository
    from drd.daemon.upcoming import Outlook
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
    ahead = _outlook(session)
    if session.as_json:
        planned = {name: item.next_at for name, item in ahead.sources.items()} if ahead and ahead.running else None
        documents.emit(documents.status_report(report, planned))
        return 0
    print(_answer(report))
    if report.sources:
        _print_sources(report, ahead)
    for line in (*_remarks(report), *(_ahead(report, ahead) if ahead else ())):
        print(line)
    return 0


def _outlook(session: Session) -> Outlook | None:
    """Return what a daemon plans; None where no schedule has backups."""
    config = session.config
    if not any(schedule.do == "backup" for schedule in config.schedules.values()):
        return None
    from drd.daemon.upcoming import outlook
    from drd.wiring_daemon import plans_of

    return outlook(session.services.ports, plans_of(config), lease_ttl_s=config.daemon.lease.total_seconds())


def _print_sources(report: StatusReport, ahead: Outlook | None) -> None:
    """Print a line a source; on a terminal too narrow for it, two."""
    headings = ["SOURCE", "NEWEST (UTC)", "AGE", "RPO", "WINDOW", "LAST DRILL"]
    rows = [[*_row(item), _last_drill(item, report)] for item in report.sources]
    if ahead is not None:
        headings.append("NEXT RUN")
        rows = [[*row, _next_run(item, ahead, report)] for row, item in zip(rows, report.sources, strict=True)]
    table = render.table(headings, rows)
    if render.fits(table):
        print(table)
        return
    lines = render.table(headings[:4], [row[:4] for row in rows]).splitlines()
    print(lines[0])
    for line, (*_, window, drill) in zip(lines[1:], (row[:6] for row in rows), strict=True):
        print(line)
        print(f"    window {window}; drill {drill}")
    for row in rows:
        if ahead is not None and row[6] != "–":
            print(f"  next run of {row[0]}: {row[6]}")


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
        return "Whether a drill proved it is not known here." if report.drills_unread else "Not proven by a drill."
    took_s = sum(s.last_drill.rto_s for s in report.sources if s.configured and s.last_drill)
    return f"Proven by a drill {render.ago(report.proven_at, report.at)}, in {render.span(took_s)}."


def _last_drill(item: SourceStatus, report: StatusReport) -> str:
    run = item.last_drill
    if run is None:
        return "not known" if report.drills_unread else "never"
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


def _next_run(item: SourceStatus, ahead: Outlook, report: StatusReport) -> str:
    found = ahead.sources.get(item.source)
    if ahead.problem:
        return "unknown"
    if found is None:
        return "–"
    if not ahead.running:
        return "no daemon"
    when = render.ago(found.next_at, report.at) if found.next_at and found.next_at > report.at else "now"
    return "soon" if found.next_at is None else f"retry {when}" if found.retry else when


def _ahead(report: StatusReport, ahead: Outlook) -> list[str]:
    """Say what keeps planned backups from being taken."""
    warning = render.mark("warning")
    if ahead.problem:
        return [f"{warning} what a daemon plans is not known: {ahead.problem}"]
    out = []
    if not ahead.running:
        out.append(f"{warning} backups are scheduled, but no daemon runs that would take them: drd daemon")
    newest = {item.source: item.newest.recovery_point for item in report.sources if item.newest}
    for name, item in ahead.sources.items():
        failed = item.failed
        if failed is None or (name in newest and newest[name] > failed.finished_at):
            continue
        ago = render.ago(failed.finished_at, report.at)
        out.append(f"{warning} {name}: the last attempt failed {ago}: {failed.message}")
        out += [f"    {failed.hint}"] if failed.hint else []
    return out


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
