"""Records of restores that took the place of live data: one small object each, by which they are taken back.

A record names no database, table or host: what a restore made on the server carries the restore's id there. It is
written before anything is made, so that what a killed restore left is found by whoever comes next, from any machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from drd.errors import CatalogError, IntegrityError, ObjectMissing
from drd.model import EngineKind
from drd.protocols import Store
from drd.repository import layout
from drd.repository.abbreviation import meant_by
from drd.repository.fields import Fields, Malformed, parse_strictly, text_of_time, written

Phase = Literal["staging", "swapping", "replaced", "undoing", "undone", "dropped", "failed"]
OPEN_PHASES = frozenset({"staging", "swapping", "undoing"})
_KIND = "drd-restore"
_VERSION = 1
_MAX_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class RestoreRecord:
    """One restore in place.

    ``staging``: building beside the live data. ``swapping``: changing places. ``replaced``: in place, the old data is
    kept. ``undoing``: going back. ``undone``: the old data is in its place again, what replaced it is kept.
    ``dropped``: nothing is kept any more. ``failed``: the live data was left, or put back, as it was. ``kept`` is the
    backup that holds the old data where the server itself could not keep it.
    """

    id: str
    source: str
    engine: EngineKind
    backup: str
    phase: Phase
    started_at: datetime
    changed_at: datetime
    kept: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether it neither ended nor failed: it is under way, or was killed."""
        return self.phase in OPEN_PHASES

    def now(self, phase: Phase, at: datetime, *, kept: str | None = None) -> RestoreRecord:
        """Return the record in another phase."""
        return replace(self, phase=phase, changed_at=at, kept=kept or self.kept)


class Restores:
    """The records of a repository. Holds no state; thread-safe. The caller holds the source's lease when it writes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, record: RestoreRecord) -> None:
        """Write or rewrite a record. Raises store errors."""
        self._store.put(layout.restore_key(record.id), _dump(record))

    def get(self, restore_id: str) -> RestoreRecord:
        """Read a record by its id, or by a beginning or end of it that only one has.

        Raises :class:`~drd.errors.CatalogError` when there is none or several match, IntegrityError for a damaged one.
        """
        found = meant_by(restore_id, self._ids(), str)
        if len(found) != 1:
            what = f"{restore_id!r} means several restores" if found else f"no restore has the id {restore_id!r}"
            raise CatalogError(what, subject=restore_id, hint="see: drd restore list")
        try:
            return self._read(found[0])
        except ObjectMissing as error:
            raise CatalogError(f"no restore has the id {restore_id!r}", hint="see: drd restore list") from error

    def all(self) -> tuple[list[RestoreRecord], list[str]]:
        """Return every record, oldest first, and what is wrong with those that are damaged.

        A damaged one is no reason to refuse a restore: whoever may write to the bucket could stop them all so.
        """
        records, problems = [], []
        for one in self._ids():
            try:
                records.append(self._read(one))
            except ObjectMissing:
                continue
            except IntegrityError as error:
                problems.append(error.message)
        return records, problems

    def interrupted(self, source: str) -> list[RestoreRecord]:
        """Return the records of a source that are under way or were interrupted, oldest first."""
        return [record for record in self.all()[0] if record.source == source and record.interrupted]

    def _ids(self) -> list[str]:
        prefix = layout.restores_prefix()
        names = (info.key.removeprefix(prefix) for info in self._store.list(prefix))
        ids = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return [one for one in ids if layout.is_backup_id(one)]

    def _read(self, restore_id: str) -> RestoreRecord:
        key = layout.restore_key(restore_id)
        return _parse(self._store.get(key, length=_MAX_BYTES + 1), key, restore_id)


def _dump(record: RestoreRecord) -> bytes:
    document = {
        "kind": _KIND,
        "schema_version": _VERSION,
        "id": record.id,
        "source": record.source,
        "engine": record.engine,
        "backup": record.backup,
        "phase": record.phase,
        "started_at": text_of_time(record.started_at),
        "changed_at": text_of_time(record.changed_at),
        "kept": record.kept,
    }
    return written(document)


def _parse(data: bytes, key: str, restore_id: str) -> RestoreRecord:
    try:
        record = _fields(data, key)
    except Malformed as error:
        raise IntegrityError(f"{key} {error}", subject=key, hint="a person changed it, or the store did") from error
    ids = [record.backup] if record.kept is None else [record.backup, record.kept]
    possible = layout.is_source_name(record.source) and all(layout.is_backup_id(one) for one in ids)
    if record.id != restore_id or not possible:
        raise IntegrityError(f"{key} names what cannot be", subject=key, hint="a person changed it, or the store did")
    return record


def _fields(data: bytes, key: str) -> RestoreRecord:
    fields = Fields(parse_strictly(data), "object")
    fields.choice("kind", (_KIND,))
    version = fields.count("schema_version")
    if version > _VERSION:
        raise IntegrityError(f"{key} has version {version}; this drd knows {_VERSION}", subject=key, hint="upgrade drd")
    record = RestoreRecord(
        id=fields.text("id"),
        source=fields.text("source"),
        engine=fields.choice("engine", get_args(EngineKind)),
        backup=fields.text("backup"),
        phase=fields.choice("phase", get_args(Phase)),
        started_at=fields.time("started_at"),
        changed_at=fields.time("changed_at"),
        kept=fields.optional_text("kept"),
    )
    fields.require_nothing_else()
    return record
