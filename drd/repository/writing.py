"""The way in: artifacts are cut into parts, and each part is digested, encoded and put by a pool of threads.

Encoding is work for the processors, putting is mostly waiting: so there are more threads than may encode at once, and
a store that takes its time to answer holds up nobody while the memory limit allows.

Every part is one plain put of known length, so workers need no order, a put can always be repeated and nothing
half-made remains. zstd, SHA-256 and sockets release the interpreter lock, so threads are enough.
"""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from drd.cancel import CancelToken
from drd.errors import Cancelled, IntegrityError
from drd.model import Artifact, Json, Part
from drd.protocols import Cut, Store
from drd.repository import layout
from drd.repository.buffers import BufferPool
from drd.repository.chunking import DEFAULT_PART_BYTES, MIB, validate_part_size
from drd.repository.codec import Codec
from drd.repository.cutting import PartWriter, Record
from drd.repository.facts import as_read_back
from drd.repository.fields import Malformed
from drd.repository.priority import let_others_first
from drd.repository.tails import Tails

DEFAULT_MEMORY_LIMIT_BYTES = 96 * MIB
_PUTTING = 2  # threads besides those that encode: puts that may wait for the store meanwhile
_POLL_S = 0.2  # how soon a blocked writer notices a cancellation
_ENGINE_BUG = "a bug in the engine: please report it"


@dataclass(slots=True)
class _Job:
    """One part on its way: the first ``size`` bytes of a buffer. ``charged_bytes`` is its share of the memory limit."""

    record: Record
    index: int
    buffer: mmap.mmap
    size: int
    charged_bytes: int


class PartSink:
    """Stores what an engine dumps; implements :class:`~drd.protocols.ArtifactSink`, a context manager.

    Leaving the block without :meth:`finish` aborts. After :meth:`finish` or :meth:`abort` no thread is left.

    Args:
        store: where parts are put.
        codec: how parts are encoded; needs no identity.
        source: name of the source, and
        backup_id: id of the backup, which make the keys.
        workers: how many threads encode at once; a few more wait for the store.
        part_size: plain bytes of an artifact's first parts (see :func:`~drd.repository.chunking.part_size_at`); those
            of rows begin smaller (see :func:`~drd.repository.rows.row_window_at`).
        memory_limit_bytes: plain bytes of full parts waiting or being encoded. A write blocks at the limit; one
            part is always let through, so it cannot deadlock. Besides it, each open artifact holds up to one
            part, and each worker up to two encoded copies of its part. A part that is being put counts with its
            encoded size.
        cancel: stops it; blocked writers raise Cancelled.
        reuse: parts of ancestors by plain SHA-256: a part with that content is referred to and not stored again.
            The caller gives only parts that exist, and that are encrypted to the same recipients.
        ancestry: artifacts of the parent: a stream of rows is cut where it was before, as far as it is what it was.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        *,
        source: str,
        backup_id: str,
        workers: int,
        part_size: int = DEFAULT_PART_BYTES,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        cancel: CancelToken,
        reuse: Mapping[str, Part] | None = None,
        ancestry: Iterable[Artifact] = (),
    ) -> None:
        self._store = store
        self._codec = codec
        self._source = source
        self._backup_id = backup_id
        self._threads_limit = max(1, workers) + _PUTTING
        self._encoding = threading.BoundedSemaphore(max(1, workers))
        self.part_size = validate_part_size(part_size)
        self._limit_bytes = memory_limit_bytes
        self._cancel = cancel
        self._reuse = reuse or {}
        self.tails = Tails(ancestry, self._reuse)
        self.buffers = BufferPool(memory_limit_bytes // 2)
        self._records: dict[str, Record] = {}
        self._queue: deque[_Job] = deque()
        self._threads: list[threading.Thread] = []
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # something to do, or the end
        self._room = threading.Condition(lock)  # less in flight, or a failure
        self._in_flight_bytes = 0
        self._idle = 0
        self._ending = False
        self._finished = False
        self._failure: BaseException | None = None
        self._bytes_written = 0
        self._bytes_stored = 0
        self._bytes_reused = 0

    @property
    def bytes_written(self) -> int:
        """Plain bytes of all parts sealed so far, for progress."""
        return self._bytes_written

    @property
    def bytes_stored(self) -> int:
        """Encoded bytes put so far, for progress."""
        return self._bytes_stored

    @property
    def bytes_reused(self) -> int:
        """Plain bytes found in an ancestor and not stored again."""
        return self._bytes_reused

    def open(self, name: str, *, cut: Cut = "size") -> PartWriter:
        """Begin an artifact, cut into parts by ``cut``.

        Raises IntegrityError when the name is unusable or was used before in this backup.
        """
        layout.part_key(self._source, self._backup_id, name, 0, encrypted=self._codec.encrypted)
        if layout.is_reserved_artifact_name(name):
            raise IntegrityError(f"an artifact cannot be named {name}", hint=_ENGINE_BUG)
        with self._work:
            self.raise_if_failed()
            if self._ending or name in self._records:
                raise IntegrityError(f"artifact {name} opened twice or after the end", hint=_ENGINE_BUG)
            record = self._records[name] = Record(name)
        return PartWriter(self, record, cut)

    def holds(self, plain_sha256: str, plain_bytes: int) -> bool:
        """Whether a part of that content may be referred to, as it is in the parent and encrypted as this backup is."""
        part = self._reuse.get(plain_sha256)
        # never refer from an encrypted backup to a part in the clear, or the other way round
        return (
            part is not None
            and part.plain_bytes == plain_bytes
            and layout.is_encrypted_key(part.key) == self._codec.encrypted
        )

    def finish(self) -> tuple[Artifact, ...]:
        """Wait until every part is stored and return the artifacts by name; empty ones have no parts.

        Raises the first failure of any worker, Cancelled, or IntegrityError when an artifact was left open.
        """
        try:
            with self._room:
                self.raise_if_failed()
                if still_open := [r.name for r in self._records.values() if r.state == "open"]:
                    raise IntegrityError(f"artifact {still_open[0]} was never finished: the dump is not whole")
                while self._in_flight_bytes:
                    self._room.wait(_POLL_S)
                    self.raise_if_failed()
                self.raise_if_failed()
                self._finished = True
        finally:
            self.abort()
        done = [r for r in self._records.values() if r.state == "closed"]
        return tuple(
            Artifact(r.name, tuple(r.parts[index] for index in range(r.sealed_parts)), facts=r.facts)
            for r in sorted(done, key=lambda r: r.name)
        )

    def abort(self) -> None:
        """Stop: drop what waits, let puts under way end, and return when no thread is left. Idempotent."""
        with self._work:
            if self._failure is None and not self._finished:
                self._failure = Cancelled("the backup was stopped; it does not exist")
            self._end()
        for thread in self._threads:
            thread.join()
        self.buffers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    # What writers call

    def raise_if_failed(self) -> None:
        """Raise what stopped the pipeline, if anything did."""
        if self._failure is not None:
            raise self._failure
        self._cancel.raise_if_cancelled()

    def submit(self, record: Record, buffer: mmap.mmap, size: int, digest: str) -> None:
        """Hand over a full part, with its SHA-256 if that is known; blocks while too much is in flight."""
        if digest and self.holds(digest, size):
            self.buffers.give_back(buffer)
            self.refer(record, digest, size)
            return
        with self._room:
            self.raise_if_failed()
            while self._in_flight_bytes and self._in_flight_bytes + size > self._limit_bytes:
                self._room.wait(_POLL_S)
                self.raise_if_failed()
            self._in_flight_bytes += size
            self._bytes_written += size
            self._queue.append(_Job(record, record.sealed_parts, buffer, size, size))
            record.sealed_parts += 1
            if self._idle < len(self._queue) and len(self._threads) < self._threads_limit:
                name = f"drd-put-{len(self._threads)}"
                self._threads.append(thread := threading.Thread(target=self._run, name=name, daemon=True))
                thread.start()
            self._work.notify()

    def refer(self, record: Record, plain_sha256: str, plain_bytes: int) -> None:
        """Append a part of the parent; raises IntegrityError when there is none of that content."""
        if not self.holds(plain_sha256, plain_bytes):
            text = f"artifact {record.name} refers to a part that the backup before does not have"
            raise IntegrityError(text, hint=_ENGINE_BUG)
        with self._room:
            self.raise_if_failed()
            self._bytes_written += plain_bytes
            self._bytes_reused += plain_bytes
            record.parts[record.sealed_parts] = self._reuse[plain_sha256]
            record.sealed_parts += 1

    def note(self, record: Record, facts: dict[str, Json]) -> None:
        """Keep what the manifest shall say of an artifact; raises IntegrityError for what it cannot hold."""
        try:
            record.facts = as_read_back(facts)
        except Malformed as error:
            raise IntegrityError(f"artifact {record.name} {error}", hint=_ENGINE_BUG) from error

    def settle(self, record: Record, state: str) -> None:
        """Note that an artifact was closed or aborted."""
        with self._work:
            record.state = state

    # What workers do

    def _run(self) -> None:
        let_others_first()
        while (job := self._next_job()) is not None:
            try:
                part = self._store_part(job)
            except BaseException as error:  # noqa: BLE001 - handed on to every writer and to finish()
                self._fail(error)
                part = None
            with self._room:
                self._in_flight_bytes -= job.charged_bytes
                if part is not None:
                    job.record.parts[job.index] = part
                self._room.notify_all()

    def _next_job(self) -> _Job | None:
        with self._work:
            self._idle += 1
            while not self._queue and not self._ending:
                self._work.wait()
            self._idle -= 1
            return self._queue.popleft() if self._queue else None

    def _store_part(self, job: _Job) -> Part:
        with self._encoding:
            plain_sha256, frame = self._digest_and_compress(job)
            if frame is None:
                return self._reuse[plain_sha256]
            self._discharge(job, len(frame))
            stored = self._codec.encrypt(frame)
            del frame  # one copy less while it is sent
            stored_sha256 = hashlib.sha256(stored).hexdigest()
        key = layout.part_key(
            self._source, self._backup_id, job.record.name, job.index, encrypted=self._codec.encrypted
        )
        part = Part(key, job.size, len(stored), plain_sha256, stored_sha256)
        with self._room:
            self.raise_if_failed()
        self._store.put(key, stored)
        with self._room:
            self._bytes_stored += len(stored)
        return part

    def _digest_and_compress(self, job: _Job) -> tuple[str, bytes | None]:
        """Return the digest and the compressed part, None when an ancestor has it; the buffer is free afterwards."""
        try:
            with memoryview(job.buffer) as whole, whole[: job.size] as plain:
                plain_sha256 = hashlib.sha256(plain).hexdigest()
                if self.holds(plain_sha256, job.size):
                    with self._room:
                        self._bytes_reused += job.size
                    return plain_sha256, None
                self._cancel.raise_if_cancelled()
                return plain_sha256, self._codec.compress(plain)
        finally:
            self.buffers.give_back(job.buffer)

    def _discharge(self, job: _Job, now_bytes: int) -> None:
        with self._room:
            if now_bytes < job.charged_bytes:
                self._in_flight_bytes -= job.charged_bytes - now_bytes
                job.charged_bytes = now_bytes
                self._room.notify_all()

    # Both, holding the lock

    def _fail(self, error: BaseException) -> None:
        with self._work:
            if self._failure is None:
                self._failure = error
            self._end()

    def _end(self) -> None:
        self._ending = True
        while self._queue:
            self._in_flight_bytes -= self._queue.popleft().charged_bytes
        self._work.notify_all()
        self._room.notify_all()
