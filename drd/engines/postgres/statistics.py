"""Give a restored database the planner's statistics, several tables at a time, as vacuumdb does.

Nothing else runs on the new database then, so one session alone would leave the other processors idle.
"""

from __future__ import annotations

import contextlib
import queue
from concurrent.futures import ThreadPoolExecutor

import psycopg

from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.errors import DrdError, TargetError
from drd.model import Notice
from drd.protocols import WorkContext

# The largest first, so that no session ends up with it alone. ANALYZE of a partitioned table does its partitions as
# well; materialized views count. The catalogs are one piece of work: there are dozens, and they are small.
_RELATIONS = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), n.nspname = 'pg_catalog'
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_(toast|temp)'
 ORDER BY c.relkind = 'p' DESC, pg_catalog.pg_relation_size(c.oid) DESC, c.oid
"""

_PARTITIONS = """
SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname)
  FROM pg_catalog.pg_partition_tree(%s::pg_catalog.regclass) t JOIN pg_catalog.pg_class c ON c.oid = t.relid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE t.level > 0 AND c.relkind = 'r'
"""


def analyze(here: Endpoint, name: str, target: str, ctx: WorkContext) -> list[Notice]:
    """Gather the statistics of every table; those of a table that cannot be analysed are named in a notice.

    That happens while the server behind a foreign partition is away, and leaves the data whole.
    """
    todo: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    with contextlib.closing(here.connect(name)) as session, mapped(here, f"list the tables of {name}"):
        rows = session.execute(_RELATIONS.encode()).fetchall()
        for table in [str(table) for table, system in rows if not system]:
            todo.put([table])
        todo.put([str(table) for table, system in rows if system])
        sessions = min(max(1, ctx.jobs), todo.qsize())
        with ThreadPoolExecutor(sessions, thread_name_prefix="pg-analyze") as pool:
            others = [pool.submit(_connected, here, name, todo, ctx) for _ in range(sessions - 1)]
            failed = _work(here, name, session, todo, ctx)
            for other in others:
                failed += other.result()
    if not failed:
        return []
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    text = f"run ANALYZE in {target} later, it stopped here: {failed[0].message}{more}"
    return [Notice("statistics-incomplete", text)]


def _connected(here: Endpoint, name: str, todo: queue.SimpleQueue[list[str]], ctx: WorkContext) -> list[DrdError]:
    try:
        session = here.connect(name)
    except TargetError:  # no room for another session: the first one does all, or says what is wrong
        return []
    with contextlib.closing(session):
        return _work(here, name, session, todo, ctx)


def _work(
    here: Endpoint, name: str, session: Session, todo: queue.SimpleQueue[list[str]], ctx: WorkContext
) -> list[DrdError]:
    """Analyse what there is to do until nothing is left; return what failed. Raises Cancelled."""
    failed: list[DrdError] = []
    with ctx.cancel.on_cancel(session.cancel):
        while True:
            ctx.cancel.raise_if_cancelled()
            try:
                relations = todo.get_nowait()
            except queue.Empty:
                return failed
            try:
                with mapped(here, f"gather statistics of {name}"):
                    session.execute(f"ANALYZE {', '.join(relations)}".encode())
            except TargetError as error:
                if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
                    ctx.cancel.raise_if_cancelled()
                failed.append(error)
                if session.broken:
                    return failed
                if len(relations) == 1:  # of a partitioned table those partitions that are here
                    with mapped(here, f"list the partitions of {relations[0]}"):
                        for (partition,) in session.execute(_PARTITIONS, relations).fetchall():
                            todo.put([str(partition)])
