"""Restore some tables of a backup alone: by patterns over ``table`` or ``database.table``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drd.engines.clickhouse.quoting import described_table, identifier, shown, table
from drd.errors import ConfigError
from drd.model import Fingerprint
from drd.selection import Selection, matches_any, quoted

TableName = tuple[str, str]


def tables_of(keys: Iterable[str]) -> list[TableName]:
    """Name the tables, views and dictionaries of a backup, sorted, from its keys."""
    return sorted(found for key in keys if (found := described_table(key)))


def databases(selection: Selection, names: Sequence[str], tables: Sequence[TableName]) -> list[str]:
    """Return the databases of the backup that a part of it touches; raises ConfigError when there are none."""
    if selection.everything:
        return list(names)
    touched = {database for database, _ in chosen(selection, tables)} if selection.tables else set(names)
    found = [name for name in names if name in touched and _in_databases(selection, name)]
    if not found:
        asked = quoted((*selection.databases, *selection.tables))
        known = [shown(*name) for name in tables]
        more = f" and {len(known) - 8} more" if len(known) > 8 else ""
        raise ConfigError(f"nothing in the backup matches {asked}", hint=f"it holds {', '.join(known[:8])}{more}")
    return found


def chosen(selection: Selection, tables: Iterable[TableName]) -> list[TableName]:
    """Return the tables that were asked for."""
    return [name for name in tables if _is_chosen(selection, name)]


def elements(selection: Selection, names: dict[str, str], tables: Sequence[TableName]) -> list[str]:
    """Say what RESTORE is to bring: databases, or tables one by one; ``names`` maps databases to their new names."""
    if not selection.tables:
        return [
            f"DATABASE {identifier(there)}" + (f" AS {identifier(here)}" if here != there else "")
            for there, here in names.items()
        ]
    return [
        f"TABLE {table(*name)} AS {table(names[name[0]], name[1])}"
        for name in chosen(selection, tables)
        if name[0] in names
    ]


def expected_of(selection: Selection, expected: Fingerprint, tables: Sequence[TableName]) -> Fingerprint:
    """Return what of a backup's fingerprint the restored part must be equal to."""
    wanted = {shown(*name) for name in chosen(selection, tables)}
    items = {name: item for name, item in expected.items.items() if name in wanted}
    return Fingerprint(expected.engine, items, expected.compared, expected.version)


def _is_chosen(selection: Selection, name: TableName) -> bool:
    database, own = name
    if not _in_databases(selection, database):
        return False
    return not selection.tables or matches_any((own, f"{database}.{own}"), selection.tables)


def _in_databases(selection: Selection, database: str) -> bool:
    return not selection.databases or matches_any((database,), selection.databases)
