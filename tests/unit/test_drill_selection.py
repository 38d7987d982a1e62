"""Which backup a drill takes, over chains and damaged manifests."""

from __future__ import annotations

from datetime import timedelta

import pytest

from drd.drills.selection import of_entry, select
from drd.errors import CatalogError, IntegrityError
from drd.repository.catalog import Entry, HeadEntry
from tests.support.backups import AT, describe


def entry(hour: int, parent: int | None = None, *, damaged: bool = False) -> HeadEntry:
    """Return the entry of the backup of an hour; ``parent`` is the hour of the one it builds on."""
    backup_id, at = name(hour), AT + timedelta(hours=hour)
    if damaged:
        return Entry("src", backup_id, None, "not valid JSON")
    made = describe(backup_id=backup_id, parent=None if parent is None else name(parent), recovery_point=at)
    return Entry("src", backup_id, made, None)


def name(hour: int) -> str:
    return f"20261122T{hour:02d}0000Z-k3f9qa"


def test_the_longest_chain_is_the_most_to_prove() -> None:
    """Of the backups whose chain is whole, the one with most ancestors, and the newest of several."""
    entries = [entry(1), entry(2, 1), entry(3, 2), entry(4), entry(5, 4), entry(7, 6)]
    chosen = select(entries, "src", "longest-chain", pick=lambda found: found[0])
    assert chosen.backup.id == name(3)
    assert [ancestor.id for ancestor in chosen.ancestors] == [name(1), name(2)]


def test_random_prefers_what_was_not_proven() -> None:
    """Only when all were, one of them is taken again; one whose ancestor is missing is no candidate."""
    entries = [entry(1), entry(2), entry(7, 6)]
    offered: list[list[str]] = []

    def pick(found):  # type: ignore[no-untyped-def]
        offered.append([choice.backup.id for choice in found])
        return found[0]

    select(entries, "src", "random", drilled={name(1)}, pick=pick)
    select(entries, "src", "random", drilled={name(1), name(2)}, pick=pick)
    assert offered == [[name(2)], [name(1), name(2)]]


def test_what_cannot_be_chosen_says_why() -> None:
    """No backup is not the same as none that can be restored; a named one that is damaged is an integrity error."""
    with pytest.raises(CatalogError, match="no backup yet"):
        select([], "src", "oldest", pick=lambda found: found[0])
    with pytest.raises(IntegrityError, match="none of the 1 backups"):
        select([entry(1, damaged=True)], "src", "oldest", pick=lambda found: found[0])
    with pytest.raises(IntegrityError, match="not valid JSON"):
        of_entry(entry(1, damaged=True), [])
    with pytest.raises(IntegrityError, match="missing"):
        of_entry(entry(7, 6), [entry(7, 6)])
