"""Check a snapshot while it streams past, and learn what it holds, at the stream's own speed.

Three things look at the same bytes: CRC-64 in line; redis-check-rdb in a child (structure, totals), or drd's own slower
reader where no tool knows the version; and a search for database headers, whose key counts are exact in a snapshot
(the fork's dictionary sizes). The tool says at which offsets headers truly are, so look-alikes in values do no harm.
"""

from __future__ import annotations

import queue
import re
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from drd.cancel import CancelToken
from drd.engines.redis.rdb.canonical import key_digest
from drd.engines.redis.rdb.checker import CheckerReport, check_stream, find_checker, tool_version
from drd.engines.redis.rdb.crc import crc64
from drd.engines.redis.rdb.cursor import Cursor
from drd.engines.redis.rdb.values import UnsupportedValue
from drd.engines.redis.rdb.walk import Counts, Walk, is_supported, read_magic
from drd.errors import DrdError, IntegrityError
from drd.protocols import BytesLike

NOT_CHECKED = "not checked"
SAMPLE_KEYS = 2000
SAMPLE_VALUE_BYTES = 1 << 16
_PREFIX_BYTES = 4 << 20
_QUEUE_CHUNKS = 16
_LENGTH = rb"(?:[\x00-\x3f]|[\x40-\x7f].|\x80.{4}|\x81.{8})"
_HEADER = re.compile(
    rb"\xfe(?=([\x00-\x3f]|[\x40-\x7f].|\x80.{4})\xfb(" + _LENGTH + rb")(" + _LENGTH + rb"))", re.DOTALL
)
_HEADER_BYTES = 25  # the longest a header can be
_CRC_BYTES = 8


@dataclass
class Scan:
    """What a complete, valid snapshot holds.

    ``databases`` maps numbers to counts; ``exact`` says whether they were proven to add up. ``samples`` maps numbers to
    (name, digest) of up to :data:`SAMPLE_KEYS` keys without expiry from the snapshot's beginning: within a database
    its order is that of a hash table, so this is a random sample. ``structure`` names what checked the structure,
    or is :data:`NOT_CHECKED` for versions that neither a tool here nor drd knows (then only the checksum was).
    ``libraries`` is None when they reach beyond what is looked at.
    """

    magic: str
    version: int
    size_bytes: int
    checksummed: bool
    structure: str
    databases: dict[int, Counts]
    exact: bool
    aux: dict[str, str]
    libraries: list[bytes] | None
    samples: dict[int, list[tuple[bytes, int]]] = field(default_factory=dict)

    @property
    def keys(self) -> int:
        """Keys of all databases."""
        return sum(counts.keys for counts in self.databases.values())


class Scanner:
    """Feed it every byte in order, then :meth:`finish`; or :meth:`abandon`. Used by one thread.

    Memory: a few MiB, plus 32 bytes for each look-alike of a database header (about two a MiB of random data).
    """

    def __init__(self, tools_dir: Path | None, cancel: CancelToken) -> None:
        self._tools_dir = tools_dir
        self._cancel = cancel
        self._prefix = bytearray()
        self._size = 0
        self._crc = 0
        self._tail = b""
        self._carry = b""
        self._candidates = array("Q")
        self._checker: _Follower | None = None
        self._walk: Walk | None = None
        self._report: list[CheckerReport] = []
        self._structure = ""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes; what is wrong with them is said by :meth:`finish`."""
        unseen = b"" if self._checker else bytes(self._prefix)
        # exactly so many bytes, however the stream is cut: the same sample at backup and at verification
        self._prefix += chunk[: _PREFIX_BYTES - len(self._prefix)]
        if self._checker is None and len(self._prefix) >= 9:
            self._checker = self._begin()
        if self._checker is not None:
            self._checker.put(unseen + chunk)
        self._size += len(chunk)
        held = self._tail + chunk
        cut = max(0, len(held) - _CRC_BYTES)
        self._crc = crc64(memoryview(held)[:cut], self._crc)
        self._tail = held[cut:]
        self._search(chunk)

    def finish(self) -> Scan:
        """Return what the snapshot holds; raises :class:`~drd.errors.IntegrityError` when it is damaged."""
        if self._checker is None:
            raise IntegrityError(f"the snapshot is only {self._size} bytes long")
        self._search(b"", last=True)
        try:
            self._checker.finish()
        finally:
            self._checker = None
        self._cancel.raise_if_cancelled()
        head = Walk([bytes(self._prefix)], values=True, keep_limit_bytes=_PREFIX_BYTES)
        samples, libraries_end = _sample(head)
        checksummed = self._check_trailer(head.version)
        if self._structure == NOT_CHECKED and not checksummed:
            raise UnsupportedValue(
                f"nothing here can check {head.magic} RDB version {head.version}, and the server writes no checksum",
                hint="install that server's redis-check-rdb and set tools_dir, or CONFIG SET rdbchecksum yes",
            )
        databases, exact = self._counts(head)
        return Scan(
            magic=head.magic,
            version=head.version,
            size_bytes=self._size,
            checksummed=checksummed,
            structure=self._structure,
            databases=databases,
            exact=exact,
            aux=head.aux,
            libraries=head.libraries if libraries_end else None,
            samples=samples,
        )

    def abandon(self) -> None:
        """Stop looking; idempotent."""
        if self._checker is not None:
            with suppress(DrdError):  # the caller has a better error in hand
                self._checker.finish()
            self._checker = None

    def _begin(self) -> _Follower:
        """Start what checks the structure, now that the version is known."""
        magic, version = read_magic(Cursor([bytes(self._prefix)]))
        tool = find_checker(self._tools_dir, magic, version)
        if tool:
            self._structure = tool_version(tool)
            return _Follower(lambda chunks: self._report.append(check_stream(tool, chunks, self._cancel)))
        walk = self._walk = Walk(())

        def own(chunks: Iterator[bytes]) -> None:
            walk.chunks = chunks
            for _ in walk.entries():
                pass

        if not is_supported(magic, version):
            self._structure = NOT_CHECKED
            return _Follower(_drain)
        self._structure = "drd"
        return _Follower(own)

    def _search(self, chunk: bytes, *, last: bool = False) -> None:
        """Note what looks like a database header; one that crosses the end is found with the next bytes."""
        data = self._carry + chunk
        base = self._size - len(data)
        limit = len(data) if last else max(0, len(data) - _HEADER_BYTES)
        for found in _HEADER.finditer(data):
            if found.start() >= limit:
                break
            numbers = [Cursor([found.group(i)]).length() for i in (1, 2, 3)]
            self._candidates.extend((base + found.end(1), *numbers))
        self._carry = data[limit:]

    def _check_trailer(self, version: int) -> bool:
        """Compare the checksum; return whether there is one."""
        if version < 5:
            return False
        stated = int.from_bytes(self._tail, "little")
        if stated and stated != self._crc:
            raise IntegrityError(f"the snapshot's CRC-64 is {self._crc:016x}, but it states {stated:016x}")
        return stated != 0

    def _counts(self, head: Walk) -> tuple[dict[int, Counts], bool]:
        if self._structure == NOT_CHECKED:
            return {}, False
        if not self._report and self._walk is not None:
            return self._walk.databases, True
        report = self._report[0]
        seen = self._candidates
        stated = {seen[i]: (seen[i + 1], seen[i + 2], seen[i + 3]) for i in range(0, len(seen), 4)}
        out: dict[int, Counts] = {}
        for offset, db in report.database_offsets.items():
            number, keys, expires = stated.get(offset, (db, 0, 0))
            if number == db:
                out[db] = Counts(keys, expires)
        field_expires = report.field_expires or 0
        total = (sum(c.keys for c in out.values()), sum(c.expires for c in out.values()))
        exact = total == (report.keys, report.expires)
        if not exact and len(report.database_offsets) == 1:  # before RDB 7 there are no counts in headers
            out, exact = {next(iter(report.database_offsets.values())): Counts(report.keys, report.expires)}, True
        if field_expires or any(c.field_expires for c in head.databases.values()):
            for counts in out.values():
                counts.field_expires = field_expires or counts.keys
        return {db: counts for db, counts in out.items() if counts.keys}, exact


class _Follower(threading.Thread):
    """A thread that consumes the same chunks; what it raises is handed on by :meth:`finish`."""

    def __init__(self, consume: Callable[[Iterator[bytes]], None]) -> None:
        super().__init__(name="drd-rdb-check", daemon=True)
        self._consume = consume
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUE_CHUNKS)
        self._error: BaseException | None = None
        self.start()

    def put(self, chunk: bytes) -> None:
        """Hand on a chunk; blocks while the consumer is behind."""
        self._queue.put(chunk)

    def finish(self) -> None:
        """End the stream, wait for the consumer, raise what it raised."""
        self._queue.put(None)
        self.join()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        chunks = iter(self._queue.get, None)
        try:
            self._consume(chunks)
        except BaseException as error:  # noqa: BLE001 - handed on by finish()
            self._error = error
        for _ in chunks:  # the feeder must never block on a consumer that failed
            pass


def _drain(chunks: Iterator[bytes]) -> None:
    for _ in chunks:
        pass


def _sample(head: Walk) -> tuple[dict[int, list[tuple[bytes, int]]], bool]:
    """Digest the first keys; return them and whether all function libraries were seen (they precede all keys)."""
    samples: dict[int, list[tuple[bytes, int]]] = {}
    complete = False
    try:
        for seen, entry in enumerate(head.entries()):
            complete = True
            if seen >= SAMPLE_KEYS:
                return samples, True
            if entry.expires_ms is None and len(entry.value) <= SAMPLE_VALUE_BYTES:
                digest = key_digest(entry.name, entry.kind, entry.value)
                if digest is not None:
                    samples.setdefault(entry.db, []).append((entry.name, digest))
    except IntegrityError:
        return samples, complete  # the looked-at beginning ends inside a key
    return samples, True


def scan_chunks(chunks: Iterator[BytesLike], tools_dir: Path | None, cancel: CancelToken) -> Scan:
    """Scan a whole stream that goes nowhere else."""
    scanner = Scanner(tools_dir, cancel)
    try:
        for chunk in chunks:
            cancel.raise_if_cancelled()
            scanner.feed(bytes(chunk))
        return scanner.finish()
    finally:
        scanner.abandon()
