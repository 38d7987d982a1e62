"""Rename databases together: in one transaction, so that a kill at any moment leaves all as they were or all done.

``ALTER DATABASE … RENAME`` may stand in a transaction (only CREATE and DROP may not). It locks the database first, then
waits up to five seconds for its sessions to leave (``CountOtherDBBackends``); a client that connects meanwhile waits
for the lock and finds, when it has it, what the name means now. So connections are ended only here, no setting has
to forbid new ones, and nothing is left to put right.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.errors import TargetError

_TRIES = 2
_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Move:
    """A database gets a new name and a new comment (None: none)."""

    name: str
    becomes: str
    comment: str | None


def move(here: Endpoint, session: Session, moves: Sequence[Move]) -> None:
    """Make all moves, in order, at once or not at all; sessions in these databases are ended.

    ``session`` and the sessions opened besides are in its own database, which is none of them. Raises TargetError.
    """
    names = [item.name for item in moves]
    with mapped(here, f"rename {', '.join(names)}"):
        for attempt in range(1, _TRIES + 1):
            try:
                with _nobody_in(here, session.info.dbname, names), session.transaction():
                    for item in moves:
                        _rename(session, item)
            except psycopg.errors.ObjectInUse as error:
                if attempt == _TRIES:
                    raise TargetError(
                        f"sessions in {', '.join(names)} could not be ended{_who(session, names)}; "
                        "the live data was not touched",
                        hint="end them, or restore as a superuser or a member of pg_signal_backend, then run again",
                    ) from error
            else:
                return


def _rename(session: Session, item: Move) -> None:
    new = sql.Identifier(item.becomes)
    session.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(item.name), new))
    comment = sql.SQL("NULL") if item.comment is None else sql.Literal(item.comment)
    session.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(new, comment))


@contextlib.contextmanager
def _nobody_in(here: Endpoint, database: str, names: Sequence[str]) -> Iterator[None]:
    """End every session in the databases, again and again, for as long as the block runs."""
    done = threading.Event()

    def end_them() -> None:
        with contextlib.suppress(psycopg.Error, TargetError), contextlib.closing(here.connect(database)) as mine:
            while not done.is_set():
                _end(mine, names)
                done.wait(_AGAIN_S)

    thread = threading.Thread(target=end_them, name="drd-pg-end-sessions", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _end(session: Session, names: Sequence[str]) -> None:
    pids = session.execute(
        "SELECT pid FROM pg_catalog.pg_stat_activity WHERE datname = ANY (%s) AND pid <> pg_catalog.pg_backend_pid()",
        (list(names),),
    ).fetchall()
    for (pid,) in pids:
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # the rename then says who is in the way
            session.execute("SELECT pg_catalog.pg_terminate_backend(%s)", (pid,))


def _who(session: Session, names: Sequence[str]) -> str:
    rows = session.execute(
        """SELECT DISTINCT coalesce(usename, backend_type) FROM pg_catalog.pg_stat_activity
            WHERE datname = ANY (%s) ORDER BY 1 LIMIT 3""",
        (list(names),),
    ).fetchall()
    return f" (of {', '.join(str(row[0]) for row in rows)})" if rows else ""
