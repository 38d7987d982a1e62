"""Run a ``drd`` command whose store fails in the middle: ``python failing_drd.py HOW AFTER ARGUMENT…``.

After AFTER reads of data parts the local store refuses (HOW is ``away``), or has the objects no more (``gone``). What a
drill reads before its restore, manifests and fingerprint, is there.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from drd.cli.main import main
from drd.errors import ObjectMissing, StoreRefused
from drd.stores import local


class FailingStore(local.LocalStore):
    """A directory that fails when the data are read."""

    how = ""
    left = 0
    _counting = threading.Lock()

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if key.startswith("backups/") and not key.endswith("manifest.json") and "fingerprint" not in key:
            with self._counting:
                FailingStore.left -= 1
            if FailingStore.left < 0:
                if self.how == "gone":
                    raise ObjectMissing(f"{key} is missing", subject=key)
                raise StoreRefused("the lights are out", subject=key, hint="wait for daylight")
        return super().get(key, start=start, length=length)


def store_at(root: Path, **more: Any) -> FailingStore:
    """Make the store in place of :class:`drd.stores.local.LocalStore`."""
    return FailingStore(root, **more)


if __name__ == "__main__":
    FailingStore.how, FailingStore.left = sys.argv[1], int(sys.argv[2])
    local.LocalStore = store_at  # type: ignore[assignment, misc]  # what wiring imports
    sys.exit(main(sys.argv[3:]))
