"""Entries for table data that drd read itself, added to the table of contents that pg_dump wrote without them.

Such an entry is what pg_dump writes for the same table, byte for byte but for its number, so pg_restore cannot tell.
Source: WriteToc, WriteInt and WriteStr in PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, dumpTableData in
pg_dump.c, and the file name that ends each entry in pg_backup_directory.c.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from drd.engines.postgres.toc import Spans, TocEntry, damaged, parse_toc_with_spans
from drd.errors import SourceError

_SECTION_DATA = 3  # pre-data has a lower number; so have comments and privileges, which follow what they are for
_NULL = -1


@dataclass(frozen=True, slots=True)
class ReadTable:
    """A table whose rows drd read: its oid, the number of its entry; its qualified name and columns as SQL text."""

    oid: int
    dump_id: int
    name: str
    columns: str

    @property
    def filename(self) -> str:
        """Return the name of its data file."""
        return f"{self.dump_id}.dat"


def add_table_data(data: bytes, tables: Collection[ReadTable]) -> bytes:
    """Return ``toc.dat`` with an entry for the data of each table; the other entries are kept as they are.

    They come before all other data, and so before triggers and foreign keys: pg_restore works in the order of entries.
    Raises SourceError when pg_dump did not dump such a table, IntegrityError when it dumped its rows as well, or for a
    file that is not what pg_dump writes.
    """
    if not tables:
        return data
    toc, layout = parse_toc_with_spans(data)
    by_oid = {table.oid: table for table in tables}
    taken = {table.dump_id for table in tables}
    wanted = dict(by_oid)
    made: list[bytes] = []
    place: int | None = None
    for entry, span in zip(toc.entries, layout.spans, strict=True):
        if entry.dump_id in taken:
            raise damaged(f"pg_dump numbered an entry {entry.dump_id}, which drd took for one of its own")
        if entry.desc == "TABLE DATA" and entry.catalog_oid in by_oid:
            raise damaged(f"pg_dump wrote the rows of {by_oid[entry.catalog_oid].name}, which drd read")
        if place is None and entry.section >= _SECTION_DATA:
            place = span[0]
        if entry.desc == "TABLE" and (table := wanted.pop(entry.catalog_oid, None)) is not None:
            made.append(_entry(table, entry, toc.version, layout))
    if wanted:
        missing = next(iter(wanted.values()))
        raise SourceError(f"pg_dump left out {missing.name}, whose rows were read", hint="run again")
    count = _int(len(toc.entries) + len(made), layout.int_size)
    place = len(data) if place is None else place
    return data[: layout.count_at] + count + data[layout.entries_at : place] + b"".join(made) + data[place:]


def _entry(table: ReadTable, of: TocEntry, version: int, layout: Spans) -> bytes:
    """Write the entry for the data of a table; ``of`` is the entry of the table itself."""
    statement = f"COPY {table.name} ({table.columns}) FROM stdin;\n"

    def integer(value: int) -> bytes:
        return _int(value, layout.int_size)

    def text(value: str) -> bytes:
        raw = value.encode(layout.codec, "surrogateescape")
        return integer(len(raw)) + raw

    null = integer(_NULL)
    return b"".join(
        (
            integer(table.dump_id),
            integer(1),  # it has a data dumper
            text("0"),
            text(str(table.oid)),
            text(of.tag),
            text("TABLE DATA"),
            integer(_SECTION_DATA),
            null,  # definition
            null,  # statement that drops it
            text(statement),
            text(of.schema),
            null,  # tablespace
            null,  # table access method
            integer(0) if version >= 16 else b"",  # relkind, only of tables themselves
            text(of.owner),
            text("false"),  # WITH OIDS
            text(str(of.dump_id)),
            null,  # end of dependencies
            text(table.filename),
        )
    )


def _int(value: int, size: int) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(size, "little")
