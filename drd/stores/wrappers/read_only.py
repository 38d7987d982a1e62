"""A store that can only be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from drd.errors import StoreError, StoreRefused
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Store
from drd.stores.keys import check_key

_HINT = "this command or configuration opened the store for reading only"


class ReadOnlyStore:
    """Passes reads on and refuses puts and deletions with :class:`~drd.errors.StoreRefused`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:  # noqa: ARG002  the protocol's
        """Refuse."""
        check_key(key)
        raise StoreRefused(f"cannot write {key}: the store is read-only", op="write", subject=key, hint=_HINT)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Get."""
        return self._store.get(key, start=start, length=length)

    def stat(self, key: str) -> ObjectInfo:
        """Stat."""
        return self._store.stat(key)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """List."""
        return self._store.list(prefix, delimiter=delimiter)

    def delete(self, keys: Iterable[str]) -> None:
        """Refuse, unless there is nothing to delete."""
        for key in keys:
            check_key(key)
            raise StoreRefused(f"cannot delete {key}: the store is read-only", op="delete", subject=key, hint=_HINT)

    def check(self) -> Sequence[CheckItem]:
        """Try only what a reader needs: list, and read what is listed first."""
        try:
            first = next(iter(self._store.list("")), None)
            if first is not None:
                self._store.get(first.key, length=1)
        except StoreError as error:
            return [CheckItem("store: read", "failed", error.message, error.hint)]
        found = "empty" if first is None else f"{first.key} can be read"
        return [CheckItem("store: read", "ok", f"listing works, {found}; opened for reading only")]

    def close(self) -> None:
        """Close the store inside."""
        self._store.close()
