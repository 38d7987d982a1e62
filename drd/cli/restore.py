"""``drd restore --at TIME``: bring sources back to a time, into targets that hold nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render
from drd.cli.session import Session
from drd.errors import Cancelled, ConfigError, PartialError

if TYPE_CHECKING:  # pull in the pipeline
    from datetime import datetime

    from drd.model import Backup, Secret
    from drd.ops.ports import Source
    from drd.ops.restore import PlannedRestore, RestoreReport
    from drd.wiring import Services


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "restore",
        help="restore to a time: drd restore --at TIME",
        parents=[common],
        description="Restore each source's newest state not later than TIME. "
        "A target that holds data is refused (exit 14).",
    )
    parser.add_argument(
        "--at",
        required=True,
        metavar="TIME",
        help="ISO 8601 (naive: UTC), or now, '2h ago', 'yesterday 03:00'",
    )
    parser.add_argument("--source", action="append", default=[], metavar="S", help="only this source; may be repeated")
    parser.add_argument(
        "--into",
        metavar="URL|DIR",
        help="restore one source into another server or database, or write a backup's files below a directory",
    )
    parser.add_argument("--password-env", metavar="NAME", help="environment variable with the password for --into URL")
    parser.add_argument("--password-file", metavar="FILE", help="file with the password for --into URL")
    parser.add_argument("--dry-run", action="store_true", help="say what would be restored from what into what")
    parser.add_argument(
        "--no-compare",
        action="store_true",
        help="do not read the restored data back to compare it with the backup's fingerprint",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Plan, show the plan, restore, compare, report."""
    from drd.ops import restore as op
    from drd.repository.timespec import parse_time

    services = session.services
    ports = services.ports
    at = parse_time(args.at, ports.now())
    sources = _chosen(args.source, services)
    if at.naive:
        print(f"drd: --at names no zone and is taken as UTC: {render.when(at.at)}", file=sys.stderr)
    if args.into and "://" not in args.into:
        return _export(args, session, at.at, sources)
    planned = op.plan(ports, at.at, sources, _targets(args, session))
    if not session.as_json:
        _print_plan(at.at, planned)
    if args.dry_run:
        if session.as_json:
            documents.emit(documents.restore_report(op.as_planned(at.at, planned)))
        for item in planned:
            if not item.target.empty and not session.as_json:
                print(
                    f"{render.mark('warning')} {item.source}: {item.target.detail}; "
                    "the restore would be refused (exit 14)"
                )
        return 0
    op.refuse_unless_empty(planned)
    with session.show_progress("restore"):
        report = op.restore(ports, at.at, planned, check=not args.no_compare)
    if session.as_json:
        documents.emit(documents.restore_report(report))
    else:
        _print(report)
    return exit_code(report)


def _chosen(wanted: list[str], services: Services) -> list[str]:
    """Return the sources to restore: those named, else those configured."""
    if not wanted:
        configured = list(services.config.sources)
        if not configured:
            known = ", ".join(services.ports.catalog.sources()) or "none"
            raise ConfigError(
                "no source is configured: say which with --source", op="restore", hint=f"in the store: {known}"
            )
        return configured
    known_all = {*services.config.sources, *services.ports.catalog.sources()}
    for name in wanted:
        if name not in known_all:
            known = ", ".join(sorted(known_all)) or "none"
            raise ConfigError(f"no source is called {name}", op="restore", subject=name, hint=f"sources: {known}")
    return list(dict.fromkeys(wanted))


def _targets(args: argparse.Namespace, session: Session) -> Any:
    """Return the function that finds the target of a source: its own server, or ``--into``."""
    services = session.services
    if not args.into:
        if args.password_env or args.password_file:
            raise ConfigError("--password-env and --password-file go with --into URL", op="restore")
        return services.target
    if len(_chosen(args.source, services)) != 1:
        raise ConfigError("--into URL takes one source", op="restore", hint="add --source NAME")
    password = _password(args)

    def target(source: str, backup: Backup) -> Source:
        return services.target_at(args.into, source, backup, password)

    return target


def _password(args: argparse.Namespace) -> Secret | None:
    if args.password_env and args.password_file:
        raise ConfigError("give --password-env or --password-file, not both", op="restore")
    from drd.config import secret_from

    if args.password_env:
        return secret_from(env=args.password_env, where="--password-env")
    if args.password_file:
        return secret_from(file=args.password_file, where="--password-file")
    return None


def _export(args: argparse.Namespace, session: Session, at: datetime, sources: list[str]) -> int:
    """Write backups as files of stock formats."""
    from drd.ops import restore as op
    from drd.repository.planning import plan_restore

    ports = session.services.ports
    entries = [entry for source in sources for entry in ports.catalog.entries(source)]
    choices = plan_restore(entries, at, sources)
    lines: list[Any] = []
    with session.show_progress("restore"):
        for choice in choices:
            target = Path(args.into) / choice.source
            started = ports.monotonic()
            if not args.dry_run:
                op.export(ports, choice.backup, Path(args.into))
            lines.append(
                {
                    "source": choice.source,
                    "backup": choice.backup.id,
                    "recovery_point": documents.moment(choice.backup.recovery_point),
                    "gap_s": round(choice.gap_s, 3),
                    "target": str(target),
                    "outcome": "planned" if args.dry_run else "ok",
                    "duration_s": round(ports.monotonic() - started, 3),
                }
            )
    outcome = "planned" if args.dry_run else "ok"
    if session.as_json:
        documents.emit({"at": documents.moment(at), "outcome": outcome, "restores": lines})
    else:
        for line in lines:
            print(f"{render.mark(outcome)} {line['source']}  {line['backup']} → {line['target']}")
        if not args.dry_run:
            print(f"Files of stock formats. What to do with them: drd runbook {choices[0].backup.id}")
    return 0


def _print_plan(at: datetime, planned: list[PlannedRestore]) -> None:
    print(f"Restore to {render.when(at)}")
    rows = [
        (
            item.source,
            f"{item.backup.id} {item.backup.kind}",
            render.when(item.backup.recovery_point),
            render.span(item.gap_s),
            item.target.description,
        )
        for item in planned
    ]
    print(render.table(("SOURCE", "FROM", "STATE AS OF", "BEFORE THE TIME ASKED", "INTO"), rows))
    for item in planned:
        for backup_id, reason in item.passed_over:
            print(f"{render.mark('warning')} {item.source}: {backup_id} is newer but cannot be used: {reason}")


def _print(report: RestoreReport) -> None:
    for item in report.restores:
        if item.error:
            print(render.error_lines(item.error))
        for notice in item.notices:
            print(f"{render.mark('warning')} {item.source}: {notice.message}")
    good = [item for item in report.restores if item.outcome == "ok"]
    compared = all(item.checked for item in good)
    how = "restored and equal to their fingerprints" if compared else "restored (not compared with their fingerprints)"
    headline = f"{len(good)} of {len(report.restores)} {how} in {render.span(report.duration_s)}."
    print(f"{render.mark(report.outcome)} {headline} Nothing was overwritten.")


def exit_code(report: RestoreReport) -> int:
    """Return 0 when all are restored, 130 when interrupted, 3 when some, else the code of the first failure."""
    if report.outcome in {"ok", "planned"}:
        return 0
    if report.outcome == "cancelled":
        return Cancelled.exit_code
    if report.outcome == "partial":
        return PartialError.exit_code
    return next(item.error.exit_code for item in report.restores if item.error)
