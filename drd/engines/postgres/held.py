"""Hold every table still from before the snapshot until the dump has ended.

A snapshot does not protect from TRUNCATE, nor from an ALTER TABLE that writes the table anew: once one of them commits,
the table is empty for every older snapshot (PostgreSQL manual, 13.6 "Caveats" of concurrency control). pg_dump takes
its locks after its snapshot, so in that gap rows that were there at the recovery point could go missing and the dump
would end well. Here the locks come first: what committed before them is in the snapshot, what comes after waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from drd.cancel import CancelToken
from drd.engines.postgres.catalog import USER_RELATIONS, one
from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.errors import DrdError, SourceError

_NAMES_A_STATEMENT = 500
_SHARE_OF_LOCKS = 4  # of the server's lock table, what may be held for databases that wait for their turn
_TABLES = f"""SELECT c.oid::text, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relfilenode::text,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::text
       {USER_RELATIONS} AND c.relkind IN ('r', 'p') ORDER BY 1"""


class Changed(Exception):
    """A table came, went or was written anew between the list of tables and the snapshot: begin again."""


class HeldTables:
    """The tables of one session's database, locked against everything that would empty them for a snapshot."""

    def __init__(self, session: Session, endpoint: Endpoint, cancel: CancelToken, lock_timeout_s: float) -> None:
        self._session = session
        self._endpoint = endpoint
        self._cancel = cancel
        self._timeout_ms = round(lock_timeout_s * 1000)
        self._encoding = session.info.parameter_status("client_encoding") or "UTF8"
        self._names: list[bytes] = []

    def begin(self, *, lock: bool) -> None:
        """Start the transaction and lock what there is; raises :class:`Changed` when a table went meanwhile."""
        self._session.execute("ROLLBACK")
        self._names.clear()
        self._session.execute(f"SET lock_timeout = {self._timeout_ms}".encode())
        names = [row[1] for row in self._tables()]
        self._session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if lock:
            self._lock(names)

    def confirm(self, *, lock: bool) -> None:
        """After the snapshot: lock what came meanwhile; raises :class:`Changed` when a table was written anew."""
        if lock:
            held = set(self._names)
            self._lock([row[1] for row in self._tables() if row[1] not in held])
        if lost := self.rewritten():
            raise Changed(lost)

    def rewritten(self) -> str:
        """Name a table whose rows the snapshot may not see any more, or nothing; takes no lock."""
        return next((_shown(row[1]) for row in self._tables() if row[2] not in {b"0", row[3]}), "")

    def _lock(self, names: Sequence[bytes]) -> None:
        self._speak("SQL_ASCII")  # names byte for byte, whatever the encoding
        try:
            with self._cancel.on_cancel(self._session.cancel):
                for start in range(0, len(names), _NAMES_A_STATEMENT):
                    some = b", ".join(b"ONLY " + name for name in names[start : start + _NAMES_A_STATEMENT])
                    self._session.execute(b"LOCK TABLE " + some + b" IN ACCESS SHARE MODE")
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.InvalidSchemaName,
            psycopg.errors.WrongObjectType,
        ) as error:
            raise Changed(str(error.diag.message_primary)) from error
        except psycopg.errors.LockNotAvailable as error:
            raise self._waited(error) from error
        except psycopg.errors.QueryCanceled:
            self._cancel.raise_if_cancelled()
            raise
        self._speak(self._encoding)
        self._names += names

    def _tables(self) -> list[tuple[Any, ...]]:
        self._speak("SQL_ASCII")
        rows = self._session.execute(_TABLES.encode()).fetchall()
        self._speak(self._encoding)
        return [tuple(value if isinstance(value, bytes) else str(value).encode() for value in row) for row in rows]

    def _speak(self, encoding: str) -> None:
        self._session.execute(f"SET client_encoding TO '{encoding}'".encode())

    def _waited(self, error: psycopg.Error) -> DrdError:
        self._session.execute("ROLLBACK")  # gives the session its encoding back, too
        with mapped(self._endpoint, "look for the lock"):
            tables = locked_tables(self._session)
        named = f" on {', '.join(tables[:3])}" if tables else ""
        return SourceError(
            f"the dump of {self._session.info.dbname} waited too long for a lock{named}: {error.diag.message_primary}",
            hint="somebody alters or truncates the table; run again when that is done, or raise the lock timeout",
        )


def room_for_locks(sessions: Sequence[Session]) -> bool:
    """Whether the server's lock table has room to hold all tables of several databases at once."""
    count = f"SELECT count(*) {USER_RELATIONS} AND c.relkind IN ('r', 'p')"
    tables = sum(one(session, count)[0] for session in sessions)
    (room,) = one(
        sessions[0],
        """SELECT current_setting('max_locks_per_transaction')::bigint
             * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)""",
    )
    return int(tables) * _SHARE_OF_LOCKS <= int(room)


def locked_tables(session: Session) -> list[str]:
    """Name the tables that somebody else locks, or waits to lock, against readers."""
    rows = session.execute(
        """SELECT DISTINCT l.relation::pg_catalog.regclass::text FROM pg_catalog.pg_locks l
             JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p', 'm', 'v', 'S', 'f')
            WHERE l.mode = 'AccessExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid()
              AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                 WHERE datname = pg_catalog.current_database())
            ORDER BY 1"""
    ).fetchall()
    return [str(row[0]) for row in rows]


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")
