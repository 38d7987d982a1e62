"""A sign on the server that the drd that began some work there still lives, also when it can say nothing itself.

While it works, drd keeps a query running that only sleeps, under a name made of the owner's token. The server ends it
when the connection is gone (``cancel_http_readonly_queries_on_client_close``, for queries with ``readonly``; tried on
26.7: a quarter of a second after ``kill -9``), and it ends by itself within half a minute where a proxy or a lost
network keeps the connection up. The job and the database that carry the token are then nobody's.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from drd.engines.clickhouse.client import ACCESS_DENIED, Server, ServerRefusal
from drd.engines.clickhouse.quoting import literal
from drd.errors import DrdError

_PREFIX = "drd-alive-"
_SIGN = re.compile(_PREFIX + r"([0-9a-f]{16})-[0-9]+")
_SLEEPS = 1500
_SLEEP_S = 0.02
_LIMITS = (  # of the user's profile, which would end the query early
    "max_execution_time", "max_estimated_execution_time", "min_execution_speed", "min_execution_speed_bytes",
    "max_rows_to_read", "max_result_rows",
)  # fmt: skip
_SETTINGS: dict[str, int | str] = {
    "readonly": 2,
    "cancel_http_readonly_queries_on_client_close": 1,
    "max_block_size": 1,
    "max_threads": 1,
    **dict.fromkeys(_LIMITS, 0),
}
_SHOWN_WITHIN_S = 5.0
_SURELY_GONE_S = 2.0
_LOOKS = 8


def living(server: Server) -> set[str]:
    """Name the owners whose sign the server shows right now."""
    rows = server.rows(
        "SELECT query_id FROM system.processes WHERE startsWith(query_id, {prefix:String})", {"prefix": _PREFIX}
    )
    return {found.group(1) for row in rows if (found := _SIGN.fullmatch(row["query_id"]))}


def gone(server: Server, owners: Collection[str]) -> set[str]:
    """Return those of ``owners`` that show no sign for two seconds: longer than it takes to renew one."""
    left = set(owners)
    for look in range(_LOOKS):
        if left:
            time.sleep(_SURELY_GONE_S / _LOOKS if look else 0.0)
            left -= living(server)
    return left


@contextmanager
def sign(server: Server, owner: str = "") -> Iterator[str | None]:
    """Show a sign of life for the length of the block and give its owner's token: 16 hexadecimal digits, or new ones.

    None where the server does not let such a query run (a limit on its time, a read-only profile), or not be seen: then
    nobody may ever conclude that the owner is gone.
    """
    if not _can_be_seen(server):
        yield None
        return
    keeper = _Keeper(server, owner or secrets.token_hex(8))
    try:
        yield keeper.owner if keeper.shown() else None
    finally:
        keeper.stop()


def _can_be_seen(server: Server) -> bool:
    try:
        living(server)
    except ServerRefusal as refusal:
        if refusal.number == ACCESS_DENIED:
            return False
        raise
    return True


class _Keeper:
    """Keeps the sleeping query running from a thread of its own."""

    def __init__(self, server: Server, owner: str) -> None:
        self.owner = owner
        self._server = server
        self._stopping = threading.Event()
        self._refused = threading.Event()
        self._first = self._count = secrets.randbelow(1 << 40)  # an owner's sign before this one may not be gone yet
        self._thread = threading.Thread(target=self._keep, name="drd-alive", daemon=True)
        self._thread.start()

    def shown(self) -> bool:
        """Wait until the server shows the sign; False when it does not."""
        until = time.monotonic() + _SHOWN_WITHIN_S
        while not self._refused.is_set() and time.monotonic() < until:
            if self.owner in living(self._server):
                return True
            time.sleep(0.005)
        return False

    def stop(self) -> None:
        """End the query; a server that cannot be told ends it when the connection is gone, or within its time."""
        self._stopping.set()
        with suppress(ServerRefusal, DrdError):
            running = f"startsWith(query_id, {literal(_PREFIX + self.owner)})"
            self._server.execute(f"KILL QUERY WHERE {running} ASYNC")
        self._thread.join(_SHOWN_WITHIN_S)

    def _keep(self) -> None:
        sleeping = f"SELECT sleepEachRow({_SLEEP_S}) FROM numbers({_SLEEPS})"  # noqa: S608 - constants
        while not self._stopping.is_set():
            try:
                self._server.lines(sleeping, _SETTINGS, query_id=f"{_PREFIX}{self.owner}-{self._count}")
            except (ServerRefusal, DrdError):  # ended from outside, or the server is busy or away: shown again at once
                if self._count == self._first:
                    self._refused.set()
                self._stopping.wait(0.1)
            self._count += 1
