"""``drd runbook``: the shell commands that restore a backup without drd, and the emergency sheet."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from drd.cli import documents, render
from drd.cli.session import Session
from drd.errors import ConfigError, IntegrityError


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "runbook",
        help="print how to restore with stock tools",
        parents=[common],
        description="Print a bash script that restores one backup with stock tools only (aws, age, zstd, the "
        "database's own); or the emergency sheet of the whole configuration, to be printed on paper.",
    )
    parser.add_argument(
        "backup", metavar="BACKUP", nargs="?", help="id of the backup, or an unambiguous beginning or end of it"
    )
    parser.add_argument("--markdown", action="store_true", help="print the emergency sheet instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Print the script, or the sheet."""
    if args.markdown is (args.backup is not None):
        raise ConfigError(
            "name one backup, or ask for the sheet of the whole configuration",
            op="runbook",
            hint="drd runbook BACKUP > restore.sh, or: drd runbook --markdown > emergency.md",
        )
    return _sheet(session) if args.markdown else _script(args.backup, session)


def _script(backup_id: str, session: Session) -> int:
    """Print the script; of a backup whose chain is not whole too, as the parts may be there still, and say so."""
    from drd.ops.runbook import runbook
    from drd.repository.planning import broken_chain

    services = session.services
    catalog = services.ports.catalog
    backup = catalog.get(backup_id)
    by_id = {entry.id: entry.backup for entry in catalog.survey(backup.source).entries if entry.backup}
    problem = broken_chain(backup, by_id)
    trusted = catalog.signing.trust is not None
    backup_format = services.ports.formats(backup.engine)
    script = runbook(backup, services.location, backup_format, signature_checked=trusted, problem=problem)
    if session.as_json:
        documents.emit({"id": backup.id, "source": backup.source, "script": script, "problem": problem or None})
    else:
        sys.stdout.write(script)
        if problem:
            text = f"{problem}. The script works only if every part of it is there still: drd verify {backup.id}"
            print(f"{render.mark('failed', sys.stderr)} {text}", file=sys.stderr)
    return IntegrityError.exit_code if problem else 0


def _sheet(session: Session) -> int:
    from drd import config
    from drd.cli.emergency import sheet

    text = sheet(session, config.find_config_file(session.config_path))
    if session.as_json:
        documents.emit({"markdown": text})
    else:
        sys.stdout.write(text)
    return 0
