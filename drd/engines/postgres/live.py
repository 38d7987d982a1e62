"""The fingerprint of a live server: the same COPY streams that pg_dump wrote, read again and digested."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from psycopg import sql

from drd.engines.postgres import catalog
from drd.engines.postgres.connection import Endpoint, Session, join_snapshot, mapped
from drd.engines.postgres.digest import LargeObjectsDigest, table_digest
from drd.engines.postgres.inventory import LARGE_OBJECTS
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.sqltext import always_quoted, dotted
from drd.engines.postgres.toc import python_codec
from drd.engines.postgres.wire import copy_out
from drd.model import Fingerprint, Json, Progress
from drd.protocols import WorkContext

_LARGE_OBJECT_BYTES = 1 << 20


def fingerprint(settings: PostgresSettings, endpoint: Endpoint, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
    """Read the endpoint; see :meth:`drd.protocols.Engine.fingerprint`."""
    names = sorted({str(item["database"]) for item in expected.items.values()})
    found: dict[str, dict[str, Json]] = {}
    for name in names:
        actual = endpoint.database if len(names) == 1 and not settings.databases and endpoint.database else name
        if settings.staging is not None:
            actual = settings.staging.names[actual]
        wanted = {key: item for key, item in expected.items.items() if item["database"] == name}
        with contextlib.closing(endpoint.connect(actual)) as session:
            found |= _database(endpoint.pinned(session), session, name, wanted, ctx)
    return Fingerprint("postgres", found, expected.compared, expected.version)


def _database(
    here: Endpoint, session: Session, name: str, wanted: dict[str, dict[str, Json]], ctx: WorkContext
) -> dict[str, dict[str, Json]]:
    """Read one database under one snapshot with several sessions."""
    with mapped(here, f"read the database {session.info.dbname}"):
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        (snapshot,) = catalog.one(session, "SELECT pg_catalog.pg_export_snapshot()")
        present = _present(session, name, wanted)
        todo: queue.SimpleQueue[tuple[str, dict[str, Json]]] = queue.SimpleQueue()
        out: dict[str, dict[str, Json]] = {}
        for key, item in wanted.items():
            if item["kind"] in {LARGE_OBJECTS, "partition root"} or key in present:
                todo.put((key, item))
        for key in present.keys() - wanted.keys():
            out[key] = present[key]
        _forget_partitions_of(wanted, out)
        if not any(item["kind"] == LARGE_OBJECTS for item in wanted.values()):
            (objects,) = catalog.one(session, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
            if objects:
                out[f"{dotted(name)} {LARGE_OBJECTS}"] = {"kind": LARGE_OBJECTS, "objects": int(objects)}
        lock = threading.Lock()
        failed = threading.Event()

        def work() -> None:
            with contextlib.closing(_joined(here, session.info.dbname, str(snapshot))) as mine:
                while not failed.is_set():
                    try:
                        key, item = todo.get_nowait()
                    except queue.Empty:
                        return
                    facts = _read(mine, item, ctx)
                    with lock:
                        out[key] = {**item, **facts}
                        ctx.progress(Progress(ctx.source, "fingerprint", 0, None, f"{len(out)} of {len(wanted)}"))

        def guarded() -> None:
            try:
                with mapped(here, f"read the database {session.info.dbname}"):
                    work()
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(max(1, ctx.jobs), thread_name_prefix="pg-read") as pool:
            futures = [pool.submit(guarded) for _ in range(max(1, ctx.jobs))]
        for future in futures:
            future.result()
    return out


def _forget_partitions_of(wanted: dict[str, dict[str, Json]], out: dict[str, dict[str, Json]]) -> None:
    """Drop what a partition root counts already: leaves that the backup has no items of their own for."""
    if any(item["kind"] == "partition root" for item in wanted.values()):
        for key in [key for key, item in out.items() if item.get("partition")]:
            del out[key]


def _joined(here: Endpoint, database: str, snapshot: str) -> Session:
    session = here.connect(database)
    join_snapshot(session, snapshot)
    return session


def _present(session: Session, name: str, wanted: Collection[str]) -> dict[str, dict[str, Json]]:
    """Name what the database holds that a backup would have an item for.

    A backup from a standby has none for unlogged tables, which it brings back empty: not wanted, those do not count.
    """
    rows = session.execute(
        """SELECT n.nspname, c.relname, c.relkind, c.relispartition, c.relpersistence = 'u',
                  EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'S', 'm')"""
    ).fetchall()
    kinds = {"r": "table", "S": "sequence", "m": "materialized view"}
    found: dict[str, dict[str, Json]] = {}
    for schema, relation, kind, partition, unlogged, extension in rows:
        text = kind.decode() if isinstance(kind, bytes) else str(kind)
        if unlogged and dotted(name, schema, relation) not in wanted and _without_rows(session, schema, relation, text):
            continue
        item: dict[str, Json] = {"kind": kinds[text], "schema": schema, "name": relation, "partition": partition}
        if not extension:
            found[dotted(name, schema, relation)] = item
        elif text == "r":
            found[dotted(name, schema, relation)] = item | {"kind": "extension table"}
    return found


def _without_rows(session: Session, schema: str, relation: str, kind: str) -> bool:
    if kind == "S":
        return True
    named = sql.Identifier(schema, relation)
    row = session.execute(sql.SQL("SELECT NOT EXISTS (SELECT FROM {})").format(named)).fetchone()
    return bool(row and row[0])


def _read(session: Session, item: dict[str, Json], ctx: WorkContext) -> dict[str, Json]:
    kind = item["kind"]
    if kind == LARGE_OBJECTS:
        return _large_objects(session, ctx)
    if kind == "partition root":
        relation = str(item["relation"])
        (rows,) = catalog.one(session, f"SELECT count(*) FROM {relation}")  # noqa: S608 - quoted by pg_dump
        return {"rows": int(rows)}
    relation_name = sql.Identifier(str(item["schema"]), str(item["name"]))
    if kind == "table":
        return _table(session, item, ctx)
    if kind == "sequence":
        row = session.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(relation_name)).fetchone()
        return {"last_value": int(row[0]), "is_called": bool(row[1])} if row else {}
    if kind == "materialized view":
        (populated,) = catalog.one(
            session,
            "SELECT relispopulated FROM pg_catalog.pg_class WHERE oid = %s::pg_catalog.regclass",
            relation_name.as_string(session),
        )
        return {"populated": bool(populated)}
    return _extension_table(session, relation_name)


def _table(session: Session, item: dict[str, Json], ctx: WorkContext) -> dict[str, Json]:
    """Digest a table as pg_dump reads it: these columns, this encoding, the order of the heap."""
    encoding = str(item["encoding"])
    columns = ", ".join(always_quoted(str(name)) for name in cast("list[str]", item["columns"]))
    listed = f"({columns})" if columns else ""
    statement = f"COPY {always_quoted(str(item['schema']), str(item['name']))} {listed} TO STDOUT"
    session.execute(sql.SQL("SET LOCAL client_encoding TO {}").format(sql.Literal(encoding)))
    digest = table_digest(item)
    for piece in copy_out(session, statement.encode(python_codec(encoding), "surrogateescape"), ctx):
        digest.update(piece)
    session.execute("SET LOCAL client_encoding TO 'UTF8'")
    return digest.facts()


def _extension_table(session: Session, relation: sql.Identifier) -> dict[str, Json]:
    """Count the rows that a dump would take of an extension's table, by the condition the extension registered."""
    row = session.execute(
        """SELECT (e.extcondition)[pg_catalog.array_position(e.extconfig, c.oid)] FROM pg_catalog.pg_extension e
             JOIN pg_catalog.pg_class c ON c.oid = ANY (e.extconfig) WHERE c.oid = %s::pg_catalog.regclass""",
        (relation.as_string(session),),
    ).fetchone()
    condition = sql.SQL(row[0]) if row and row[0] else sql.SQL("")
    found = session.execute(sql.SQL("SELECT count(*) FROM ONLY {} {}").format(relation, condition)).fetchone()
    return {"rows": int(found[0])} if found else {}


def _large_objects(session: Session, ctx: WorkContext) -> dict[str, Json]:
    digest = LargeObjectsDigest()
    with session.cursor(name="drd_large_objects", binary=True) as cursor:
        cursor.itersize = 16
        cursor.execute(
            "SELECT oid::bigint, pg_catalog.lo_get(oid, 0, %s) FROM pg_catalog.pg_largeobject_metadata ORDER BY oid",
            (_LARGE_OBJECT_BYTES,),
        )
        for oid, first in cursor:
            ctx.cancel.raise_if_cancelled()
            piece: bytes = first
            content = hashlib.sha256(piece)
            size = len(piece)
            while len(piece) == _LARGE_OBJECT_BYTES:
                (piece,) = catalog.one(
                    session, "SELECT pg_catalog.lo_get(%s::oid, %s, %s)", oid, size, _LARGE_OBJECT_BYTES
                )
                content.update(piece)
                size += len(piece)
            digest.add(oid, size, content.digest())
    return digest.facts()
