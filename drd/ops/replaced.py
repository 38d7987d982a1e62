"""Go back to what a restore in place took the place of, or give the old data up."""

from __future__ import annotations

from dataclasses import dataclass, replace

from drd.errors import Cancelled, CatalogError, ConfigError, DrdError
from drd.model import Notice
from drd.ops.backup import hold_lease
from drd.ops.failures import of_source
from drd.ops.ports import Ports, Source
from drd.ops.replace import put_backup_back, recover, replacer_of, unpin_all
from drd.repository.pins import Pins
from drd.repository.restores import RestoreRecord, Restores


@dataclass(frozen=True, slots=True)
class Undone:
    """How going back, or giving up, went: the record as it is now, and the names of what is kept, or was dropped."""

    record: RestoreRecord
    names: tuple[str, ...]
    notices: tuple[Notice, ...] = ()


def undo(ports: Ports, target: Source, restore_id: str) -> Undone:
    """Put the data that a restore replaced back in its place; what had replaced it is kept in turn.

    One that was interrupted is ended first. Idempotent: one that is undone stays so. Raises
    :class:`~drd.errors.CatalogError` when there is nothing to go back to, and :class:`~drd.errors.ConfigError` when a
    later restore has to be undone before.
    """
    records, replacer = Restores(ports.store), replacer_of(target)
    going = ""
    try:
        with hold_lease(ports, target.name) as lease:
            record = records.get(restore_id)
            notices: list[Notice] = []
            if record.interrupted:
                notices = recover(ports, target, record)
                if record.phase == "undoing":  # it is ended below
                    notices = [notice for notice in notices if notice.code != "restore-recovered"]
                record = records.get(record.id)
                if record.phase == "failed":
                    return Undone(record, (), tuple(notices))
            if record.phase in {"dropped", "failed"}:
                why = "its old data was dropped" if record.phase == "dropped" else "it did not replace anything"
                raise CatalogError(f"the restore {record.id} cannot be undone: {why}", hint="see: drd restore list")
            _refuse_out_of_order(records, record)
            if record.phase == "undone":
                return Undone(record, tuple(replacer.undo(record.id)) if record.kept is None else (record.kept,))
            kept, record = record.kept, record.now("undoing", ports.now())
            records.put(record)
            going = record.id
            if replacer.keeps == "backup":
                record = put_backup_back(ports, target, record, lease, notices)
                # One that was killed may have saved what it found as well: which of both was wanted is for a person.
                names = tuple(sorted(Pins(ports.store).made_by(record.source, record.id) - {kept}))
            else:
                names = tuple(replacer.undo(record.id))
            record = record.now("undone", ports.now())
            records.put(record)
            if kept:
                Pins(ports.store).unpin(record.source, kept)
    except DrdError as error:
        if going and isinstance(error, Cancelled):  # whatever was under way is not undone by that
            error.message = "interrupted on the way back; the server holds one of both data sets, whole"
            error.hint = f"to go on: drd restore undo {going}"
        of_source(error, "restore", target.name)
        raise
    return Undone(record, names, tuple(notices))


def _refuse_out_of_order(records: Restores, record: RestoreRecord) -> None:
    """Raise ConfigError while a later restore of the source is in place.

    Going back past it would put its copies under the names of this one, and the first ``drop-old`` might take the data
    that somebody wants.
    """
    same = (one for one in records.all()[0] if one.source == record.source)
    later = [one for one in same if one.started_at > record.started_at]  # ids of one second are in no order
    for one in sorted(later, key=lambda one: one.started_at, reverse=True):
        if record.phase == "replaced" and (one.interrupted or one.phase == "replaced"):
            raise ConfigError(
                f"the restore {one.id} replaced the data after {record.id} did, so it is the first to be undone",
                hint=f"drd restore undo {one.id}, then drd restore undo {record.id}",
            )


def drop_old(ports: Ports, target: Source, restore_id: str) -> Undone:
    """Remove what a restore keeps: the old data, or after an undo what had replaced it. Idempotent.

    Where a backup keeps it, that backup loses its pin and becomes one like any other: retention decides about it.
    Raises :class:`~drd.errors.ConfigError` for a restore that was interrupted: which copy is the old must be certain.
    """
    records, replacer = Restores(ports.store), replacer_of(target)
    try:
        with hold_lease(ports, target.name):
            record = records.get(restore_id)
            if record.interrupted:
                raise ConfigError(
                    f"the restore {record.id} was interrupted, or is under way",
                    hint=f"end it first: drd restore undo {record.id}",
                )
            names: tuple[str, ...] = ()
            if replacer.keeps == "backup":
                names = (record.kept,) if record.kept and record.phase != "dropped" else ()
                unpin_all(ports, record)
            else:
                names = tuple(replacer.drop_old(record.id))
            if record.phase != "failed":
                record = replace(record, phase="dropped", changed_at=ports.now())
                records.put(record)
    except DrdError as error:
        of_source(error, "restore", target.name)
        raise
    return Undone(record, names)
