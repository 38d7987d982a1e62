"""``drd check``: could backups be taken and restored from here?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render
from drd.cli.session import Session
from drd.errors import SourceError, StoreError

if TYPE_CHECKING:  # --help needs none of it
    from drd.model import CheckItem


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "check",
        help="check store, sources, tools and keys",
        parents=[common],
        description="Look at the store, the keys, the spool, every source, every Alertmanager and what drills need: "
        "one line an item, with a remedy.",
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="sources to check (all of the configuration)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Check and print; exit 0 unless an item failed: 12 for the store, 13 for a source, 2 for the rest."""
    from drd import wiring_drills
    from drd.ops.check import CheckReport, check

    services = session.services
    found = check(services.ports, services.sources(args.sources))
    drills = wiring_drills.check_scratch(session.config) if not args.sources else []
    report = CheckReport((*found.items, *session.notifier.check(), *drills))
    if session.as_json:
        documents.emit(documents.check_report(report))
    else:
        width = max(len(item.name) for item in report.items)
        for item in report.items:
            print(f"{render.mark(item.outcome)} {item.name:<{width}}  {item.detail}")
            if item.hint and item.outcome != "ok":
                print(f"  {'':<{width}}  → {item.hint}")
        bad = sum(item.outcome == "failed" for item in report.items)
        odd = sum(item.outcome == "warning" for item in report.items)
        print(
            f"{render.mark(report.outcome)} {render.plural(len(report.items), 'item')}: "
            f"{bad} failed, {render.plural(odd, 'warning')}"
        )
    return exit_code(report.items)


def exit_code(items: tuple[CheckItem, ...]) -> int:
    """Return the code that says where to look first."""
    failed = [item.name for item in items if item.outcome == "failed"]
    if not failed:
        return 0
    if any(name.startswith("store: ") for name in failed):
        return StoreError.exit_code
    return SourceError.exit_code if any(": " in name for name in failed) else 2
