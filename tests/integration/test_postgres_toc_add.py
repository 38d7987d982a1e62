"""Entries for table data that drd adds to a table of contents, beside those that pg_dump writes itself."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from devstack.postgres import Postgres
from drd.engines.postgres.sqltext import quoted
from drd.engines.postgres.toc import parse_toc, parse_toc_with_spans
from drd.engines.postgres.toc_add import ReadTable, add_table_data
from drd.errors import IntegrityError, SourceError
from tests.conftest import StartPostgres

pytestmark = pytest.mark.integration

STATEMENTS = (
    "CREATE TABLE plain (id bigint PRIMARY KEY, note text)",
    'CREATE SCHEMA "Odd ""schema"',
    'CREATE TABLE "Odd ""schema"."Tab le" ("Col umn" int, "sélect" text, made int GENERATED ALWAYS AS (1) STORED)',
    "CREATE SEQUENCE counting",
    "SELECT lo_from_bytea(0, 'large')",
    "CREATE TABLE child (of_plain bigint CONSTRAINT known REFERENCES plain)",
    "CREATE INDEX by_note ON plain (note)",
    "COMMENT ON TABLE plain IS 'before the data'",
    "COMMENT ON INDEX by_note IS 'after the data'",
    "COMMENT ON CONSTRAINT known ON child IS 'the last entry'",
)
COLUMNS = {"plain": "id, note", "child": "of_plain", "Tab le": '"Col umn", "sélect"'}


@pytest.mark.parametrize("major", [15, 17, 18])
def test_entries_are_what_pg_dump_writes(
    major: int, postgres: Postgres, start_postgres: StartPostgres, tmp_path: Path
) -> None:
    """Taken out of a real table of contents and added again, every entry is byte for byte what it was."""
    server = postgres if major == postgres.major else start_postgres(major=major)
    database = server.fresh_database()
    with server.connect(database) as session:
        for statement in STATEMENTS:
            session.execute(statement.encode())
    whole = _toc_of(server, database, tmp_path / "whole")
    server.drop_database(database)
    toc, layout = parse_toc_with_spans(whole)
    taken = [entry.desc == "TABLE DATA" for entry in toc.entries]
    pieces = [whole[first:end] for first, end in layout.spans]
    kept = [piece for piece, gone in zip(pieces, taken, strict=True) if not gone]
    count = bytes([0]) + len(kept).to_bytes(layout.int_size, "little")
    less = whole[: layout.count_at] + count + b"".join(kept)
    assert parse_toc(less).data_files().keys() == {"blobs.toc"} or major >= 17
    tables = [
        ReadTable(entry.catalog_oid, entry.dump_id, f"{quoted(entry.schema)}.{quoted(entry.tag)}", COLUMNS[entry.tag])
        for entry, gone in zip(toc.entries, taken, strict=True)
        if gone
    ]
    assert len(tables) == 3
    again = add_table_data(less, tables)
    assert sorted(again[first:end] for first, end in parse_toc_with_spans(again)[1].spans) == sorted(pieces)
    sections = [entry.section for entry in parse_toc(again).entries if entry.desc != "COMMENT"]
    assert sections == sorted(sections)  # rows before constraints and triggers, wherever comments stand
    assert parse_toc(whole).entries[-1].desc == "COMMENT"
    assert add_table_data(less, []) == less
    with pytest.raises(IntegrityError, match="which drd took for one of its own"):
        add_table_data(whole, tables)
    others = [dataclasses.replace(table, dump_id=table.dump_id + (1 << 20)) for table in tables]
    with pytest.raises(IntegrityError, match=r"wrote the rows of .*, which drd read"):
        add_table_data(whole, others)
    with pytest.raises(SourceError, match=r"left out other\.gone, whose rows were read"):
        add_table_data(less, [ReadTable(1, 1 << 20, "other.gone", "a")])


def _toc_of(server: Postgres, database: str, folder: Path) -> bytes:
    subprocess.run(
        [server.bin_dir / "pg_dump", "-Fd", "-Z0", "--no-sync", f"--file={folder}", server.url(database)],
        env={"PGPASSWORD": server.password, "PATH": "/usr/bin:/bin"},
        check=True,
    )
    return (folder / "toc.dat").read_bytes()
