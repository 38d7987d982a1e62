"""The index of heads: what it saves, and that it is never worth more than the manifests."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard

from drd.errors import StoreError, StoreForbidden
from drd.model import Backup, ObjectInfo, Secret
from drd.ops.backup import back_up
from drd.ops.ports import Source
from drd.ops.verify import verify
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.index import dump
from drd.repository.manifest import head_of, to_json
from drd.repository.signing import Signing, Trust, generate_signing_key
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from tests.support.backups import AT, describe
from tests.support.engine import DictEngine
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports

OURS, OUR_KEY = generate_signing_key()
THEIRS, THEIR_KEY = generate_signing_key()
IDS = [f"202611{day:02d}T181455Z-aaaaaa" for day in range(1, 26)]
PART = b"part"
INDEX = layout.heads_key("src")


def published(store: MemoryStore, ids: list[str], how: Signing | None = None) -> Catalog:
    """Publish backups of one part each and write the index."""
    catalog = Catalog(store, how)
    for backup_id in ids:
        MemoryStore.put(store, layout.part_key("src", backup_id, "a", 0, encrypted=False), PART)
        catalog.publish(describe(backup_id=backup_id))
    catalog.renew_index("src")
    return catalog


def truth(store: MemoryStore, how: Signing | None = None) -> tuple[list[str], list[str]]:
    """Return what the manifests alone say: backups that count, and what was never finished."""
    bare = MemoryStore()
    for info in MemoryStore.list(store, "backups/"):
        bare.put(info.key, MemoryStore.get(store, info.key))
    catalog = Catalog(bare, how)
    return [entry.id for entry in catalog.entries("src") if entry.backup], catalog.unfinished("src")


def shown(store: MemoryStore, how: Signing | None = None) -> tuple[list[str], list[str]]:
    """Return what a survey says."""
    survey = Catalog(store, how).survey("src")
    return [entry.id for entry in survey.entries if entry.backup], list(survey.unfinished)


def manifests_read(store: HookedStore) -> list[str]:
    return [key.split("/")[2] for method, key in store.calls if method == "get" and key.endswith("/manifest.json")]


def test_reads_do_not_grow_with_the_number_of_backups() -> None:
    """With the index a survey makes a handful of calls, for 25 backups as for 10; a new manifest is one more."""
    calls = []
    for count in (10, 25):
        store = HookedStore()
        catalog = published(store, IDS[:count])
        store.calls.clear()
        whole = catalog.survey("src")
        assert [entry.backup for entry in whole.entries] == [
            head_of(Catalog(store).get(found)) for found in IDS[:count]
        ]
        calls.append(len(store.calls) - 2 * count)  # those of get: a listing and a manifest each
        store.calls.clear()
        assert catalog.unfinished("src") == []
        assert catalog.survey("src") == whole
        assert not manifests_read(store)
    assert len(store.calls) <= 6
    catalog.publish(describe(backup_id="20261130T000000Z-bbbbbb"))
    store.calls.clear()
    assert len(catalog.survey("src").entries) == 26
    assert manifests_read(store) == ["20261130T000000Z-bbbbbb"]


def test_the_index_is_written_when_it_is_worth_it() -> None:
    """Not at every backup, not for a few; and what is gone is dropped from it."""
    store = HookedStore()
    catalog = published(store, IDS[:7])
    assert INDEX not in store.contents()
    published(store, IDS[7:8])
    first = store.contents()[INDEX]
    published(store, IDS[8:15])
    assert store.contents()[INDEX] == first
    for found in IDS[:8]:
        catalog.remove("src", found)
    catalog.renew_index("src")
    catalog.tidy_index("src")
    assert not list(store.list(layout.removed_prefix("src")))
    assert shown(store) == (IDS[8:15], [])


DAMAGE = {
    "empty": lambda _data: b"",
    "truncated": lambda data: data[:-20],
    "a bit": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "no frame": lambda _data: b"heads" * 100,
    "another source": lambda data: _edited(data, b'"source": "src"', b'"source": "other"', first_only=True),
    "a newer version": lambda data: _edited(data, b'"version": 1', b'"version": 9'),
    "another digest": lambda data: _edited(data, b'"plain_bytes": 0', b'"plain_bytes": 7'),
    "a bomb": lambda _data: zstandard.ZstdCompressor().compress(b"\n" * 10)[:6] + b"\xff" * 8,
}


def _edited(data: bytes, old: bytes, new: bytes, *, first_only: bool = False) -> bytes:
    plain = zstandard.ZstdDecompressor().decompress(data)
    assert old in plain
    return zstandard.ZstdCompressor().compress(plain.replace(old, new, 1 if first_only else -1))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_costs_time_alone(damage: str) -> None:
    """Whatever is there instead of an index, lists say what the manifests say, and the next backup heals it."""
    store = HookedStore()
    catalog = published(store, IDS[:10])
    good = store.contents()[INDEX]
    store.plant(INDEX, DAMAGE[damage](good))
    assert shown(store) == (IDS[:10], [])
    catalog.renew_index("src")
    assert store.contents()[INDEX] == (good if damage != "a newer version" else DAMAGE[damage](good))


def forged(source: str, *changes: tuple[str, object]) -> bytes:
    """Return an index that nobody signed, of all ids, that says something else."""
    heads = [dataclasses.replace(describe(backup_id=found), **dict(changes)) for found in IDS[:10]]  # type: ignore[arg-type]
    return dump(source, [head_of(head) for head in heads], Signing())


def test_strictness() -> None:
    """An index whose heads are impossible, doubled or in disorder is as good as none."""
    store = HookedStore()
    catalog = published(store, IDS[:10])
    expected = catalog.survey("src")
    heads = [head_of(describe(backup_id=found, facts={"x": 1})) for found in IDS[:10]]
    for wrong in (
        [*heads, heads[0]],
        heads[::-1],
        [*heads, dataclasses.replace(heads[0], id=IDS[11], source="other")],
        [*heads, dataclasses.replace(heads[0], id=IDS[11], plain_bytes=-1)],
        [*heads, dataclasses.replace(heads[0], id="../../x")],
        [*heads, dataclasses.replace(heads[0], id=IDS[11], kind="incremental")],
    ):
        store.plant(INDEX, dump("src", wrong, Signing()))
        assert Catalog(store).survey("src") == expected
    store.plant(INDEX, dump("src", heads, Signing()))
    assert Catalog(store).survey("src") != expected  # without signatures whoever writes to the bucket is believed


def test_backups_that_are_not_there_are_not_believed_in() -> None:
    """Names without a folder are nothing, and a removal counts on stores that go on listing emptied folders."""

    class KeepsFolders(HookedStore):
        def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
            found = list(super().list(prefix, delimiter=delimiter))
            if delimiter and prefix == "backups/src/":
                found = [ObjectInfo(f"backups/src/{name}/", 0) for name in IDS[:10]]
            return iter(found)

    store = KeepsFolders()
    catalog = published(store, IDS[:10])
    catalog.remove("src", IDS[3])
    assert shown(store) == ([*IDS[:3], *IDS[4:10]], [])
    catalog.renew_index("src")
    catalog.tidy_index("src")
    assert shown(store) == ([*IDS[:3], *IDS[4:10]], [])
    store.plant(INDEX, dump("src", [head_of(describe(backup_id=found)) for found in IDS[:12]], Signing()))
    assert IDS[11] not in shown(store)[0]


@pytest.mark.parametrize("effect", ["fail", "fail after"])
def test_a_fault_at_every_call(effect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing, removing and renewing may stop anywhere: a survey says what the manifests say; a rerun goes on."""
    for module in ("remembered", "catalog"):
        monkeypatch.setattr(f"drd.repository.{module}.WORTH_WRITING", 2)
    nth = 0
    while True:
        nth += 1
        store = MemoryStore()
        published(store, IDS[:3])
        faulty = FaultyStore(store, [Fault(nth=(nth,), effect=effect)])  # type: ignore[arg-type]
        catalog = Catalog(faulty)
        with contextlib.suppress(StoreError):
            catalog.publish(describe(backup_id=IDS[10]))
            for found in IDS[:2]:
                catalog.remove("src", found)
                assert shown(store) == truth(store)
            catalog.renew_index("src")
            catalog.tidy_index("src")
        assert shown(store) == truth(store), nth
        again = Catalog(store)
        again.sweep("src")
        again.renew_index("src")
        again.tidy_index("src")
        for found in truth(store)[0]:
            again.remove("src", found)
            assert shown(store) == truth(store), nth
        assert shown(store) == ([], []), nth
        if len(faulty.calls) < nth:
            break
    assert nth > 30


def test_a_manifest_that_was_taken_away_is_found_by_verify(tmp_path: Path) -> None:
    """A list goes by the index; verify reads the truth, names what is gone, and from then on every list says so too."""
    store = MemoryStore()
    ports = make_ports(store, tmp_path)
    taken = []
    for day in range(9):
        engine = DictEngine({"t": b"%d" % day}, at=AT + timedelta(days=day))
        taken += [found.backup.id for found in back_up(ports, [Source("src", engine, 60.0)]).sources if found.backup]
    gone = taken[4]  # not the last one, which the index need not have yet; ids of one second are in any order
    key = layout.manifest_key("src", gone)
    store.delete([key])
    assert shown(store) == (sorted(taken), [])
    report = verify(ports, [], deep=False)
    assert [(b.id, [p.subject for p in b.problems]) for b in report.backups if b.problems] == [(gone, [key])]
    assert shown(store) == truth(store) == (sorted({*taken} - {gone}), [gone])
    assert verify(ports, [], deep=False).outcome == "ok"


def signing(key: Secret | None, *trusted: str) -> Signing:
    return Signing(None if key is None else lambda: key, Trust(trusted) if trusted else None)


def test_an_index_counts_when_a_trusted_key_signed_it() -> None:
    """Signed and believed, it saves all reading; unsigned, signed by others or altered it is as good as none."""
    store = HookedStore()
    published(store, IDS[:10], signing(OURS, OUR_KEY))
    good = store.contents()[INDEX]
    judge = Catalog(store, signing(None, OUR_KEY))
    store.calls.clear()
    assert len(judge.survey("src").entries) == 10
    assert not manifests_read(store)
    liar = Signing(lambda: THEIRS)
    lies: list[Backup] = [dataclasses.replace(liar.signed(describe(backup_id=found)), rows=0) for found in IDS[:10]]
    for wrong in (
        dump("src", map(head_of, lies), Signing()),
        dump("src", map(head_of, lies), liar),
        _edited(good, b'"rows": 3', b'"rows": 0'),
    ):
        store.plant(INDEX, wrong)
        survey = Catalog(store, signing(None, OUR_KEY)).survey("src")
        assert [entry.backup.rows for entry in survey.entries if entry.backup] == [3] * 10


def test_only_proven_heads_get_into_a_signed_index() -> None:
    """A planted backup stays out of it, whoever writes it, and a trusted key's word covers trusted keys alone."""
    store = HookedStore()
    published(store, IDS[:9], signing(OURS, OUR_KEY))
    planted = describe(backup_id=IDS[10])
    store.plant(layout.manifest_key("src", IDS[10]), to_json(planted))
    stolen = dataclasses.replace(Catalog(store).get(IDS[0]), id=IDS[11])
    store.plant(layout.manifest_key("src", IDS[11]), to_json(stolen))
    theirs = Signing(lambda: THEIRS).signed(describe(backup_id=IDS[12]))
    store.plant(layout.manifest_key("src", IDS[12]), to_json(theirs))
    for how in (signing(OURS, OUR_KEY), signing(OURS)):
        store.remove(INDEX)
        Catalog(store, how).renew_index("src")
        named = json.loads(zstandard.ZstdDecompressor().decompress(store.contents()[INDEX]).partition(b"\n")[2])
        assert [head["id"] for head in named["heads"]] == IDS[:9]
        assert shown(store, signing(None, OUR_KEY))[0] == IDS[:9]
    store.remove(INDEX)
    Catalog(store, signing(OURS, OUR_KEY, THEIR_KEY)).renew_index("src")
    assert shown(store, signing(None, OUR_KEY))[0] == IDS[:9]


def test_who_cannot_sign_leaves_a_signed_index_alone() -> None:
    """A host without the key neither replaces it nor loses what it says of removals."""
    store = HookedStore()
    published(store, IDS[:20], signing(OURS, OUR_KEY))
    good = store.contents()[INDEX]
    for how in (Signing(), signing(None, OUR_KEY)):
        pruner = Catalog(store, how)
        for found in pruner.ids("src")[:9]:
            pruner.remove("src", found)
        pruner.renew_index("src")
        pruner.tidy_index("src")
        assert store.contents()[INDEX] == good
        assert shown(store, signing(None, OUR_KEY)) == truth(store, signing(None, OUR_KEY))


def test_a_role_that_may_not_read_it_works_without() -> None:
    """Forbidden is no failure: manifests are read as before, and nothing is written."""
    store = HookedStore()
    catalog = published(store, IDS[:10])
    good = store.contents()[INDEX]

    def refuse(method: str, key: str) -> None:
        if key.startswith("heads/") and method in {"get", "stat", "put"}:
            raise StoreForbidden("not for this role", op=method, subject=key)

    store.before = refuse
    assert [entry.id for entry in catalog.survey("src").entries] == IDS[:10]
    catalog.remove("src", IDS[0])
    catalog.renew_index("src")
    assert store.contents()[INDEX] == good
