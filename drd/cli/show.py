"""``drd show``: what one backup's manifest says."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drd.cli import documents, render
from drd.cli.session import Session
from drd.errors import IntegrityError

if TYPE_CHECKING:  # pulls in the repository
    from drd.model import Backup


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "show", help="show one backup", parents=[common], description="Show one backup's manifest."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "backup", nargs="?", metavar="BACKUP", help="id of the backup, or an unambiguous beginning or end of it"
    )
    which.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="what changed from backup A to backup B: tables, rows, bytes (names need the identity)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, session: Session) -> int:
    """Print the manifest; of a backup that is not trusted too, with the reason and exit code 20."""
    from drd.repository.manifest import to_document

    if args.diff:
        from drd.cli import difference

        return difference.run(session, *args.diff)
    catalog = session.services.ports.catalog
    entry = catalog.entry(args.backup)
    backup = entry.claimed or catalog.get(entry.id)  # which says what is wrong with it
    code = IntegrityError.exit_code if entry.distrusted else 0
    if session.as_json:
        documents.emit(to_document(backup) | ({"problem": entry.problem} if entry.distrusted else {}))
        return code
    signature = f"by {backup.signature.key}" if backup.signature else "none"
    if entry.distrusted:
        signature = f"{render.mark('failed')} this backup {entry.problem}; it does not count"
    elif backup.signature:
        checked = catalog.signing.trust is not None
        signature += ", checked" if checked else ", not checked: no signing.public_keys are configured"
    shared = shared_bytes(backup)
    facts = [
        ("source", f"{backup.source} ({backup.engine} {backup.engine_version})"),
        ("state as of", render.point(backup.recovery_point)),
        ("kind", backup.kind + (f", child of {backup.parent}" if backup.parent else "")),
        ("taken", f"{render.when(backup.started_at)}, in {render.span(backup.duration_s)}"),
        ("data", f"{render.size(backup.plain_bytes)} in {render.plural(len(backup.artifacts), 'artifact')}"),
        ("stored", f"{render.size(backup.stored_bytes)}, {backup.compression}, encryption {backup.encryption}"),
        *([("shared", f"{render.size(shared)} more, in the folders of {_owners(backup)}")] if shared else ()),
        ("rows or keys", render.number(backup.rows)),
        ("signature", signature),
        *(("recipient", recipient) for recipient in backup.recipients),
        *(("tool", f"{name} {version}") for name, version in sorted(backup.tools.items())),
        *(("label", f"{name}={value}") for name, value in sorted(backup.labels.items())),
        *(("warning", code) for code in backup.warnings),
        ("lease", f"generation {backup.lease_generation}"),
        ("repository", backup.repository_id),
    ]
    print(backup.id)
    for name, value in facts:
        print(f"  {name:<13} {value}")
    rows = [
        (
            artifact.name,
            render.plural(len(artifact.parts), "part"),
            render.size(artifact.plain_bytes),
            render.size(artifact.stored_bytes),
        )
        for artifact in sorted(backup.artifacts, key=lambda a: -a.plain_bytes)[:20]
    ]
    print(render.table(("ARTIFACT", "PARTS", "DATA", "STORED"), rows))
    if len(backup.artifacts) > len(rows):
        print(f"  … and {len(backup.artifacts) - len(rows)} smaller ones; all of them: drd show {backup.id} --json")
    if not code:
        print(
            f"\n  restore it with: drd restore --at {documents.moment(backup.recovery_point)} --source {backup.source}"
        )
    return code


def shared_bytes(backup: Backup) -> int:
    """Return the size of the stored parts that are not the backup's own: its ancestors hold them."""
    parts = (part for artifact in backup.artifacts for part in artifact.parts)
    others = {part.key: part.stored_bytes for part in parts if f"/{backup.id}/" not in part.key}
    return sum(others.values())


def _owners(backup: Backup) -> str:
    from drd.repository.references import needed_by

    owners = sorted(needed_by(backup))
    return f"{', '.join(owners[:2])} and {len(owners) - 2} more" if len(owners) > 3 else ", ".join(owners)
