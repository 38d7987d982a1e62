"""``drd backup now``: take a backup of every source, or of those named."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, measuring, notifying, render, telling
from drd.cli.session import Session
from drd.errors import Cancelled, DrdError, PartialError

if TYPE_CHECKING:  # pulls in the pipeline
    from drd.ops.backup import BackupReport
    from drd.ops.prune import PruneReport


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("backup", help="take a backup: drd backup now [SOURCE...]", parents=[common])
    actions = parser.add_subparsers(metavar="now", required=True)
    now = actions.add_parser(
        "now",
        parents=[common],
        help="back up every source of the configuration, or those named",
        description="Back up sources side by side. One that fails does not stop the others (exit 3).",
    )
    now.add_argument("sources", nargs="*", metavar="SOURCE", help="sources to back up (all of the configuration)")
    now.add_argument(
        "--kind",
        choices=("auto", "full", "incremental"),
        default="auto",
        help="whether to build on the backup before it: auto (as full_every and max_chain say), full, incremental",
    )
    measuring.add(now, "backup")
    now.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Back up and print the report; exit 0, 3, or the code of the failure that all share."""
    from drd.ops.backup import back_up
    from drd.ops.prune import prune_after

    try:
        services = session.services
        sources = services.sources(args.sources)
        session.log.info("backup.started", sources=[source.name for source in sources], kind=args.kind)
        with session.show_progress("backup"):
            report = back_up(services.ports, sources, kind=args.kind)
    except DrdError as error:
        notifying.tell_failure(session, args.sources, error)
        raise
    telling.backups(session, report)
    try:
        if not session.as_json:
            _print(report)  # before receivers that may keep us waiting
    finally:
        delivery = notifying.tell_backups(session, report)
    pruned = None
    if services.config.retention.auto and not session.cancel.cancelled:
        pruned = prune_after(services.ports, report, services.policies([source.name for source in sources]))
        telling.pruned(session, pruned)
    if session.as_json:
        document = documents.backup_report(report) | notifying.document(delivery)
        documents.emit(document | {"prune": documents.prune_report(pruned)} if pruned else document)
    elif pruned:
        _print_pruned(pruned)
    code = exit_code(report)
    return PartialError.exit_code if code == 0 and pruned and pruned.outcome != "ok" else code


def _print_pruned(report: PruneReport) -> None:
    for source in report.sources:
        if source.error:
            print(render.error_lines(source.error))
        if source.removed:
            held = render.size(source.removed_bytes)
            print(f"  {source.source}: {render.plural(len(source.removed), 'backup')} no rule keeps removed, {held}")


def exit_code(report: BackupReport) -> int:
    """Return 0 when all succeeded, 130 when interrupted, 3 when some did, else the code of the first failure."""
    if report.outcome == "ok":
        return 0
    if report.outcome == "cancelled":
        return Cancelled.exit_code
    if report.outcome == "partial":
        return PartialError.exit_code
    return next(source.error.exit_code for source in report.sources if source.error)


def _print(report: BackupReport) -> None:
    done = [source.backup for source in report.sources if source.backup]
    for source in report.sources:
        if source.error:
            print(render.error_lines(source.error))
        for notice in source.notices:
            print(f"{render.mark('warning')} {source.source}: {notice.message}")
    headline = (
        f"{len(done)} of {render.plural(len(report.sources), 'source')} backed up in {render.span(report.duration_s)}"
    )
    if done:
        points = sorted(backup.recovery_point for backup in done)
        skew = (points[-1] - points[0]).total_seconds()
        headline += f", recovery point {render.point(points[-1])}"  # the time to ask for: it reaches all of them
        headline += f" (skew {render.span(skew)})" if len(points) > 1 else ""
    print(f"{render.mark(report.outcome)} {headline}")
    if done:
        rows = [
            (
                backup.source,
                backup.id,
                backup.kind,
                render.size(backup.plain_bytes),
                render.size(backup.stored_bytes),
                render.number(backup.rows),
                render.span(backup.duration_s),
            )
            for backup in done
        ]
        print(render.table(("SOURCE", "BACKUP", "KIND", "DATA", "STORED", "ROWS/KEYS", "TIME"), rows))
    for source in report.sources:
        if source.backup and source.kind_reason:
            print(f"  {source.source}: {source.backup.kind}: {source.kind_reason}")
