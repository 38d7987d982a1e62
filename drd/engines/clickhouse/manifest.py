"""ClickHouse's own manifest, the ``.backup`` file that its BACKUP writes last.

Source: src/Backups/BackupImpl.cpp (writeBackupMetadata); version 1 since 22.6, seen on 26.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.parsers.expat import ExpatError

from drd.engines.clickhouse.packindex import usable_key
from drd.engines.clickhouse.quoting import described_table, from_file_name
from drd.engines.clickhouse.xmltext import FlatReader
from drd.errors import IntegrityError

_FIELDS = ("name", "size", "checksum", "data_file", "use_base", "base_size", "base_checksum", "object_key")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of a backup: ``key`` is the object that holds its bytes, ``in_base`` how many an ancestor holds.

    ``base_checksum`` is of those bytes; empty where there are none.
    """

    name: str
    size: int
    checksum: str
    key: str
    in_base: int
    base_checksum: str = ""


@dataclass
class ServerManifest:
    """The parsed manifest."""

    files: list[ManifestFile] = field(default_factory=list)
    base_backup_uuid: str = ""
    uuid: str = ""

    def parts(self) -> dict[tuple[str, str], set[str]]:
        """Name the MergeTree parts of each (database, table), from ``data/<db>/<table>/<part>/checksums.txt``."""
        out: dict[tuple[str, str], set[str]] = {}
        for item in self.files:
            words = item.name.split("/")
            if len(words) == 5 and words[0] == "data" and words[4] == "checksums.txt":
                out.setdefault((from_file_name(words[1]), from_file_name(words[2])), set()).add(words[3])
        return out

    def tables(self) -> list[tuple[str, str]]:
        """Name the tables, views and dictionaries."""
        return [found for item in self.files if (found := described_table(item.name))]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise IntegrityError(f"the server's manifest .backup holds {text[:40]!r} where a number belongs")
    return int(text)


def _file(row: Mapping[str, str]) -> ManifestFile:
    name, size = row.get("name", "").lstrip("/"), _number(row.get("size", ""))
    checksum = row.get("checksum", "")
    key = row.get("data_file", "").lstrip("/") or name
    for path in (name, key):
        if not usable_key(path):
            raise IntegrityError(f"the server's manifest .backup names an unusable path: {path[:200]!r}")
    in_base = 0
    if row.get("use_base") in {"1", "true"} or "base_size" in row:
        in_base = _number(row["base_size"]) if "base_size" in row else size
    base_checksum = row.get("base_checksum") or (checksum if in_base else "")
    return ManifestFile(name, size, checksum.lower(), key, in_base, base_checksum.lower())


def parse_manifest(pieces: Iterable[bytes]) -> ServerManifest:
    """Parse ``.backup`` from its pieces; raises :class:`~drd.errors.IntegrityError` for anything unsound."""
    out = ServerManifest()

    def single(name: str, text: str) -> None:
        if name == "base_backup_uuid":
            out.base_backup_uuid = text.strip()
        elif name == "uuid":
            out.uuid = text.strip()

    reader = FlatReader("file", _FIELDS, lambda row: out.files.append(_file(row)), single)
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.feed(b"", last=True)
    except ExpatError as error:
        raise IntegrityError(f"the server's manifest .backup is not sound XML: {error}") from None
    return out
