"""What tables that were just restored need: their merges stopped and started, every part read back, views refreshed."""

from __future__ import annotations

from collections.abc import Collection

from drd.engines.clickhouse.client import Server, ServerRefusal, clean
from drd.engines.clickhouse.longquery import LongQuery
from drd.engines.clickhouse.quoting import shown, table
from drd.errors import IntegrityError
from drd.model import Progress
from drd.protocols import WorkContext

MERGES = ("MERGES", "TTL MERGES")
_NO_ROOM = frozenset({173, 241, 243})  # cannot allocate, memory limit, not enough space (src/Common/ErrorCodes.cpp)
_APPENDS = r"(?s)\sREFRESH\s+(EVERY|AFTER)\s.*\sAPPEND\s"  # may say so of a view whose query only speaks of it


def merge_trees(server: Server, databases: Collection[str]) -> list[tuple[str, str]]:
    """Return the tables of the MergeTree family, by database and name."""
    rows = server.rows(  # not what a refresh fills before it puts it in another's place: it is gone in a moment
        "SELECT database, name FROM system.tables WHERE database IN {names:Array(String)} "
        "AND engine LIKE '%MergeTree' AND name NOT LIKE '.tmp.inner%' ORDER BY 1, 2",
        {"names": list(databases)},
    )
    return [(row["database"], row["name"]) for row in rows]


def start_merges(server: Server, databases: Collection[str]) -> None:
    """Let merges run again on every table of the databases."""
    for name in merge_trees(server, databases):
        for what in MERGES:
            server.execute(f"SYSTEM START {what} {table(*name)}")


def check_table(query: LongQuery, name: tuple[str, str], ctx: WorkContext) -> None:
    """Let the server read every part of a table back and compare checksums; raises ``IntegrityError``."""
    ctx.cancel.raise_if_cancelled()
    ctx.progress(Progress(ctx.source, "CHECK TABLE", detail=shown(*name)))
    try:
        rows = query.lines(f"CHECK TABLE {table(*name)}", {"check_query_single_value_result": 0})
    except ServerRefusal as refusal:
        if refusal.number in _NO_ROOM:
            raise
        raise IntegrityError(
            f"CHECK TABLE {shown(*name)} failed: {refusal}", hint="drd verify --deep the backup"
        ) from None
    bad = [row for row in rows if not row["is_passed"]]
    if bad:
        raise IntegrityError(
            f"CHECK TABLE finds {len(bad)} of {len(rows)} parts of {shown(*name)} damaged, such as "
            f"{bad[0].get('part_path')}: {clean(str(bad[0].get('message')), 160)}",
            hint="the restore was undone; try an earlier backup, and drd verify --deep this one",
        )


def refresh_views(server: Server, databases: Collection[str]) -> None:
    """Start a refresh of refreshable materialized views: the one at their creation saw empty tables.

    Not of those that append: their rows are in the backup, and a refresh would add the newest of them once more.
    """
    try:
        views = server.rows(
            "SELECT r.database AS database, r.view AS view FROM system.view_refreshes AS r "
            "INNER JOIN system.tables AS t ON t.database = r.database AND t.name = r.view "
            "WHERE r.database IN {names:Array(String)} AND NOT match(t.create_table_query, {appends:String})",
            {"names": list(databases), "appends": _APPENDS},
        )
    except ServerRefusal as refusal:
        if refusal.number == 60:  # UNKNOWN_TABLE: a server older than such views (23.12)
            return
        raise
    for row in views:
        server.execute(f"SYSTEM REFRESH VIEW {table(row['database'], row['view'])}")
