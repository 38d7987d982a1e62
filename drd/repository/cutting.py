"""One artifact on its way in, cut into parts: by size, or at row ends where it holds rows."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import Protocol

from drd.errors import IntegrityError
from drd.model import Json, Part
from drd.protocols import BytesLike, Cut
from drd.repository.buffers import BufferPool
from drd.repository.chunking import part_size_at, piece_part_size
from drd.repository.rows import cut_after_row, end_of_rows, row_window_at
from drd.repository.tails import NONE, Tails


@dataclass(slots=True)
class Record:
    """What is known of one artifact: its parts by index, what was noted of it, and whether it is still open."""

    name: str
    parts: dict[int, Part] = field(default_factory=dict)
    sealed_parts: int = 0
    facts: dict[str, Json] = field(default_factory=dict)
    state: str = "open"  # open, closed, aborted


class Intake(Protocol):
    """What takes the parts: :class:`drd.repository.writing.PartSink`."""

    part_size: int
    tails: Tails
    buffers: BufferPool

    def raise_if_failed(self) -> None:
        """Raise what stopped the pipeline, if anything did."""

    def submit(self, record: Record, buffer: mmap.mmap, size: int, digest: str) -> None:
        """Hand over a full part, with its SHA-256 if that is known; blocks while too much is in flight."""

    def refer(self, record: Record, plain_sha256: str, plain_bytes: int) -> None:
        """Append a part of the parent; raises IntegrityError when there is none of that content."""

    def note(self, record: Record, facts: dict[str, Json]) -> None:
        """Keep what the manifest shall say of an artifact; raises IntegrityError for what it cannot hold."""

    def settle(self, record: Record, state: str) -> None:
        """Note that an artifact was closed or aborted."""


class PartWriter:
    """One artifact being cut into parts; implements :class:`~drd.protocols.ArtifactWriter`."""

    def __init__(self, sink: Intake, record: Record, cut: Cut) -> None:
        self._sink = sink
        self._record = record
        self._cut: Cut = cut
        self._offset = 0
        self._piece_part_bytes = 0
        self._least, self._most = self._bounds()
        self._buffer: mmap.mmap | None = None
        self._filled = 0

    def write(self, data: BytesLike) -> None:
        """Append a copy of ``data``; blocks while the pipeline is full, raises what stopped it."""
        self._require_open()
        self._sink.raise_if_failed()
        view = memoryview(data).cast("B")
        while view:
            if self._buffer is None:
                self._buffer = self._sink.buffers.take(self._most, shared_size=self._piece_part_bytes > 0)
            size = min(len(view), self._most - self._filled)
            self._buffer[self._filled : self._filled + size] = view[:size]
            self._filled += size
            view = view[size:]
            if self._filled == self._most:
                self._seal(self._buffer, *self._end_of_part(self._buffer, last=False))

    def begin_piece(self, size: int) -> None:
        """End the part here; the next ``size`` bytes are parts of their own (:func:`piece_part_size`)."""
        self._require_open()
        self._sink.raise_if_failed()
        self._piece_part_bytes = piece_part_size(size, self._sink.part_size)
        if self._buffer is not None:
            self._seal(self._buffer, self._filled)
        self._least, self._most = self._bounds()

    def end_part(self) -> int:
        """End the part here, as :meth:`close` would; return how many parts the artifact has so far.

        That may be several more than before: what began as a part of the parent did is that part again.
        """
        self._require_open()
        self._sink.raise_if_failed()
        while self._buffer is not None:
            self._seal(self._buffer, *self._end_of_part(self._buffer, last=True))
        return self._record.sealed_parts

    def refer(self, plain_sha256: str, plain_bytes: int) -> None:
        """End the part and append that one of the parent; raises IntegrityError when the sink does not hold it."""
        self.end_part()
        self._sink.refer(self._record, plain_sha256, plain_bytes)
        self._offset += plain_bytes
        self._least, self._most = self._bounds()

    def note(self, facts: dict[str, Json]) -> None:
        """Say what the manifest shall hold of the artifact; raises IntegrityError for what it cannot hold."""
        self._require_open()
        self._sink.note(self._record, facts)

    def close(self) -> None:
        """End the artifact; its last part is on its way."""
        self.end_part()
        self._sink.settle(self._record, "closed")

    def abort(self) -> None:
        """Drop the artifact: it will not be in the manifest. Parts already put go when the backup is removed."""
        if self._buffer is not None:
            self._sink.buffers.give_back(self._buffer)
            self._buffer = None
        if self._record.state == "open":
            self._sink.settle(self._record, "aborted")

    def _bounds(self) -> tuple[int, int]:
        """Return the least and most size of the part that begins now."""
        if self._cut == "rows":
            return row_window_at(self._offset, self._sink.part_size)
        size = self._piece_part_bytes or part_size_at(self._offset, self._sink.part_size)
        return size, size

    def _end_of_part(self, buffer: mmap.mmap, *, last: bool) -> tuple[int, str]:
        """Return where to cut what is in the buffer, full or the ``last`` of the stream, and the SHA-256 if known."""
        if self._cut != "rows":
            return self._filled, ""
        known = self._sink.tails.known(self._record.name, self._offset, buffer, self._filled)
        if known != NONE:
            return known
        if last:
            return end_of_rows(buffer, self._filled, self._sink.part_size), ""
        return cut_after_row(buffer, self._least, self._most), ""

    def _seal(self, full: mmap.mmap, size: int, digest: str = "") -> None:
        """Hand over the first ``size`` bytes; what lies behind them begins the next part."""
        left = self._filled - size
        self._offset += size
        self._least, self._most = self._bounds()
        self._buffer = None
        if left:  # always less than the next part's most size
            self._buffer = self._sink.buffers.take(self._most)
            with memoryview(full) as whole, whole[size : size + left] as rest:
                self._buffer[:left] = rest
        self._filled = left
        self._sink.submit(self._record, full, size, digest)

    def _require_open(self) -> None:
        if self._record.state != "open":
            raise IntegrityError(f"artifact {self._record.name} was written after it was {self._record.state}")
