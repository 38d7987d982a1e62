"""``drd prune``: what no rule keeps, and with ``--apply`` its removal."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, measuring, render, telling
from drd.cli.session import Session
from drd.errors import PartialError

if TYPE_CHECKING:  # pulls in the repository
    from drd.ops.prune import PrunedSource, PruneReport
    from drd.ops.prune_drills import PrunedReports


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "prune",
        help="show, and with --apply remove, what no retention rule keeps",
        parents=[common],
        description="Say which backups the retention rules keep, with every reason, and which may go. "
        "Nothing is removed without --apply.",
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="sources to prune (all of the configuration)")
    parser.add_argument("--apply", action="store_true", help="remove what may go, and what interrupted runs left")
    measuring.add(parser, "prune")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Print the plan or what was done; exit 3 when some sources failed, or the code of a failure that all share."""
    from drd.ops.prune import prune
    from drd.ops.prune_drills import prune_reports

    services = session.services
    with session.show_progress("prune"):
        report = prune(services.ports, services.policies(args.sources), apply=args.apply)
        policy = session.config.drill_history.policy()
        reports = prune_reports(services.ports, report, policy, apply=args.apply, sources=args.sources)
    telling.pruned(session, report)
    if session.as_json:
        documents.emit(documents.prune_report(report) | documents.pruned_reports(reports))
    else:
        _print(report, reports, everything=not args.sources)
    if report.outcome == "failed":
        return next(source.error.exit_code for source in report.sources if source.error)
    return 0 if report.outcome == "ok" and reports.error is None else PartialError.exit_code


def _print(report: PruneReport, reports: PrunedReports, *, everything: bool) -> None:
    for source in report.sources:
        _print_source(source, applied=report.applied)
    if everything:
        for name in report.left_alone:
            print(f"{render.mark('warning')} {name} is in the store but not in the configuration; it was left alone")
    _print_reports(reports)
    going = sum(len(source.decision.remove) - len(source.locked) for source in report.sources)
    orphans = sum(len(source.orphans) for source in report.sources)
    old = len(reports.decision.remove) - len(reports.locked)
    if not report.applied and (going or orphans or old):
        what = [render.plural(going, "backup")] * bool(going) + ["leftovers"] * bool(orphans)
        what += [render.plural(old, "drill report")] * bool(old)
        print(f"Nothing was removed. To remove {' and '.join(what)}: drd prune --apply")
    elif not report.applied:
        print(f"{render.mark('ok')} nothing to remove")


def _print_reports(reports: PrunedReports) -> None:
    """Say how many drill reports stay, and name those that go: there may be hundreds of the others."""
    decision = reports.decision
    if reports.error:
        print(render.error_lines(reports.error))
    if not decision.keep and not decision.remove:
        return
    stay = len(decision.keep) + len(reports.locked)
    going = len(decision.remove) - len(reports.locked)
    print(f"drill reports: {stay} stay, {going} {'went' if reports.applied else 'may go'}")
    locked = {item.id: item.until for item in reports.locked}
    for item in decision.remove:
        name = f"{item.drill}/{item.id}"
        if item.id in locked:
            print(f"    locked  {name}  {item.reason}; locked by the store until {render.when(locked[item.id])}")
            continue
        word = "remove" if not reports.applied else ("removed" if item.id in reports.removed else "NOT removed")
        print(f"    {word:<7} {name}  {item.reason}")


def _print_source(source: PrunedSource, *, applied: bool) -> None:
    if source.error:
        print(render.error_lines(source.error))
    decision = source.decision
    if source.error and not decision.keep and not decision.remove:  # nothing was looked at
        return
    going_now = len(source.removed) if applied else len(decision.remove) - len(source.locked)
    stay = len(decision.keep) + len(decision.remove) - going_now
    print(f"{source.source}: {stay} stay, {going_now} {'went' if applied else 'may go'}")
    for kept in decision.keep:
        print(f"    keep    {kept.id}  {', '.join(kept.reasons)}")
    locked = {item.id: item.until for item in source.locked}
    for going in decision.remove:
        if going.id in locked:
            print(f"    locked  {going.id}  {going.reason}; locked by the store until {render.when(locked[going.id])}")
            continue
        word = "remove" if not applied else ("removed" if going.id in source.removed else "NOT removed")
        print(f"    {word:<7} {going.id}  {going.reason}")
    for orphan in source.orphans:
        word = "swept" if orphan.swept else "left over"
        held = f"{render.plural(orphan.objects, 'object')}, {render.size(orphan.bytes)}"
        if orphan.locked_until:
            held += f"; locked by the store until {render.when(orphan.locked_until)}"
        print(f"    {word:<7} {orphan.id}  never finished: {held}")
    if source.removed:
        print(f"    {render.size(source.removed_bytes)} of stored backups removed")
