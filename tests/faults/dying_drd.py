"""A process that has drd imported and forks for each command: a start costs more than most of them.

``python dying_drd.py`` reads requests from standard input, one JSON object a line: ``arguments``, ``environment``,
``folder``, ``output`` (a file), ``kinds``, and ``nth``, the step at which the command dies as by ``kill -9``, or 0.
A step is a ``change`` of the local store (put, delete) of a key that has one of the words ``of`` in it, a ``read`` of
it (get, stat, list), or something that is sent to a ``server``: a statement, or the start of a client tool. The command
dies before its n-th step. (Death after a step leaves what death before the next one does.) Answers each with the exit
code, ``DIED`` where it died, and the steps in order, as kinds, unless it died.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import drd
from drd.model import ObjectInfo
from drd.protocols import BytesLike
from drd.stores import local

DIED = 9
_NEEDLESS = ("drd.__main__", "drd.stores.s3", "drd.scratch", "drd.cli.demo")
_STATEMENTS = (
    ("psycopg", "connect"),
    ("psycopg", "Cursor.execute"),
    ("psycopg", "Cursor.copy"),
    ("psycopg", "Connection._exec_command"),  # BEGIN, COMMIT, ROLLBACK of a block
    ("redis.connection", "AbstractConnection.send_packed_command"),
    ("urllib3.connectionpool", "HTTPConnectionPool.urlopen"),  # ClickHouse
    ("subprocess", "Popen.__init__"),
    ("drd.engines.clickhouse.handover", "_tell"),  # the process that renames: its order, and to go
)
"""What a driver, or drd for a client tool, calls for each thing that it sends to a server.

What the process that renames sends itself is none of drd's steps: :mod:`tests.faults.test_rename_hands`.
"""


class Steps:
    """Counts the steps of this process, from whatever thread, and ends it before the one that was asked for."""

    def __init__(self) -> None:
        self.last = 0
        self.taken: list[str] = []
        self.kinds: Collection[str] = ()
        self.of: tuple[str, ...] = ("",)
        self._counting = threading.Lock()

    def step(self, kind: str, key: str = "") -> None:
        """Count one; never returns from the last."""
        if kind not in self.kinds or (kind == "change" and not any(word in key for word in self.of)):
            return
        with self._counting:
            self.taken.append(kind)
            if len(self.taken) == self.last:
                os._exit(DIED)


STEPS = Steps()


class DyingStore(local.LocalStore):
    """A directory whose calls are steps."""

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        STEPS.step("change", key)
        super().put(key, data, if_absent=if_absent)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        STEPS.step("change", wanted[0] if wanted else "")
        super().delete(wanted)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        STEPS.step("read")
        return super().get(key, start=start, length=length)

    def stat(self, key: str) -> ObjectInfo:
        STEPS.step("read")
        return super().stat(key)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        STEPS.step("read")
        return super().list(prefix, delimiter=delimiter)


def store_at(root: Path, **more: Any) -> DyingStore:
    """Make the store in place of :class:`drd.stores.local.LocalStore`."""
    return DyingStore(root, **more)


def count_statements() -> None:
    """Make a step of each thing that a driver sends to a server, and of each client tool that starts."""
    for module, path in _STATEMENTS:
        *owners, name = path.split(".")
        there: Any = importlib.import_module(module)
        for owner in owners:
            there = getattr(there, owner)
        setattr(there, name, _counted(getattr(there, name)))


def _counted(inner: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **more: Any) -> Any:
        STEPS.step("server")
        return inner(*args, **more)

    return counted


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
    STEPS.last, STEPS.of, STEPS.kinds = request["nth"], tuple(request["of"]), request["kinds"]
    if "server" in STEPS.kinds:
        count_statements()
    local.LocalStore = store_at  # type: ignore[assignment, misc]  # what wiring imports
    code = 1
    try:
        code = main(request["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        Path(f"{request['output']}.steps").write_text(" ".join(STEPS.taken), encoding="utf-8")
        os._exit(code)


def serve() -> None:
    """Import what commands need, then fork for each."""
    for module in pkgutil.walk_packages(drd.__path__, "drd."):
        if not module.name.startswith(_NEEDLESS):
            importlib.import_module(module.name)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run(request)
        _, status = os.waitpid(child, 0)
        code, steps = os.waitstatus_to_exitcode(status), Path(f"{request['output']}.steps")
        taken = steps.read_text(encoding="utf-8") if steps.exists() else ""
        steps.unlink(missing_ok=True)
        sys.stdout.write(f"{code} {taken}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
