"""A strict reader of the table of contents of a pg_dump directory archive.

Archive versions 1.14 (pg_dump 12 to 15), 1.15 (16) and 1.16 (17, 18). Nothing in the file is trusted: every length is
checked against what is left, every file name against the few forms pg_dump writes.

Source: ReadHead, ReadToc, ReadInt, ReadStr in PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c; the file name that
ends each entry in pg_backup_directory.c.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from drd.errors import IntegrityError

_MAGIC = b"PGDMP"
_SUPPORTED = range(14, 17)
_FORMAT_TAR = 3  # a directory archive carries the tar format's code
_MAX_ENTRIES = 10_000_000
_DATA_FILE = re.compile(r"[1-9]\d{0,9}\.dat")
_BLOBS_FILE = re.compile(r"blobs(_\d{1,10})?\.toc")
_LEAST_ENTRY_BYTES = 60
_PYTHON_CODECS = {"SQL_ASCII": "utf-8", "KOI8R": "koi8_r", "KOI8U": "koi8_u", "EUC_JIS_2004": "euc_jis_2004"}


@dataclass(frozen=True, slots=True)
class TocEntry:
    """One object of the archive; ``filename`` is empty when it has no data file."""

    dump_id: int
    catalog_oid: int
    tag: str
    desc: str
    definition: str
    copy_statement: str
    schema: str
    owner: str
    dependencies: tuple[int, ...]
    filename: str
    section: int = 0


@dataclass(frozen=True, slots=True)
class Spans:
    """Where things lie in a ``toc.dat``: the count of entries, then the entries, each as its first byte and its end."""

    count_at: int
    entries_at: int
    int_size: int
    codec: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Toc:
    """The whole table of contents; ``version`` is the archive's minor version."""

    version: int
    database: str
    server_version: str
    dump_version: str
    encoding: str
    entries: tuple[TocEntry, ...]

    def data_files(self) -> dict[str, TocEntry]:
        """Map each data file to its entry: ``<dumpId>.dat`` for a table, ``blobs….toc`` for large objects."""
        return {entry.filename: entry for entry in self.entries if entry.filename}


class _Reader:
    """Takes pg_dump's primitive values off a buffer; raises IntegrityError instead of reading past its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.int_size = 4
        self.codec = "utf-8"

    @property
    def at(self) -> int:
        return self._at

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count < 0 or count > self.left:
            raise damaged(f"{count} bytes wanted at offset {self._at}, {self.left} left")
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        sign = self.byte()
        if sign > 1:
            raise damaged(f"a sign byte of {sign} at offset {self._at - 1}")
        value = int.from_bytes(self.take(self.int_size), "little")
        return -value if sign else value

    def raw(self) -> bytes | None:
        length = self.integer()
        return None if length < 0 else self.take(length)

    def text(self) -> str:
        value = self.raw()
        return "" if value is None else decode(value, self.codec)


def damaged(what: str) -> IntegrityError:
    """Make the error for a file that is not what pg_dump writes."""
    return IntegrityError(f"toc.dat is damaged or not a pg_dump directory archive: {what}")


def decode(value: bytes, codec: str) -> str:
    """Decode without loss: what the codec cannot read becomes a lone surrogate."""
    return value.decode(codec, "surrogateescape")


def python_codec(encoding: str) -> str:
    """Return Python's name for a PostgreSQL encoding, UTF-8 where Python has none (names then keep their bytes)."""
    if encoding in _PYTHON_CODECS:
        return _PYTHON_CODECS[encoding]
    name = encoding.lower()
    if name.startswith("win"):
        name = "cp" + name[3:]
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "utf-8"


def parse_toc(data: bytes) -> Toc:
    """Read a ``toc.dat``; raises :class:`~drd.errors.IntegrityError` for all that is unexpected."""
    return parse_toc_with_spans(data)[0]


def parse_toc_with_spans(data: bytes) -> tuple[Toc, Spans]:
    """Read a ``toc.dat`` and say where its entries lie; raises as :func:`parse_toc` does."""
    reader = _Reader(data)
    if reader.take(5) != _MAGIC:
        raise damaged("no PGDMP at its start")
    major, minor, _revision = reader.byte(), reader.byte(), reader.byte()
    if major != 1 or minor not in _SUPPORTED:
        raise IntegrityError(
            f"toc.dat has archive version {major}.{minor}, this drd reads 1.14 to 1.16 (pg_dump 12 to 18)",
            hint="use a newer drd, or pg_restore of the version that wrote it",
        )
    reader.int_size = reader.byte()
    offset_size = reader.byte()
    if reader.int_size not in {4, 8} or offset_size not in {4, 8}:
        raise damaged(f"integers of {reader.int_size} and offsets of {offset_size} bytes")
    if (form := reader.byte()) != _FORMAT_TAR:
        raise damaged(f"format code {form}")
    if minor >= 15:
        reader.byte()  # compression algorithm
    else:
        reader.integer()  # compression level
    for _field in range(7):  # creation time as struct tm
        reader.integer()
    database, server_version, dump_version = reader.raw() or b"", reader.text(), reader.text()
    count_at = reader.at
    count = reader.integer()
    entries_at = reader.at
    if not 0 <= count <= min(_MAX_ENTRIES, reader.left // _LEAST_ENTRY_BYTES):
        raise damaged(f"{count} entries in {reader.left} bytes")
    encoding = "UTF8"
    entries: list[TocEntry] = []
    spans: list[tuple[int, int]] = []
    for _index in range(count):
        first = reader.at
        entry = _entry(reader, minor)
        spans.append((first, reader.at))
        if entry.desc == "ENCODING":  # always the first entry, so that names after it can be decoded
            encoding = _encoding_of(entry.definition)
            reader.codec = python_codec(encoding)
        entries.append(entry)
    if reader.left:
        raise damaged(f"{reader.left} bytes after the last entry")
    _check_unique(entries)
    toc = Toc(minor, decode(database, reader.codec), server_version, dump_version, encoding, tuple(entries))
    return toc, Spans(count_at, entries_at, reader.int_size, reader.codec, tuple(spans))


def _entry(reader: _Reader, minor: int) -> TocEntry:
    dump_id = reader.integer()
    if dump_id <= 0:
        raise damaged(f"entry id {dump_id}")
    reader.integer()  # whether it had a data dumper
    reader.raw()  # the catalog's table oid
    catalog_oid = _number(reader.text() or "0")
    tag, desc = reader.text(), reader.text()
    section = reader.integer()
    definition = reader.text()
    reader.raw()  # the statement that drops it
    copy_statement, schema = reader.text(), reader.text()
    reader.raw()  # tablespace
    reader.raw()  # table access method
    if minor >= 16:
        reader.integer()  # relkind
    owner = reader.text()
    reader.raw()  # "WITH OIDS", long gone
    dependencies: list[int] = []
    while (text := reader.raw()) is not None:
        dependencies.append(_number(text.decode("ascii", "replace")))
    filename = reader.text()
    if minor < 16 and desc == "BLOBS":
        filename = "blobs.toc"  # the name written before 1.16 is not the file's (see _LoadLOs)
    if filename and not (_DATA_FILE.fullmatch(filename) or (desc == "BLOBS" and _BLOBS_FILE.fullmatch(filename))):
        raise damaged(f"a data file named {filename[:80]!r}")
    needs = tuple(dependencies)
    return TocEntry(
        dump_id, catalog_oid, tag, desc, definition, copy_statement, schema, owner, needs, filename, section
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise damaged(f"{text[:40]!r} where a number should be")
    return int(text)


def _encoding_of(definition: str) -> str:
    found = re.fullmatch(r"SET client_encoding = '([A-Za-z0-9_]{1,40})';\s*", definition)
    if found is None:
        raise damaged(f"its ENCODING entry reads {definition[:80]!r}")
    return found[1]


def _check_unique(entries: list[TocEntry]) -> None:
    ids = {entry.dump_id for entry in entries}
    if len(ids) != len(entries):
        raise damaged("two entries with one id")
    files = [entry.filename for entry in entries if entry.filename]
    if len(set(files)) != len(files):
        raise damaged("two entries with one data file")
