"""``drd restore --at TIME``: bring sources back to a time, into targets that hold nothing or in the place of theirs."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render, replaced, telling
from drd.cli.session import Session
from drd.errors import Cancelled, ConfigError, DrdError, PartialError

if TYPE_CHECKING:  # pull in the pipeline
    from collections.abc import Sequence
    from datetime import datetime

    from drd.model import Backup, Secret
    from drd.ops.ports import Ports, Source
    from drd.ops.restore import Outcome, PlannedRestore, RestoredSource, RestoreReport
    from drd.repository.planning import Choice
    from drd.selection import Selection
    from drd.wiring import Services


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "restore",
        help="restore to a time: drd restore --at TIME",
        parents=[common],
        description="Restore each source's newest state not later than TIME. "
        "A target that holds data is refused (exit 14), or, with --replace, is restored beside and swapped.",
    )
    parser.add_argument(
        "--at",
        metavar="TIME",
        help="ISO 8601 (naive: UTC), or now, '2h ago', 'yesterday 03:00'",
    )
    parser.add_argument("--source", action="append", default=[], metavar="S", help="only this source; may be repeated")
    parser.add_argument(
        "--into",
        metavar="URL|DIR",
        help="restore one source into another server or database, or write a backup's files below a directory",
    )
    part = parser.add_argument_group("a part of one source (PATTERN: * ? […]; may be repeated)")
    part.add_argument(
        "--tables",
        action="append",
        default=[],
        metavar="PATTERN",
        help="these tables: NAME, SCHEMA.NAME or DATABASE.NAME",
    )
    part.add_argument("--schema", action="append", default=[], metavar="PATTERN", help="these schemas of PostgreSQL")
    part.add_argument("--database", action="append", default=[], metavar="PATTERN", help="these databases")
    part.add_argument("--keys", action="append", default=[], metavar="PATTERN", help="these keys of Redis")
    parser.add_argument("--password-env", metavar="NAME", help="environment variable with the password for --into URL")
    parser.add_argument("--password-file", metavar="FILE", help="file with the password for --into URL")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="where a server holds data: restore beside it, compare, then swap; the old data is kept",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be restored from what into what")
    parser.add_argument(
        "--no-compare",
        action="store_true",
        help="do not read the restored data back to compare it with the backup's fingerprint",
    )
    parser.set_defaults(run=run)
    replaced.add(parser, common)


def run(args: argparse.Namespace, session: Session) -> int:
    """Plan, show the plan, restore, compare, report."""
    from drd.ops import replace as in_place
    from drd.ops import restore as op
    from drd.repository.timespec import parse_time

    if args.at is None:
        raise ConfigError("--at TIME is missing", op="restore", hint="such as: drd restore --at now --dry-run")
    services = session.services
    ports = services.ports
    at = parse_time(args.at, ports.now())
    sources = _chosen(args.source, services)
    if at.naive:
        print(f"drd: --at names no zone and is taken as UTC: {render.when(at.at)}", file=sys.stderr)
    if args.into == "":  # --into "$UNSET" must not mean the configured servers
        raise ConfigError("--into is empty", op="restore", hint="name a URL or a directory, or leave it out")
    if args.replace and (args.into or args.no_compare):
        raise ConfigError(
            "--replace takes the place of the configured server's data, and always compares before",
            op="restore",
            hint="leave out --into and --no-compare; to replace data elsewhere, configure that server as the source",
        )
    is_part = not _selection(args).everything
    if is_part and (args.replace or (args.into and "://" not in args.into)):
        raise ConfigError(
            "a part of a source is restored into an empty or absent target alone",
            op="restore",
            hint="give --into URL of another database or server, and copy from there what is needed",
        )
    if args.into and "://" not in args.into:
        return _export(args, session, at.at, sources)
    if not args.into and not args.dry_run:
        _recover(session, sources)
    planned = op.plan(ports, at.at, sources, _targets(args, session))
    steps = in_place.survey(ports, planned) if args.replace else {}
    if not session.as_json:
        _print_plan(at.at, planned)
        for source, lines in steps.items():
            print(f"{source} holds data, which is replaced:")
            print("\n".join(f"    {number}. {render.legible(line)}" for number, line in enumerate(lines, 1)))
    if args.dry_run:
        if session.as_json:
            documents.emit(documents.restore_report(op.as_planned(at.at, planned), steps))
        for item in planned:
            if not item.target.empty and not session.as_json and not args.replace:
                print(
                    f"{render.mark('warning')} {item.source}: {item.target.detail}; "
                    "the restore would be refused (exit 14)"
                )
        return 0
    if not args.replace:
        op.refuse_unless_empty(planned)
    with session.show_progress("restore"):
        if args.replace:
            report = in_place.restore_in_place(ports, at.at, planned)
        else:
            report = op.restore(ports, at.at, planned, check=not args.no_compare)
    telling.restored(session, report)
    if session.as_json:
        documents.emit(documents.restore_report(report))
    else:
        _print(report)
    return exit_code(report)


def _recover(session: Session, sources: list[str]) -> None:
    """End what killed runs left of restores in place on the configured servers, and say so."""
    from drd.ops.replace import recover_interrupted

    services = session.services
    configured = [source for source in sources if source in services.config.sources]
    if configured:
        for source, notice in recover_interrupted(services.ports, services.sources(configured)):
            print(f"{render.mark('warning', sys.stderr)} {source}: {notice.message}", file=sys.stderr)


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
    selection = _selection(args)
    if not selection.everything and len(_chosen(args.source, services)) != 1:
        raise ConfigError("a part is restored of one source", op="restore", hint="add --source NAME")
    if not args.into:
        if args.password_env or args.password_file:
            raise ConfigError("--password-env and --password-file go with --into URL", op="restore")
        return partial(services.target, selection=selection)
    if len(_chosen(args.source, services)) != 1:
        raise ConfigError("--into URL takes one source", op="restore", hint="add --source NAME")
    password = _password(args)

    def target(source: str, backup: Backup) -> Source:
        return services.target_at(args.into, source, backup, password, selection)

    return target


def _selection(args: argparse.Namespace) -> Selection:
    """Return the part of a source that was asked for."""
    from drd.selection import Selection

    given = (args.database, args.schema, args.tables, args.keys)
    if any(not pattern for patterns in given for pattern in patterns):  # --tables "$UNSET" must not mean all
        raise ConfigError("a pattern is empty", op="restore", hint="name what to restore, such as --tables 'orders*'")
    return Selection(*map(tuple, given))


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
    """Write backups as files of stock formats, one source after the other; one that fails does not stop the others."""
    from drd.ops import restore as op
    from drd.ops.choosing import choose_backups
    from drd.ops.export import refuse_existing

    if args.password_env or args.password_file or args.no_compare:
        hint = "leave out --password-env, --password-file and --no-compare"
        raise ConfigError("--into DIR writes files and asks no server", op="restore", hint=hint)
    ports, directory = session.services.ports, Path(args.into)
    choices = choose_backups(ports, at, sources)
    for choice in choices:
        if not args.dry_run:
            refuse_existing(directory, choice.source)
    with session.show_progress("restore"):
        done = [_export_one(ports, choice, directory, dry_run=args.dry_run) for choice in choices]
    report = op.RestoreReport(at, tuple(done), sum(item.duration_s for item in done))
    telling.restored(session, report)
    if session.as_json:
        documents.emit(documents.restore_report(report))
        return exit_code(report)
    for item in done:
        if item.error:
            print(render.error_lines(item.error))
        else:
            print(f"{render.mark(item.outcome)} {item.source}  {item.backup.id} → {item.target}")
        if item.outcome == "planned" and os.path.lexists(item.target):
            print(f"{render.mark('warning')} {item.target} exists already; the restore would be refused (exit 14)")
    _print_passed_over(done)
    if written := [item.backup.id for item in done if item.outcome == "ok"]:
        print("Files of stock formats. What to do with them:")
        for backup_id in written:
            print(f"  drd runbook {backup_id}")
    return exit_code(report)


def _export_one(ports: Ports, choice: Choice[Backup], directory: Path, *, dry_run: bool) -> RestoredSource:
    from drd.ops import restore as op
    from drd.ops.export import export
    from drd.ops.failures import of_source

    started = ports.monotonic()
    outcome: Outcome = "planned" if dry_run else "ok"
    failure: DrdError | None = None
    try:
        if not dry_run:
            export(ports, choice.backup, directory)
    except DrdError as error:
        failure = of_source(error, "restore", choice.source)
        outcome = "cancelled" if isinstance(error, Cancelled) else "failed"
    return op.RestoredSource(
        choice.source,
        choice.backup,
        choice.gap_s,
        str(directory / choice.source),
        outcome,
        ports.monotonic() - started,
        error=failure,
        passed_over=choice.passed_over,
    )


def _print_plan(at: datetime, planned: list[PlannedRestore]) -> None:
    print(f"Restore to {render.point(at)}")
    rows = [
        (
            item.source,
            f"{item.backup.id} {item.backup.kind}"
            + (f", on {render.plural(len(item.ancestors), 'ancestor')}" if item.ancestors else ""),
            render.point(item.backup.recovery_point),
            render.span(item.gap_s),
            item.target.description,
        )
        for item in planned
    ]
    print(render.table(("SOURCE", "FROM", "STATE AS OF", "BEFORE THE TIME ASKED", "INTO"), rows))
    _print_passed_over(planned)
    for item in planned:
        for notice in item.notices:
            print(f"{render.mark('warning')} {item.source}: {notice.message}")


def _print_passed_over(items: Sequence[PlannedRestore | RestoredSource]) -> None:
    for item in items:
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
    for item in good:
        if item.replaced:
            old = render.legible(", ".join(item.replaced.old))
            print(f"  {item.source}: the old data is kept as {old or 'nothing: it was absent'}")
            print(f"    to go back:  drd restore undo {item.replaced.restore}")
            print(f"    to drop it:  drd restore drop-old {item.replaced.restore}")


def exit_code(report: RestoreReport) -> int:
    """Return 0 when all are restored, 130 when interrupted, 3 when some, else the code of the first failure."""
    if report.outcome in {"ok", "planned"}:
        return 0
    if report.outcome == "cancelled":
        return Cancelled.exit_code
    if report.outcome == "partial":
        return PartialError.exit_code
    return next(item.error.exit_code for item in report.restores if item.error)
