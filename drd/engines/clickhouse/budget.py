"""A bound on the bytes that request bodies hold in memory at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from drd.engines.clickhouse.s3wire import Disconnected


class Budget:
    """Bytes that may be in memory at once; an ask for more than all of it waits until it is alone. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """Wait for room for the length of the block; raises :class:`Disconnected` when the budget is closed."""
        size = min(size, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._used + size <= self._limit)
            if self._closed:
                raise Disconnected
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def close(self) -> None:
        """Wake all that wait; they give up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
