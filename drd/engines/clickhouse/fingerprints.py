"""What the tables of a backup held, and what a server holds: rows and part hashes, comparable across a restore.

A MergeTree part is immutable, and RESTORE attaches it as it was: ``hash_of_all_files`` in ``system.parts`` is equal
on both servers (tried on 26.7) until a merge rewrites the part. So at backup time the hashes are those of exactly
the parts that the server's manifest names, looked up while BACKUP holds them; after a restore, merges stay stopped
until they were read again. This costs the server no read of data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from drd.engines.clickhouse.client import Server, ServerRefusal
from drd.engines.clickhouse.manifest import ServerManifest
from drd.engines.clickhouse.quoting import shown, table
from drd.model import Fingerprint, Json, Notice

COMPARED = ("rows", "content")
_COUNTED = frozenset({"Log", "TinyLog", "StripeLog", "Memory"})
# Engines that keep rows which BACKUP leaves out without a word (tried on 26.7: only their definitions came back).
_NOT_SAVED = ("Join", "Set", "EmbeddedRocksDB", "File", "Buffer", "KeeperMap", "Distributed")
EMPTIED = frozenset(_NOT_SAVED) - {"Distributed"}
"""Those that a restore brings back empty; a Distributed table has its rows in others."""
_PATCHES = "patch-"

TableName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PartFacts:
    """Rows, content hash and size of one part."""

    rows: int
    digest: str
    size_bytes: int


def engines(server: Server, databases: Sequence[str]) -> dict[TableName, str]:
    """Map each table, view and dictionary to its engine; inner tables of materialized views are left out.

    So are those that a refresh fills before it puts them in the place of the inner one (``.tmp.inner``).
    """
    rows = server.rows(
        "SELECT database, name, engine FROM system.tables "
        "WHERE database IN {names:Array(String)} AND NOT is_temporary "
        "AND name NOT LIKE '.inner%' AND name NOT LIKE '.tmp.inner%'",
        {"names": list(databases)},
    )
    return {(r["database"], r["name"]): r["engine"] for r in rows}


def _owners(server: Server, databases: Sequence[str]) -> dict[TableName, TableName]:
    """Map inner tables to their materialized view: a backup keeps their data under the view's name."""
    rows = server.rows(
        "SELECT database, name, toString(uuid) AS id FROM system.tables "
        "WHERE database IN {names:Array(String)} AND engine IN ('MaterializedView', 'WindowView')",
        {"names": list(databases)},
    )
    out = {}
    for r in rows:
        out[r["database"], f".inner_id.{r['id']}"] = (r["database"], r["name"])
        out[r["database"], f".inner.{r['name']}"] = (r["database"], r["name"])
    return out


class PartsSnapshot:
    """Facts of every part the server knows, gathered over the run of a backup: also of parts merged away meanwhile."""

    def __init__(self, server: Server, databases: Sequence[str]) -> None:
        self._server = server
        self._databases = databases
        self._facts: dict[tuple[TableName, str], PartFacts] = {}
        self.taken = False

    def take(self, *, active_only: bool = False) -> None:
        """Add what ``system.parts`` shows now; earlier facts of the same part stay."""
        self.taken = True
        owners = _owners(self._server, self._databases)
        rows = self._server.rows(
            "SELECT database, table, name, rows, hash_of_all_files AS digest, bytes_on_disk AS size "
            "FROM system.parts WHERE database IN {names:Array(String)} AND active >= {least:UInt8}",
            {"names": list(self._databases), "least": int(active_only)},
        )
        for r in rows:
            inner = (r["database"], r["table"])
            key = owners.get(inner, inner), r["name"]
            self._facts.setdefault(key, PartFacts(int(r["rows"]), r["digest"], int(r["size"])))

    def of(self, name: TableName, parts: Iterable[str]) -> list[PartFacts] | None:
        """Return the facts of these parts, None when one was never seen."""
        found = [self._facts.get((name, part)) for part in parts]
        return None if any(f is None for f in found) else [f for f in found if f is not None]

    def knows(self, wanted: Mapping[TableName, Iterable[str]]) -> bool:
        """Whether every part was seen."""
        return all(self.of(name, parts) is not None for name, parts in wanted.items())

    def by_table(self) -> dict[TableName, list[PartFacts]]:
        """Group all facts by table."""
        out: dict[TableName, list[PartFacts]] = {}
        for (name, _part), facts in self._facts.items():
            out.setdefault(name, []).append(facts)
        return out


def count_rows(server: Server, kinds: Mapping[TableName, str]) -> dict[TableName, int]:
    """Count the rows of tables that have no parts and are cheap and safe to read (Log family, Memory)."""
    out = {}
    for (database, name), engine in kinds.items():
        if engine in _COUNTED:
            try:
                counted = server.rows(f"SELECT count() AS n FROM {table(database, name)}")  # noqa: S608 - quoted
                out[database, name] = int(counted[0]["n"])
            except ServerRefusal as refusal:
                if refusal.number != 60:  # dropped meanwhile
                    raise
    return out


def without_rows(kinds: Mapping[TableName, str], left_out: Collection[str] = _NOT_SAVED) -> str:
    """Name the tables whose rows no BACKUP of ClickHouse holds, with their engines; empty where there are none."""
    return _some(sorted(f"{shown(*name)} ({engine})" for name, engine in kinds.items() if engine in left_out))


def came_empty(server: Server, names: Mapping[str, str]) -> list[Notice]:
    """Name the tables that a restore made without rows; ``names`` maps a database to what people know it by."""
    kinds = {(names[name[0]], name[1]): engine for name, engine in engines(server, list(names)).items()}
    if not (lost := without_rows(kinds, EMPTIED)):
        return []
    text = f"no rows of {lost} were brought back: ClickHouse's BACKUP saves none; fill again what should hold some"
    return [Notice("rows-not-restored", text)]


def unsaved(server: Server, databases: Sequence[str], kinds: Mapping[TableName, str]) -> list[Notice]:
    """Name what ClickHouse's BACKUP leaves out silently: rows of some engines, and updates not yet merged into parts.

    A lightweight UPDATE writes patch parts, which BACKUP does not take: the rows come back as they were before it.
    """
    notices = []
    if lost := without_rows(kinds):
        notices.append(
            Notice(
                "rows-not-saved",
                f"ClickHouse's BACKUP saves no rows of {lost}: only how they are defined is in this backup",
            )
        )
    rows = server.rows(
        "SELECT DISTINCT p.database AS database, p.table AS name FROM system.parts AS p "
        "INNER JOIN (SELECT database, table, partition_id, min(data_version) AS least "
        "FROM system.parts WHERE active AND NOT startsWith(partition_id, {patch:String}) "
        "AND database IN {names:Array(String)} GROUP BY database, table, partition_id) AS d "
        "ON p.database = d.database AND p.table = d.table "
        "WHERE p.active AND startsWith(p.partition_id, {patch:String}) "
        "AND endsWith(p.partition_id, concat('-', d.partition_id)) AND d.least < p.data_version ORDER BY 1, 2",
        {"names": list(databases), "patch": _PATCHES},
    )
    if patched := [shown(row["database"], row["name"]) for row in rows]:
        notices.append(
            Notice(
                "updates-not-saved",
                f"ClickHouse's BACKUP leaves out lightweight updates of {_some(patched)} that are not merged yet; "
                "before a backup: ALTER TABLE … APPLY PATCHES",
            )
        )
    return notices


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def databases_named(fingerprint: Fingerprint) -> list[str]:
    """Name the databases that a fingerprint speaks of."""
    return sorted({str(item["database"]) for item in fingerprint.items.values() if "database" in item})


def _item(database: str, engine: str, facts: list[PartFacts] | None, rows: int | None) -> dict[str, Json]:
    if facts is None:
        return {"database": database, "engine": engine, "rows": rows, "content": None}
    return {
        "database": database,
        "engine": engine,
        "rows": sum(f.rows for f in facts),
        "content": hashlib.sha256("\n".join(sorted(f.digest for f in facts)).encode()).hexdigest(),
        "parts": len(facts),
        "bytes": sum(f.size_bytes for f in facts),
    }


def _has_parts(engine: str, parts: object) -> bool:
    return engine.endswith("MergeTree") or bool(parts)


def of_backup(
    manifest: ServerManifest, snapshot: PartsSnapshot, kinds: Mapping[TableName, str],
    before: Mapping[TableName, int], after: Mapping[TableName, int],
) -> tuple[Fingerprint, Notice | None]:  # fmt: skip
    """Make the fingerprint of what the server's manifest says is in the backup.

    A table without parts has its rows only when the count was the same before and after. A part that the snapshot
    missed makes its table's facts unknown (None): named in the notice, never guessed.
    """
    parts = manifest.parts()
    items: dict[str, dict[str, Json]] = {}
    unknown = []
    for name in manifest.tables():
        engine, own = kinds.get(name, ""), parts.get(name, set())
        facts = snapshot.of(name, own) if _has_parts(engine, own) else None
        rows = before.get(name) if before.get(name) == after.get(name) else None
        if facts is None and (_has_parts(engine, own) or (rows is None and engine in _COUNTED)):
            unknown.append(shown(*name))
        items[shown(*name)] = _item(name[0], engine, facts, rows)
    notice = None
    if unknown:
        notice = Notice(
            "fingerprint-partial",
            f"the rows of {len(unknown)} tables changed too quickly to be counted, such as {unknown[0]}",
        )
    return Fingerprint("clickhouse", items, COMPARED), notice


def of_server(
    server: Server, expected: Fingerprint, names: Mapping[str, str], restored: PartsSnapshot | None = None
) -> Fingerprint:
    """Read the same facts from a live server; ``names`` maps each database of the backup to its name here.

    What ``expected`` does not know stays None. ``restored`` are the parts as RESTORE left them, before merges went on.
    """
    back = {here: there for there, here in names.items()}
    kinds = engines(server, list(back))
    snapshot = restored or PartsSnapshot(server, list(back))
    if not snapshot.taken:
        snapshot.take(active_only=True)
    parts = snapshot.by_table()
    counts = count_rows(server, kinds)
    items: dict[str, dict[str, Json]] = {}
    for name, engine in kinds.items():
        spelled = shown(back[name[0]], name[1])
        facts = parts.get(name, []) if _has_parts(engine, parts.get(name)) else None
        item = _item(back[name[0]], engine, facts, counts.get(name))
        wanted = expected.items.get(spelled, {})
        for fact in COMPARED:
            if spelled in expected.items and wanted.get(fact) is None:
                item[fact] = None
        items[spelled] = item
    return Fingerprint("clickhouse", items, COMPARED)
