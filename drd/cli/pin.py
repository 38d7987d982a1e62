"""``drd pin`` and ``drd unpin``: keep a backup from every retention rule."""

from __future__ import annotations

import argparse
from typing import Any

from drd.cli import documents, render
from drd.cli.session import Session


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add both verbs to the command line."""
    deeds = (("pin", "keep a backup from every retention rule"), ("unpin", "let the retention rules decide again"))
    for name, doing in deeds:
        parser = verbs.add_parser(name, help=doing, parents=[common], description=f"{doing.capitalize()}.")
        parser.add_argument("backup", metavar="BACKUP", help="id of the backup, or an unambiguous part of it")
        parser.set_defaults(run=run, pinned=name == "pin")


def run(args: argparse.Namespace, session: Session) -> int:
    """Set or take away the pin, under the source's lease, so that no prune overtakes it."""
    from drd.ops.prune import set_pin

    entry = set_pin(session.services.ports, args.backup, pinned=args.pinned)
    if session.as_json:
        documents.emit({"id": entry.id, "source": entry.source, "pinned": args.pinned})
    else:
        what = "is pinned: drd prune never removes it" if args.pinned else "is not pinned any more"
        print(f"{render.mark('ok')} {entry.source} {entry.id} {what}")
    return 0
