"""Digests of table streams and large objects, taken while the bytes pass by and again from a live server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from drd.model import Json

# pg_dump ends the data of a table in an archive with this; COPY TO STDOUT on a connection does not have it.
COPY_END = b"\\.\n\n\n"


class CopyDigest:
    """SHA-256 and rows of a COPY text stream, held so that an archive's file and a live COPY give the same.

    Rows are newlines: a newline inside a value is escaped in this format.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0
        self.size_bytes = 0

    def update(self, data: bytes | bytearray, size: int | None = None) -> None:
        """Add ``data``, or its first ``size`` bytes."""
        end = len(data) if size is None else size
        self._hash.update(memoryview(data)[:end])
        self.rows += data.count(b"\n", 0, end)
        self.size_bytes += end

    def digest(self) -> bytes:
        """Return the SHA-256 of what was added so far."""
        return self._hash.digest()

    def facts(self) -> dict[str, Json]:
        """Return what a fingerprint keeps of a table."""
        return {"rows": self.rows, "sha256": self._hash.hexdigest()}


class RangedDigest:
    """What :class:`CopyDigest` is, of a table that was read in ranges: a SHA-256 over those of the ranges.

    ``range_rows`` are the rows of each range, in order. What comes after the last row expected is a range of its own.
    """

    def __init__(self, range_rows: Sequence[int]) -> None:
        self._left = list(reversed(range_rows))
        self._ranges = hashlib.sha256()
        self._range_rows = list(range_rows)
        self._one = CopyDigest()
        self.rows = 0

    def update(self, data: bytes | bytearray, size: int | None = None) -> None:
        """Add ``data``, or its first ``size`` bytes."""
        end = len(data) if size is None else size
        at = 0
        while at < end:
            wanted = self._left[-1] - self._one.rows if self._left else end
            stop = _after_rows(data, at, end, wanted)
            self._one.update(data[at:stop])
            at = stop
            if self._left and self._one.rows == self._left[-1]:
                self._left.pop()
                self._end_range()

    def facts(self) -> dict[str, Json]:
        """Return what a fingerprint keeps of the table."""
        if self._one.size_bytes:
            self._end_range()
        rows: list[Json] = list(self._range_rows)
        return {"rows": self.rows, "sha256": self._ranges.hexdigest(), "range_rows": rows}

    def _end_range(self) -> None:
        self._ranges.update(self._one.digest())
        self.rows += self._one.rows
        self._one = CopyDigest()


def _after_rows(data: bytes | bytearray, start: int, end: int, rows: int) -> int:
    """Return where the first ``rows`` rows of ``data[start:end]`` end; ``end`` if it has fewer."""
    if data.count(b"\n", start, end) < rows:
        return end
    low, high = start, end  # the place is above low, and at most high
    while high - low > 1:
        middle = (low + high) // 2
        found = data.count(b"\n", low, middle)
        if found >= rows:
            high = middle
        else:
            low, rows = middle, rows - found
    return high


def table_digest(item: Mapping[str, Json]) -> CopyDigest | RangedDigest:
    """Return the digest that gives the facts a fingerprint keeps of such a table."""
    ranges = item.get("range_rows")
    if not isinstance(ranges, list):
        return CopyDigest()
    return RangedDigest([rows for rows in ranges if isinstance(rows, int) and rows > 0])


class ArchivedTableDigest:
    """Such a digest over a data file of an archive, without the mark that ends it."""

    def __init__(self, copy: CopyDigest | RangedDigest | None = None) -> None:
        self.copy = copy or CopyDigest()
        self._held = b""  # may turn out to be the end mark

    def update(self, data: bytes | bytearray, size: int) -> None:
        """Add the first ``size`` bytes of ``data``."""
        keep = len(COPY_END)
        if size < keep:
            joined = self._held + bytes(data[:size])
            self.copy.update(joined, max(0, len(joined) - keep))
            self._held = joined[-keep:]
            return
        self.copy.update(self._held)
        self.copy.update(data, size - keep)
        self._held = bytes(memoryview(data)[size - keep : size])

    def facts(self) -> dict[str, Json] | None:
        """Return rows and digest, or None when the file did not end as an archived table does."""
        return self.copy.facts() if self._held == COPY_END else None


class LargeObjectsDigest:
    """Count, bytes and a digest over all large objects of a database, whatever order they come in.

    The digest is the sum, modulo 2^256, of the SHA-256 of (oid as 4 bytes, SHA-256 of the content) of each.
    """

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0
        self._sum = 0

    def add(self, oid: int, size_bytes: int, content_sha256: bytes) -> None:
        """Add one object."""
        one = hashlib.sha256(oid.to_bytes(4, "big") + content_sha256).digest()
        self._sum = (self._sum + int.from_bytes(one, "big")) % (1 << 256)
        self.count += 1
        self.size_bytes += size_bytes

    def facts(self) -> dict[str, Json]:
        """Return what a fingerprint keeps of the large objects."""
        return {"objects": self.count, "bytes": self.size_bytes, "sha256": f"{self._sum:064x}"}
