"""``drd verify``: are the stored bytes right?"""

from __future__ import annotations

import argparse
from typing import Any

from drd.cli import documents, render
from drd.cli.session import Session
from drd.errors import IntegrityError


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "verify",
        help="verify stored backups",
        parents=[common],
        description="Check that every object a backup needs is there and of the right size (exit 20 when not).",
    )
    parser.add_argument("names", nargs="*", metavar="BACKUP|SOURCE", help="what to verify (everything)")
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read every byte: digests, decryption, decompression, and the database's own format",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Verify and print; exit 20 on any problem."""
    from drd.ops.verify import verify

    with session.show_progress("verify"):
        report = verify(session.services.ports, args.names, deep=args.deep)
    code = 0 if report.outcome == "ok" else IntegrityError.exit_code
    if session.as_json:
        documents.emit(documents.verify_report(report))
        return code
    for item in report.backups:
        print(f"{render.mark(item.outcome)} {item.source}  {item.id}")
        for problem in item.problems:
            print(f"    {problem.subject}: {problem.message}")
            if problem.effect:
                print(f"    → {problem.effect}")
    for backup_id in report.unfinished:
        print(f"{render.mark('warning')} {backup_id} is unfinished or running; it is not a backup")
    bad = sum(bool(item.problems) for item in report.backups)
    how = "every byte read" if report.deep else "presence and sizes; read everything with --deep"
    good = len(report.backups) - bad
    print(f"{render.mark(report.outcome)} {good} of {render.plural(len(report.backups), 'backup')} verified ({how})")
    return code
