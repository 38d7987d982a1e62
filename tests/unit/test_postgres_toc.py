"""The reader of pg_dump's table of contents: what it reads, and that nothing can make it do worse than refuse."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drd.engines.postgres.inventory import inventory
from drd.engines.postgres.toc import parse_toc, python_codec
from drd.errors import IntegrityError
from drd.model import Json


@dataclass
class Entry:
    """What :func:`toc` writes of one object."""

    desc: str
    tag: str = "t"
    schema: str = "public"
    definition: str = ""
    copy: str = ""
    filename: str = ""
    dependencies: list[int] = field(default_factory=list)


def integer(value: int) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(4, "little")


def text(value: str | None, codec: str = "utf-8") -> bytes:
    if value is None:
        return integer(-1)
    data = value.encode(codec)
    return integer(len(data)) + data


def toc(*entries: Entry, minor: int = 14, encoding: str = "UTF8", codec: str = "utf-8") -> bytes:
    """Write a table of contents as pg_dump does; an independent second opinion on the format."""
    out = b"PGDMP" + bytes([1, minor, 0, 4, 8, 3])
    out += b"\0" if minor >= 15 else integer(0)
    out += b"".join(integer(n) for n in (1, 2, 3, 22, 10, 126, 0))
    out += text("shop") + text("15.20") + text("15.20")
    all_entries = [Entry("ENCODING", "ENCODING", "", f"SET client_encoding = '{encoding}';\n"), *entries]
    out += integer(len(all_entries))
    for number, entry in enumerate(all_entries, 10):
        out += integer(number) + integer(bool(entry.filename)) + text("0") + text("16385")
        out += text(entry.tag, codec) + text(entry.desc) + integer(2) + text(entry.definition, codec)
        out += text("") + text(entry.copy, codec) + text(entry.schema, codec) + text("") + text("heap")
        out += integer(114) if minor >= 16 else b""
        out += text("admin") + text("false")
        out += b"".join(text(str(n)) for n in entry.dependencies) + text(None) + text(entry.filename)
    return out


TABLE = Entry("TABLE", "Größe")
DATA = Entry("TABLE DATA", "Größe", copy='COPY public."Größe" (id, "a ""b""") FROM stdin;\n', filename="11.dat")
SEQUENCE = Entry("SEQUENCE SET", "s", definition="SELECT pg_catalog.setval('public.s', -5, true);\n\n\n")


@pytest.mark.parametrize("minor", [14, 15, 16])
def test_each_archive_version(minor: int) -> None:
    """Versions 1.14, 1.15 and 1.16 differ in header and entry, and all are read."""
    found = parse_toc(toc(TABLE, DATA, SEQUENCE, minor=minor))
    assert (found.version, found.database, found.server_version, found.encoding) == (minor, "shop", "15.20", "UTF8")
    assert [entry.desc for entry in found.entries] == ["ENCODING", "TABLE", "TABLE DATA", "SEQUENCE SET"]
    assert found.data_files()["11.dat"].tag == "Größe"


def test_names_in_the_databases_encoding() -> None:
    """Names are decoded as the archive's own encoding says, and what it cannot say survives."""
    found = parse_toc(toc(TABLE, encoding="LATIN1", codec="latin-1"))
    assert found.entries[1].tag == "Größe"
    found = parse_toc(toc(TABLE, encoding="SQL_ASCII", codec="latin-1"))
    assert found.entries[1].tag.encode("utf-8", "surrogateescape") == "Größe".encode("latin-1")
    assert python_codec("WIN1252") == "cp1252"
    assert python_codec("NO_SUCH") == "utf-8"


def test_inventory_names_columns_and_states() -> None:
    """Tables get their COPY columns, sequences their state, and a missing file is told."""
    parsed = parse_toc(toc(TABLE, DATA, SEQUENCE))
    none: dict[str, Json] = {"objects": 0, "bytes": 0, "sha256": ""}
    items = inventory(parsed, "shop", {"11.dat": {"rows": 2, "sha256": "x"}}, none)
    assert items['shop.public."Größe"']["columns"] == ["id", 'a "b"']
    assert (items["shop.public.s"]["last_value"], items["shop.public.s"]["is_called"]) == (-5, True)
    with pytest.raises(IntegrityError, match=r"11\.dat"):
        inventory(parsed, "shop", {}, none)


def test_rows_loaded_through_a_partition_root_count_for_the_root() -> None:
    """Leaves of which pg_dump cannot say where a row lands are summed up under their root."""
    leaf = Entry("TABLE DATA", "leaf1", copy="COPY public.root (a) FROM stdin;\n", filename="21.dat")
    leaf.definition = "-- load via partition root public.root"
    other = Entry("TABLE DATA", "leaf2", copy=leaf.copy, filename="22.dat", definition=leaf.definition)
    facts: dict[str, dict[str, Json]] = {"21.dat": {"rows": 3, "sha256": "a"}, "22.dat": {"rows": 4, "sha256": "b"}}
    none: dict[str, Json] = {"objects": 0, "bytes": 0, "sha256": ""}
    items = inventory(parse_toc(toc(leaf, other)), "shop", facts, none)
    assert {name: item["rows"] for name, item in items.items()} == {"shop.public.root": 7}


@pytest.mark.parametrize(
    "name", ["../evil.dat", "/etc/passwd", "11.dat/../x", "toc.dat", "a\0.dat", "01.dat", "blobs.toc", "blob_5.dat"]
)
def test_file_names_that_pg_dump_never_writes(name: str) -> None:
    """A data file may have no other name than the ones pg_dump gives: no path leads out of the folder."""
    with pytest.raises(IntegrityError, match="data file named"):
        parse_toc(toc(Entry("TABLE DATA", filename=name)))


def test_a_newer_archive_is_refused_by_number() -> None:
    """A version from the future is named, not guessed at."""
    with pytest.raises(IntegrityError, match=r"archive version 1\.17"):
        parse_toc(toc(TABLE, minor=17))


def test_two_entries_with_one_file() -> None:
    """Two tables cannot share a data file."""
    with pytest.raises(IntegrityError, match="one data file"):
        parse_toc(toc(DATA, DATA))


def test_the_list_of_large_objects_has_its_real_name() -> None:
    """Before 1.16 the file was always blobs.toc, whatever the entry says; since then it carries the entry's id."""
    assert "blobs.toc" in parse_toc(toc(Entry("BLOBS", filename="blobs.toc"))).data_files()
    assert "blobs_9.toc" in parse_toc(toc(Entry("BLOBS", filename="blobs_9.toc"), minor=16)).data_files()


WHOLE = toc(TABLE, DATA, SEQUENCE, Entry("BLOBS", filename="blobs_9.toc"), minor=16)


@given(st.integers(0, len(WHOLE) - 1))
def test_cut_anywhere(at: int) -> None:
    """Every proper prefix is refused."""
    with pytest.raises(IntegrityError):
        parse_toc(WHOLE[:at])


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_overwritten_anywhere(at: int, noise: bytes) -> None:
    """Whatever is written over it, it is either read or refused: no other error, no endless work."""
    with contextlib.suppress(IntegrityError):
        parse_toc(WHOLE[:at] + noise + WHOLE[at + len(noise) :])


@given(st.binary(max_size=400))
def test_noise(data: bytes) -> None:
    """Noise with the right magic is read or refused."""
    with contextlib.suppress(IntegrityError):
        parse_toc(b"PGDMP\x01\x0e\x00\x04\x08\x03" + data)


def test_a_huge_count_costs_nothing() -> None:
    """A count of two thousand million entries in a small file is refused before anything is read."""
    data = bytearray(toc())
    at = data.find(integer(1) + integer(10))
    data[at : at + 5] = integer(2_000_000_000)
    with pytest.raises(IntegrityError, match="entries in"):
        parse_toc(bytes(data))
