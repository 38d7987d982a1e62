"""``drd runbook``: the shell commands that restore a backup without drd."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from drd.cli import documents
from drd.cli.session import Session


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "runbook",
        help="print how to restore with stock tools",
        parents=[common],
        description="Print a bash script that restores one backup with stock tools only "
        "(aws, age, zstd, the database's own).",
    )
    parser.add_argument("backup", metavar="BACKUP", help="id of the backup, or an unambiguous beginning or end of it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Print the script."""
    from drd.ops.runbook import runbook

    services = session.services
    backup = services.ports.catalog.get(args.backup)
    script = runbook(backup, services.location, services.ports.formats(backup.engine))
    if session.as_json:
        documents.emit({"id": backup.id, "source": backup.source, "script": script})
    else:
        sys.stdout.write(script)
    return 0
