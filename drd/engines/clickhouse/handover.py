"""Hand renames over to a process of their own (:mod:`.hands`), which ends them though this one be killed meanwhile.

Nothing simpler gives that. The server (26.7, tried) takes no second statement in a request, and drops one that is sent
behind the first on the same connection; ``PARALLEL WITH`` promises no order, and is younger than the oldest servers.

It is started, connected and ready before it is told to go, so that the server is without a live name no longer than a
rename takes. It stays until drd has done what follows (:mod:`.finish`), and does that where drd is killed meanwhile.
It runs in a session of its own: neither the terminal's signals nor the end of drd's process group reach it. Its order,
with the password, goes through a pipe. Should it be killed instead, the renames are ended here. It waits some two
minutes for its word: a drd that is suspended meanwhile for longer, and may lose its lease, renames nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import drd
from drd.engines.clickhouse import hands
from drd.engines.clickhouse.client import Server
from drd.engines.clickhouse.finish import finish
from drd.engines.clickhouse.renames import Change, change_names, token_of
from drd.errors import ToolError

_MARGIN_S = 10.0
_ENDS_WITHIN_S = 10.0
_MAX_ANSWER_BYTES = 64 << 10


def by_hands(
    server: Server, restore_id: str, changes: Sequence[Change], check: Callable[[], None] = lambda: None
) -> None:
    """Let the second process carry out ``changes`` of a restore; return when all is finished that follows from them.

    ``check`` is asked last before it is told to go, and raises where it must not. Raises what the server's client
    raises, and :class:`~drd.errors.ToolError`, nothing done, when the process cannot be had. Where a rename is refused,
    who had a name has it again, as far as the server allowed that; where what follows is, the names stay changed.
    """
    if not changes:
        return
    order = hands.Order(server.settings, restore_id, changes)
    process = _started()
    try:
        _tell(process, order.line())
        ready = _hear(process, order.ready_within_s)
        if ready is None:
            raise _unavailable(_last_words(process, server))
        hands.demand_done(ready)
        check()
        if not _tell(process, hands.GO):
            raise _unavailable("it was kept waiting for too long")
        answer = _hear(process, order.done_within_s)
        if answer is None:  # it died, perhaps between two renames
            change_names(server, changes, token_of(restore_id))
        else:
            hands.demand_done(answer)
        finish(server, restore_id)
    finally:
        _tell(process, hands.BYE)
        _end(process)


def _started() -> subprocess.Popen[bytes]:
    """Start it from the folder that this drd is imported from: there it finds the same one, and nothing of others'."""
    try:
        return subprocess.Popen(
            [sys.executable, "-m", hands.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(drd.__file__).parents[1],
            start_new_session=True,
        )
    except OSError as error:
        raise _unavailable(error.strerror or str(error)) from error


def _unavailable(why: str) -> ToolError:
    return ToolError(
        f"the process that renames for drd, and outlives it, cannot be had: {why}",
        hint="nothing was renamed; look for free memory and process numbers on drd's machine, and run it again",
    )


def _tell(process: subprocess.Popen[bytes], line: bytes) -> bool:
    """Say something to it; return whether it can have heard that."""
    if process.stdin is None:
        return False
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except OSError:
        return False
    return True


def _hear(process: subprocess.Popen[bytes], within_s: float) -> dict[str, Any] | None:
    """Return its next answer; None when it ends without one, or is overdue: then it hangs, or was suspended."""
    if process.stdout is None:
        return None
    heard, until = b"", time.monotonic() + within_s + _MARGIN_S
    while not heard.endswith(b"\n"):
        left_s = until - time.monotonic()
        if left_s <= 0 or len(heard) > _MAX_ANSWER_BYTES:
            return None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        if poll.poll(left_s * 1000):
            if not (data := os.read(process.stdout.fileno(), _MAX_ANSWER_BYTES)):
                return None
            heard += data
    answer: dict[str, Any] = json.loads(heard)
    return answer


def _last_words(process: subprocess.Popen[bytes], server: Server) -> str:
    """Say why it is not ready: the last line of its traceback, or that it hangs."""
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
    if process.returncode is None or process.stderr is None:
        return "it does not get ready"
    said = process.stderr.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace").strip().splitlines()
    return server.scrub(said[-1]) if said else f"it ended with status {process.returncode}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it end, or kill it; nothing of it is left then."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
