"""Operations over a memory store and a dictionary engine: the order of steps, and what a fault leaves."""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from drd.errors import (
    DrdError,
    IntegrityError,
    NoRecoveryPath,
    SourceError,
    SourceRefused,
    StoreRefused,
    TargetNotEmpty,
)
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.ports import Ports, Source
from drd.ops.status import status
from drd.ops.verify import verify
from drd.protocols import Store
from drd.repository.codec import Codec, generate_identity
from drd.repository.lease import Holder
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from tests.support.engine import DictEngine
from tests.support.ports import make_ports as ports_over

IDENTITY, RECIPIENT = generate_identity()
TABLES = {
    "orders": b"1\tbuy\n2\tsell\n" * 5000,
    "users": random.Random(7).randbytes(300_000),
    "empty": b"",
}


@pytest.fixture
def make_ports(tmp_path: Path) -> Callable[..., Ports]:
    def make(store: Store | None = None, *, holder: Holder | None = None) -> Ports:
        codec = Codec(1, (RECIPIENT,), (IDENTITY,))
        return ports_over(store or MemoryStore(), tmp_path, holder=holder, codec=codec)

    return make


def source(engine: DictEngine, name: str = "shop") -> Source:
    return Source(name, engine, 60.0)


def restore_latest(ports: Ports, target: DictEngine, name: str = "shop") -> restoring.RestoreReport:
    at = ports.now() + timedelta(seconds=1)
    return restoring.restore(ports, at, restoring.plan(ports, at, [name], lambda _s, _b: source(target)))


def test_round_trip_is_equal_and_compared(make_ports: Callable[..., Ports]) -> None:
    """What was backed up comes back equal, and the comparison with the fingerprint says so."""
    ports = make_ports()
    report = back_up(ports, [source(DictEngine(TABLES))])
    assert report.outcome == "ok"
    target = DictEngine()
    restored = restore_latest(ports, target)
    assert restored.outcome == "ok"
    assert restored.restores[0].checked
    assert target.tables == TABLES
    assert verify(ports, [], deep=True).outcome == "ok"


def test_spool_directory_is_gone_afterwards(make_ports: Callable[..., Ports]) -> None:
    """Neither success nor failure leaves anything in the spool."""
    ports = make_ports()
    engine = DictEngine(TABLES)
    back_up(ports, [source(engine)])
    engine.fail_after = 1
    back_up(ports, [source(engine)])
    assert ports.tuning.spool_root is not None
    assert list(ports.tuning.spool_root.iterdir()) == []


def test_failing_source_leaves_nothing_and_does_not_stop_others(make_ports: Callable[..., Ports]) -> None:
    """One failing source: the other is backed up, the outcome is partial, and no object of the failed one stays."""
    ports = make_ports()
    bad = DictEngine(TABLES)
    bad.fail_after = 2
    report = back_up(ports, [source(bad, "bad"), source(DictEngine(TABLES), "good")])
    assert report.outcome == "partial"
    assert isinstance(report.sources[0].error, SourceRefused)
    assert report.sources[0].error.subject == "bad"
    assert [entry.source for entry in ports.catalog.entries()] == ["good"]
    assert list(ports.store.list("backups/bad/")) == []


def test_unreachable_source_writes_no_object(make_ports: Callable[..., Ports]) -> None:
    """A wrong password is found before anything is stored."""
    ports = make_ports()
    engine = DictEngine(TABLES)
    engine.fail_probe = True
    assert back_up(ports, [source(engine)]).outcome == "failed"
    assert [info.key for info in ports.store.list("")] == ["drd.json"]


def test_non_empty_target_refuses_the_whole_run_untouched(make_ports: Callable[..., Ports]) -> None:
    """One target with data: no target is written, not even the empty one."""
    ports = make_ports()
    back_up(ports, [source(DictEngine(TABLES), "a"), source(DictEngine(TABLES), "b")])
    targets = {"a": DictEngine(), "b": DictEngine({"x": b"1\n"})}
    at = ports.now() + timedelta(seconds=1)
    planned = restoring.plan(ports, at, ["a", "b"], lambda name, _b: source(targets[name]))
    with pytest.raises(TargetNotEmpty) as caught:
        restoring.restore(ports, at, planned)
    assert caught.value.exit_code == 14
    assert caught.value.subject == "b"
    assert targets["a"].tables == {}
    assert targets["b"].tables == {"x": b"1\n"}


def test_time_before_the_first_backup_names_the_window(make_ports: Callable[..., Ports]) -> None:
    """Nothing reaches the time: no fall-back to the latest, and the message says what is recoverable."""
    ports = make_ports()
    back_up(ports, [source(DictEngine(TABLES))])
    with pytest.raises(NoRecoveryPath) as caught:
        restoring.plan(ports, datetime(2020, 1, 1, tzinfo=UTC), ["shop"], lambda _s, _b: source(DictEngine()))
    assert caught.value.exit_code == 10
    assert str(datetime.now(UTC).year) in caught.value.message


def test_restore_takes_the_newest_not_later(make_ports: Callable[..., Ports]) -> None:
    """Of three states the newest one not later than the asked time is taken, and the gap is stated."""
    ports = make_ports()
    base = datetime.now(UTC) - timedelta(hours=3)
    for hour in range(3):
        engine = DictEngine({"t": b"%d\n" % hour}, at=base + timedelta(hours=hour))
        back_up(ports, [source(engine)])
    planned = restoring.plan(ports, base + timedelta(minutes=90), ["shop"], lambda _s, _b: source(DictEngine()))
    assert planned[0].gap_s == pytest.approx(1800)
    assert planned[0].backup.recovery_point == base + timedelta(hours=1)


def test_restore_that_differs_is_an_integrity_error(make_ports: Callable[..., Ports]) -> None:
    """A restored table that is not equal to its fingerprint is named, exit 20."""
    ports = make_ports()
    back_up(ports, [source(DictEngine(TABLES))])
    target = DictEngine()
    target.corrupt_on_restore = True
    report = restore_latest(ports, target)
    assert report.outcome == "failed"
    assert isinstance(report.restores[0].error, IntegrityError)
    assert "empty: sha256" in report.restores[0].error.message


def _parts(ports: Ports) -> list[str]:
    return [info.key for info in ports.store.list("backups/") if not info.key.endswith("manifest.json")]


def _flip(ports: Ports, key: str) -> None:
    data = bytearray(ports.store.get(key))
    data[len(data) // 2] ^= 1
    ports.store.put(key, bytes(data))


def _truncate(ports: Ports, key: str) -> None:
    ports.store.put(key, ports.store.get(key)[:-1])


def _remove(ports: Ports, key: str) -> None:
    ports.store.delete([key])


def _swap(ports: Ports, key: str) -> None:
    other = next(
        part
        for part in _parts(ports)
        if part != key and ports.store.stat(part).size_bytes != ports.store.stat(key).size_bytes
    )
    mine, theirs = ports.store.get(key), ports.store.get(other)
    ports.store.put(key, theirs)
    ports.store.put(other, mine)


@pytest.mark.parametrize("damage", [_flip, _truncate, _remove, _swap])
def test_damage_of_a_part_is_found_and_named(
    make_ports: Callable[..., Ports], damage: Callable[[Ports, str], None]
) -> None:
    """Whatever happens to a part, deep verify names its key and restore refuses with exit 20."""
    ports = make_ports()
    back_up(ports, [source(DictEngine(TABLES))])
    key = next(part for part in _parts(ports) if "db-0/" in part)
    damage(ports, key)
    report = verify(ports, [], deep=True)
    assert report.outcome == "damaged"
    assert key in {problem.subject for problem in report.backups[0].problems}
    restored = restore_latest(ports, DictEngine())
    assert isinstance(restored.restores[0].error, IntegrityError)
    assert restored.restores[0].error.exit_code == 20


def test_damaged_manifest_is_shown_and_never_chosen(make_ports: Callable[..., Ports]) -> None:
    """A manifest with a flipped bit is listed as damaged; restore uses the one before it."""
    ports = make_ports()
    back_up(ports, [source(DictEngine({"t": b"1\n"}))])
    back_up(ports, [source(DictEngine({"t": b"2\n"}))])
    newest = max((e.backup for e in ports.catalog.entries("shop") if e.backup), key=lambda b: b.recovery_point)
    _flip(ports, f"backups/shop/{newest.id}/manifest.json")
    fresh = make_ports(ports.store)
    assert {entry.id for entry in fresh.catalog.entries("shop") if entry.backup is None} == {newest.id}
    target = DictEngine()
    assert restore_latest(fresh, target).outcome == "ok"
    assert target.tables == {"t": b"1\n"}
    assert verify(fresh, [], deep=False).outcome == "damaged"
    assert status(fresh, [("shop", None)]).sources[0].damaged == 1


def test_cancel_leaves_no_backup(make_ports: Callable[..., Ports]) -> None:
    """A cancelled run ends as cancelled and leaves no object of its own."""
    ports = make_ports()

    class Cancelling(DictEngine):
        def dump(self, sink, ctx):  # type: ignore[no-untyped-def]
            writer = sink.open("x")
            writer.write(b"y" * 200_000)
            writer.close()
            ports.cancel.cancel()
            ctx.cancel.raise_if_cancelled()

    report = back_up(ports, [source(Cancelling(TABLES))])
    assert report.outcome == "cancelled"
    assert list(ports.store.list("backups/")) == []


@pytest.mark.parametrize("effect", ["fail", "fail after"])
def test_fault_at_every_store_call(make_ports: Callable[..., Ports], effect: Literal["fail", "fail after"]) -> None:
    """Fail the n-th store call, for every n: the older backup stays whole, nothing half-made shows, a rerun works."""
    killed = dataclasses.replace(Holder.of_this_process(), pid=2**22 - 1)  # its lease ends with it
    for nth in itertools.count(1):
        inner = MemoryStore()
        assert back_up(make_ports(inner), [source(DictEngine({"t": b"old\n"}))]).outcome == "ok"
        faulty = FaultyStore(inner, [Fault(effect=effect, nth=(nth,), error=lambda: StoreRefused("planted"))])
        try:
            outcome = back_up(make_ports(faulty, holder=killed), [source(DictEngine({"t": b"new\n" * 50_000}))]).outcome
        except DrdError:
            outcome = "failed"
        well = make_ports(inner)
        found = [entry for entry in well.catalog.entries("shop") if entry.backup]
        lost_answer = effect == "fail after" and outcome == "failed" and len(found) == 2
        assert lost_answer or len(found) == (2 if outcome == "ok" else 1), f"call {nth}: {outcome}"
        assert verify(well, [], deep=True).outcome == "ok"
        assert back_up(well, [source(DictEngine({"t": b"again\n"}))]).outcome == "ok"
        assert well.catalog.unfinished("shop") == []
        target = DictEngine()
        assert restore_latest(well, target).outcome == "ok"
        assert target.tables == {"t": b"again\n"}
        if len(faulty.calls) < nth:
            break
    assert nth > 5
    assert threading.active_count() < 20


def test_deadline_stops_a_source_and_says_so(make_ports: Callable[..., Ports]) -> None:
    """A source that is not done within its deadline fails with that reason, and leaves nothing."""
    ports = make_ports()

    class Hanging(DictEngine):
        def dump(self, sink, ctx):  # type: ignore[no-untyped-def]
            ctx.cancel.sleep(60)

    report = back_up(ports, [Source("slow", Hanging(TABLES), 0.2), source(DictEngine(TABLES), "quick")])
    assert report.outcome == "partial"
    assert isinstance(report.sources[0].error, SourceError)
    assert "deadline" in report.sources[0].error.message
    assert list(ports.store.list("backups/slow/")) == []
