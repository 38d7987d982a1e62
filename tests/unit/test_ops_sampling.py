"""Sampling: everything is read in a bounded number of runs, and what was read is remembered in the store."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drd.cli.main import main
from drd.errors import ConfigError, StoreRefused, StoreUnavailable
from drd.ops.backup import back_up, hold_lease
from drd.ops.ports import Ports, Source
from drd.ops.sampling import Budget
from drd.ops.status import status
from drd.ops.verify import VerifyReport, verify
from drd.repository import layout
from drd.repository.codec import Codec, generate_identity, recipient_of
from drd.repository.fields import Malformed
from drd.repository.verified import MAX_DAMAGED, Reading, Verified, dump, parse
from drd.stores.local import LocalStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from drd.stores.wrappers.read_only import ReadOnlyStore
from tests.golden.make_v1 import IDENTITY
from tests.support.engine import DictEngine
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports

BASE = datetime.now(UTC) - timedelta(days=30)
RECORD = layout.verified_key("shop")
A_FIFTH = Budget(share=0.2)


@pytest.fixture
def store() -> HookedStore:
    return HookedStore()


@pytest.fixture
def ports(store: HookedStore, tmp_path: Path) -> Ports:
    return make_ports(store, tmp_path)


def at(ports: Ports, moment: datetime) -> Ports:
    """Let the clock stand at that moment."""
    return dataclasses.replace(ports, now=lambda: moment)


def take(ports: Ports, day: int, source: str = "shop") -> str:
    """Take a backup of several parts on that day; return its id."""
    engine = DictEngine({f"t{n}": b"%d %d\n" % (day, n) * 40_000 for n in range(3)}, at=BASE + timedelta(days=day))
    backup = back_up(at(ports, BASE + timedelta(days=day)), [Source(source, engine, 60.0)]).sources[0].backup
    assert backup is not None
    return backup.id


def parts_of(store: HookedStore) -> set[str]:
    return {key for key in store.contents() if key.startswith("backups/") and not key.endswith("manifest.json")}


def read_by(store: HookedStore, run: Callable[[], VerifyReport]) -> tuple[VerifyReport, list[str]]:
    """Return the report of a run, and the parts that it read, in order."""
    store.calls.clear()
    report = run()
    return report, [key for method, key in store.calls if method == "get" and key in parts_of(store)]


def test_some_runs_read_everything_once(store: HookedStore, ports: Ports) -> None:
    """Five runs of a fifth read every part, each no more than its share and one part, and none twice before all."""
    for day in range(4):
        take(ports, day)
    everything = parts_of(store)
    total = sum(len(store.contents()[key]) for key in everything)
    largest = max(len(store.contents()[key]) for key in everything)
    seen: list[str] = []
    for number in range(5):
        moment = BASE + timedelta(days=10, hours=number)
        report, read = read_by(store, lambda moment=moment: verify(at(ports, moment), [], deep=False, sample=A_FIFTH))
        assert report.outcome == "ok"
        assert report.sample is not None
        assert report.sample.objects == len(read)
        assert report.sample.bytes == sum(len(store.contents()[key]) for key in read) <= total * 0.2 + largest
        seen += read
        assert number == 4 or len(seen) == len(set(seen))  # the last run may begin the next round
    assert set(seen) == everything
    (covered,) = report.coverage
    assert (covered.read_bytes, covered.total_bytes, covered.damaged) == (total, total, 0)
    assert covered.oldest_read_at == BASE + timedelta(days=10)
    (shown,) = status(ports, [("shop", None)]).sources
    assert shown.coverage == covered


def test_what_keeps_arriving_never_keeps_older_ones_from_being_read(store: HookedStore, ports: Ports) -> None:
    """With a new backup before every run of a half, each backup is read again within four runs."""
    half = Budget(share=0.5)
    ids = [take(ports, 0)]
    last_read = 0
    for run in range(1, 12):
        ids.append(take(ports, run))
        if len(ids) > 4:  # retention; the first one stays
            ports.catalog.remove("shop", ids.pop(1))
        then = at(ports, BASE + timedelta(days=run, hours=1))
        _, read = read_by(store, lambda then=then: verify(then, [], deep=False, sample=half))
        if ids[0] in {layout.owner_of(key) for key in read}:
            last_read = run
        assert run - last_read <= 4


def test_a_backup_from_the_future_is_read_first(store: HookedStore, ports: Ports) -> None:
    """Where a clock ran ahead, an id or a record of the future must not put the reading off for years."""
    take(ports, 0)
    future = take(ports, 9000)
    _, read = read_by(store, lambda: verify(ports, [], deep=False, sample=Budget(bytes=1)))
    assert [layout.owner_of(key) for key in read] == [future]


def test_damage_is_named_and_found_again_until_it_is_gone(store: HookedStore, ports: Ports) -> None:
    """A flipped bit is a problem with key and effect, and stays one in the next runs though they read elsewhere."""
    backup_id = take(ports, 0)
    take(ports, 1)
    key = min(key for key in parts_of(store) if backup_id in key)
    good = store.contents()[key]
    store.plant(key, good[:-1] + bytes([good[-1] ^ 1]))
    small = Budget(bytes=1)
    for _ in range(3):
        report = verify(ports, [], deep=False, sample=small)
        assert report.outcome == "damaged"
        ((problem,),) = [item.problems for item in report.backups if item.id == backup_id]
        assert problem.subject == key
        assert f"backup {backup_id} cannot be restored" in problem.effect
        assert report.coverage[0].damaged == 1
    store.plant(key, good)
    assert verify(ports, [], deep=False, sample=small).coverage[0].damaged == 0
    assert verify(ports, [], deep=False, sample=small).outcome == "ok"


def test_deep_verification_counts_as_reading(store: HookedStore, ports: Ports) -> None:
    """What was read deeply is the most recently read; a missing or altered part of it is remembered as damaged."""
    first, second = take(ports, 0), take(ports, 1)
    verify(at(ports, BASE + timedelta(days=5)), [first], deep=True)
    _, read = read_by(store, lambda: verify(ports, [], deep=False, sample=Budget(bytes=1)))
    assert {layout.owner_of(key) for key in read} == {second}
    key = next(key for key in parts_of(store) if first in key and "db-0" in key)
    store.plant(key, b"x" * len(store.contents()[key]))
    assert verify(ports, [first], deep=True).coverage[0].damaged == 1


@pytest.mark.parametrize(
    "lost", [b"", b"{}", b"null", b'{"kind": "drd-verified", "version": 1, "backups": [{"id": "x"}]}', b"\xff" * 50]
)
def test_a_lost_record_starts_again(store: HookedStore, ports: Ports, lost: bytes) -> None:
    """A damaged or foreign record is a notice and is replaced; one of a newer drd is left as it is."""
    take(ports, 0)
    store.plant(RECORD, lost)
    report = verify(ports, [], deep=False, sample=A_FIFTH)
    assert (report.outcome, [notice.code for notice in report.notices]) == ("ok", ["verified-unknown"])
    assert Verified(store).of("shop")
    assert verify(ports, [], deep=False, sample=A_FIFTH).notices == ()
    newer = b'{"kind": "drd-verified", "version": 2}'
    store.plant(RECORD, newer)
    assert [n.code for n in verify(ports, [], deep=False, sample=A_FIFTH).notices] == ["verified-not-recorded"]
    assert store.contents()[RECORD] == newer
    assert "version 2" in status(ports, [("shop", None)]).sources[0].coverage.unknown


def test_a_role_that_may_not_write_reads_all_the_same(store: HookedStore, ports: Ports, tmp_path: Path) -> None:
    """Without the right to write or read the record there is a notice, and no failure."""
    take(ports, 0)
    reader = make_ports(ReadOnlyStore(store), tmp_path)
    report = verify(reader, [], deep=False, sample=Budget(share=1.0))
    assert (report.outcome, [n.code for n in report.notices]) == ("ok", ["verified-not-recorded"])
    assert report.sample is not None
    assert report.sample.objects == len(parts_of(store))
    blind = FaultyStore(store, [Fault("get", key_contains="verified/", error=lambda: StoreRefused("no right to read"))])
    assert status(make_ports(blind, tmp_path), [("shop", None)]).sources[0].coverage.unknown


def test_without_the_identity_stored_bytes_are_read(store: HookedStore, tmp_path: Path) -> None:
    """A host that cannot decrypt finds altered bytes by their digest, and says that it went no further."""
    encrypted = make_ports(store, tmp_path, codec=Codec(1, (recipient_of(IDENTITY),)))
    take(encrypted, 0)
    report = verify(encrypted, [], deep=False, sample=Budget(share=1.0))
    assert [notice.code for notice in report.notices] == ["not-decrypted"]
    key = next(iter(parts_of(store)))
    store.plant(key, b"x" * len(store.contents()[key]))
    assert verify(encrypted, [], deep=False, sample=Budget(share=1.0)).outcome == "damaged"


def test_what_was_read_before_a_failure_is_recorded(store: HookedStore, ports: Ports, tmp_path: Path) -> None:
    """A store that goes away in the middle loses nothing of what was read; the next run goes on after it."""
    take(ports, 0)
    keys = sorted(parts_of(store))
    away = FaultyStore(store, [Fault("get", key_contains=keys[-1], error=lambda: StoreUnavailable("gone"))])
    with pytest.raises(StoreUnavailable):
        verify(make_ports(away, tmp_path), [], deep=False, sample=Budget(share=1.0))
    (reading,) = Verified(store).of("shop").values()
    assert reading.after in keys[:-1]
    _, read = read_by(store, lambda: verify(ports, [], deep=False, sample=Budget(share=1.0)))
    assert sorted(read) == [key for key in keys if key > reading.after]


def test_a_time_bounds_a_run(store: HookedStore, ports: Ports) -> None:
    """A run of so many seconds stops asking when they have passed, after at least one part."""
    take(ports, 0)
    ticks = itertools.count()
    slow = dataclasses.replace(ports, monotonic=lambda: float(next(ticks)))
    _, read = read_by(store, lambda: verify(slow, [], deep=False, sample=Budget(seconds=2.5)))
    assert 1 <= len(read) < len(parts_of(store))


def test_a_sample_of_one_backup_is_refused(ports: Ports) -> None:
    """A share is of a source; a backup is read with --deep."""
    with pytest.raises(ConfigError, match="whole sources"):
        verify(ports, [take(ports, 0)], deep=False, sample=A_FIFTH)


def test_leftovers_are_told_from_a_running_backup(store: HookedStore, ports: Ports) -> None:
    """Objects without a manifest are counted; only while the lease is held may the newest be a running backup."""
    take(ports, 0)
    ids = ["20200101T000000Z-aaaaaa", "20200102T000000Z-aaaaaa"]
    for backup_id in ids:
        store.plant(layout.backup_prefix("shop", backup_id) + "a/000000.zst", b"x" * 7)
    found = verify(ports, [], deep=False).leftovers
    assert [(left.id, left.objects, left.bytes, left.may_run) for left in found] == [(i, 1, 7, False) for i in ids]
    other = dataclasses.replace(ports.holder, host="elsewhere")
    with hold_lease(dataclasses.replace(ports, holder=other), "shop"):
        assert [left.may_run for left in verify(ports, [], deep=False).leftovers] == [False, True]


TIMES = st.none() | st.integers(0, 50).map(lambda n: BASE + timedelta(days=n))


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    began_at = draw(TIMES)
    key = f"backups/shop/20200101T000000Z-aaaaaa/a/{draw(st.integers(0, 9)):06d}.zst" if began_at else ""
    size = draw(st.integers(0, 99)) if began_at else 0
    damaged = tuple(sorted(draw(st.sets(st.sampled_from(["a", "b", "c"])))))
    return Reading("20200101T000000Z-aaaaaa", draw(TIMES), began_at, key, size, damaged)


@given(one=readings(), other=readings())
def test_merging_forgets_nothing(one: Reading, other: Reading) -> None:
    """The later reading wins, whoever asks; a pass older than it is over; what is written is read."""
    both = one.merged(other)
    assert both.read_at == max((at for at in (one.read_at, other.read_at) if at), default=None)
    assert both.began_at is None or both.read_at is None or both.began_at > both.read_at
    assert set(both.damaged) == {*one.damaged, *other.damaged}
    assert both.merged(one).read_at == both.read_at
    assert parse(dump([both])) == {both.id: both}


@given(st.integers(0, 1 << 30))
def test_a_forged_record_is_malformed_or_a_record(seed: int) -> None:
    """No damage gets past the reader as anything but a record or an error of one kind."""
    chance = random.Random(seed)
    data = bytearray(dump([Reading("20200101T000000Z-aaaaaa", BASE, BASE, "a/b", 3, ("x",))]))
    for _ in range(3):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        parse(bytes(data))
    except Malformed:
        return


def test_bounds_of_a_record() -> None:
    """Keys that leave their folder, too many of them and unknown fields are refused."""
    good = json.loads(dump([Reading("20200101T000000Z-aaaaaa")]))
    entry = good["backups"][0]
    for bad in (
        {"damaged": ["../x"]},
        {"damaged": ["x"] * (MAX_DAMAGED + 1)},
        {"after": "a"},
        {"began_at": "2026-11-22T18:14:55.000000Z"},
        {"read_bytes": -1},
        {"id": "x"},
        {"more": 1},
    ):
        with pytest.raises(Malformed):
            parse(json.dumps(good | {"backups": [entry | bad]}).encode())


@pytest.mark.parametrize("amount", ["0", "0%", "101%", "-1%", "nan%", "5", "x", "0MiB", "5 parsecs", "%"])
def test_amounts_that_are_none(amount: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no share, size or time is a usage error before anything is read; so is reading all and some of it."""
    config = tmp_path / "drd.yaml"
    config.write_text("store: {type: local, path: store}\n")
    if amount != "5":  # a number alone is bytes
        assert main(["verify", f"--sample={amount}", "--config", str(config)]) == 2
        assert "such as 5%" in capsys.readouterr().err
    assert main(["verify", "--sample=5%", "--deep", "--config", str(config)]) == 2


def test_the_verb_tells_what_was_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Share, size and time are taken; the text names coverage and damage with its effect, and damage is exit 20."""
    store = LocalStore(tmp_path / "store")
    backup_id = take(make_ports(store, tmp_path), 0)
    config = tmp_path / "drd.yaml"
    config.write_text("store: {type: local, path: store}\n")
    for amount in ("1%", "1B", "5m"):
        assert main(["verify", f"--sample={amount}", "--config", str(config)]) == 0
    assert "100 % of" in capsys.readouterr().out
    assert main(["status", "--config", str(config)]) == 0
    assert "100 % of" in capsys.readouterr().out
    key = next(info.key for info in store.list(f"backups/shop/{backup_id}/db-0/"))
    store.put(key, b"x" * store.stat(key).size_bytes)
    assert main(["verify", "--sample=100%", "--config", str(config)]) == 20
    said = capsys.readouterr().out
    assert key in said
    assert f"→ backup {backup_id} cannot be restored" in said
    assert "1 object damaged" in said
    assert main(["verify", "--sample=1B", "--json", "--config", str(config)]) == 20
    document = json.loads(capsys.readouterr().out)
    assert document["coverage"][0]["damaged_objects"] == 1
    assert document["sample"]["objects"] == 1


def test_a_change_of_keys_hides_nothing(store: HookedStore, tmp_path: Path) -> None:
    """Deep, backups that no identity here opens are named and the others read; where it opens none it is refused."""
    new_identity, new_recipient = generate_identity()
    old = make_ports(store, tmp_path, codec=Codec(1, (recipient_of(IDENTITY),)))
    new = make_ports(store, tmp_path, codec=Codec(1, (new_recipient,), (new_identity,)))
    first, second = take(old, 0), take(new, 1)
    report = verify(new, [], deep=True)
    assert {item.id: item.outcome for item in report.backups} == {first: "sealed", second: "ok"}
    assert report.outcome == "partial"
    part = next(info.key for info in store.list(f"backups/shop/{second}/db-0/"))
    store.plant(part, b"x" * len(store.get(part)))
    report = verify(new, [], deep=True)
    assert {item.id: item.outcome for item in report.backups} == {first: "sealed", second: "damaged"}
    assert report.outcome == "damaged"
    with pytest.raises(ConfigError, match="no identity is configured") as refused:
        verify(old, [], deep=True)
    assert "--sample 100%" in refused.value.hint
