"""Count what passes between an engine and the pipeline, and report it as progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from drd.closing import Closing
from drd.model import Json, Progress
from drd.protocols import ArtifactReader, ArtifactSink, ArtifactStream, ArtifactWriter, BytesLike, Cut


class Meter:
    """A running count of bytes of one source; thread-safe."""

    def __init__(self, report: Callable[[Progress], None], subject: str, phase: str, total_bytes: int | None) -> None:
        self._report = report
        self._subject = subject
        self._phase = phase
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count ``size`` more bytes and report the sum."""
        with self._lock:
            self._done_bytes += size
            done = self._done_bytes
        self._report(Progress(self._subject, self._phase, done, self._total_bytes))

    @property
    def done_bytes(self) -> int:
        """The bytes counted so far."""
        return self._done_bytes


class ObservedSink:
    """An artifact sink that meters what is written to it."""

    def __init__(self, sink: ArtifactSink, meter: Meter) -> None:
        self._sink = sink
        self._meter = meter

    def open(self, name: str, *, cut: Cut = "size") -> ArtifactWriter:
        """Begin an artifact."""
        return _ObservedWriter(self._sink.open(name, cut=cut), self._meter)

    def holds(self, plain_sha256: str, plain_bytes: int) -> bool:
        """Whether the parent has that part."""
        return self._sink.holds(plain_sha256, plain_bytes)


class _ObservedWriter:
    def __init__(self, writer: ArtifactWriter, meter: Meter) -> None:
        self._writer = writer
        self._meter = meter

    def write(self, data: BytesLike) -> None:
        self._writer.write(data)
        self._meter.add(len(data))

    def begin_piece(self, size: int) -> None:
        self._writer.begin_piece(size)

    def end_part(self) -> int:
        return self._writer.end_part()

    def refer(self, plain_sha256: str, plain_bytes: int) -> None:
        self._writer.refer(plain_sha256, plain_bytes)
        self._meter.add(plain_bytes)

    def note(self, facts: dict[str, Json]) -> None:
        self._writer.note(facts)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


class ObservedReader:
    """An artifact reader that meters what is read, and remembers which artifacts were read to their end."""

    def __init__(self, artifacts: ArtifactReader, meter: Meter) -> None:
        self._artifacts = artifacts
        self._meter = meter
        self._lock = threading.Lock()
        self._complete: set[str] = set()

    def names(self) -> Sequence[str]:
        """Return the artifact names."""
        return self._artifacts.names()

    def size(self, name: str) -> int:
        """Return the plain size of an artifact."""
        return self._artifacts.size(name)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> ArtifactStream:
        """Read an artifact or a range of it."""
        stream = self._artifacts.open(name, start=start, length=length)
        whole = start == 0 and (length is None or length >= self.size(name))
        return _ObservedStream(stream, self._meter, self.size(name) if whole else None, lambda: self._finished(name))

    def unread(self) -> list[str]:
        """List the artifacts that nobody read from first byte to last, in order."""
        with self._lock:
            return [name for name in self.names() if name not in self._complete]

    def _finished(self, name: str) -> None:
        with self._lock:
            self._complete.add(name)


class _ObservedStream(Closing):
    def __init__(
        self, stream: ArtifactStream, meter: Meter, expected_bytes: int | None, finished: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._meter = meter
        self._left = expected_bytes
        self._finished = finished
        self._count(0)

    def _count(self, size: int) -> None:
        if size:
            self._meter.add(size)
        if self._left is not None:
            self._left -= size
            if self._left <= 0:
                self._finished()
                self._left = None

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._count(len(data))
        return data

    def chunks(self) -> Iterator[memoryview]:
        for chunk in self._stream.chunks():
            yield chunk
            self._count(len(chunk))

    def close(self) -> None:
        self._stream.close()
