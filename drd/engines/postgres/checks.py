"""What ``drd check`` looks at on a PostgreSQL server, a line an item."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from drd.cancel import CancelToken
from drd.engines.postgres import catalog, unchanged
from drd.engines.postgres.connection import Endpoint, Session, endpoint_of, mapped
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.tools import find_tool
from drd.errors import DrdError
from drd.model import CheckItem

_TOOLS = ("pg_dump", "pg_dumpall", "pg_restore")
_LONG_LOCK_S = 60
_SHORT_LOCK_MS = 2000


def check(settings: PostgresSettings) -> list[CheckItem]:
    """Return the items; a server that cannot be reached ends the list early. Raises nothing."""
    items: list[CheckItem] = []
    try:
        endpoint = endpoint_of(settings, "source")
        with contextlib.closing(endpoint.connect()) as session:
            here = endpoint.pinned(session)
            items.append(_server(session, here))
            items.extend(_tools(settings, catalog.server_major(session)))
            with mapped(here, "check the server"):
                names = catalog.database_names(session, settings.databases, here)
                items.append(_globals(session))
            for name in names:
                items.extend(_database(here, name))
                if settings.read_changed:
                    items.append(_ranges(here, name))
    except DrdError as error:
        items.append(CheckItem("connection", "failed", error.message, error.hint))
    return items


def _server(session: Session, here: Endpoint) -> CheckItem:
    with mapped(here, "ask for the server's role"):
        (standby,) = catalog.one(session, "SELECT pg_catalog.pg_is_in_recovery()")
    detail = f"PostgreSQL {catalog.server_version(session)} at {here.label}, {'standby' if standby else 'primary'}"
    major = catalog.server_major(session)
    if catalog.OLDEST_MAJOR <= major <= catalog.NEWEST_MAJOR:
        return CheckItem("server", "ok", detail)
    hint = f"drd knows PostgreSQL {catalog.OLDEST_MAJOR} to {catalog.NEWEST_MAJOR}"
    return CheckItem("server", "failed", detail, hint)


def _tools(settings: PostgresSettings, major: int) -> Iterator[CheckItem]:
    for name in _TOOLS:
        try:
            tool = find_tool(name, major, settings.tools_dir, CancelToken())
        except DrdError as error:
            yield CheckItem(name, "failed", error.message, error.hint)
        else:
            yield CheckItem(name, "ok", f"{tool.path} is version {tool.version}")


def _globals(session: Session) -> CheckItem:
    (allowed,) = catalog.one(session, "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')")
    if allowed:
        return CheckItem("roles", "ok", "roles can be saved with their passwords")
    return CheckItem(
        "roles", "warning", "roles can be saved only without passwords", "use a superuser to have them in the backup"
    )


def _database(here: Endpoint, name: str) -> Iterator[CheckItem]:
    try:
        with contextlib.closing(here.connect(name)) as session, mapped(here, f"check the database {name}"):
            yield _readable(session, name)
            yield from _row_security(session, name)
            yield from _unlogged(session, name)
            yield from _locks(session, name)
    except DrdError as error:
        yield CheckItem(f"database {name}", "failed", error.message, error.hint)


def _ranges(here: Endpoint, name: str) -> CheckItem:
    """Say what of a database is read in ranges of pages, or why nothing is."""
    what = f"changed ranges of {name}"
    try:
        opened = contextlib.closing(here.connect(name, encoding="UTF8"))
        with opened as session, mapped(here, f"check the database {name}"):
            if why := unchanged.refusal(catalog.server_major(session), _encoding(session)):
                return CheckItem(what, "warning", f"all rows are read, not only changed ranges: {why}", "read: all")
            session.execute(f"SET lock_timeout = {_SHORT_LOCK_MS}".encode())
            session.execute(b"BEGIN READ ONLY")
            standby = unchanged.history(session) is None
            found = unchanged.tables(session)
            (bytes_a_page,) = catalog.one(session, "SELECT current_setting('block_size')::bigint")
    except DrdError as error:
        return CheckItem(what, "warning", f"not looked at: {error.message}", error.hint)
    if standby:
        return CheckItem(what, "warning", "on a standby every backup reads all rows", "back up from the primary")
    size = sum(table.pages for table in found) * int(bytes_a_page) >> 20
    return CheckItem(what, "ok", f"{len(found)} tables, {size:,} MiB, are read only where they changed")


def _encoding(session: Session) -> str:
    (encoding,) = catalog.one(
        session,
        """SELECT pg_catalog.pg_encoding_to_char(encoding) FROM pg_catalog.pg_database
            WHERE datname = pg_catalog.current_database()""",
    )
    return str(encoding)


def _readable(session: Session, name: str) -> CheckItem:
    (count, denied, example) = catalog.one(
        session,
        """SELECT count(*), count(*) FILTER (WHERE NOT readable),
                  coalesce(min(name) FILTER (WHERE NOT readable), '')
             FROM (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
                          pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                          AND CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                                   ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END AS readable
                     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind IN ('r', 'p', 'S') AND n.nspname !~ '^pg_'
                      AND n.nspname <> 'information_schema') t""",
    )
    if not denied:
        return CheckItem(f"database {name}", "ok", f"all of {count} tables and sequences can be read")
    return CheckItem(
        f"database {name}",
        "failed",
        f"{denied} of {count} tables and sequences cannot be read, such as {example}",
        f"GRANT pg_read_all_data TO {session.info.user};  (14 and later; before that grant SELECT on each)",
    )


def _row_security(session: Session, name: str) -> Iterator[CheckItem]:
    (count, example) = catalog.one(
        session,
        """SELECT count(*), coalesce(min(pg_catalog.format('%I.%I', n.nspname, c.relname)), '')
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE pg_catalog.row_security_active(c.oid) AND c.relkind IN ('r', 'p')""",
    )
    if count:
        yield CheckItem(
            f"row security in {name}",
            "failed",
            f"policies hide rows of {count} table(s) from this user, such as {example}: pg_dump would refuse",
            f"ALTER ROLE {session.info.user} BYPASSRLS;",
        )


def _unlogged(session: Session, name: str) -> Iterator[CheckItem]:
    (count, standby) = catalog.one(
        session,
        """SELECT count(*), pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_class
            WHERE relkind = 'r' AND relpersistence = 'u'""",
    )
    if count and standby:
        yield CheckItem(
            f"unlogged tables in {name}",
            "warning",
            f"{count} unlogged table(s) have no data on a standby and would be dumped empty",
            "back up from the primary if their contents matter",
        )


def _locks(session: Session, name: str) -> Iterator[CheckItem]:
    row = session.execute(
        """SELECT l.relation::pg_catalog.regclass::text, extract(epoch FROM clock_timestamp() - a.query_start)::bigint
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
             JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p', 'm')
            WHERE l.mode = 'AccessExclusiveLock' AND a.datname = pg_catalog.current_database()
              AND a.query_start < clock_timestamp() - %s * interval '1 s' ORDER BY 2 DESC LIMIT 1""",
        (_LONG_LOCK_S,),
    ).fetchone()
    if row is not None:
        yield CheckItem(
            f"locks in {name}",
            "warning",
            f"{row[0]} has been locked against readers, or waited for, since {row[1]} s: a dump would wait too",
            "see pg_stat_activity and pg_locks; end the session if it is stuck",
        )
