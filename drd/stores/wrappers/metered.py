"""A store that counts what is asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from drd.counts import StoreCounts, StoreOperation
from drd.errors import ObjectExists, ObjectMissing, StoreForbidden
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Store


class MeteredStore:
    """Counts calls with their outcome and duration, and bytes; thread-safe as the store inside is.

    That an object is missing or there already is an answer, and counts as ``ok``; a right that is lacking is
    ``refused``, anything else that raises an ``error``. Wrapped closest to the store, so that each try is counted and
    no wait for bandwidth or patience. A listing lasts as long as its pages took, and counts when it was left.
    """

    def __init__(self, store: Store, counts: StoreCounts, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._counts = counts
        self._monotonic = monotonic

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Put and count."""
        with self._counted("put"):
            self._store.put(key, data, if_absent=if_absent)
        self._counts.moved("put", memoryview(data).nbytes)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Get and count."""
        with self._counted("get"):
            data = self._store.get(key, start=start, length=length)
        self._counts.moved("get", len(data))
        return data

    def stat(self, key: str) -> ObjectInfo:
        """Stat and count."""
        with self._counted("stat"):
            return self._store.stat(key)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """List and count."""
        began_s = self._monotonic()
        try:
            found = self._store.list(prefix, delimiter=delimiter)
        except BaseException as error:  # it may ask, or refuse the prefix, at once
            self._note("list", error, self._monotonic() - began_s)
            raise
        return self._listed(found, self._monotonic() - began_s)

    def _listed(self, found: Iterator[ObjectInfo], spent_s: float) -> Iterator[ObjectInfo]:
        failure: BaseException | None = None
        try:
            while True:
                began_s = self._monotonic()
                try:
                    info = next(found, None)
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    spent_s += self._monotonic() - began_s
                if info is None:
                    return
                yield info
        finally:
            self._note("list", failure, spent_s)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete and count: one call, however many keys."""
        wanted = list(keys)
        with self._counted("delete"):
            self._store.delete(wanted)

    def check(self) -> Sequence[CheckItem]:
        """Check the store inside; not counted."""
        return self._store.check()

    def close(self) -> None:
        """Close the store inside."""
        self._store.close()

    @contextmanager
    def _counted(self, operation: StoreOperation) -> Iterator[None]:
        began_s = self._monotonic()
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self._note(operation, failure, self._monotonic() - began_s)

    def _note(self, operation: StoreOperation, failure: BaseException | None, spent_s: float) -> None:
        match failure:
            case None | ObjectMissing() | ObjectExists():
                self._counts.operation(operation, "ok", spent_s)
            case StoreForbidden():
                self._counts.operation(operation, "refused", spent_s)
            case _:
                self._counts.operation(operation, "error", spent_s)
