"""The stop-watch of a drill: how long each phase took, and how much of the restore was waiting for the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from drd.closing import Closing
from drd.errors import Cancelled, DrdError
from drd.protocols import ArtifactReader, ArtifactStream

PHASES = ("choose", "provision", "fetch", "restore", "check")


class Phases:
    """Seconds by phase, in the order of :data:`PHASES`; ``now`` is the phase under way. Used by one thread."""

    def __init__(self, monotonic: Callable[[], float], entered: Callable[[str], None]) -> None:
        self._monotonic = monotonic
        self._entered = entered
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.now = PHASES[0]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        self.now = name
        self._entered(name)
        started = self._monotonic()
        try:
            yield
        finally:
            self.seconds[name] += self._monotonic() - started

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count ``seconds`` of one phase to another."""
        moved = min(max(seconds, 0.0), self.seconds[source])
        self.seconds[source] -= moved
        self.seconds[target] += moved

    @property
    def total_s(self) -> float:
        """The sum of all phases."""
        return sum(self.seconds.values())


class WaitingReader:
    """An artifact reader that knows how long nothing could go on because every open stream waited for the store.

    Thread-safe, as readers are. A stream that is open and not being read from is being worked on by the engine.
    ``failure`` is the first error of a read: an engine that is left without data tells of its own trouble.
    """

    def __init__(self, artifacts: ArtifactReader, monotonic: Callable[[], float]) -> None:
        self._artifacts = artifacts
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._open = 0
        self._waiting = 0
        self._since = 0.0
        self.waited_s = 0.0
        self.failure: DrdError | None = None

    def names(self) -> Sequence[str]:
        """Return the artifact names."""
        return self._artifacts.names()

    def size(self, name: str) -> int:
        """Return the plain size of an artifact."""
        return self._artifacts.size(name)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> ArtifactStream:
        """Read an artifact or a range of it."""
        with self._noting():
            stream = self._artifacts.open(name, start=start, length=length)
        self.count(streams=1)
        return _WaitingStream(stream, self)

    def count(self, *, streams: int = 0, waiting: int = 0) -> None:
        """Note that a stream was opened or closed, or began or ended to wait."""
        with self._lock:
            now = self._monotonic()
            if self._waiting and self._waiting >= self._open:
                self.waited_s += now - self._since
            self._since = now
            self._open += streams
            self._waiting += waiting

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Count the block as waiting for the store."""
        self.count(waiting=1)
        try:
            with self._noting():
                yield
        finally:
            self.count(waiting=-1)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Cancelled:
            raise
        except DrdError as error:
            with self._lock:
                self.failure = self.failure or error
            raise


class _WaitingStream(Closing):
    def __init__(self, stream: ArtifactStream, reader: WaitingReader) -> None:
        self._stream = stream
        self._reader = reader
        self._closed = False

    def read(self, size: int = -1) -> bytes:
        with self._reader.wait():
            return self._stream.read(size)

    def chunks(self) -> Iterator[memoryview]:
        pieces = self._stream.chunks()
        while True:
            with self._reader.wait():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reader.count(streams=-1)
        self._stream.close()
