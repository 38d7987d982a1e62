"""From an archive's table of contents and the digests of its files to the items of a fingerprint."""

from __future__ import annotations

from drd.engines.postgres.sqltext import copy_columns, dotted, sequence_state
from drd.engines.postgres.toc import Toc, TocEntry, damaged
from drd.model import Json

VIA_ROOT = "-- load via partition root "
LARGE_OBJECTS = "large objects"


def inventory(
    toc: Toc, database: str, tables: dict[str, dict[str, Json]], large_objects: dict[str, Json]
) -> dict[str, dict[str, Json]]:
    """Name every table, sequence, materialized view and the large objects, with what must be found after a restore.

    ``tables`` maps data files to their facts. A table that belongs to an extension is counted only (the extension's
    script may add rows of its own order); one that is loaded through its partition root is counted as part of the
    root (its rows may land in other partitions); a materialized view is computed anew by a restore, so only whether
    it is populated counts.
    """
    items: dict[str, dict[str, Json]] = {}
    own = {(entry.schema, entry.tag) for entry in toc.entries if entry.desc == "TABLE"}
    refreshed = {(entry.schema, entry.tag) for entry in toc.entries if entry.desc == "MATERIALIZED VIEW DATA"}
    for entry in toc.entries:
        name = dotted(database, entry.schema, entry.tag)
        where: dict[str, Json] = {"database": database, "schema": entry.schema, "name": entry.tag}
        if entry.desc == "TABLE DATA" and entry.filename:
            facts = tables.get(entry.filename)
            if facts is None:
                raise damaged(f"{entry.filename} is named in it and was not found")
            if entry.definition.startswith(VIA_ROOT):
                _add_to_root(items, database, entry, facts)
            elif (entry.schema, entry.tag) in own:
                items[name] = {"kind": "table", **where, "columns": _columns(entry), "encoding": toc.encoding, **facts}
            else:
                items[name] = {"kind": "extension table", **where, "rows": facts["rows"]}
        elif entry.desc == "SEQUENCE SET":
            state = sequence_state(entry.definition)
            if state is None:
                raise damaged(f"its entry {entry.dump_id} sets a sequence in an unknown way")
            items[name] = {"kind": "sequence", **where, "last_value": state[0], "is_called": state[1]}
        elif entry.desc == "MATERIALIZED VIEW":
            populated = (entry.schema, entry.tag) in refreshed
            items[name] = {"kind": "materialized view", **where, "populated": populated}
    if large_objects["objects"]:
        items[f"{dotted(database)} {LARGE_OBJECTS}"] = {"kind": LARGE_OBJECTS, "database": database, **large_objects}
    return items


def _columns(entry: TocEntry) -> list[Json]:
    columns = copy_columns(entry.copy_statement)
    if columns is None:
        raise damaged(f"its entry {entry.dump_id} loads a table in an unknown way")
    return list(columns)


def _add_to_root(items: dict[str, dict[str, Json]], database: str, entry: TocEntry, facts: dict[str, Json]) -> None:
    root = entry.definition.removeprefix(VIA_ROOT).strip()
    item = items.setdefault(
        f"{dotted(database)}.{root}", {"kind": "partition root", "database": database, "relation": root, "rows": 0}
    )
    rows, more = item["rows"], facts["rows"]
    if isinstance(rows, int) and isinstance(more, int):
        item["rows"] = rows + more
