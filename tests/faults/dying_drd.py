"""A process that has drd imported and forks for each command: a start costs more than most of them.

``python dying_drd.py`` reads requests from standard input, one JSON object a line: ``arguments``, ``environment``,
``folder``, ``output`` (a file), and ``nth``, the change to the store at which the command dies as by ``kill -9``, or 0.
A change is a put or a delete of the local store, of a key that has one of the words ``of`` in it. (Death after a change
leaves what death before the next one does.) Answers each with the exit code, ``DIED`` where it died.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import drd
from drd.protocols import BytesLike
from drd.stores import local

DIED = 9
_NEEDLESS = ("drd.__main__", "drd.stores.s3", "drd.scratch", "drd.cli.demo")


class DyingStore(local.LocalStore):
    """A directory that ends the process before the n-th change to it, from whatever thread."""

    left = 0
    of: tuple[str, ...] = ("",)
    _counting = threading.Lock()

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        self._count(key)
        super().put(key, data, if_absent=if_absent)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        self._count(wanted[0] if wanted else "")
        super().delete(wanted)

    def _count(self, key: str) -> None:
        if not any(word in key for word in self.of):
            return
        with self._counting:
            DyingStore.left -= 1
            if DyingStore.left == 0:
                os._exit(DIED)


def store_at(root: Path) -> DyingStore:
    """Make the store in place of :class:`drd.stores.local.LocalStore`."""
    return DyingStore(root)


def run(request: dict[str, Any]) -> None:
    """Be the drd that was asked for; never returns."""
    from drd.cli.main import main

    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    DyingStore.left, DyingStore.of = request["nth"], tuple(request["of"])
    local.LocalStore = store_at  # type: ignore[assignment, misc]  # what wiring imports
    code = 1
    try:
        code = main(request["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Import what commands need, then fork for each."""
    for module in pkgutil.walk_packages(drd.__path__, "drd."):
        if not module.name.startswith(_NEEDLESS):
            importlib.import_module(module.name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
