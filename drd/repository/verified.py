"""What was last read when: one small object a source, so that ``drd verify --sample`` goes on where it stopped.

It is a memory, not evidence: what is lost, damaged or unknown means that the reading starts again, never an error, and
two runs at once keep the later of what both know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from drd.errors import ObjectMissing
from drd.model import Json
from drd.protocols import Store
from drd.repository import layout
from drd.repository.fields import Fields, Malformed, is_usable_key, parse_strictly, text_of_time

VERSION = 1
MAX_DAMAGED = 1000
_MAX_BYTES = 64 << 20
_KIND = "drd-verified"


@dataclass(frozen=True, slots=True)
class Reading:
    """How far the objects in one backup's folder were read.

    ``read_at`` is when the last whole pass over them began, None when there was none. A pass under way began at
    ``began_at``, and has read ``read_bytes`` up to and with the key ``after``. ``damaged`` are keys that were no good
    when they were last read; they are read again by every run.
    """

    id: str
    read_at: datetime | None = None
    began_at: datetime | None = None
    after: str = ""
    read_bytes: int = 0
    damaged: tuple[str, ...] = ()

    def finished(self, began_at: datetime) -> Reading:
        """Return what is known when all was read, from ``began_at`` on."""
        return Reading(self.id, began_at, damaged=self.damaged)

    def merged(self, other: Reading) -> Reading:
        """Return what both know together; what either found damaged stays so until it is read again."""
        read_at = max((at for at in (self.read_at, other.read_at) if at is not None), default=None)
        damaged = tuple(sorted({*self.damaged, *other.damaged}))[:MAX_DAMAGED]
        further = max(self, other, key=lambda reading: (reading.began_at is not None, reading.after))
        if further.began_at is None or (read_at is not None and further.began_at <= read_at):
            return Reading(self.id, read_at, damaged=damaged)
        return replace(further, read_at=read_at, damaged=damaged)


class Verified:
    """Reads and writes the records. Holds no state; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, source: str) -> dict[str, Reading]:
        """Return what is known of each backup's folder.

        Raises :class:`Malformed` when the record is damaged or of another version, and store errors.
        """
        try:
            data = self._store.get(layout.verified_key(source), length=_MAX_BYTES + 1)
        except ObjectMissing:
            return {}
        return parse(data)

    def add(self, source: str, done: Mapping[str, Reading], existing: Iterable[str]) -> None:
        """Write what was ``done``, merged with what another run wrote meanwhile, for the ``existing`` backups alone.

        A record that is damaged is replaced. Raises :class:`Malformed` for one of a newer drd, and store errors.
        """
        try:
            known = self.of(source)
        except NewerRecord:
            raise
        except Malformed:
            known = {}
        kept = set(existing)
        for found, reading in done.items():
            before = known.get(found)
            # What is damaged is as this run saw it: it read that again.
            known[found] = reading if before is None else replace(before.merged(reading), damaged=reading.damaged)
        self._store.put(layout.verified_key(source), dump(known[found] for found in sorted(known) if found in kept))


class NewerRecord(Malformed):
    """A newer drd wrote it: it is neither believed nor replaced."""


def dump(readings: Iterable[Reading]) -> bytes:
    """Return the record as it is stored, a line a backup."""
    lines = ",\n".join(json.dumps(_document(reading), ensure_ascii=True) for reading in readings)
    return f'{{"kind": "{_KIND}", "version": {VERSION}, "backups": [\n{lines}]}}\n'.encode("ascii")


def parse(data: bytes) -> dict[str, Reading]:
    """Return what a record says; raises :class:`Malformed` for anything that :func:`dump` does not write."""
    if len(data) > _MAX_BYTES:
        raise Malformed("is too large")
    fields = Fields(parse_strictly(data), "object")
    fields.choice("kind", (_KIND,))
    version = fields.count("version")
    if version > VERSION:
        raise NewerRecord(f"has version {version}; this drd knows versions up to {VERSION}")
    readings = [_reading(item) for item in fields.objects("backups")]
    fields.require_nothing_else()
    return {reading.id: reading for reading in readings}


def _document(reading: Reading) -> dict[str, Json]:
    return {
        "id": reading.id,
        "read_at": None if reading.read_at is None else text_of_time(reading.read_at),
        "began_at": None if reading.began_at is None else text_of_time(reading.began_at),
        "after": reading.after,
        "read_bytes": reading.read_bytes,
        "damaged": list(reading.damaged),
    }


def _reading(fields: Fields) -> Reading:
    reading = Reading(
        id=fields.text("id"),
        read_at=fields.optional_time("read_at"),
        began_at=fields.optional_time("began_at"),
        after=fields.text("after"),
        read_bytes=fields.count("read_bytes"),
        damaged=fields.texts("damaged"),
    )
    fields.require_nothing_else()
    keys = (*reading.damaged, *([reading.after] if reading.after else []))
    if not layout.is_backup_id(reading.id) or not all(map(is_usable_key, keys)) or len(reading.damaged) > MAX_DAMAGED:
        raise Malformed("names an unusable backup or key")
    if (reading.began_at is None) != (not reading.after):
        raise Malformed("tells of a pass that has no beginning")
    return reading
