"""One long statement that answers at its end (CHECK TABLE): watched, and ended for certain when work must stop."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from drd.cancel import CancelToken
from drd.engines.clickhouse.client import Server, ServerRefusal
from drd.engines.clickhouse.quoting import literal
from drd.errors import DrdError

_PATIENCE_S = 7 * 24 * 3600.0
_END_WAIT_S = 30.0


class LongQuery:
    """Runs statements one after the other in a thread, over a connection of its own; to be closed."""

    def __init__(self, server: Server, cancel: CancelToken, stall_timeout_s: float) -> None:
        self._server = server
        self._own = Server(server.settings, server.side, answer_timeout_s=_PATIENCE_S)
        self._cancel = cancel
        self._stall_timeout_s = stall_timeout_s

    def close(self) -> None:
        """Release the connection; idempotent."""
        self._own.close()

    def lines(self, sql: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a statement.

        Raises what the statement raises; after a cancellation or ``stall_timeout_s`` without a byte read by the
        server the statement was told to end first.
        """
        query_id = f"drd-{uuid.uuid4()}"
        done = threading.Event()
        rows: list[dict[str, Any]] = []
        raised: list[BaseException] = []

        def work() -> None:
            try:
                rows.extend(self._own.lines(sql, settings, query_id=query_id))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                raised.append(error)
            finally:
                done.set()

        thread = threading.Thread(target=work, name="drd-long-query", daemon=True)
        thread.start()
        try:
            self._wait(done, query_id)
        except BaseException:
            self._end(query_id)
            thread.join(_END_WAIT_S)
            raise
        thread.join()
        if raised:
            raise raised[0]
        return rows

    def _wait(self, done: threading.Event, query_id: str) -> None:
        read, moved_at, pause = -1, time.monotonic(), 0.005
        while not done.wait(pause):
            self._cancel.raise_if_cancelled()
            pause = min(pause * 2, 0.5)
            if pause < 0.5:
                continue
            now = self._server.rows(
                "SELECT sum(ProfileEvents['ReadBufferFromFileDescriptorReadBytes'] + "
                "ProfileEvents['ReadBufferFromS3Bytes'] + ProfileEvents['ReadCompressedBytes']) AS moved "
                "FROM system.processes WHERE query_id = {id:String}",
                {"id": query_id},
            )[0]["moved"]
            if now != read:
                read, moved_at = now, time.monotonic()
            elif time.monotonic() - moved_at > self._stall_timeout_s:
                raise self._server.side.failed(
                    f"ClickHouse read nothing for {self._stall_timeout_s:.0f} s while it checked a table; ended",
                    hint="see system.processes and the server's log",
                )

    def _end(self, query_id: str) -> None:
        """Tell the server to stop; a server that cannot be reached has nothing to stop."""
        try:
            self._server.execute(f"KILL QUERY WHERE query_id = {literal(query_id)} ASYNC")
        except (ServerRefusal, DrdError):
            return  # the error under way is the one to tell
