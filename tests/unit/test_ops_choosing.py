"""What a restore uses: chosen by heads, and never used before it was read whole."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.errors import CatalogError, NoRecoveryPath
from drd.ops.backup import back_up
from drd.ops.choosing import choose_backups
from drd.ops.ports import Ports, Source
from drd.ops.prune import prune
from drd.ops.status import status
from drd.repository import layout
from drd.repository.retention import Policy
from drd.stores.memory import MemoryStore
from tests.support.engine import DictEngine
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports

NOW = datetime.now(UTC)


def history(ports: Ports, count: int) -> list[str]:
    """Take backups an hour apart; return their ids, oldest first."""
    ids = []
    for hour in range(count, 0, -1):
        at = NOW - timedelta(hours=hour)
        then = dataclasses.replace(ports, now=lambda at=at: at)
        engine = DictEngine({"t": b"%d\n" % hour}, at=at)
        backup = back_up(then, [Source("shop", engine, 60.0)]).sources[0].backup
        assert backup is not None
        ids.append(backup.id)
    return ids


def spoil_a_part(store: MemoryStore, backup_id: str) -> None:
    """Change a digest in the list of parts: the head is as it was."""
    key = layout.manifest_key("shop", backup_id)
    before, found, after = store.get(key).rpartition(b'"stored_sha256": "')
    assert found
    store.put(key, before + found + (b"1" if after[:1] == b"0" else b"0") + after[1:])


def test_only_what_is_chosen_is_read_whole(tmp_path: Path) -> None:
    """Of many backups one manifest is read twice, its head and then whole; the choice is a whole backup."""
    store = HookedStore()
    ports = make_ports(store, tmp_path)
    ids = history(ports, 4)
    store.calls.clear()
    (choice,) = choose_backups(ports, NOW, ["shop"])
    read = [key for method, key in store.calls if method == "get" and key.endswith("manifest.json")]
    assert sorted(read) == sorted(layout.manifest_key("shop", found) for found in [*ids, ids[-1]])
    assert (choice.backup, choice.ancestors) == (ports.catalog.get(ids[-1]), ())


def test_a_plan_to_prune_reads_one_head_a_backup(tmp_path: Path) -> None:
    """What would go is decided by one bounded read a backup and a few listings, however many parts there are."""
    store = HookedStore()
    ports = make_ports(store, tmp_path)
    ids = history(ports, 5)
    store.calls.clear()
    report = prune(ports, {"shop": Policy(keep_last=2)}, apply=False)
    assert [item.id for item in report.sources[0].decision.remove] == ids[2::-1]
    read = [key for method, key in store.calls if method == "get" and key != layout.REPOSITORY_KEY]
    assert sorted(read) == [layout.manifest_key("shop", found) for found in ids]
    assert {key for method, key in store.calls if method == "list"} == {
        "backups/",
        "backups/shop/",
        "pins/shop/",
        "drills/",
    }
    asked = [key for method, key in store.calls if method == "stat"]  # whether an object lock holds it
    assert sorted(asked) == [layout.manifest_key("shop", found) for found in ids[:3]]


def test_damage_outside_the_head_is_found_before_use(tmp_path: Path) -> None:
    """A backup whose list of parts was altered is passed over by restore, counted by status, and guards by prune."""
    store = MemoryStore()
    ports = make_ports(store, tmp_path)
    ids = history(ports, 3)
    spoil_a_part(store, ids[2])
    (choice,) = choose_backups(ports, NOW, ["shop"])
    assert choice.backup.id == ids[1]
    assert [found for found, _ in choice.passed_over] == [ids[2]]
    assert "altered" in choice.passed_over[0][1]
    (now,) = status(ports, [("shop", None)]).sources
    assert now.newest is not None
    assert (now.newest.id, now.damaged, now.backups) == (ids[1], 1, 2)
    report = prune(ports, {"shop": Policy(keep_last=1)}, apply=True)
    assert {kept.id for kept in report.sources[0].decision.keep} >= {ids[1], ids[2]}
    for other in ids[:2]:
        spoil_a_part(store, other)
    with pytest.raises(NoRecoveryPath, match="cannot be used"):
        choose_backups(ports, NOW - timedelta(minutes=1), ["shop"])


def test_no_repository_is_not_an_empty_one(tmp_path: Path) -> None:
    """Where a store holds nothing at all, restore and prune refuse, and status says why; after a backup all is well."""
    ports = make_ports(MemoryStore(), tmp_path)
    for refuses in (
        lambda: choose_backups(ports, NOW, ["shop"]),
        lambda: prune(ports, {"shop": Policy(keep_last=1)}, apply=False),
    ):
        with pytest.raises(CatalogError, match="no drd repository") as caught:
            refuses()
        assert "mounted" in caught.value.hint
    assert [notice.code for notice in status(ports, [("shop", None)]).notices] == ["no-repository"]
    history(ports, 1)
    ports.store.delete([layout.REPOSITORY_KEY])
    assert status(ports, [("shop", None)]).notices == ()
    assert choose_backups(ports, NOW, ["shop"])
    ports.store.delete([info.key for info in ports.store.list("backups/")])
    ports.repository.open_or_create(NOW)
    assert prune(ports, {"shop": Policy(keep_last=1)}, apply=False).sources == ()
