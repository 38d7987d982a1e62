"""What must be said anew when databases that were restored under other names get the names they are meant for.

RESTORE … AS writes the new name into the definitions of views, dictionaries and Merge tables, and RENAME DATABASE
leaves it there. So what names its database is made anew from the backup's own definitions, which speak of the right
one. Only objects that hold no rows of their own are made anew; a materialized view that does gets its query changed.
Tables that reach out of the server (Kafka, S3) are built as Null ones, lest a copy beside takes messages from the live
one, and become what they are with their name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from drd.engines.clickhouse.client import Server
from drd.engines.clickhouse.packindex import PackIndex
from drd.engines.clickhouse.quoting import described_table, shown, table
from drd.errors import IntegrityError, TargetError
from drd.protocols import ArtifactReader

_MAX_BYTES = 1 << 20
_UUID = re.compile(r" UUID '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'")
_IS_NULL = re.compile(r"\sENGINE = (?:Null\b|`Null`)")
_REFRESHES = re.compile(r"\sREFRESH\s+(?:EVERY|AFTER)\s")
_HOLDS_NOTHING = frozenset({"Buffer", "Distributed", "Merge", "MaterializedView"})
_COMMENT = re.compile(r"\s+COMMENT\s+'(?:[^'\\]|\\.|'')*'\s*\Z", re.DOTALL)
_PIECES = re.compile(
    r"""'(?:[^'\\]|\\.)*' | `(?:[^`\\]|\\.)*` | "(?:[^"\\]|\\.)*" | (?P<open>\() | (?P<close>\))
      | (?P<as>\sAS\s+(?=SELECT\s|WITH\s|\(\s*(?:SELECT|WITH)\s))""",
    re.DOTALL | re.VERBOSE,
)


def renewals(
    server: Server, index: PackIndex, artifacts: ArtifactReader, staged: Mapping[str, str], prefix: str
) -> dict[str, list[str]]:
    """Return, for each live name, the statements to run once the staged database has it; each may be run twice.

    ``staged`` maps live names, which are those of the backup too, to names that begin with ``prefix``, which occurs
    nowhere else. Raises :class:`~drd.errors.TargetError` for an object that cannot be moved so.
    """
    out: dict[str, list[str]] = {}
    for live, built in staged.items():
        rows = server.rows(
            "SELECT name, engine, create_table_query AS made, "
            "(database, concat('.inner_id.', toString(uuid))) IN (SELECT database, name FROM system.tables) AS inner "
            "FROM system.tables WHERE database = {built:String} AND name NOT LIKE '.inner%' "
            "ORDER BY engine = 'Dictionary' DESC, engine = 'MaterializedView', name",
            {"built": built},
        )
        out[live] = []
        for row in rows:
            if row["engine"] == "MaterializedView" and _REFRESHES.search(row["made"]):
                raise TargetError(
                    f"{shown(live, row['name'])} is a refreshable materialized view, which cannot be moved so",
                    hint="restore into another server or database with --into; nothing was changed",
                )
            if row["engine"] == "Null":
                made = definition(index, artifacts, live, row["name"])
                if not _IS_NULL.search(made):
                    out[live] += [f"DROP TABLE IF EXISTS {table(live, row['name'])} SYNC", _UUID.sub("", made, count=1)]
            elif row["made"].count(prefix) > 1:
                made = definition(index, artifacts, live, row["name"])
                out[live] += renewal(live, row["name"], row["engine"], made, holds_rows=bool(row["inner"]))
    return out


def renewal(live: str, name: str, engine: str, made: str, *, holds_rows: bool) -> list[str]:
    """Return the statements that make one object speak of the right database; ``made`` is the backup's definition."""
    plain = _UUID.sub("", made, count=1)
    if engine in {"View", "Dictionary"}:
        return [re.sub(r"\ACREATE ", "CREATE OR REPLACE ", plain, count=1)]
    if engine == "MaterializedView" and holds_rows:
        return [f"ALTER TABLE {table(live, name)} MODIFY QUERY {select_of(made)}"]
    if engine in _HOLDS_NOTHING:
        return [f"DROP TABLE IF EXISTS {table(live, name)} SYNC", plain]
    raise TargetError(
        f"{shown(live, name)} ({engine}) names its database in its definition, so it cannot be moved to another name",
        hint="restore into another server or database with --into; nothing was changed",
    )


def select_of(made: str) -> str:
    """Return the query of a view's definition: what follows the first AS outside quotes and parentheses."""
    depth = 0
    for piece in _PIECES.finditer(made):
        depth += bool(piece["open"]) - bool(piece["close"])
        if piece["as"] and depth == 0:
            return _COMMENT.sub("", made[piece.end() :])
    raise IntegrityError("the definition of a view in the backup holds no query", hint="drd verify --deep it")


def definition(index: PackIndex, artifacts: ArtifactReader, database: str, name: str) -> str:
    """Read the statement that makes a table from a backup."""
    for key, item in index.objects.items():
        if described_table(key) == (database, name) and item.size <= _MAX_BYTES:
            return b"".join(_bytes_of(index, key, artifacts)).decode("utf-8", "surrogateescape").strip()
    raise IntegrityError(f"the backup does not say how {shown(database, name)} was made", hint="drd verify --deep it")


def _bytes_of(index: PackIndex, key: str, artifacts: ArtifactReader) -> Iterator[bytes]:
    for artifact, offset, size in index.ranges(key, 0, index.objects[key].size):
        with artifacts.open(artifact, start=offset, length=size) as stream:
            yield stream.read()
