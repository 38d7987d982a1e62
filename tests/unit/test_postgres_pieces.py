"""The small parts of the PostgreSQL engine: digests, packs, SQL text, connection strings, tools' complaints."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import DiskFull

from drd.engines.postgres.connection import endpoint_of, mapped
from drd.engines.postgres.digest import COPY_END, ArchivedTableDigest, LargeObjectsDigest
from drd.engines.postgres.pack import PackWriter, read_index
from drd.engines.postgres.place import temporary_name
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.spool import can_punch
from drd.engines.postgres.sqltext import copy_columns, dotted, list_items, sequence_state, statements, unquoted
from drd.engines.postgres.tools import complaint
from drd.errors import ConfigError, IntegrityError, TargetError
from drd.model import Secret
from tests.support.artifacts import MemoryReader, MemorySink


@given(st.binary(max_size=60), st.lists(st.integers(1, 9), max_size=30))
def test_an_archived_tables_digest_is_its_copy_streams(content: bytes, cuts: list[int]) -> None:
    """However the file is cut into reads, the end mark is left out and the rest is digested."""
    digest, data = ArchivedTableDigest(), content + COPY_END
    at = 0
    for size in [*cuts, len(data)]:
        piece = data[at : at + size]
        digest.update(piece, len(piece))
        at += size
    assert digest.facts() == {"rows": content.count(b"\n"), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_table_without_its_end_has_no_digest() -> None:
    """A data file that was cut short is not taken for a table."""
    digest = ArchivedTableDigest()
    digest.update(b"1\ta\n\\.\n", 7)
    assert digest.facts() is None


@given(st.permutations([(n, bytes([n]) * n) for n in range(1, 7)]))
def test_large_objects_in_any_order(objects: list[tuple[int, bytes]]) -> None:
    """The digest over large objects does not depend on the order in which they pass."""
    digest, sorted_digest = LargeObjectsDigest(), LargeObjectsDigest()
    for into, order in ((digest, objects), (sorted_digest, sorted(objects))):
        for oid, content in order:
            into.add(oid, len(content), hashlib.sha256(content).digest())
    assert digest.facts() == sorted_digest.facts()
    digest.add(9, 0, hashlib.sha256(b"").digest())
    assert digest.facts() != sorted_digest.facts()


def packed(members: dict[str, bytes]) -> dict[str, bytes]:
    sink = MemorySink()
    writer = PackWriter(sink, "db-0/")
    for name, content in members.items():
        writer.add(name, content)
    writer.close()
    return sink.artifacts


MEMBERS = {"17.dat": b"x" * 513, "blob_99.dat": b"", "blob_5.dat": b"five", "blobs_3.toc": b"5 blob_5.dat\n"}


def test_a_pack_is_a_tar_and_can_be_read_by_range() -> None:
    """What the pack writes is what tar reads, and the index points at the contents."""
    artifacts = packed(MEMBERS)
    with tarfile.open(fileobj=io.BytesIO(artifacts["db-0/small.tar"])) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == MEMBERS  # type: ignore[union-attr]
    index = read_index(MemoryReader(artifacts), "db-0/")
    assert set(index.names()) == set(MEMBERS)
    for name, content in MEMBERS.items():
        offset, size = index.find(name) or (0, 0)
        assert artifacts["db-0/small.tar"][offset : offset + size] == content
    assert index.find("blob_7.dat") is None
    assert index.find("18.dat") is None


def test_a_pack_without_members_is_nothing() -> None:
    """No member, no artifact, and an empty index."""
    assert packed({}) == {}
    assert len(read_index(MemoryReader({}), "db-0/")) == 0


def test_large_objects_are_read_in_ranges() -> None:
    """Large objects that lie together are read together, up to the limit."""
    index = read_index(MemoryReader(packed({f"blob_{n}.dat": bytes(100) for n in range(1, 11)})), "db-0/")
    ranges = list(index.large_object_ranges(3000))
    assert [len(members) for _o, _n, members in ranges] == [3, 3, 3, 1]
    assert all(length <= 3000 for _o, length, _m in ranges)


@pytest.mark.parametrize(
    "index",
    [
        b"17.dat 512 5",
        b"17.dat 512 99999\n",
        b"17.dat 511 5\n",
        b"../x 512 5\n",
        b"17.dat -512 5\n",
        b"17.dat 512 5\n17.dat 512 5\n",
        b"blob_5.dat 512 5\nblob_5.dat 512 5\n",
        b"x" * 5000,
    ],
)
def test_damaged_indexes_are_refused(index: bytes) -> None:
    """Whatever is wrong with an index is told before anything is read by it."""
    with pytest.raises(IntegrityError):
        read_index(MemoryReader({"db-0/small.tar": bytes(4096), "db-0/small.idx": index}), "db-0/")


def test_columns_of_a_copy_statement() -> None:
    """Names come out as they are, quoted ones with their quotes, commas and parentheses."""
    assert copy_columns("COPY public.t (a, b) FROM stdin;\n") == ["a", "b"]
    assert copy_columns('COPY "S".""" x, (" (a, "b, ""c"")") FROM stdin;\n') == ["a", 'b, "c")']
    assert copy_columns("COPY public.no_columns  FROM stdin;\n") == []
    assert copy_columns("COPY public.t (a) FROM PROGRAM 'rm';\n") is None
    assert copy_columns("COPY public.t (a) FROM stdin; DROP TABLE x;\n") is None


def test_states_of_sequences() -> None:
    """Only pg_dump's own setval is taken for a state."""
    assert sequence_state("SELECT pg_catalog.setval('public.\"it''s\"', 7, false);\n\n\n") == (7, False)
    assert sequence_state("SELECT pg_catalog.setval('a', 7, false); SELECT 1;") is None


def test_scripts_are_split_at_their_semicolons() -> None:
    """Semicolons in strings, names, comments and dollar quotes do not end a statement; psql's commands are dropped."""
    script = r"""
-- a; comment
\restrict abc;def
CREATE ROLE "a;b"; ALTER ROLE x WITH PASSWORD 'S;C''R';
COMMENT ON ROLE x IS E'it\'s;
two lines'; DO $do$ BEGIN; END $do$;
/* last; */ SELECT 1
"""
    assert statements(script) == [
        'CREATE ROLE "a;b"',
        "ALTER ROLE x WITH PASSWORD 'S;C''R'",
        "COMMENT ON ROLE x IS E'it\\'s;\ntwo lines'",
        "DO $do$ BEGIN; END $do$",
        "SELECT 1",
    ]


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda s: "\0" not in s), min_size=1, max_size=3))
def test_quoted_names_come_back(names: list[str]) -> None:
    """Quoting is undone by unquoting, and dots in names stay apart from dots between them."""
    assert dotted(*names).count(".") >= len(names) - 1
    for name in names:
        assert unquoted(dotted(name)) == name


def test_lists_of_names_in_settings() -> None:
    """A search_path as the server stores it is taken apart."""
    assert list_items('"$user", public, "My, Schema"') == ["$user", "public", "My, Schema"]
    assert list_items('""') == [""]


def test_connection_strings_hold_no_password() -> None:
    """A password, inline or configured, is only in the environment of the tool."""
    inline = endpoint_of(PostgresSettings("postgresql://u:s3cret@h:1,h2:2/d?target_session_attrs=any"), "source")
    configured = endpoint_of(PostgresSettings("postgresql://u@h/d", Secret("s3cret")), "source")
    for endpoint in (inline, configured):
        assert "s3cret" not in endpoint.conninfo("other") + repr(endpoint)
        assert endpoint.environment()["PGPASSWORD"] == "s3cret"
    assert conninfo_to_dict(inline.conninfo("o'ther"))["dbname"] == "o'ther"
    assert inline.database == "d"


def test_urls_that_are_refused() -> None:
    """A URL that libpq does not understand, or that would show a key's password, is an error of the configuration."""
    for url in ("postgresql://h/d?no_such_option=1", "postgresql://h/d?sslpassword=x"):
        with pytest.raises(ConfigError):
            endpoint_of(PostgresSettings(url), "source")


def test_the_tools_own_words() -> None:
    """Of what a tool writes, the line that says why is quoted, without its prefixes."""
    text = "pg_dump: last built-in OID is 16383\npg_dump: error: query failed: ERROR:  canceling statement\nmore\n"
    assert complaint(text) == "canceling statement"
    assert complaint("") == "it said nothing"
    assert len(complaint("pg_dump: error: " + "x" * 900)) <= 300


@given(st.text(min_size=1, max_size=80))
def test_temporary_names_fit(name: str) -> None:
    """A temporary database's name is recognisable and within the server's 63 bytes."""
    made = temporary_name("20261122T181455Z-k3f9qa", name)
    assert made.startswith("drd_restore_k3f9qa_")
    assert len(made.encode()) <= 63


def test_blocks_can_be_freed_here(tmp_path: Path) -> None:
    """Trying whether the file system can free blocks leaves nothing behind."""
    assert can_punch(tmp_path) in {True, False}
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_called_one() -> None:
    """The server's own words ("wrote only 4096 of 8192 bytes") do not say so; the hint does."""
    target = endpoint_of(PostgresSettings("postgresql://a@db:5432/x"), "target")
    with pytest.raises(TargetError, match="could not extend") as caught, mapped(target, "load t"):
        raise DiskFull('could not extend file "base/1/2": wrote only 4096 of 8192 bytes')
    assert caught.value.hint == "the disk of db:5432 is full: free space there, then run again"
