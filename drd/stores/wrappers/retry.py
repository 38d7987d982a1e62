"""A store that waits and tries again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from drd.cancel import CancelToken
from drd.errors import DrdError, ObjectExists, ObjectMissing, StoreRefused
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Store

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient to be: a failing call is tried again until ``patience_s`` have passed since it first failed.

    The wait before the n-th retry is random between 0 and ``base_delay_s * 2**(n-1)``, at most ``max_delay_s``
    (full jitter). ``max_attempts`` counts the first try; None leaves it to the patience alone.
    """

    patience_s: float = 120.0
    base_delay_s: float = 0.25
    max_delay_s: float = 10.0
    max_attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """A try that failed and will be repeated after ``delay_s``: for a log line or a counter."""

    operation: str
    subject: str
    attempt: int
    delay_s: float
    error: DrdError


class RetryStore:
    """Repeats what failed with a retryable error; thread-safe as the store inside is.

    ``on_retry`` is told of each repetition, in the thread that waits, and must not raise. Raises the last error when
    the patience is at its end, and :class:`~drd.errors.Cancelled` as soon as the token says so while waiting.
    """

    def __init__(
        self,
        store: Store,
        *,
        cancel: CancelToken,
        policy: RetryPolicy | None = None,
        on_retry: Callable[[Retry], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._cancel = cancel
        self._policy = policy or RetryPolicy()
        self._on_retry = on_retry
        self._monotonic = monotonic
        self._rng = rng or random.Random()  # noqa: S311  jitter is no secret

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Put until it succeeds.

        With ``if_absent``, an earlier try may have succeeded though its answer was lost: an object that is there on
        a later try, and is equal byte by byte, counts as ours.
        """
        tries = self._begin("write", key)
        while True:
            try:
                self._store.put(key, data, if_absent=if_absent)
            except ObjectExists:
                if tries.failed == 0 or not self._is_ours(key, data):
                    raise
            except DrdError as error:
                tries.wait_or_raise(error)
                continue
            return

    def _is_ours(self, key: str, data: BytesLike) -> bool:
        try:
            return self.get(key) == data
        except (StoreRefused, ObjectMissing):  # a role that may only write cannot tell
            return False

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Get until it succeeds; not begun after a cancellation, since undoing work reads nothing."""
        self._cancel.raise_if_cancelled()
        return self._repeat("read", key, lambda: self._store.get(key, start=start, length=length))

    def stat(self, key: str) -> ObjectInfo:
        """Stat until it succeeds."""
        return self._repeat("look at", key, lambda: self._store.stat(key))

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """List; after a failure list again and go on behind the last entry. Progress restores the patience."""
        found = self._repeat("list", prefix, lambda: self._store.list(prefix, delimiter=delimiter))
        return self._resumed(found, prefix, delimiter)

    def _resumed(self, found: Iterator[ObjectInfo], prefix: str, delimiter: str) -> Iterator[ObjectInfo]:
        last = ""
        tries = self._begin("list", prefix)
        while True:
            try:
                info = next(found, None)
            except DrdError as error:
                tries.wait_or_raise(error)
                found = self._repeat("list", prefix, lambda: self._store.list(prefix, delimiter=delimiter))
                continue
            if info is None:
                return
            if info.key > last:
                last = info.key
                tries = self._begin("list", prefix)
                yield info

    def delete(self, keys: Iterable[str]) -> None:
        """Delete until it succeeds; what was deleted already is missing, and that is fine."""
        wanted = list(keys)
        self._repeat("delete", wanted[0] if wanted else "nothing", lambda: self._store.delete(wanted))

    def check(self) -> Sequence[CheckItem]:
        """Check once: a check tells how it is now."""
        return self._store.check()

    def close(self) -> None:
        """Close the store inside."""
        self._store.close()

    def _begin(self, operation: str, subject: str) -> _Tries:
        return _Tries(operation, subject, self._policy, self._wait, self._monotonic, self._rng)

    def _repeat(self, operation: str, subject: str, action: Callable[[], _T]) -> _T:
        tries = self._begin(operation, subject)
        while True:
            try:
                return action()
            except DrdError as error:
                tries.wait_or_raise(error)

    def _wait(self, retry: Retry) -> None:
        if self._on_retry is not None:
            self._on_retry(retry)
        self._cancel.sleep(retry.delay_s)


class _Tries:
    """Counts the failures of one call and decides whether it is tried again; used by one thread."""

    def __init__(
        self,
        operation: str,
        subject: str,
        policy: RetryPolicy,
        wait: Callable[[Retry], None],
        monotonic: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.failed = 0
        self._operation = operation
        self._subject = subject
        self._policy = policy
        self._wait = wait
        self._monotonic = monotonic
        self._rng = rng
        self._first_failure_s = 0.0

    def wait_or_raise(self, error: DrdError) -> None:
        """Wait before the next try, or raise ``error`` when it cannot help or the patience is at its end."""
        if not error.retryable:
            raise error
        now_s, policy = self._monotonic(), self._policy
        if self.failed == 0:
            self._first_failure_s = now_s
        self.failed += 1
        left_s = policy.patience_s - (now_s - self._first_failure_s)
        if left_s <= 0.0 or self.failed == policy.max_attempts:
            if self.failed > 1:
                error.message += f" (tried {self.failed} times in {now_s - self._first_failure_s:.0f} s)"
            raise error
        ceiling_s = min(policy.max_delay_s, policy.base_delay_s * 2.0 ** min(self.failed - 1, 32))
        delay_s = min(left_s, self._rng.uniform(0.0, ceiling_s))
        self._wait(Retry(self._operation, self._subject, self.failed, delay_s, error))
