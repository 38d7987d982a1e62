"""What a prune reads before it removes: enough that no damaged backup pushes a good one out, and no more."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from drd.errors import StoreError
from drd.model import Artifact, Backup, Part
from drd.ops.ports import Ports
from drd.ops.prune import prune
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.lease import Holder
from drd.repository.repository import Repository
from drd.repository.retention import Policy
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from tests.support.backups import AT, store_backup
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports

LAST_TWO = Policy(keep_last=2)
FIRST = AT - timedelta(days=30)
"""So long ago that no backup of these tests is from the future."""


@pytest.fixture
def ports_of(tmp_path: Path) -> Callable[..., Ports]:
    return lambda store, **more: make_ports(store, tmp_path, **more)


def numbered(number: int) -> str:
    return f"{FIRST + timedelta(hours=number):%Y%m%dT%H%M%SZ}-aaaaaa"


def fill(store: MemoryStore, count: int, *, parent_of: Callable[[int], int | None] = lambda _n: None) -> list[str]:
    """Publish backups an hour apart, with an index; return their ids, oldest first."""
    catalog = Catalog(store)
    Repository(store).open_or_create(AT)
    made: dict[int, Backup] = {}
    for number in range(count):
        backup = store_backup(store, Codec(1), {"a": [b"%d" % number * 50]}, backup_id=numbered(number))
        parent = parent_of(number)
        shared = (Artifact("b", made[parent].artifacts[0].parts),) if parent is not None else ()
        made[number] = dataclasses.replace(
            backup,
            artifacts=backup.artifacts + shared,
            kind="full" if parent is None else "incremental",
            parent=None if parent is None else numbered(parent),
            recovery_point=FIRST + timedelta(hours=number),
        )
        catalog.publish(made[number])
    catalog.renew_index("src")
    return [numbered(number) for number in range(count)]


def read_whole(store: HookedStore) -> set[str]:
    return {key.split("/")[2] for method, key in store.calls if method == "get" and key.endswith("/manifest.json")}


def damage(store: HookedStore, backup_id: str) -> None:
    """Damage the rest of a manifest, not its head."""
    key = layout.manifest_key("src", backup_id)
    store.plant(key, store.contents()[key].replace(b'"plain_sha256": "', b'"plain_sha256": "0', 1))


def test_a_plan_asks_no_more_of_a_large_catalog(ports_of: Callable[..., Ports]) -> None:
    """The number of calls for a plan is the same for 80 backups and for 160, and none reads a manifest."""
    calls = []
    for count in (80, 160):
        store = HookedStore()
        fill(store, count)
        ports = ports_of(store)
        store.calls.clear()
        report = prune(ports, {"src": LAST_TWO}, apply=False).sources[0]
        assert len(report.decision.remove) == count - 2
        assert not read_whole(store)
        calls.append(len(store.calls))
    assert calls[0] == calls[1] < 80


def test_a_prune_reads_what_goes_and_what_stays_in_its_stead(ports_of: Callable[..., Ports]) -> None:
    """Whole manifests: of those removed and of the two that the rule counts, not of those that a period keeps."""
    store = HookedStore()
    ids = fill(store, 30)
    ports = ports_of(store)
    store.calls.clear()
    policy = Policy(keep_last=2, keep_within=timedelta(hours=25))
    report = prune(ports, {"src": policy}, apply=True).sources[0]
    assert report.error is None
    assert set(report.removed) == set(ids[:4])
    assert read_whole(store) == {*ids[:4], *ids[-2:]}
    store.calls.clear()
    assert prune(ports, {"src": policy}, apply=True).sources[0].removed == ()
    assert not read_whole(store)


def test_a_damaged_backup_pushes_no_good_one_out(ports_of: Callable[..., Ports]) -> None:
    """What only a whole look shows counts for no rule: the good ones before it stay in its stead."""
    store = HookedStore()
    ids = fill(store, 12)
    damage(store, ids[-1])
    damage(store, ids[-3])
    report = prune(ports_of(store), {"src": LAST_TWO}, apply=True).sources[0]
    kept = {kept.id for kept in report.decision.keep}
    assert {ids[-1], ids[-2], ids[-3], ids[-4]} <= kept
    assert set(ids) - set(report.removed) == kept


def test_a_manifest_that_other_hands_took_away_counts_for_nothing(ports_of: Callable[..., Ports]) -> None:
    """The index tells of it, the prune finds it gone, keeps another in its stead, and sweeps what is left."""
    store = HookedStore()
    ids = fill(store, 12)
    store.remove(layout.manifest_key("src", ids[-1]))
    assert len(Catalog(store).survey("src").entries) == 12
    report = prune(ports_of(store), {"src": LAST_TWO}, apply=True).sources[0]
    assert [kept.id for kept in report.decision.keep] == [ids[-2], ids[-3]]
    assert [orphan.id for orphan in report.orphans] == [ids[-1]]
    assert [entry.id for entry in Catalog(store).survey("src").entries] == ids[-3:-1]


def test_a_family_that_shares_parts_is_read_whole(ports_of: Callable[..., Ports]) -> None:
    """Where a sibling goes, those that stand on the same full backup are read, and what they need stays."""
    store = HookedStore()
    ids = fill(store, 14, parent_of=lambda n: None if n in {0, 10, 12} else 0 if n < 10 else n - 1)
    sibling = Catalog(store).get(ids[9])  # a manifest as no drd writes it: it refers to parts of one beside it
    odd = dataclasses.replace(sibling, artifacts=(*sibling.artifacts, Artifact("c", _parts(store, ids[4]))))
    store.remove(layout.manifest_key("src", ids[9]))
    Catalog(store).publish(odd)
    policy = Policy(keep_last=2, keep_within=timedelta(hours=4, minutes=30))
    ports = ports_of(store)
    store.calls.clear()
    report = prune(ports, {"src": policy}, apply=True).sources[0]
    assert set(report.removed) == {ids[n] for n in (1, 2, 3, 5, 6, 7, 8)}
    assert not {ids[10], ids[11]} & read_whole(store)
    assert ids[9] in read_whole(store)


def _parts(store: MemoryStore, backup_id: str) -> tuple[Part, ...]:
    return Catalog(store).get(backup_id).artifacts[0].parts


@pytest.mark.parametrize("effect", ["fail", "fail after"])
def test_a_prune_that_stops_anywhere(
    ports_of: Callable[..., Ports], effect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an index, as without: lists tell the truth, what is kept is whole, and a rerun finishes."""
    for module in ("remembered", "catalog"):
        monkeypatch.setattr(f"drd.repository.{module}.WORTH_WRITING", 2)
    killed = dataclasses.replace(Holder.of_this_process(), pid=2**22 - 1)
    for nth in itertools.count(1):
        store = MemoryStore()
        ids = fill(store, 5)
        faulty = FaultyStore(store, [Fault(nth=(nth,), effect=effect)])  # type: ignore[arg-type]
        with contextlib.suppress(StoreError):
            prune(ports_of(faulty, holder=killed), {"src": LAST_TWO}, apply=True)
        catalog = Catalog(store)
        assert [entry.id for entry in catalog.survey("src").entries] == [e.id for e in catalog.entries("src")], nth
        assert set(ids[3:]) <= {entry.id for entry in catalog.survey("src").entries}, nth
        again = prune(ports_of(store), {"src": LAST_TWO}, apply=True)
        assert again.outcome == "ok", (nth, again.sources[0].error)
        assert [entry.id for entry in catalog.survey("src").entries] == ids[3:], nth
        assert catalog.unfinished("src") == [], nth
        assert {info.key.split("/")[2] for info in store.list("backups/")} == set(ids[3:]), nth
        if len(faulty.calls) < nth:
            break
    assert nth > 40
