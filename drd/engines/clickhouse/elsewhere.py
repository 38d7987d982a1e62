"""Tables that keep naming another database when theirs is restored under a new name.

RESTORE … AS rewrites views, dictionaries and Merge tables, but neither Buffer nor Distributed ones (tried on 26.7): a
Buffer would write into the table of the old name, which may well be the live one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from drd.engines.clickhouse.client import Server
from drd.engines.clickhouse.quoting import identifier, literal, shown, table
from drd.engines.clickhouse.unfinished import FORCE
from drd.model import Notice

_ARGUMENT = r"""(?:'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[^\s,()'`]+)"""
_DATABASE = re.compile(rf"\b(?:Buffer\(|Distributed\({_ARGUMENT}, )(?P<name>{_ARGUMENT})", re.DOTALL)


def repoint(server: Server, names: Mapping[str, str]) -> list[Notice]:
    """Make Buffers of databases that changed their names write into the new one; name what else speaks of the old.

    ``names`` maps each database of the backup to its name here.
    """
    renamed = {there: here for there, here in names.items() if there != here}
    if not renamed:
        return []
    rows = server.rows(
        "SELECT database, name, engine, engine_full, create_table_query AS made FROM system.tables "
        "WHERE database IN {names:Array(String)} AND engine IN ('Buffer', 'Distributed') ORDER BY 1, 2",
        {"names": list(renamed.values())},
    )
    old = {spelled: there for there in renamed for spelled in (literal(there), identifier(there), there)}
    left = []
    for row in rows:
        found = _DATABASE.match(row["engine_full"])
        there = old.get(found["name"]) if found else None
        if found is None or there is None:
            continue
        name, before = table(row["database"], row["name"]), row["engine_full"]
        if row["engine"] == "Buffer" and row["made"].count(before) == 1:
            after = before[: found.start("name")] + literal(renamed[there]) + before[found.end("name") :]
            server.execute(f"DROP TABLE {name} SYNC", settings=FORCE)
            server.execute(row["made"].replace(before, after))
        else:
            left.append(f"{shown(row['database'], row['name'])} ({row['engine']} of {there})")
    if not left:
        return []
    text = f"{', '.join(left[:5])}{f' and {len(left) - 5} more' if len(left) > 5 else ''}"
    return [
        Notice("points-elsewhere", f"restored under another name, but still over the tables of the old one: {text}")
    ]
