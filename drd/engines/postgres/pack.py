"""Many small files in one artifact: a plain tar, and beside it an index so that each can be read by range.

``small.tar`` is what ``tar -xf`` reads; ``small.idx`` has a line ``name offset size`` for each member, ``offset``
being that of its first byte of content.
"""

from __future__ import annotations

import re
import tarfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator

from drd.errors import IntegrityError
from drd.protocols import ArtifactReader, ArtifactSink, ArtifactWriter

TAR_NAME = "small.tar"
INDEX_NAME = "small.idx"
BLOCK_BYTES = 512

_MEMBER = re.compile(rb"((?:[1-9]\d{0,9}|blob_\d{1,10})\.dat|blobs(?:_\d{1,10})?\.toc) (\d{1,18}) (\d{1,18})")
_LINES_BUFFER_BYTES = 64 * 1024


class PackWriter:
    """Writes members one after the other; opens its two artifacts with the first one. Used by one thread."""

    def __init__(self, sink: ArtifactSink, prefix: str) -> None:
        self._sink = sink
        self._prefix = prefix
        self._tar: ArtifactWriter | None = None
        self._index: ArtifactWriter | None = None
        self._at = 0
        self._lines = bytearray()

    def add(self, name: str, content: bytes | bytearray) -> None:
        """Append one member."""
        if self._tar is None:
            self._tar = self._sink.open(self._prefix + TAR_NAME, cut="rows")
            self._index = self._sink.open(self._prefix + INDEX_NAME)
        header = tarfile.TarInfo(name)
        header.size = len(content)
        header.mode = 0o600
        self._tar.write(header.tobuf(tarfile.USTAR_FORMAT))
        self._tar.write(content)
        padding = -len(content) % BLOCK_BYTES
        if padding:
            self._tar.write(bytes(padding))
        self._lines += f"{name} {self._at + BLOCK_BYTES} {len(content)}\n".encode("ascii")
        self._at += BLOCK_BYTES + len(content) + padding
        if len(self._lines) >= _LINES_BUFFER_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the end of the tar; without a member there are no artifacts."""
        if self._tar is not None and self._index is not None:
            self._tar.write(bytes(2 * BLOCK_BYTES))
            self._tar.close()
            self._flush()
            self._index.close()

    def abort(self) -> None:
        """Drop both artifacts."""
        for writer in (self._tar, self._index):
            if writer is not None:
                writer.abort()

    def _flush(self) -> None:
        if self._index is not None and self._lines:
            self._index.write(bytes(self._lines))
            self._lines.clear()


class PackIndex:
    """Where each member lies. A million large objects take some 20 MB, so they are kept in arrays."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, int]] = {}
        self._oids = array("Q")
        self._offsets = array("Q")
        self._sizes = array("Q")

    def __len__(self) -> int:
        return len(self._files) + len(self._oids)

    def find(self, name: str) -> tuple[int, int] | None:
        """Return ``(offset, size)`` of a member, or None."""
        if not name.startswith("blob_"):
            return self._files.get(name)
        oid = int(name[5:-4])
        at = bisect_left(self._oids, oid)
        if at == len(self._oids) or self._oids[at] != oid:
            return None
        return self._offsets[at], self._sizes[at]

    def names(self) -> Iterator[str]:
        """Yield every member's name, large objects last."""
        yield from self._files
        for oid in self._oids:
            yield f"blob_{oid}.dat"

    def large_object_ranges(self, limit_bytes: int) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
        """Yield ``(offset, length, [(oid, offset, size)…])``: all large objects, in ranges to be read at once."""
        order = sorted(range(len(self._oids)), key=self._offsets.__getitem__)
        members: list[tuple[int, int, int]] = []
        for i in order:
            oid, offset, size = self._oids[i], self._offsets[i], self._sizes[i]
            if members and offset + size - members[0][1] > limit_bytes:
                yield members[0][1], members[-1][1] + members[-1][2] - members[0][1], members
                members = []
            members.append((oid, offset, size))
        if members:
            yield members[0][1], members[-1][1] + members[-1][2] - members[0][1], members

    def add(self, name: str, offset: int, size: int) -> None:
        """Take in one line of the index."""
        if name.startswith("blob_"):
            self._oids.append(int(name[5:-4]))
            self._offsets.append(offset)
            self._sizes.append(size)
        elif name in self._files:
            raise IntegrityError(f"{INDEX_NAME} lists {name} twice")
        else:
            self._files[name] = (offset, size)

    def settle(self) -> None:
        """Sort what was added; raises :class:`~drd.errors.IntegrityError` for an object listed twice."""
        order = sorted(range(len(self._oids)), key=self._oids.__getitem__)
        self._oids = array("Q", (self._oids[i] for i in order))
        self._offsets = array("Q", (self._offsets[i] for i in order))
        self._sizes = array("Q", (self._sizes[i] for i in order))
        if any(self._oids[i] == self._oids[i + 1] for i in range(len(self._oids) - 1)):
            raise IntegrityError(f"{INDEX_NAME} lists a large object twice")


def read_index(artifacts: ArtifactReader, prefix: str) -> PackIndex:
    """Read the index below ``prefix``; an empty one when the backup has none. Raises IntegrityError if damaged."""
    index = PackIndex()
    if prefix + INDEX_NAME not in artifacts.names():
        return index
    tar_bytes = artifacts.size(prefix + TAR_NAME)
    rest = b""
    with artifacts.open(prefix + INDEX_NAME) as stream:
        for chunk in stream.chunks():
            *lines, rest = (rest + bytes(chunk)).split(b"\n")
            if len(rest) > 100:
                raise IntegrityError(f"{prefix}{INDEX_NAME} has a line that is too long")
            for line in lines:
                _take_line(index, line, tar_bytes, prefix)
    if rest:
        raise IntegrityError(f"{prefix}{INDEX_NAME} ends in the middle of a line")
    index.settle()
    return index


def _take_line(index: PackIndex, line: bytes, tar_bytes: int, prefix: str) -> None:
    found = _MEMBER.fullmatch(line)
    if found is None:
        raise IntegrityError(f"{prefix}{INDEX_NAME} has a line that is none of drd's")
    offset, size = int(found[2]), int(found[3])
    if offset % BLOCK_BYTES or offset < BLOCK_BYTES or offset + size > tar_bytes:
        raise IntegrityError(f"{prefix}{INDEX_NAME} points outside of {TAR_NAME}")
    index.add(found[1].decode("ascii"), offset, size)
