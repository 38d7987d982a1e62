"""``drd drill``: restore backups into throw-away servers, check them, and keep the evidence."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drd.cli import documents, drill_report, measuring, notifying, render, telling
from drd.cli.session import Session
from drd.errors import Cancelled, ConfigError, DrdError, LeaseError, ScratchError

if TYPE_CHECKING:  # pulls in the pipeline
    from drd.config_drills import RuntimeName
    from drd.drills.suite import Drill
    from drd.ops.drill import DrillReport, Request, Tick

FAILED_EXIT_CODE = 21
RUNTIMES = ("auto", "process", "docker", "kubernetes")


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "drill",
        help="prove backups: restore them into throw-away servers: drd drill now",
        parents=[common],
        description="Restore backups into throw-away servers from the store and the identity alone, read everything "
        "back, compare it with the fingerprint taken at backup time, and keep a report in the store.",
    )
    actions = parser.add_subparsers(metavar="now|list|show|clean|validate", required=True)
    now = actions.add_parser(
        "now",
        parents=[common],
        help="run every configured drill, or those named",
        description="Run drills one after the other. Exit 0 only when all passed; 21 when one failed, 22 when one "
        "could not be carried out. Without drills in the configuration: the latest backup of every source.",
    )
    now.add_argument("drills", nargs="*", metavar="DRILL", help="drills to run (all of the configuration)")
    which = now.add_mutually_exclusive_group()
    which.add_argument("--backup", metavar="ID", help="drill this backup instead of what the drill selects")
    which.add_argument("--at", metavar="TIME", help="drill what a restore to TIME would take")
    now.add_argument("--runtime", choices=RUNTIMES, help="where scratch servers come from (what the drill says)")
    now.add_argument(
        "--keep", action="store_true", help="leave the scratch servers running for a day, and say how to connect"
    )
    measuring.add(now, "drill")
    now.set_defaults(run=run_now)
    listing = actions.add_parser(
        "list",
        parents=[common],
        help="show past runs, their trend, and which backups were drilled",
    )
    listing.add_argument("drills", nargs="*", metavar="DRILL", help="only runs of these drills")
    listing.set_defaults(run=run_list)
    show = actions.add_parser("show", parents=[common], help="show the report of one run")
    show.add_argument("run_id", metavar="RUN", help="its id, or the end of it (drd drill list)")
    show.add_argument("--html", metavar="FILE", help="write the report as one self-contained page")
    show.set_defaults(run=run_show)
    clean = actions.add_parser(
        "clean",
        parents=[common],
        help="remove the scratch servers that were kept, and what killed runs left",
        description="Remove the scratch servers that --keep left running, and whatever a killed drd left behind. "
        "Drills that run now are not touched.",
    )
    clean.add_argument("--runtime", choices=RUNTIMES, help="only of this runtime")
    clean.set_defaults(run=run_clean)
    validate = actions.add_parser("validate", parents=[common], help="check suite files, or those of the configuration")
    validate.add_argument("files", nargs="*", metavar="FILE", help="suites (restore_drills/*.yaml)")
    validate.set_defaults(run=run_validate)


def run_now(args: argparse.Namespace, session: Session) -> int:
    """Run drills; 0 passed, 21 failed, 22 could not be run, 11 when the only one is running elsewhere."""
    from drd import wiring_drills
    from drd.ops.drill import Request, drill
    from drd.repository.timespec import parse_time

    services = session.services
    at = None
    if args.at is not None:
        parsed = parse_time(args.at, services.ports.now())
        if parsed.naive:
            print(f"drd: --at names no zone and is taken as UTC: {render.when(parsed.at)}", file=sys.stderr)
        at = parsed.at
    request = Request(args.backup, at, args.keep)
    chosen = _chosen(args.drills, request, session)
    bind = wiring_drills.binder(session.config)
    reports: list[DrillReport] = []
    try:
        with session.show_progress("drill") as display:
            for plan, runtime_name in chosen:
                runtime = wiring_drills.scratch_runtime(session.config, args.runtime or runtime_name)
                tell = _Teller(display.say)
                reports.append(drill(services.ports, plan, runtime, bind, request, tell))
    except DrdError:  # an interruption: what is done is told all the same
        telling.drilled(session, reports)
        notifying.tell_drills(session, [plan for plan, _ in chosen[: len(reports)]], reports, request)
        raise
    telling.drilled(session, reports)
    try:
        if not session.as_json:
            print(drill_report.text(reports))  # before receivers that may keep us waiting
    finally:
        delivery = notifying.tell_drills(session, [plan for plan, _ in chosen], reports, request)
    if session.as_json:
        documents.emit(drill_report.document(reports) | notifying.document(delivery))
    return exit_code(reports)


def _chosen(names: list[str], request: Request, session: Session) -> list[tuple[Drill, RuntimeName]]:
    """Return the drills to run; for one backup, the first that is about its source."""
    from drd import wiring_drills
    from drd.errors import StoreError

    ports = session.services.ports
    try:
        stored = ports.catalog.sources()
    except StoreError:
        if not session.config.sources:
            raise  # nobody can say what there is to drill
        stored = []
    plans = wiring_drills.plans(session.config, names, stored)
    if request.backup is None:
        return plans
    source = ports.catalog.entry(request.backup).source
    about = [plan for plan in plans if source in plan[0].sources]
    if not about:
        raise ConfigError(
            f"no drill is about {source}, of which {request.backup} is a backup", hint="add it to sources of a drill"
        )
    return about[:1]


class _Teller:
    """Says what happens in a drill while it happens, a line an item."""

    def __init__(self, say: Any) -> None:
        self._say = say

    def __call__(self, tick: Tick) -> None:
        """Show one tick."""
        if tick.finding is None:
            self._say(f"  {tick.source}  {tick.phase} …")
            return
        found = tick.finding
        took = f"  {render.span(found.duration_s)}" if found.duration_s >= 0.05 else ""
        self._say(f"    {drill_report.sign(found.outcome, sys.stderr)} {found.name}: {found.detail}{took}")


def exit_code(reports: list[DrillReport]) -> int:
    """Return 0 when every drill passed and is recorded, else the code of what matters most."""
    verdicts = [report.verdict for report in reports]
    if "failed" in verdicts:
        return FAILED_EXIT_CODE
    if "unverified" in verdicts:
        alone = reports[0].error if len(reports) == 1 else None
        return alone.exit_code if isinstance(alone, (LeaseError, Cancelled)) else ScratchError.exit_code
    return next((report.unrecorded.exit_code for report in reports if report.unrecorded), 0)


def run_list(args: argparse.Namespace, session: Session) -> int:
    """Print past runs, newest first, their trend and the coverage of backups."""
    from drd.ops.drill import runs_of

    ports = session.services.ports
    wanted = set(args.drills)
    found = [item for item in runs_of(ports).newest_first() if not wanted or item.drill in wanted]
    backups = {
        source: [entry.id for entry in ports.catalog.survey(source).entries] for source in ports.catalog.sources()
    }
    if session.as_json:
        documents.emit(drill_report.list_document(found, backups))
    else:
        print(drill_report.list_text(found, backups))
    return 0


def run_show(args: argparse.Namespace, session: Session) -> int:
    """Print one report, or write it as a page."""
    from drd.errors import IntegrityError
    from drd.ops.drill import runs_of

    found = runs_of(session.services.ports).find(args.run_id)
    if found.run is None:
        raise IntegrityError(found.problem or "the report is unreadable", subject=found.id)
    if args.html:
        from drd.drills.page import page

        try:
            Path(args.html).write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {args.html}: {error.strerror}", hint="name another file") from error
    if session.as_json:
        documents.emit(drill_report.run_document(found.run) | drill_report.signature_document(found))
    elif args.html:
        print(f"{render.mark('ok')} {args.html}")
    else:
        print(drill_report.run_text(found))
    return 0


def run_clean(args: argparse.Namespace, session: Session) -> int:
    """Remove kept servers and leftovers; say what was removed."""
    from drd import wiring_drills

    lines = wiring_drills.clean_scratch(session.config, args.runtime)
    if session.as_json:
        documents.emit({"removed": list(lines)})
    else:
        print("\n".join(f"{render.mark('ok')} {line}" for line in lines) or f"{render.mark('ok')} nothing was left")
    return 0


def run_validate(args: argparse.Namespace, session: Session) -> int:
    """Check suites; exit 2 with every problem when one is not right."""
    from drd.config_suite import load_suite

    files = [Path(name) for name in args.files]
    if not files:
        files = list(dict.fromkeys(d.suite for d in session.config.drills.values() if d.suite))
        if not files:
            raise ConfigError("no drill of the configuration has a suite", hint="drd drill validate FILE")
    suites = [(path, load_suite(path)) for path in files]
    counts = {
        str(path): sum(map(len, (*suite.by_source.values(), *suite.by_engine.values()))) for path, suite in suites
    }
    if session.as_json:
        documents.emit({"outcome": "ok", "suites": [{"file": name, "checks": n} for name, n in counts.items()]})
    else:
        for name, count in counts.items():
            print(f"{render.mark('ok')} {name}: {render.plural(count, 'check')}")
    return 0
