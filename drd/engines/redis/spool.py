"""A bounded file between a server that must be read quickly and a pipeline that may be slow.

Only for servers without ``rdb-only`` (before 7.0): they keep new writes in a buffer for each replica and drop one that
reads too slowly, so the snapshot is taken off the wire at once, as far as the limit allows, and fed on from the file.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from drd.errors import SourceError

_READ_BYTES = 1 << 18


class Spool:
    """A ring of at most ``limit_bytes`` in one unlinked file; one thread fills it, another drains it."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="redis-", dir=folder, buffering=0)  # noqa: SIM115 - closed by close()
        self._limit = limit_bytes
        self._written = 0
        self._read = 0
        self._done = False
        self._error: BaseException | None = None
        self._change = threading.Condition()
        self.was_full = False

    def fill(self, chunks: Iterator[bytes]) -> None:
        """Take every chunk; waits while the ring is full. What ``chunks`` raises is handed to the draining side."""
        try:
            for chunk in chunks:
                self._put(chunk)
        except BaseException as error:  # noqa: BLE001 - handed on by drain()
            self._error = error
        with self._change:
            self._done = True
            self._change.notify_all()

    def drain(self) -> Iterator[bytes]:
        """Yield everything in order; raises what the filling side met, and names a full spool as a likely cause."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._written > self._read or self._done)
                size = min(self._written - self._read, _READ_BYTES)
                position = self._read % self._limit
            if not size:
                break
            piece = os.pread(self._file.fileno(), min(size, self._limit - position), position)
            with self._change:
                self._read += len(piece)
                self._change.notify_all()
            yield piece
        if isinstance(self._error, SourceError) and self.was_full:
            self._error.hint = (
                "the spool was full, so drd read slowly and the server may have dropped it: raise the spool limit, "
                "or client-output-buffer-limit replica on the server, or back up at a quieter time"
            )
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Free the disk and wake a filling thread; idempotent."""
        with self._change:
            self._done = True
            self._change.notify_all()
        with suppress(OSError):
            self._file.close()

    def _put(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            with self._change:
                if self._written - self._read >= self._limit:
                    self.was_full = True
                self._change.wait_for(lambda: self._written - self._read < self._limit or self._done)
                if self._done:
                    return
                position = self._written % self._limit
                room = min(self._limit - (self._written - self._read), self._limit - position)
            done = os.pwrite(self._file.fileno(), view[:room], position)
            view = view[done:]
            with self._change:
                self._written += done
                self._change.notify_all()


def through_spool(chunks: Iterator[bytes], folder: Path, limit_bytes: int) -> Iterator[bytes]:
    """Yield ``chunks`` by way of a bounded file that is filled as fast as they come."""
    spool = Spool(folder, limit_bytes)
    filler = threading.Thread(target=spool.fill, args=(chunks,), name="drd-redis-spool", daemon=True)
    filler.start()
    try:
        yield from spool.drain()
    finally:
        spool.close()
        filler.join(timeout=1.0)  # it may sit in a read; the connection's owner closes that next
