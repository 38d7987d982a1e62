"""``drd restore list``, ``undo`` and ``drop-old``: what restores in place keep, the way back, and giving it up."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drd.cli import documents, render
from drd.cli.session import Session
from drd.errors import ConfigError

if TYPE_CHECKING:  # pulls in the pipeline
    from drd.model import Json
    from drd.ops.ports import Source
    from drd.repository.restores import RestoreRecord

_SAYS = {
    "staging": "under way, or interrupted before the swap",
    "swapping": "under way, or interrupted in the swap",
    "replaced": "in place; the old data is kept",
    "undoing": "going back, or interrupted in it",
    "undone": "undone; what had replaced the old data is kept",
    "dropped": "nothing is kept any more",
    "failed": "failed; the data was left as it was",
}
_COVERED = "in place, and replaced again since; the old data is kept"


def add(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the three to ``restore``, beside its options."""
    deeds = parser.add_subparsers(title="after --replace", metavar="list | undo | drop-old")
    listing = deeds.add_parser("list", parents=[common], help="the restores that replaced live data")
    listing.set_defaults(run=show)
    for name, doing in (
        ("undo", "put the old data back; end one that was interrupted"),
        ("drop-old", "remove what the restore keeps"),
    ):
        deed = deeds.add_parser(name, parents=[common], help=doing, description=f"{doing[0].upper()}{doing[1:]}.")
        deed.add_argument("restore", metavar="RESTORE", help="id of the restore, or an unambiguous part of it")
        deed.set_defaults(run=undo if name == "undo" else drop_old)


def show(args: argparse.Namespace, session: Session) -> int:
    """Print every record of the store, oldest first, with what can be typed next."""
    del args
    from drd.repository.restores import Restores

    records, problems = Restores(session.services.ports.store).all()
    if session.as_json:
        documents.emit({"restores": [_document(record) for record in records], "damaged": list(problems)})
        return 0
    for problem in problems:
        print(f"{render.mark('warning')} {problem}")
    if not records:
        print("No restore has replaced live data.")
        return 0
    in_place = sorted((one for one in records if one.phase == "replaced"), key=lambda one: one.started_at)
    newest = {one.source: one.id for one in in_place}
    rows = [
        (
            one.id,
            one.source,
            one.backup,
            render.when(one.changed_at),
            _COVERED if one.phase == "replaced" and newest[one.source] != one.id else _SAYS[one.phase],
        )
        for one in records
    ]
    print(render.table(("RESTORE", "SOURCE", "FROM BACKUP", "SINCE", "STATE"), rows))
    for record in records:
        if record.interrupted:
            print(f"{render.mark('warning')} if no drd works on {record.source}: drd restore undo {record.id}")
    return 0


def undo(args: argparse.Namespace, session: Session) -> int:
    """Go back to the old data."""
    from drd.ops import replaced as op

    ports = session.services.ports
    record = _record(args.restore, session)
    with session.show_progress("restore"):
        done = op.undo(ports, _target(record, session), record.id)
    if session.as_json:
        documents.emit(
            _document(done.record) | {"kept_as": list(done.names), "warnings": documents.notices(done.notices)}
        )
        return 0
    for notice in done.notices:
        print(f"{render.mark('warning')} {notice.message}")
    if done.record.phase == "failed":
        print(f"{render.mark('ok')} {record.source} is as it was before the restore {record.id}")
        return 0
    print(f"{render.mark('ok')} {record.source} holds again what it held before the restore {record.id}")
    if done.names:
        print(f"  what had replaced it is kept: {render.legible(', '.join(done.names))}")
        print(f"  to remove that: drd restore drop-old {record.id}")
    return 0


def drop_old(args: argparse.Namespace, session: Session) -> int:
    """Remove what is kept."""
    from drd.ops import replaced as op

    record = _record(args.restore, session)
    target = _target(record, session)
    done = op.drop_old(session.services.ports, target, record.id)
    if session.as_json:
        documents.emit(_document(done.record) | {"dropped": list(done.names)})
        return 0
    if not done.names:
        print(f"{render.mark('ok')} nothing is kept of the restore {record.id}")
    elif record.kept:
        print(f"{render.mark('ok')} {', '.join(done.names)} is a backup like any other now: retention decides about it")
    else:
        print(f"{render.mark('ok')} dropped {render.legible(', '.join(done.names))}")
    return 0


def _record(restore_id: str, session: Session) -> RestoreRecord:
    from drd.repository.restores import Restores

    return Restores(session.services.ports.store).get(restore_id)


def _target(record: RestoreRecord, session: Session) -> Source:
    """Return the source of a record as it is configured."""
    services = session.services
    if record.source not in services.config.sources:
        raise ConfigError(
            f"{record.source} is not in the configuration, so drd does not know its server",
            subject=record.source,
            hint="add it below sources",
        )
    (target,) = services.sources([record.source])
    if target.engine.kind != record.engine:
        raise ConfigError(
            f"{record.source} is {target.engine.kind} in the configuration, but {record.engine} was restored",
            subject=record.source,
            hint="configure the server that was restored",
        )
    return target


def _document(record: RestoreRecord) -> dict[str, Json]:
    return {
        "restore": record.id,
        "source": record.source,
        "engine": record.engine,
        "backup": record.backup,
        "state": record.phase,
        "interrupted": record.interrupted,
        "kept_backup": record.kept,
        "started_at": documents.moment(record.started_at),
        "changed_at": documents.moment(record.changed_at),
    }
