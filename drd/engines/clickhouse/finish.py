"""What is left to do when databases of a restore in place have their new names, by drd or by who outlives it.

All of it is told from names, comments and notes that lie in the databases themselves, and may be repeated: by the
second process (:mod:`.hands`) where drd was killed, or by the next run where both were.
"""

from __future__ import annotations

from drd.engines.clickhouse import unfinished
from drd.engines.clickhouse.client import Server, ServerRefusal
from drd.engines.clickhouse.quoting import literal, table
from drd.engines.marks import Mark, marks_of

PENDING = "drd_swap_pending"
_EXISTS = 57
_NO_TABLE = 60


def marked(server: Server, restore_id: str) -> dict[str, Mark]:
    """Return the databases of one restore by name, by the marks in their comments."""
    return marks_of(unfinished.comments(server), restore_id)


def finish(server: Server, restore_id: str) -> None:
    """Do what is left to do for databases that have been renamed; nothing for others. May be repeated."""
    found = marked(server, restore_id)
    for name, mark in found.items():
        if mark.role != "staged" and name != mark.live:  # a copy that is kept: nothing feeds it
            for view in set(mark.parked) & set(fed_views(server, name)):
                server.execute(f"DETACH TABLE {table(name, view)} PERMANENTLY", settings=unfinished.FORCE)
    for name, mark in found.items():
        if mark.role == "staged" and name == mark.live:
            for statement in _pending(server, name):
                server.execute(statement, settings=unfinished.FORCE)
            server.execute(f"DROP TABLE IF EXISTS {table(name, PENDING)} SYNC")
            own = next((m.comment for n, m in found.items() if m.role == "old" and m.live == name), None)
            comment(server, name, own)
        elif mark.role == "old" and name == mark.live:  # it is back
            for view in mark.parked:
                _attach(server, name, view)
            comment(server, name, mark.comment)


def note(server: Server, staged: dict[str, str], statements: dict[str, list[str]]) -> None:
    """Write down, in each staged database, what is to be run once it has its name: also for who comes after a kill."""
    for live, built in staged.items():
        where = table(built, PENDING)
        server.execute(f"DROP TABLE IF EXISTS {where} SYNC")
        if statements[live]:
            server.execute(f"CREATE TABLE {where} (n UInt32, statement String) ENGINE = Log")
            for number, statement in enumerate(statements[live]):
                server.execute(f"INSERT INTO {where} VALUES ({number}, {literal(statement)})")  # noqa: S608 - quoted


def comment(server: Server, name: str, text: str | None) -> None:
    """Set a database's comment; None for none."""
    unfinished.set_comment(server, name, literal(text or ""))


def fed_views(server: Server, database: str) -> list[str]:
    """Name the views of a database that take rows as they arrive elsewhere."""
    rows = server.rows(
        "SELECT name FROM system.tables WHERE database = {name:String} "
        "AND engine IN ('MaterializedView', 'WindowView', 'LiveView') ORDER BY name",
        {"name": database},
    )
    return [row["name"] for row in rows]


def _attach(server: Server, database: str, view: str) -> None:
    try:
        server.execute(f"ATTACH TABLE {table(database, view)}", settings=unfinished.FORCE)
    except ServerRefusal as refusal:
        if refusal.number != _EXISTS:
            raise


def _pending(server: Server, database: str) -> list[str]:
    try:
        rows = server.rows(f"SELECT statement FROM {table(database, PENDING)} ORDER BY n")  # noqa: S608 - quoted
    except ServerRefusal as refusal:
        if refusal.number == _NO_TABLE:
            return []
        raise
    return [row["statement"] for row in rows]
