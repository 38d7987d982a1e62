"""Digests of table streams and large objects, taken while the bytes pass by and again from a live server."""

from __future__ import annotations

import hashlib

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

    def facts(self) -> dict[str, Json]:
        """Return what a fingerprint keeps of a table."""
        return {"rows": self.rows, "sha256": self._hash.hexdigest()}


class ArchivedTableDigest:
    """A :class:`CopyDigest` over a data file of an archive, without the mark that ends it."""

    def __init__(self) -> None:
        self.copy = CopyDigest()
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
