"""How drd knows, without reading the rows, that a range of a table's pages holds the rows it held before.

A row version never changes where it lies, only who sees it does; it carries the number of the transaction that made it
(``xmin``), and a snapshot carries the number below which every transaction had ended when it was taken. So of a range
of heap pages: when none of the rows visible now is of a transaction at or above that number of the backup before, all
of them were visible then; and when they are as many as then, they are the same rows. That holds as long as numbers are
not used twice and rows do not move, which is what is asked for here:

- the same server process (it has not been restarted or promoted since), the same database, whose row of the catalog
  nobody wrote since, the same timeline, and the write-ahead log beyond where it was: nothing was restored, copied,
  rolled back or failed over;
- the server has not recovered from a crash of one of its processes, which loses commits that did not wait for the disk
  (``synchronous_commit = off``) and gives out their numbers again: it would have thrown its statistics away;
- less than half of the 2^31 numbers that can be told apart have been used since;
- the same file of the table: TRUNCATE, VACUUM FULL, CLUSTER and rewriting forms of ALTER TABLE give it a new one;
- the text of a row depends on the row alone (:data:`_TYPES_OF_THEIR_OWN` and what a definition digests).

Sources: PostgreSQL manual, 5.6 "System Columns", 13.2 and 13.6 (MVCC), 24.1.5 "Preventing Transaction ID Wraparound
Failures" (freezing keeps xmin since 9.4), 9.27.8 on ``age(xid)`` and snapshots; TID range scans since 14.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drd.engines.postgres.catalog import USER_RELATIONS, one
from drd.engines.postgres.connection import Session
from drd.engines.postgres.ranges import LEAST_PAGES, PageRange, is_count
from drd.model import Json

OLDEST_MAJOR = 14
"""The first version that reads a range of pages without reading the table."""
MOST_TABLES = 200
"""Of a database; the largest. The others are left to pg_dump."""
_MOST_XIDS = 1 << 30
_DEFINITION_VERSION = 1
# Base types of the system whose text depends on more than the value: names of objects and roles, by their numbers.
_TYPES_OF_THEIR_OWN = "^(reg.*|_?aclitem)$"
_FIRST_OWN_OID = 16384  # objects below come with the server (FirstNormalObjectId, access/transam.h)


@dataclass(frozen=True, slots=True)
class History:
    """Which stretch of a server's life a snapshot belongs to, and where in it.

    Transactions below ``xmin`` had all ended; ``xmax`` is above all that had begun. ``lsn_bytes`` is the end of the
    write-ahead log when the snapshot was there. ``statistics`` is since when the server counts, which begins anew
    after a crash (manual, 27.2 "The Cumulative Statistics System"). ``entry`` is the transaction that wrote the
    database's row of the catalog: ``CREATE DATABASE … OID`` gives a copy the number of one that was dropped.
    """

    system: str
    timeline: str
    started_at: str
    statistics: str
    database: int
    entry: int
    xmin: int
    xmax: int
    lsn_bytes: int

    def to_json(self) -> dict[str, Json]:
        """Return it as the manifest keeps it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def continues(self, before: History) -> bool:
        """Whether transaction numbers mean here what they meant ``before``."""
        return (
            (self.system, self.timeline, self.started_at, self.statistics, self.database, self.entry)
            == (before.system, before.timeline, before.started_at, before.statistics, before.database, before.entry)
            and before.lsn_bytes <= self.lsn_bytes
            and before.xmin <= before.xmax <= self.xmax < before.xmin + _MOST_XIDS
        )


def history_from_json(value: Json) -> History | None:
    """Return what :meth:`History.to_json` wrote, None for anything else."""
    if not isinstance(value, dict) or set(value) != set(History.__slots__):
        return None
    texts = all(isinstance(value[name], str) for name in ("system", "timeline", "started_at", "statistics"))
    numbers = (value[name] for name in ("database", "entry", "xmin", "xmax", "lsn_bytes"))
    if not texts or not all(is_count(number) for number in numbers):
        return None
    found: dict[str, Any] = dict(value)
    return History(**found)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is read in ranges: ``name`` and ``columns`` are SQL text, ``pages`` those of its heap."""

    oid: int
    name: str
    pattern: str
    columns: str
    filenode: int
    pages: int
    definition: str


def refusal(major: int, encoding: str) -> str:
    """Say in a clause why a database cannot be read in ranges; an empty text when it can."""
    if major < OLDEST_MAJOR:
        return f"that takes PostgreSQL {OLDEST_MAJOR} or newer"
    return "" if encoding == "UTF8" else f"its encoding is {encoding}, not UTF8"


def history(session: Session) -> History | None:
    """Describe the snapshot of the session's transaction; None where a later one could not be known to continue it.

    That is so on a standby, whose past its primary decides, and where the server does not say since when it counts.
    """
    system, standby, started, statistics, database, entry, xmin, xmax = one(
        session,
        """SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()), pg_catalog.pg_is_in_recovery(),
                  extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text,
                  (SELECT extract(epoch FROM stats_reset)::text FROM pg_catalog.pg_stat_bgwriter),
                  d.oid::bigint, d.xmin::text::bigint,
                  pg_catalog.pg_snapshot_xmin(s)::text::bigint, pg_catalog.pg_snapshot_xmax(s)::text::bigint
             FROM pg_catalog.pg_current_snapshot() AS s, pg_catalog.pg_database AS d
            WHERE d.datname = pg_catalog.current_database()""",
    )
    if standby or statistics is None:
        return None
    timeline, lsn = one(
        session,
        """SELECT pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8),
                  (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::bigint""",
    )
    return History(system, timeline, started, statistics, database, entry, xmin, xmax, lsn)


def tables(session: Session) -> list[Table]:
    """Return the tables that can be read in ranges, the largest first, locked against being emptied.

    Ordinary, logged heap tables of at least :data:`LEAST_PAGES` pages with rows of their own in the dump: not an
    extension's, nor partitions that pg_dump loads through their root. Size and file are looked at under the lock.
    """
    rows = session.execute(
        f"""SELECT c.oid::bigint, pg_catalog.format('%I.%I', n.nspname, c.relname), n.nspname, c.relname
            {USER_RELATIONS} AND c.relkind = 'r' AND c.relpersistence = 'p'
            AND c.relam = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'heap')
            AND c.relpages >= {LEAST_PAGES // 2} AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a
                  JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.relid WHERE p.partstrat = 'h')
            ORDER BY c.relpages DESC, c.oid LIMIT {MOST_TABLES}""".encode()  # noqa: S608
    ).fetchall()
    if not rows:
        return []
    lock(session, (row[1] for row in rows))
    oids = [row[0] for row in rows]
    where = {
        oid: (int(filenode or 0), int(size) // int(page))
        for oid, filenode, size, page in session.execute(
            """SELECT o, pg_catalog.pg_relation_filenode(o::oid)::bigint, pg_catalog.pg_relation_size(o::oid),
                      pg_catalog.current_setting('block_size')::bigint
                 FROM unnest(%s::bigint[], %s::text[]) AS t (o, name)
                WHERE pg_catalog.to_regclass(name)::oid = o""",  # a name that means another table since: not read here
            (oids, [row[1] for row in rows]),
        ).fetchall()
    }
    defined = _definitions(session, oids)
    return [
        Table(oid, name, _pattern(schema, relation), defined[oid][0], *where[oid], defined[oid][1])
        for oid, name, schema, relation in rows
        if oid in defined and oid in where and where[oid][1] >= LEAST_PAGES
    ]


def lock(session: Session, names: Iterable[str]) -> None:
    """Lock tables against being emptied; raises psycopg errors."""
    listed = ", ".join(f"ONLY {name}" for name in names)
    session.execute(f"LOCK TABLE {listed} IN ACCESS SHARE MODE".encode())


def survey(session: Session, table: Table, ranges: Sequence[PageRange], before: History) -> list[tuple[int, int]]:
    """Return for each range the rows visible in it, and those of transactions that ``before`` may not have seen."""
    if not ranges:
        return []
    statement = f"""
        SELECT s.rows, s.young
          FROM unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY AS r (first, ending, number)
         CROSS JOIN LATERAL (
               SELECT count(*) AS rows, count(*) FILTER (
                      WHERE pg_catalog.age(t.xmin) <= %s AND pg_catalog.age(t.xmin) >= 0) AS young
                 FROM ONLY {table.name.replace("%", "%%")} AS t
                WHERE t.ctid >= ('(' || r.first || ',0)')::tid AND t.ctid < ('(' || r.ending || ',0)')::tid) AS s
         ORDER BY r.number"""  # noqa: S608 - the server's own format('%I')
    # age() counts back from one number that stays the same during a transaction, so ages compare as the numbers do; it
    # is that of the next transaction, above all in the snapshot, so a negative age is that of a row frozen long ago
    (age,) = one(session, "SELECT pg_catalog.age(%s::text::xid)", before.xmin & 0xFFFFFFFF)
    found = session.execute(
        statement.encode(), ([one.first for one in ranges], [one.end for one in ranges], age)
    ).fetchall()
    return [(int(rows), int(young)) for rows, young in found]


def copy_statement(table: Table, first: int, end: int) -> str:
    """Return the COPY of the rows on pages ``first`` to ``end``, exclusive, as pg_dump would write and order them."""
    return (
        f"COPY (SELECT {table.columns} FROM ONLY {table.name} WHERE ctid >= '({first},0)'::pg_catalog.tid"  # noqa: S608
        f" AND ctid < '({end},0)'::pg_catalog.tid) TO STDOUT"
    )


def _definitions(session: Session, oids: list[int]) -> dict[int, tuple[str, str]]:
    """Return columns and digest of those tables whose rows' text depends on nothing but the rows and that digest."""
    columns: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for oid, *column in session.execute(
        """SELECT attrelid::bigint, attnum::int, pg_catalog.quote_ident(attname), atttypid::bigint, atttypmod::int,
                  attgenerated::text, atthasmissing, attmissingval::text
             FROM pg_catalog.pg_attribute WHERE attrelid::bigint = ANY (%s) AND attnum > 0 AND NOT attisdropped
            ORDER BY attrelid, attnum""",
        (oids,),
    ).fetchall():
        columns[oid].append(tuple(column))
    types = _types(session, {column[2] for found in columns.values() for column in found})
    out: dict[int, tuple[str, str]] = {}
    for oid, found in columns.items():
        kinds = [types[column[2]] for column in found]
        stored = [column[1] for column in found if not column[4]]
        if stored and None not in kinds:
            text = json.dumps([_DEFINITION_VERSION, found, kinds])
            out[oid] = (", ".join(stored), hashlib.sha256(text.encode()).hexdigest())
    return out


def _types(session: Session, wanted: Iterable[int]) -> dict[int, Json]:
    """Say for each type what its text depends on, None for one whose text may change while no row does.

    Known are the system's own types, enumerations (their labels), and domains over and arrays of those.
    """
    rows: dict[int, tuple[Any, ...]] = {}
    asked = set(wanted)
    while missing := asked - rows.keys():
        found = session.execute(
            """SELECT t.oid::bigint, t.typtype::text, t.typname ~ %s,
                      (CASE WHEN t.typtype = 'd' THEN t.typbasetype
                            WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END)::bigint,
                      (SELECT pg_catalog.array_agg(e.oid::text || ' ' || e.enumlabel ORDER BY e.oid)
                         FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
                 FROM pg_catalog.pg_type t WHERE t.oid::bigint = ANY (%s)""",
            (_TYPES_OF_THEIR_OWN, list(missing)),
        ).fetchall()
        rows |= {row[0]: row[1:] for row in found}
        rows |= dict.fromkeys(missing - rows.keys(), ("?", True, 0, None))
        asked |= {row[3] for row in found if row[3]}
    return {oid: _kind(oid, rows) for oid in rows}


def _kind(oid: int, rows: dict[int, tuple[Any, ...]]) -> Json:
    kind, by_name, base, labels = rows[oid]
    if by_name:
        return None
    if base:
        inner = _kind(base, rows)
        return None if inner is None else [oid, kind, inner]
    if kind == "e":
        return [oid, kind, labels]
    return [oid, kind] if kind in {"b", "r", "m"} and oid < _FIRST_OWN_OID else None


def _pattern(schema: str, relation: str) -> str:
    """Return the pattern of pg_dump's options that fits this table alone."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in (schema, relation))
