"""The files of one database's archive inside a backup, wherever the backup keeps each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from drd.engines.postgres.digest import COPY_END
from drd.engines.postgres.pack import INDEX_NAME, TAR_NAME, PackIndex, read_index
from drd.engines.postgres.toc import Toc, parse_toc
from drd.errors import IntegrityError
from drd.protocols import ArtifactReader, ArtifactStream

_BLOB_FILE = re.compile(r"blob_(\d{1,10})\.dat")


class Archive:
    """Reads an archive below ``prefix`` (``db-0/``); its table of contents and index are read at once."""

    def __init__(self, artifacts: ArtifactReader, prefix: str) -> None:
        self.artifacts = artifacts
        self.prefix = prefix
        with artifacts.open(prefix + "toc.dat") as stream:
            self.toc_bytes = stream.read()
        self.toc: Toc = parse_toc(self.toc_bytes)
        self.index: PackIndex = read_index(artifacts, prefix)
        found = {name.removeprefix(prefix) for name in artifacts.names() if name.startswith(prefix)}
        self.own = found - {"toc.dat", TAR_NAME, INDEX_NAME}
        self.has_large_objects = True

    def narrow(self, toc: Toc) -> None:
        """Leave out what this smaller table of contents does not name, and all large objects: no table owns one."""
        self.toc = toc
        self.has_large_objects = any(entry.desc == "BLOBS" for entry in toc.entries)

    def size(self, name: str) -> int:
        """Return the size of a file; raises :class:`~drd.errors.IntegrityError` when the backup lacks it."""
        return self.artifacts.size(self.prefix + name) if name in self.own else self._place(name)[1]

    def open(self, name: str) -> ArtifactStream:
        """Open a file; raises :class:`~drd.errors.IntegrityError` when the backup lacks it."""
        if name in self.own:
            return self.artifacts.open(self.prefix + name)
        offset, size = self._place(name)
        return self.artifacts.open(self.prefix + TAR_NAME, start=offset, length=size)

    def rows(self, name: str) -> Iterator[memoryview]:
        """Yield a table's COPY stream; raises IntegrityError, before its end, if the file does not end as it must."""
        held = b""
        keep = len(COPY_END)
        with self.open(name) as stream:
            for chunk in stream.chunks():
                if len(chunk) < keep:
                    held += bytes(chunk)
                    yield memoryview(held)[:-keep] if len(held) > keep else memoryview(b"")
                    held = held[-keep:]
                    continue
                yield memoryview(held)
                yield chunk[:-keep]
                held = bytes(chunk[-keep:])
        if held != COPY_END:
            raise IntegrityError(f"{self.prefix}{name} does not end as pg_dump ends a table: it is cut short")

    def own_large_objects(self) -> list[tuple[int, str]]:
        """Return ``(oid, name)`` of the large objects that are artifacts of their own."""
        return sorted((int(found[1]), name) for name in self.own if (found := _BLOB_FILE.fullmatch(name)))

    def large_object_files(self, listing: str) -> Iterator[str]:
        """Yield the files that a ``blobs….toc`` names; its lines are ``<oid> blob_<oid>.dat``."""
        rest = b""
        with self.open(listing) as stream:
            for chunk in stream.chunks():
                *lines, rest = (rest + bytes(chunk)).split(b"\n")
                for line in lines:
                    oid, _, name = line.decode("ascii", "replace").partition(" ")
                    if not (oid.isdigit() and len(oid) <= 10 and name == f"blob_{oid}.dat"):
                        raise IntegrityError(f"{self.prefix}{listing} has a line that pg_dump does not write")
                    yield name
        if rest:
            raise IntegrityError(f"{self.prefix}{listing} ends in the middle of a line")

    def _place(self, name: str) -> tuple[int, int]:
        place = self.index.find(name)
        if place is None:
            raise IntegrityError(f"the backup lacks {self.prefix}{name}, which its table of contents names")
        return place
