"""Prune over a memory store: what goes, in which order, and what a fault at any call leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.errors import LeaseError, NoSuchBackup, StoreRefused
from drd.ops import restore as restoring
from drd.ops.backup import back_up, hold_lease
from drd.ops.ports import Ports, Source
from drd.ops.prune import prune, prune_after, set_pin
from drd.ops.verify import verify
from drd.repository.lease import Holder
from drd.repository.pins import Pins
from drd.repository.retention import Policy
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from drd.stores.wrappers.read_only import ReadOnlyStore
from tests.support.engine import DictEngine
from tests.support.ports import make_ports as ports_over

LAST_TWO = Policy(keep_last=2)
BASE = datetime.now(UTC) - timedelta(days=10)


@pytest.fixture
def ports_of(tmp_path: Path) -> Callable[..., Ports]:
    return lambda store, **more: ports_over(store, tmp_path, **more)


def history(ports: Ports, count: int = 4, source: str = "shop") -> list[str]:
    """Take backups a day apart; return their ids, oldest first."""
    for day in range(count):
        engine = DictEngine({"t": b"%d\n" % day}, at=BASE + timedelta(days=day))
        assert back_up(ports, [Source(source, engine, 60.0)]).outcome == "ok"
    found = [entry.backup for entry in ports.catalog.entries(source) if entry.backup]
    return [backup.id for backup in sorted(found, key=lambda b: b.recovery_point)]


def test_plan_changes_nothing(ports_of: Callable[..., Ports]) -> None:
    """Without apply a prune only says what would go, and needs no right to write."""
    store = MemoryStore()
    ids = history(ports_of(store))
    before = {info.key for info in store.list("")}
    report = prune(ports_of(ReadOnlyStore(store)), {"shop": LAST_TWO}, apply=False)
    assert [item.id for item in report.sources[0].decision.remove] == ids[1::-1]
    assert not report.applied
    assert {info.key for info in store.list("")} == before


def test_apply_removes_exactly_the_plan(ports_of: Callable[..., Ports]) -> None:
    """What the plan named is gone with all its objects; the rest verifies."""
    ports = ports_of(MemoryStore())
    ids = history(ports)
    report = prune(ports, {"shop": LAST_TWO}, apply=True)
    assert report.outcome == "ok"
    assert set(report.sources[0].removed) == set(ids[:2])
    assert [entry.id for entry in ports.catalog.entries("shop")] == sorted(ids[2:])
    assert not [info for gone in ids[:2] for info in ports.store.list(f"backups/shop/{gone}/")]
    assert verify(ports, [], deep=True).outcome == "ok"


def test_manifest_goes_before_any_part(ports_of: Callable[..., Ports]) -> None:
    """The first deletion of a backup is its manifest: half-pruned is never half-restorable."""
    store = FaultyStore(MemoryStore())
    ports = ports_of(store)
    ids = history(ports)
    store.calls.clear()
    prune(ports, {"shop": LAST_TWO}, apply=True)
    deleted = [key for operation, key in store.calls if operation == "delete" and ids[0] in key]
    assert deleted[0].endswith("manifest.json")


def test_pinned_backup_stays_until_unpinned(ports_of: Callable[..., Ports]) -> None:
    """A pin outweighs every rule, and taking it away lets the rules decide again."""
    ports = ports_of(MemoryStore())
    ids = history(ports)
    set_pin(ports, ids[0], pinned=True)
    assert prune(ports, {"shop": LAST_TWO}, apply=True).sources[0].removed == (ids[1],)
    set_pin(ports, ids[0], pinned=False)
    assert prune(ports, {"shop": LAST_TWO}, apply=True).sources[0].removed == (ids[0],)


def test_what_a_restore_replaced_does_not_displace_what_it_restored(ports_of: Callable[..., Ports]) -> None:
    """The newest backup, pinned as the way back, may hold what was ruined: the last two are those before it."""
    ports = ports_of(MemoryStore())
    ids = history(ports)
    Pins(ports.store).pin("shop", ids[-1], ports.now(), restore="20261122T181455Z-k3f9qa")
    (source,) = prune(ports, {"shop": LAST_TWO}, apply=True).sources
    assert source.removed == tuple(reversed(ids[:-3]))
    Pins(ports.store).unpin("shop", ids[-1])
    (source,) = prune(ports, {"shop": LAST_TWO}, apply=True).sources
    assert source.removed == (ids[-3],)


def test_pinning_what_does_not_exist_is_refused(ports_of: Callable[..., Ports]) -> None:
    """A pin of an unknown id is an error, not a promise."""
    ports = ports_of(MemoryStore())
    history(ports, 1)
    with pytest.raises(NoSuchBackup):
        set_pin(ports, "20200101T000000Z-aaaaaa", pinned=True)


def test_source_outside_the_configuration_is_left_alone(ports_of: Callable[..., Ports]) -> None:
    """A source that only the store knows is reported and never touched."""
    ports = ports_of(MemoryStore())
    history(ports, 3, "old")
    history(ports, 3)
    report = prune(ports, {"shop": LAST_TWO}, apply=True)
    assert report.left_alone == ("old",)
    assert len(ports.catalog.entries("old")) == 3


def test_leftovers_are_counted_and_swept_only_on_apply(ports_of: Callable[..., Ports]) -> None:
    """Objects without a manifest are shown with their size by a plan, and gone after apply."""
    ports = ports_of(MemoryStore())
    history(ports, 1)
    orphan = "20200101T000000Z-aaaaaa"
    ports.store.put(f"backups/shop/{orphan}/x/000000.zst", b"12345")
    plan = prune(ports, {"shop": LAST_TWO}, apply=False).sources[0].orphans
    assert [(o.id, o.objects, o.bytes, o.swept) for o in plan] == [(orphan, 1, 5, False)]
    assert ports.catalog.unfinished("shop") == [orphan]
    assert prune(ports, {"shop": LAST_TWO}, apply=True).sources[0].orphans[0].swept
    assert ports.catalog.unfinished("shop") == []


def test_prune_beside_a_backup_is_refused(ports_of: Callable[..., Ports]) -> None:
    """While the source's lease is held nothing is removed, and the report says who holds it."""
    ports = ports_of(MemoryStore())
    history(ports)
    with hold_lease(ports, "shop"):
        report = prune(ports, {"shop": LAST_TWO}, apply=True)
    assert isinstance(report.sources[0].error, LeaseError)
    assert len(ports.catalog.entries("shop")) == 4


def test_damaged_manifest_keeps_itself_and_all_older(ports_of: Callable[..., Ports]) -> None:
    """What a manifest that cannot be read may need is not removed."""
    ports = ports_of(MemoryStore())
    history(ports)
    damaged = f"{datetime.now(UTC) - timedelta(days=1):%Y%m%dT%H%M%SZ}-zzzzzz"
    ports.store.put(f"backups/shop/{damaged}/manifest.json", b"{")
    report = prune(ports, {"shop": LAST_TWO}, apply=True)
    assert report.sources[0].removed == ()


def test_refused_deletion_is_an_error_with_the_key(ports_of: Callable[..., Ports]) -> None:
    """A store that refuses to delete is reported; the backup is still whole."""
    store = MemoryStore()
    history(ports_of(store))
    refusing = FaultyStore(
        store, [Fault("delete", key_contains="backups/", error=lambda: StoreRefused("not allowed: backups/…"))]
    )
    report = prune(ports_of(refusing), {"shop": LAST_TWO}, apply=True)
    assert isinstance(report.sources[0].error, StoreRefused)
    assert report.outcome == "failed"
    assert len(ports_of(store).catalog.entries("shop")) == 4


def test_pruning_after_a_run_spares_failed_sources(ports_of: Callable[..., Ports]) -> None:
    """Only a source whose backup has just succeeded is pruned."""
    ports = ports_of(MemoryStore())
    history(ports, 4, "good")
    history(ports, 4, "bad")
    broken = DictEngine({"t": b"x\n"})
    broken.fail_after = 0
    report = back_up(ports, [Source("good", DictEngine({"t": b"x\n"}), 60.0), Source("bad", broken, 60.0)])
    prune_after(ports, report, {"good": LAST_TWO, "bad": LAST_TWO})
    assert len(ports.catalog.entries("good")) == 2
    assert len(ports.catalog.entries("bad")) == 4


@pytest.mark.parametrize("effect", ["fail", "fail after"])
def test_fault_at_every_store_call(ports_of: Callable[..., Ports], effect: str) -> None:
    """Stop prune at its n-th store call, for every n: what stays verifies and restores, and a rerun finishes."""
    killed = dataclasses.replace(Holder.of_this_process(), pid=2**22 - 1)
    for nth in itertools.count(1):
        inner = MemoryStore()
        well = ports_of(inner)
        ids = history(well)
        fault = Fault(effect=effect, nth=(nth,), error=lambda: StoreRefused("planted"))  # type: ignore[arg-type]
        faulty = FaultyStore(inner, [fault])
        with contextlib.suppress(StoreRefused):
            prune(ports_of(faulty, holder=killed), {"shop": LAST_TWO}, apply=True)
        kept = {entry.id for entry in well.catalog.entries("shop")}
        assert set(ids[2:]) <= kept
        assert verify(well, [], deep=True).outcome == "ok"
        assert prune(well, {"shop": LAST_TWO}, apply=True).outcome == "ok"
        assert [entry.id for entry in well.catalog.entries("shop")] == sorted(ids[2:])
        assert well.catalog.unfinished("shop") == []
        at = well.now() + timedelta(seconds=1)
        target = Source("shop", DictEngine(), 60.0)
        planned = restoring.plan(well, at, ["shop"], lambda _s, _b, into=target: into)
        assert restoring.restore(well, at, planned).outcome == "ok"
        if len(faulty.calls) < nth:
            break
    assert nth > 8
