"""What drd asks a server's catalogs: its databases, their properties, and what lies in them."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from drd.engines.marks import copies_among
from drd.engines.postgres.connection import Endpoint, Session, failure, mapped
from drd.engines.postgres.settings import ALL_DATABASES
from drd.model import Json

OLDEST_MAJOR = 12
NEWEST_MAJOR = 18

# Relations, functions and types of people: not the system's, and not an extension's own.
USER_RELATIONS = """
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
"""


def server_major(session: Session) -> int:
    """Return the server's major version, such as 15."""
    return session.info.server_version // 10000


def server_version(session: Session) -> str:
    """Return the server's version as it names it, such as ``15.18``."""
    return session.info.parameter_status("server_version") or str(session.info.server_version)


def require_supported(session: Session, endpoint: Endpoint) -> int:
    """Return the major version; raises for one that drd was not made for."""
    major = server_major(session)
    if not OLDEST_MAJOR <= major <= NEWEST_MAJOR:
        raise failure(
            endpoint.side,
            f"{endpoint.label} is PostgreSQL {server_version(session)}; drd knows {OLDEST_MAJOR} to {NEWEST_MAJOR}",
            hint="use a drd that knows this version",
        )
    return major


def one(session: Session, query: str, *values: Any) -> tuple[Any, ...]:
    """Run a query of drd's own that yields exactly one row."""
    row = session.execute(query.encode(), values or None).fetchone()
    if row is None:
        raise AssertionError(query)
    return row


def database_names(session: Session, wanted: tuple[str, ...], endpoint: Endpoint) -> list[str]:
    """Resolve the configured databases to names that exist; raises naming the one that does not.

    All are those that are nobody's copies: what a restore keeps would be stored again with each backup.
    """
    if not wanted:
        return [session.info.dbname]
    with mapped(endpoint, "list the databases"):
        rows = session.execute(
            "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        ).fetchall()
    present = [str(row[0]) for row in rows]
    if wanted == ALL_DATABASES:
        copies = kept_copies(session, endpoint)
        return [name for name in present if name not in copies]
    for name in wanted:
        if name not in present:
            raise failure(
                endpoint.side,
                f'the server {endpoint.label} has no database "{name}" that allows connections',
                hint="correct the list of databases of this source",
            )
    return list(dict.fromkeys(wanted))


def kept_copies(session: Session, endpoint: Endpoint) -> list[str]:
    """Name the databases of this server that restores keep or are building."""
    with mapped(endpoint, "list the databases"):
        return copies_among(comments(session))


def comments(session: Session) -> dict[str, str | None]:
    """Return the comment of every database, by name."""
    return dict(
        session.execute(
            "SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database ORDER BY 1"
        ).fetchall()
    )


def describe_database(session: Session) -> dict[str, Json]:
    """Return the properties of the session's database that pg_dump keeps outside of its contents.

    Keys: name, owner, encoding, collate, ctype, provider (``c``, ``i`` or ``b``), locale, icu_rules,
    connection_limit, comment, acl (None when never granted), settings, extensions, public_schema, unlogged_tables.
    """
    major = server_major(session)
    locale = "NULL" if major < 15 else "daticulocale" if major < 17 else "datlocale"
    row = one(
        session,
        f"""SELECT datname, pg_catalog.pg_get_userbyid(datdba), pg_catalog.pg_encoding_to_char(encoding),
                   datcollate, datctype, {"'c'" if major < 15 else "datlocprovider::text"}, {locale},
                   {"NULL" if major < 16 else "daticurules"}, datconnlimit,
                   pg_catalog.shobj_description(oid, 'pg_database'), datacl IS NULL
              FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()""",  # noqa: S608
    )
    names = ("name", "owner", "encoding", "collate", "ctype", "provider", "locale", "icu_rules", "connection_limit")
    found: dict[str, Json] = dict(zip((*names, "comment"), row[:10], strict=True))
    found["acl"] = None if row[10] else _acl(session)
    found["settings"] = _rows(
        session,
        """SELECT r.rolname AS role, s.setconfig AS settings FROM pg_catalog.pg_db_role_setting s
             JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
            WHERE d.datname = pg_catalog.current_database() ORDER BY 1 NULLS FIRST""",
    )
    found["extensions"] = _rows(
        session,
        """SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema FROM pg_catalog.pg_extension e
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1""",
    )
    (found["public_schema"],) = one(
        session, "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public')"
    )
    (found["unlogged_tables"],) = one(
        session, f"SELECT pg_catalog.count(*) {USER_RELATIONS} AND c.relkind = 'r' AND c.relpersistence = 'u'"
    )
    return found


# Heap and TOAST as of the last vacuum or analyze: pg_table_size would be exact but waits for locked tables.
_PAGES = """8192::bigint * (c.relpages
  + coalesce((SELECT t.relpages FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid), 0))"""


def table_bytes(session: Session) -> int | None:
    """Measure what a dump will read: all tables with their TOAST, without indexes; None while one is locked."""
    try:
        with session.transaction():
            session.execute("SET LOCAL lock_timeout = '200ms'")
            (size,) = one(
                session,
                f"SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint {USER_RELATIONS} "
                "AND c.relkind = 'r' AND c.relpersistence <> 't'",
            )
    except psycopg.errors.LockNotAvailable:
        return None
    return int(size)


def largest_table(session: Session) -> tuple[str, int]:
    """Return the name and estimated size of the largest table, ``("", 0)`` without one; takes no lock."""
    row = session.execute(
        f"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), {_PAGES} "
        f"{USER_RELATIONS} AND c.relkind = 'r' ORDER BY 2 DESC, 1 LIMIT 1".encode()
    ).fetchone()
    return (str(row[0]), int(row[1] or 0)) if row else ("", 0)


def contents(session: Session) -> str:
    """Say in words what people have put into the session's database; empty when there is nothing.

    Extensions and their members do not count: hosted servers prepare empty databases with some.
    """
    tables, other = one(
        session,
        """SELECT count(*) FILTER (WHERE c.relkind IN ('r', 'p')),
                  count(*) FILTER (WHERE c.relkind IN ('v', 'm', 'S', 'f'))"""
        + USER_RELATIONS,
    )
    if tables:
        name, size = largest_table(session)
        rows = _row_count(session, name, size) if name else "0"
        return f"{tables} table{'s' if tables != 1 else ''} ({rows} rows in the largest)"
    if other:
        return f"{other} views, sequences or foreign tables"
    (schemas,) = one(
        session,
        """SELECT count(*) FROM pg_catalog.pg_namespace n WHERE nspname !~ '^pg_'
              AND nspname NOT IN ('public', 'information_schema') AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
              AND d.objid = n.oid AND d.deptype = 'e')""",
    )
    if schemas:
        return f"{schemas} schemas"
    for catalog, word, schema in (("pg_proc", "functions", "pronamespace"), ("pg_type", "types", "typnamespace")):
        (count,) = one(
            session,
            f"""SELECT count(*) FROM pg_catalog.{catalog} o JOIN pg_catalog.pg_namespace n ON n.oid = o.{schema}
                 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype IN ('e', 'i') AND d.objid = o.oid
                          AND d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass)""",  # noqa: S608
        )
        if count:
            return f"{count} {word}"
    (objects,) = one(session, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
    return f"{objects} large objects" if objects else ""


def _row_count(session: Session, name: str, size: int) -> str:
    if size > 64 << 20:  # counting would take seconds; the planner's guess will do
        (guess,) = one(
            session, "SELECT greatest(reltuples, 0)::bigint FROM pg_catalog.pg_class WHERE oid = %s::regclass", name
        )
        return f"about {guess:,}"
    (count,) = one(session, f"SELECT count(*) FROM ONLY {name}")  # noqa: S608 - the server's own format('%I')
    return f"{count:,}"


def _acl(session: Session) -> list[Json]:
    return _rows(
        session,
        """SELECT coalesce(g.rolname, '') AS grantee, x.privilege_type AS privilege, x.is_grantable AS grantable
             FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) x
             LEFT JOIN pg_catalog.pg_roles g ON g.oid = x.grantee
            WHERE d.datname = pg_catalog.current_database() ORDER BY 1, 2""",
    )


def _rows(session: Session, query: str) -> list[Json]:
    with session.cursor(row_factory=dict_row) as cursor:
        return [dict(row) for row in cursor.execute(query.encode()).fetchall()]
