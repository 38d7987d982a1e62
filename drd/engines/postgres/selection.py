"""Restore a part of a database: which entries of an archive's table of contents it takes.

Tables are named by patterns. With them come what they need (types, functions, sequences, parents), what belongs to them
(rows, defaults, keys, indexes, triggers, rights, comments) and the partitions of what is partitioned. What would also
need a table that was not asked for, such as a foreign key to it, is left out and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from drd.engines.postgres.inventory import LARGE_OBJECTS, VIA_ROOT
from drd.engines.postgres.sqltext import dotted
from drd.engines.postgres.toc import Toc, TocEntry
from drd.errors import ConfigError
from drd.model import Fingerprint, Json, Notice
from drd.selection import Selection, matches_any, quoted

_RELATIONS = frozenset({"TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW"})
_ALWAYS = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "EXTENSION"})
_BELONGING = frozenset(
    {
        "ACL",
        "CHECK CONSTRAINT",
        "COMMENT",
        "CONSTRAINT",
        "DEFAULT",
        "FK CONSTRAINT",
        "INDEX",
        "INDEX ATTACH",
        "MATERIALIZED VIEW DATA",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "SECURITY LABEL",
        "SEQUENCE",
        "SEQUENCE OWNED BY",
        "SEQUENCE SET",
        "STATISTICS",
        "TABLE ATTACH",
        "TABLE DATA",
        "TRIGGER",
    }
)


@dataclass(frozen=True)
class Part:
    """The part of an archive that is restored, with its name for a person, and what had to be left out of it."""

    toc: Toc
    notices: tuple[Notice, ...]


def databases(selection: Selection, listed: Sequence[dict[str, Json]]) -> list[dict[str, Json]]:
    """Return the databases of a backup that were asked for; raises ConfigError when there are none."""
    if not selection.databases:
        return list(listed)
    found = [item for item in listed if matches_any((str(item["name"]),), selection.databases)]
    if not found:
        names = ", ".join(str(item["name"]) for item in listed[:10])
        raise ConfigError(f"no database of the backup matches {quoted(selection.databases)}", hint=f"it holds: {names}")
    return found


def holding(selection: Selection, tocs: Mapping[str, Toc]) -> set[str]:
    """Return which databases hold something that was asked for; raises ConfigError when none does.

    ``tocs`` maps each database's name to the table of contents of its archive.
    """
    found = {name for name, toc in tocs.items() if any(_is_asked_for(entry, selection) for entry in toc.entries)}
    if not found:
        several = len(tocs) > 1
        known = sorted(
            dotted(*((name,) if several else ()), entry.schema, entry.tag)
            for name, toc in tocs.items()
            for entry in toc.entries
            if entry.desc in _RELATIONS
        )
        where = f"the {len(tocs)} databases asked for" if several else f"the database {next(iter(tocs))}"
        raise ConfigError(
            f"nothing in {where} matches {quoted((*selection.schemas, *selection.tables))}",
            hint=f"there is {', '.join(known[:8]) or 'no table'}{' and more' if len(known) > 8 else ''}",
        )
    return found


def part_of(toc: Toc, selection: Selection, database: str) -> Part:
    """Return what of one database is restored."""
    if not (selection.schemas or selection.tables):
        return Part(toc, ())
    graph = _Graph(toc.entries)
    asked_for = {entry.dump_id for entry in toc.entries if _is_asked_for(entry, selection)}
    chosen = graph.with_partitions(asked_for, of_needed=True)
    kept, left_out = graph.closure(chosen)
    schemas = {entry.schema for entry in toc.entries if entry.dump_id in kept and entry.schema}
    kept |= {entry.dump_id for entry in toc.entries if entry.desc == "SCHEMA" and entry.tag in schemas}
    kept |= {entry.dump_id for entry in toc.entries if entry.desc in _ALWAYS}
    kept |= {
        entry.dump_id
        for entry in toc.entries
        if entry.desc in {"ACL", "COMMENT"} and entry.dependencies and kept.issuperset(entry.dependencies)
    }
    entries = tuple(entry for entry in toc.entries if entry.dump_id in kept)
    own = graph.with_partitions(asked_for, of_needed=False)
    return Part(replace(toc, entries=entries), tuple(_notices(entries, own, left_out, database)))


def expected_of(part: Toc, database: str, fingerprint: Fingerprint) -> dict[str, dict[str, Json]]:
    """Return the items of the fingerprint that the restored part of one database must be equal to."""
    names: set[str] = set()
    for entry in part.entries:
        if entry.desc == "TABLE DATA" and entry.definition.startswith(VIA_ROOT):
            names.add(f"{dotted(database)}.{entry.definition.removeprefix(VIA_ROOT).strip()}")
        elif entry.desc in {"TABLE DATA", "SEQUENCE SET", "MATERIALIZED VIEW"}:
            names.add(dotted(database, entry.schema, entry.tag))
    return {
        name: item
        for name, item in fingerprint.items.items()
        if item["database"] == database and name in names and item["kind"] != LARGE_OBJECTS
    }


class _Graph:
    """Who needs whom among the entries of an archive."""

    def __init__(self, entries: Sequence[TocEntry]) -> None:
        self._entries = entries
        self._by_id = {entry.dump_id: entry for entry in entries}

    def with_partitions(self, asked_for: Iterable[int], *, of_needed: bool) -> set[int]:
        """Return the ids of what was asked for and of its partitions, or also those of what it needs, however deep."""
        chosen = set(asked_for)
        partitions: dict[int, int] = {}  # partition to parent; an attachment bears the partition's name
        for entry in self._entries:
            if entry.desc == "TABLE ATTACH":
                ends = [self._by_id[i] for i in entry.dependencies if self._is_relation(i)]
                own = [end.dump_id for end in ends if (end.schema, end.tag) == (entry.schema, entry.tag)]
                partitions |= {i: end.dump_id for i in own for end in ends if end.dump_id != i}
        while True:
            there = {i for i in (self._needs(chosen) if of_needed else chosen) if self._is_relation(i)}
            more = {partition for partition, parent in partitions.items() if parent in there} - chosen
            if not more:
                return chosen
            chosen |= more

    def closure(self, chosen: set[int]) -> tuple[set[int], list[TocEntry]]:
        """Return the ids of all that comes along, and what belongs to it and cannot come."""
        kept = set(self._needs(chosen))
        pending = [entry for entry in self._entries if entry.desc in _BELONGING and entry.dump_id not in kept]
        while True:
            ready = [entry for entry in pending if not kept.isdisjoint(entry.dependencies)]
            taken = [entry for entry in ready if not self._foreign(entry, kept)]
            if not taken:
                return kept, ready
            kept |= set(self._needs({entry.dump_id for entry in taken}))
            pending = [entry for entry in pending if entry.dump_id not in kept]

    def _needs(self, ids: Iterable[int]) -> Iterator[int]:
        """Yield the ids, and those of everything that they need, however far."""
        seen: set[int] = set()
        todo = list(ids)
        while todo:
            found = todo.pop()
            if found not in seen and found in self._by_id:
                seen.add(found)
                yield found
                todo += self._by_id[found].dependencies

    def _foreign(self, entry: TocEntry, kept: set[int]) -> bool:
        """Whether the entry needs a table that does not come along."""
        return any(self._is_relation(i) and i not in kept for i in self._needs({entry.dump_id}))

    def _is_relation(self, dump_id: int) -> bool:
        return dump_id in self._by_id and self._by_id[dump_id].desc in _RELATIONS


def _is_asked_for(entry: TocEntry, selection: Selection) -> bool:
    if selection.schemas and not matches_any((entry.schema,), selection.schemas):
        return False
    if not selection.tables:
        return bool(entry.schema) and entry.desc not in {"BLOB", "BLOBS", "BLOB METADATA"}
    return entry.desc in _RELATIONS and matches_any((entry.tag, f"{entry.schema}.{entry.tag}"), selection.tables)


def _notices(
    entries: Sequence[TocEntry], own: set[int], left_out: Sequence[TocEntry], database: str
) -> Iterator[Notice]:
    needed = [dotted(e.schema, e.tag) for e in entries if e.desc in _RELATIONS and e.dump_id not in own]
    if needed:
        text = f"{database}: also restored, as what was asked for needs it: {_some(needed)}"
        yield Notice("needed-too", text)
    if left_out:
        named = [f"{entry.desc.lower()} {entry.tag}" for entry in left_out]
        yield Notice("left-out", f"{database}: left out, as it needs tables that are not restored: {_some(named)}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
