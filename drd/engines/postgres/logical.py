"""Logical replication of a database that is put aside or dropped: it belongs to the database, whatever its name.

A subscription goes on feeding the copy that is kept, and the one that a restore brings is disabled (pg_dump writes
``connect = false``). PostgreSQL drops no database that has a subscription, not even a disabled one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from psycopg import sql

from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.errors import TargetError


def staying(session: Session, databases: Sequence[str]) -> str:
    """Name the subscriptions and replication slots of these databases, as a phrase; empty where there are none."""
    rows = session.execute(
        """SELECT kind, name, datname FROM (
             SELECT 'subscription' AS kind, subname AS name, datname
               FROM pg_catalog.pg_subscription JOIN pg_catalog.pg_database d ON d.oid = subdbid
             UNION ALL SELECT 'replication slot', slot_name, database FROM pg_catalog.pg_replication_slots
           ) found WHERE datname = ANY (%s) ORDER BY 3, 1, 2""",
        (list(databases),),
    ).fetchall()
    return ", ".join(f"{kind} {name} of {database}" for kind, name, database in rows)


def require_none_enabled(session: Session, databases: Sequence[str]) -> None:
    """Raise TargetError for a subscription of these databases that still receives: dropping it is the user's choice."""
    rows = session.execute(
        """SELECT subname, datname FROM pg_catalog.pg_subscription JOIN pg_catalog.pg_database d ON d.oid = subdbid
            WHERE subenabled AND datname = ANY (%s) ORDER BY 2, 1 LIMIT 1""",
        (list(databases),),
    ).fetchall()
    for name, database in rows:
        raise TargetError(
            f"the subscription {name} still feeds {database}, so that is not dropped",
            hint=f"end that in {database}: ALTER SUBSCRIPTION {name} DISABLE; then run it again",
        )


def leave(here: Endpoint, session: Session, database: str) -> None:
    """Drop the subscriptions of a database that is to be dropped; their slots on the publishers are left alone.

    The live database may use the very same slot.
    """
    rows = session.execute(
        """SELECT subname FROM pg_catalog.pg_subscription JOIN pg_catalog.pg_database d ON d.oid = subdbid
            WHERE datname = %s ORDER BY 1""",
        (database,),
    ).fetchall()
    if not rows:
        return
    with mapped(here, f"open {database}, which may be closed to clients"):
        session.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(database)))
    with contextlib.closing(here.connect(database)) as inside, mapped(here, f"drop the subscriptions of {database}"):
        for (name,) in rows:
            for ending in ("DISABLE", "SET (slot_name = NONE)"):
                inside.execute(sql.SQL("ALTER SUBSCRIPTION {} {}").format(sql.Identifier(name), sql.SQL(ending)))
            inside.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))
