"""COPY streams in large pieces over libpq itself: psycopg's own copy hands out a row at a time, too slow here.

All waiting is done with select outside of libpq, so that other threads run meanwhile and a cancelled work wakes up.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Iterator

import psycopg
from psycopg import pq

from drd.engines.postgres.connection import Session
from drd.protocols import BytesLike, WorkContext

_GATHER_BYTES = 1 << 20
_SEND_BYTES = 256 << 10
_TICK_S = 0.2


def copy_out(session: Session, statement: bytes, ctx: WorkContext) -> Iterator[bytes]:
    """Run ``COPY … TO STDOUT`` and yield its stream in pieces of about a mebibyte; raises psycopg errors."""
    connection = session.pgconn
    _begin(connection, statement, pq.ExecStatus.COPY_OUT, ctx)
    gathered: list[bytes] = []
    size = 0
    while True:
        count, data = connection.get_copy_data(1)
        if count > 0:
            gathered.append(bytes(data))
            size += count
            if size >= _GATHER_BYTES:
                yield b"".join(gathered)
                gathered.clear()
                size = 0
        elif count == 0:
            _wait_readable(connection, ctx)
        else:
            break
    if gathered:
        yield b"".join(gathered)
    _finish(connection, ctx)


def copy_in(session: Session, statement: bytes, pieces: Iterable[BytesLike], ctx: WorkContext) -> None:
    """Run ``COPY … FROM STDIN`` with the given stream; raises psycopg errors.

    When ``pieces`` raises, the session must be closed, which makes the server forget the transaction.
    """
    connection = session.pgconn
    _begin(connection, statement, pq.ExecStatus.COPY_IN, ctx)
    try:
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), _SEND_BYTES):
                while connection.put_copy_data(view[start : start + _SEND_BYTES]) == 0:
                    _flush(connection, ctx)
                _flush(connection, ctx)
        connection.put_copy_end()
        _flush(connection, ctx)
    except psycopg.OperationalError:
        # the server ended the COPY with an error of its own, which says more than libpq's "no COPY in progress"
        _finish(connection, ctx)
        raise
    _finish(connection, ctx)


def _begin(connection: pq.abc.PGconn, statement: bytes, wanted: pq.ExecStatus, ctx: WorkContext) -> None:
    connection.send_query(statement)
    _flush(connection, ctx)
    result = _next_result(connection, ctx)
    if result is None or result.status != wanted:
        _finish(connection, ctx)
        raise psycopg.errors.error_from_result(result) if result else psycopg.OperationalError("no answer to COPY")


def _finish(connection: pq.abc.PGconn, ctx: WorkContext) -> None:
    error: psycopg.Error | None = None
    while (result := _next_result(connection, ctx)) is not None:
        if result.status in {pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT}:  # only a broken connection stays here
            raise psycopg.OperationalError("the connection broke during COPY")
        if result.status != pq.ExecStatus.COMMAND_OK:
            error = psycopg.errors.error_from_result(result)
    if error is not None:
        raise error


def _next_result(connection: pq.abc.PGconn, ctx: WorkContext) -> pq.abc.PGresult | None:
    while connection.is_busy():
        _wait_readable(connection, ctx)
    return connection.get_result()


def _flush(connection: pq.abc.PGconn, ctx: WorkContext) -> None:
    while connection.flush():
        ctx.cancel.raise_if_cancelled()
        readable, _writable, _ = select.select([connection.socket], [connection.socket], [], _TICK_S)
        if readable:
            connection.consume_input()


def _wait_readable(connection: pq.abc.PGconn, ctx: WorkContext) -> None:
    ctx.cancel.raise_if_cancelled()
    if select.select([connection.socket], [], [], _TICK_S)[0]:
        connection.consume_input()
