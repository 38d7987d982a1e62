"""A store that keeps to a bandwidth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from drd.cancel import CancelToken
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Store


class ThrottleStore:
    """Limits puts and gets together, over all threads, to ``bytes_per_s`` on average.

    A token bucket that holds one second's worth and may be overdrawn: a put waits before it is sent, a get after it
    arrived (its size is not known earlier), each for as long as what went before it needs. Raises
    :class:`~drd.errors.Cancelled` while waiting, and ValueError for a rate that is not positive.

    Objects of up to ``small_bytes`` are counted but never wait: a lease must be renewed in time while large parts
    are in debt, and released after a cancellation.
    """

    def __init__(
        self,
        store: Store,
        bytes_per_s: float,
        *,
        cancel: CancelToken,
        small_bytes: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if bytes_per_s <= 0:
            raise ValueError(f"bytes_per_s must be positive, not {bytes_per_s}")
        self._store = store
        self._rate = float(bytes_per_s)
        self._cancel = cancel
        self._small_bytes = small_bytes
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._tokens = self._rate
        self._filled_at_s = monotonic()

    def _spend(self, size_bytes: int) -> None:
        """Take tokens and wait until the bucket is out of debt again."""
        with self._lock:
            now_s = self._monotonic()
            self._tokens = min(self._rate, self._tokens + (now_s - self._filled_at_s) * self._rate)
            self._filled_at_s = now_s
            self._tokens -= size_bytes
            wait_s = -self._tokens / self._rate
        if wait_s > 0 and size_bytes > self._small_bytes:
            self._cancel.sleep(wait_s)

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Wait for the bandwidth, then put."""
        self._spend(memoryview(data).nbytes)
        self._store.put(key, data, if_absent=if_absent)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Get, then wait for the bandwidth it took."""
        data = self._store.get(key, start=start, length=length)
        self._spend(len(data))
        return data

    def stat(self, key: str) -> ObjectInfo:
        """Stat, unlimited."""
        return self._store.stat(key)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """List, unlimited."""
        return self._store.list(prefix, delimiter=delimiter)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete, unlimited."""
        self._store.delete(keys)

    def check(self) -> Sequence[CheckItem]:
        """Check the store inside."""
        return self._store.check()

    def close(self) -> None:
        """Close the store inside."""
        self._store.close()
