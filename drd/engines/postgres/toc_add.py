"""Entries for table data that drd read itself, added to the table of contents that pg_dump wrote without them.

Such an entry is what pg_dump writes for the same table, byte for byte but for its number, so pg_restore cannot tell.
Source: WriteToc, WriteInt and WriteStr in PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, dumpTableData in
pg_dump.c, and the file name that ends each entry in pg_backup_directory.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drd.engines.postgres.toc import damaged, parse_toc, spans_of
from drd.errors import SourceError

_SECTION_DATA = 3  # pre-data has a lower number; so have comments and privileges, which follow what they are for
_NULL = -1


@dataclass(frozen=True, slots=True)
class ReadTable:
    """A table whose rows drd read: its oid, the number of its entry, and the columns as SQL text, quoted."""

    oid: int
    dump_id: int
    columns: str

    @property
    def filename(self) -> str:
        """Return the name of its data file."""
        return f"{self.dump_id}.dat"


def add_table_data(data: bytes, tables: Mapping[int, ReadTable], quoted_names: Mapping[int, str]) -> bytes:
    """Return ``toc.dat`` with an entry for the data of each table, by oid; the other entries are kept as they are.

    They come before all other data, and so before triggers and foreign keys: pg_restore works in the order of entries.
    ``quoted_names`` are the tables' qualified names as SQL text. Raises SourceError when pg_dump did not dump such a
    table, IntegrityError when it dumped its rows as well, or for a file that is not what pg_dump writes.
    """
    if not tables:
        return data
    toc = parse_toc(data)
    layout = spans_of(data)
    wanted = dict(tables)
    made: list[bytes] = []
    place: int | None = None
    for entry, span in zip(toc.entries, layout.spans, strict=True):
        if entry.dump_id in {table.dump_id for table in tables.values()}:
            raise damaged(f"pg_dump numbered an entry {entry.dump_id}, which drd took for one of its own")
        if entry.desc == "TABLE DATA" and entry.catalog_oid in tables:
            raise damaged(f"pg_dump wrote the rows of {quoted_names[entry.catalog_oid]}, which drd read")
        if place is None and entry.section >= _SECTION_DATA:
            place = span[0]
        if entry.desc == "TABLE" and (table := wanted.pop(entry.catalog_oid, None)) is not None:
            names = (entry.tag, entry.schema, entry.owner)
            name = quoted_names[table.oid]
            made.append(_entry(table, entry.dump_id, names, name, toc.version, layout.int_size, layout.codec))
    if wanted:
        raise SourceError(
            f"pg_dump left out {quoted_names[next(iter(wanted))]}, whose rows were read", hint="run again"
        )
    count = _int(len(toc.entries) + len(made), layout.int_size)
    place = len(data) if place is None else place
    return data[: layout.count_at] + count + data[layout.entries_at : place] + b"".join(made) + data[place:]


def _entry(
    table: ReadTable,
    table_dump_id: int,
    names: tuple[str, str, str],
    quoted_name: str,
    version: int,
    int_size: int,
    codec: str,
) -> bytes:
    tag, schema, owner = names
    statement = f"COPY {quoted_name} ({table.columns}) FROM stdin;\n"

    def integer(value: int) -> bytes:
        return _int(value, int_size)

    def text(value: str) -> bytes:
        raw = value.encode(codec, "surrogateescape")
        return integer(len(raw)) + raw

    null = integer(_NULL)
    return b"".join(
        (
            integer(table.dump_id),
            integer(1),  # it has a data dumper
            text("0"),
            text(str(table.oid)),
            text(tag),
            text("TABLE DATA"),
            integer(_SECTION_DATA),
            null,  # definition
            null,  # statement that drops it
            text(statement),
            text(schema),
            null,  # tablespace
            null,  # table access method
            integer(0) if version >= 16 else b"",  # relkind, only of tables themselves
            text(owner),
            text("false"),  # WITH OIDS
            text(str(table_dump_id)),
            null,  # end of dependencies
            text(table.filename),
        )
    )


def _int(value: int, size: int) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(size, "little")
