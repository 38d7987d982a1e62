"""One BACKUP or RESTORE that the server runs in the background: start, watch, end for certain.

The id is ours, the state is polled in ``system.backups`` (in memory only: a missing id means that the server
restarted), and drd's own deadline applies: a server may retry a dead S3 endpoint for an hour.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from drd.cancel import CancelToken
from drd.engines.clickhouse.client import Server, ServerRefusal, clean
from drd.engines.clickhouse.quoting import literal
from drd.errors import DrdError

RUNNING = frozenset({"CREATING_BACKUP", "RESTORING"})
SUCCEEDED = frozenset({"BACKUP_CREATED", "RESTORED"})
OWNED = re.compile(r"drd-\d{8}T\d{6}Z-[a-z0-9]{6}-of-([0-9a-f]{16})-[0-9a-f]{8}")
"""The id of a job whose owner shows a sign of life (:mod:`alive`) for as long as it works."""
KILL_WAIT_S = 30.0
_UNREACHABLE_PATIENCE_S = 15.0
_PAUSE_S = (0.02, 0.5)
_PAUSE_SHARE = 0.03  # of the time a job has taken so far: its end is noticed that much late, at most
_MOVING = (
    "WriteBufferFromS3Bytes",
    "ReadBufferFromS3Bytes",
    "WriteBufferFromFileDescriptorWriteBytes",
    "ReadBufferFromFileDescriptorReadBytes",
)


@dataclass(frozen=True)
class Watch:
    """What a running job is watched with.

    ``moved`` is a number that grows with work seen on drd's side; ``tick`` is called at every poll and may raise
    to end the job; ``refuse`` makes drd's side refuse further work before the server is told to stop.
    """

    cancel: CancelToken
    stall_timeout_s: float
    moved: Callable[[], int] = lambda: 0
    tick: Callable[[dict[str, Any]], None] = lambda _row: None
    refuse: Callable[[], None] = lambda: None


def new_job_id(backup_id: str, owner: str | None = None) -> str:
    """Make an id never used on the server (an id serves once per server run, also after a failure).

    ``owner`` is the token of :func:`alive.sign`: a later drd ends the job when that one is gone.
    """
    return f"drd-{backup_id}-{f'of-{owner}-' if owner else ''}{secrets.token_hex(4)}"


def run_job(server: Server, statement: str, job_id: str, settings: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """Run ``statement`` (without its SYNC or ASYNC) and return the last row of ``system.backups`` about it.

    Raises :class:`ServerRefusal` with the server's reason when it fails, the watch's or the cancellation's error
    after the job was killed and is gone, ``side.failed`` when it stalls or vanishes.
    """
    server.execute(f"{statement} ASYNC", settings=settings)
    try:
        return _follow(server, job_id, watch)
    except ServerRefusal:
        watch.refuse()
        raise
    except BaseException as error:
        watch.refuse()
        left = kill_job(server, job_id)
        if left and isinstance(error, DrdError):
            error.add_hint(left)
        raise


def _follow(server: Server, job_id: str, watch: Watch) -> dict[str, Any]:
    sign: tuple[Any, ...] = ()
    started = moved_at = time.monotonic()
    while True:
        row = _poll(server, job_id, watch.cancel)
        if row is None:
            raise server.side.failed(
                "ClickHouse no longer knows the job: the server restarted while it ran",
                hint="run it again; what it left is of no use and is not listed",
            )
        watch.tick(row)
        if row["status"] in SUCCEEDED:
            return row
        if row["status"] not in RUNNING:
            raise _failure(server, row)
        events = row.get("ProfileEvents") or {}
        now_sign: tuple[Any, ...] = (watch.moved(), row.get("num_files"), row.get("files_read"), row.get("bytes_read"))
        now_sign += tuple(events.get(name, 0) for name in _MOVING)
        if now_sign != sign:
            sign, moved_at = now_sign, time.monotonic()
        elif time.monotonic() - moved_at > watch.stall_timeout_s:
            raise server.side.failed(
                f"ClickHouse made no progress for {watch.stall_timeout_s:.0f} s; the job was ended",
                hint="see system.backups and the server's log; drd check tries the way between server and drd",
            )
        watch.cancel.sleep(min(max(_PAUSE_S[0], _PAUSE_SHARE * (time.monotonic() - started)), _PAUSE_S[1]))


def _failure(server: Server, row: dict[str, Any]) -> ServerRefusal:
    text = server.scrub(str(row.get("error") or row["status"]))
    number = text.removeprefix("Code: ").split(".", 1)[0]
    return ServerRefusal(int(number) if number.isdigit() else 0, clean(text))


def _state(server: Server, job_id: str) -> dict[str, Any] | None:
    rows = server.rows("SELECT * FROM system.backups WHERE id = {job:String}", {"job": job_id})
    return rows[0] if rows else None


def _poll(server: Server, job_id: str, cancel: CancelToken) -> dict[str, Any] | None:
    """Read the state; a server that cannot be reached is asked again for a quarter of a minute."""
    until = time.monotonic() + _UNREACHABLE_PATIENCE_S
    while True:
        cancel.raise_if_cancelled()
        try:
            return _state(server, job_id)
        except server.side.unreachable as error:
            if time.monotonic() > until:
                error.hint = "the server went away while it worked; run it again when it is back"
                raise
        cancel.sleep(0.5)


def kill_job(server: Server, job_id: str, wait_s: float = KILL_WAIT_S) -> str:
    """End a job and wait until it is gone; return a sentence for people when that did not succeed, else ""."""
    until = time.monotonic() + wait_s
    pause = 0.05
    try:
        while True:
            row = _state(server, job_id)
            if row is None or row["status"] not in RUNNING:
                return ""
            if time.monotonic() > until:
                return f"the server still runs the job; end it with: KILL QUERY WHERE query_id = '{row['query_id']}'"
            server.execute(f"KILL QUERY WHERE query_id = {literal(row['query_id'])} ASYNC")
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
    except (ServerRefusal, DrdError) as error:
        return f"the server could not be told to stop job {job_id} ({clean(str(error), 160)})"
