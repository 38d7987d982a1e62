"""Part-sized buffers that are used again and again, outside of the allocator.

Megabytes taken from and given back to malloc by several threads leave gaps that add up to twice the memory in use;
taking each from the kernel anew costs a third more processor time, as every page is zeroed. Anonymous maps that
are kept avoid both, and cost only the pages that were ever written.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque

_MIB = 1 << 20


def _shared_size(size: int) -> int:
    """Return a size not below ``size`` that many share, so that a buffer which comes back fits the next one's need."""
    return -(-size // _MIB) * _MIB if size > _MIB else max(64 << 10, 1 << (size - 1).bit_length())


class BufferPool:
    """Lends buffers of any size and keeps up to ``keep_bytes`` of those given back. Thread-safe."""

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._free: deque[mmap.mmap] = deque()
        self._free_bytes = 0
        self._lock = threading.Lock()

    def take(self, size: int, *, shared_size: bool = False) -> mmap.mmap:
        """Return a buffer of exactly ``size`` bytes, or a size near it that many share; it holds whatever it held."""
        size = _shared_size(size) if shared_size else size
        with self._lock:
            for buffer in self._free:
                if len(buffer) == size:
                    self._free.remove(buffer)
                    self._free_bytes -= size
                    return buffer
        return mmap.mmap(-1, size)

    def give_back(self, buffer: mmap.mmap) -> None:
        """Take a buffer back; no view of it may be left. Those given back longest ago are let go first."""
        with self._lock:
            self._free.append(buffer)
            self._free_bytes += len(buffer)
            while self._free_bytes > self._keep_bytes:
                oldest = self._free.popleft()
                self._free_bytes -= len(oldest)
                oldest.close()

    def close(self) -> None:
        """Let go of all free buffers; those lent out go when they are dropped."""
        with self._lock:
            self._keep_bytes = 0
            while self._free:
                self._free.popleft().close()
            self._free_bytes = 0
