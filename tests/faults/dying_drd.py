"""Run a ``drd`` command whose store ends the process, as ``kill -9`` would, instead of making the n-th change.

``python dying_drd.py NTH ARGUMENT…``: a change is a put or a delete of the local store. Exits 9 at that change, else
with drd's own code. (Death after a change leaves what death before the next one does.)
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from drd.cli.main import main
from drd.protocols import BytesLike
from drd.stores import local

DIED = 9


class DyingStore(local.LocalStore):
    """A directory that ends the process before the n-th change to it, from whatever thread."""

    left = 0
    _counting = threading.Lock()

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        self._count()
        super().put(key, data, if_absent=if_absent)

    def delete(self, keys: Iterable[str]) -> None:
        self._count()
        super().delete(keys)

    def _count(self) -> None:
        with self._counting:
            DyingStore.left -= 1
            if DyingStore.left == 0:
                os._exit(DIED)


def store_at(root: Path) -> DyingStore:
    """Make the store in place of :class:`drd.stores.local.LocalStore`."""
    return DyingStore(root)


if __name__ == "__main__":
    DyingStore.left = int(sys.argv[1])
    local.LocalStore = store_at  # type: ignore[assignment, misc]  # what wiring imports
    sys.exit(main(sys.argv[2:]))
