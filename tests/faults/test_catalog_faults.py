"""Stores that fail now and then or list late, and clocks that are a day off: what is kept stays restorable."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.cancel import CancelToken
from drd.errors import DrdError, LeaseError
from drd.model import ObjectInfo
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.ports import Chaining, Ports, Source
from drd.ops.prune import prune
from drd.ops.sampling import Budget
from drd.ops.status import status
from drd.ops.verify import verify
from drd.repository.retention import Policy
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from drd.stores.wrappers.retry import RetryPolicy, RetryStore
from tests.support.engine import DictEngine
from tests.support.ports import make_ports

NOW = datetime.now(UTC)
EVERYTHING = Budget(share=1.0)


class LateStore(MemoryStore):
    """Lists an object below ``where`` only after ``late`` more calls of list, as stores with lagging indexes do."""

    def __init__(self, late: int, where: str = "backups/") -> None:
        super().__init__()
        self.late = late
        self.where = where
        self._lists = 0
        self._seen_from: dict[str, int] = {}

    def put(self, key: str, data: bytes | bytearray | memoryview, *, if_absent: bool = False) -> None:
        super().put(key, data, if_absent=if_absent)
        self._seen_from.setdefault(key, self._lists + (self.late if key.startswith(self.where) else 0))

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        self._lists += 1
        shown = MemoryStore()
        for info in super().list(prefix):
            if self._seen_from.get(info.key, 0) <= self._lists:
                shown.put(info.key, b"x" * info.size_bytes)
        return shown.list(prefix, delimiter=delimiter)


def take(ports: Ports, at: datetime, text: bytes) -> str:
    """Take a backup by a clock that says ``at``."""
    source = Source("shop", DictEngine({"t": text}, at=at), 60.0)
    report = back_up(dataclasses.replace(ports, now=lambda: at), [source]).sources[0]
    assert report.backup is not None, report.error
    return report.backup.id


def restored(ports: Ports, at: datetime) -> bytes:
    """Restore to a time and return what the table held."""
    target = DictEngine()
    into = Source("target", target, 60.0)
    planned = restoring.plan(ports, at, ["shop"], lambda _source, _backup: into)
    report = restoring.restore(ports, at, planned)
    assert report.outcome == "ok", report.restores[0].error
    return target.tables["t"]


@pytest.mark.parametrize("late", [1, 5, 40])
def test_late_listing_loses_nothing(tmp_path: Path, late: int) -> None:
    """What is not listed yet is neither swept nor a reason to remove what is; later, all is there and well."""
    store = LateStore(0)
    ports = make_ports(store, tmp_path)
    ids = [take(ports, NOW - timedelta(hours=9 - n), b"%d\n" % n) for n in range(3)]
    store.late = late
    ids += [take(ports, NOW - timedelta(hours=6 - n), b"%d\n" % (n + 3)) for n in range(3)]
    report = prune(ports, {"shop": Policy(keep_last=2)}, apply=True)
    assert report.outcome == "ok"
    gone = set(report.sources[0].removed)
    store.late = 0
    for _ in range(late + 1):
        list(store.list(""))
    left = {entry.id for entry in ports.catalog.entries("shop")}
    assert left == set(ids) - gone
    assert ids[-1] in left
    assert verify(ports, [], deep=True).outcome == "ok"
    assert restored(ports, NOW) == b"5\n"
    assert prune(ports, {"shop": Policy(keep_last=2)}, apply=True).outcome == "ok"
    assert ports.catalog.unfinished("shop") == []


def test_late_listing_of_leases_stops_work_and_loses_nothing(tmp_path: Path) -> None:
    """Where even a lease is listed late, drd cannot tell who works: it refuses, and what is there stays."""
    store = LateStore(0, "leases/")
    ports = make_ports(store, tmp_path)
    take(ports, NOW - timedelta(hours=2), b"old\n")
    store.late = 40
    source = Source("shop", DictEngine({"t": b"new\n"}, at=NOW - timedelta(hours=1)), 60.0)
    failed = back_up(ports, [source]).sources[0]
    assert isinstance(failed.error, LeaseError)
    assert verify(ports, [], deep=True).outcome == "ok"
    assert restored(ports, NOW) == b"old\n"


@pytest.mark.parametrize("every", [2, 3, 7])
def test_a_store_that_fails_every_nth_call(tmp_path: Path, every: int) -> None:
    """With drd's retries nobody notices; without them a call fails as a whole, and no wrong answer comes of it."""
    store = MemoryStore()
    well = make_ports(store, tmp_path)
    ids = [take(well, NOW - timedelta(hours=9 - n), b"%d\n" % n) for n in range(4)]
    faulty = FaultyStore(store, [Fault(every=every)])
    policy = RetryPolicy(base_delay_s=0.001, max_delay_s=0.001, patience_s=60.0)
    patient = make_ports(RetryStore(faulty, cancel=CancelToken(), policy=policy), tmp_path)
    for _ in range(3):
        assert [entry.id for entry in patient.catalog.survey("shop").entries] == ids
        assert verify(patient, [], deep=True).outcome == "ok"
        assert verify(patient, [], deep=False, sample=EVERYTHING).outcome == "ok"
        assert status(patient, [("shop", None)]).sources[0].backups == 4
        assert restored(patient, NOW) == b"3\n"
    impatient = make_ports(FaultyStore(store, [Fault(every=every)]), tmp_path)
    for _ in range(20):
        try:
            assert [entry.id for entry in impatient.catalog.survey("shop").entries] == ids
            assert verify(impatient, [], deep=False, sample=Budget(bytes=1)).outcome == "ok"
        except DrdError as error:
            assert error.exit_code == 12  # noqa: PT017  anything else is a wrong answer
    assert prune(patient, {"shop": Policy(keep_last=2)}, apply=True).outcome == "ok"
    assert [entry.id for entry in well.catalog.entries("shop")] == ids[2:]


def test_a_clock_that_was_a_day_ahead(tmp_path: Path) -> None:
    """A backup dated tomorrow is never later than asked, hides no missed RPO, and pushes no good one out."""
    ports = make_ports(MemoryStore(), tmp_path)
    first = take(ports, NOW - timedelta(hours=3), b"old\n")
    ahead = take(ports, NOW + timedelta(days=1), b"ahead\n")
    last = take(ports, NOW - timedelta(hours=2), b"now\n")
    assert restored(ports, NOW) == b"now\n"
    (found,) = status(dataclasses.replace(ports, now=lambda: NOW), [("shop", 3600.0)]).sources
    assert found.newest is not None
    assert (found.newest.id, found.within_rpo, found.from_future, found.backups) == (last, False, 1, 3)
    plan = prune(ports, {"shop": Policy(keep_last=1)}, apply=False).sources[0].decision
    assert {kept.id for kept in plan.keep} == {ahead, last}
    assert [going.id for going in plan.remove] == [first]
    assert verify(ports, [], deep=True).outcome == "ok"
    assert verify(ports, [], deep=False, sample=EVERYTHING).outcome == "ok"


def test_a_clock_that_was_a_day_behind(tmp_path: Path) -> None:
    """A backup dated yesterday, though taken last, is restored for its own time, and the newest one for now."""
    ports = make_ports(MemoryStore(), tmp_path)
    newest = take(ports, NOW - timedelta(hours=1), b"newest\n")
    behind = take(ports, NOW - timedelta(days=1), b"behind\n")
    assert restored(ports, NOW) == b"newest\n"
    assert restored(ports, NOW - timedelta(hours=2)) == b"behind\n"
    plan = prune(ports, {"shop": Policy(keep_last=1)}, apply=True).sources[0]
    assert ([kept.id for kept in plan.decision.keep], plan.removed) == ([newest], (behind,))


@pytest.mark.parametrize(("delay_s", "every", "lease_s"), [(0.01, 0, 10.0), (0.4, 9, 0.3)])
def test_a_store_that_answers_slowly(tmp_path: Path, delay_s: float, every: int, lease_s: float) -> None:
    """Slower than the lease lasts, now and then: work is done or given up by name, and what is listed is whole."""
    store = MemoryStore()
    ports = make_ports(FaultyStore(store, [Fault(effect="delay", delay_s=delay_s, every=every)]), tmp_path)
    slow = dataclasses.replace(ports, tuning=dataclasses.replace(ports.tuning, lease_ttl_s=lease_s))
    taken = []
    for n in range(3):
        source = Source("shop", DictEngine({"t": b"%d\n" % n}, at=NOW - timedelta(hours=9 - n)), 60.0)
        (report,) = back_up(slow, [source]).sources
        if report.backup is None:
            assert isinstance(report.error, LeaseError)
        else:
            taken.append(report.backup.id)
    well = make_ports(store, tmp_path)
    assert {entry.id for entry in well.catalog.entries("shop")} == set(taken)  # within a second their order is chance
    assert taken or every
    if taken:
        (pruned,) = prune(slow, {"shop": Policy(keep_last=1)}, apply=True).sources
        assert pruned.error is None or isinstance(pruned.error, LeaseError)
        assert verify(slow, [], deep=True).outcome == "ok"
        assert status(slow, [("shop", None)]).sources[0].newest is not None
    assert prune(well, {"shop": Policy(keep_last=1)}, apply=True).outcome == "ok"
    assert [entry.id for entry in well.catalog.entries("shop")] == taken[-1:]


def test_a_repository_of_another_id(tmp_path: Path) -> None:
    """Somebody put another ``drd.json`` there: what lies there stands by itself, and nothing new is built on it."""
    store = MemoryStore()
    ports = make_ports(store, tmp_path)
    mine = take(ports, NOW - timedelta(hours=3), b"mine\n")
    store.put(
        "drd.json", store.get("drd.json").replace(ports.repository.open().id.encode(), str(uuid.uuid4()).encode())
    )
    ports = make_ports(store, tmp_path)
    assert [entry.id for entry in ports.catalog.entries("shop")] == [mine]
    assert verify(ports, [], deep=True).outcome == "ok"
    assert restored(ports, NOW) == b"mine\n"
    source = Source("shop", DictEngine({"t": b"new\n"}, at=NOW), 60.0, chaining=Chaining(7 * 86400.0, 9))
    (report,) = back_up(ports, [source]).sources
    assert report.backup
    assert (report.backup.kind, report.kind_reason) == ("full", f"{mine} was made in another repository")
    assert prune(ports, {"shop": Policy(keep_last=2)}, apply=True).sources[0].removed == ()
