"""What happens when a backup loses its lease, or seems to, at the moment of its publication."""

from __future__ import annotations

import dataclasses
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.cancel import CancelToken
from drd.errors import IntegrityError, LeaseError, StoreUnavailable
from drd.ops.backup import BackupReport, back_up
from drd.ops.ports import Ports, Source, Tuning
from drd.ops.verify import verify
from drd.protocols import Store
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.lease import Holder, acquire
from drd.repository.repository import Repository
from drd.stores.memory import MemoryStore
from tests.support.backups import store_backup
from tests.support.engine import DictEngine, DictFormat
from tests.support.hooked_store import HookedStore

TABLES = {"orders": b"1\tbuy\n" * 20_000}


def ports_of(store: Store, spool: Path, host: str, *, ahead: timedelta = timedelta(0)) -> Ports:
    """Make the ports of a host whose clock is ``ahead``."""
    return Ports(
        store=store,
        codec=Codec(1),
        repository=Repository(store),
        catalog=Catalog(store),
        formats=lambda _kind: DictFormat(),
        tuning=Tuning(2, 64 << 10, 1 << 20, spool, 1 << 20, 2),
        holder=Holder(host, 1),
        now=lambda: datetime.now(UTC) + ahead,
        monotonic=time.monotonic,
        cancel=CancelToken(),
        progress=lambda _step: None,
    )


class View(HookedStore):
    """One host's view of a store that others see as well: its calls can be held back."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__()
        self._objects = shared._objects
        self._lock = shared._lock


def test_a_manifest_that_arrives_after_the_lease_was_lost_does_not_stand(tmp_path: Path) -> None:
    """A host that stands still while it publishes, and is overtaken and swept, takes its manifest back."""
    shared = MemoryStore()
    slow, reached, go_on = View(shared), threading.Event(), threading.Event()

    def stand_still(method: str, key: str) -> None:
        if method == "put" and key.endswith("/manifest.json"):
            reached.set()
            assert go_on.wait(20)

    slow.before = stand_still
    reports: list[BackupReport] = []
    first = threading.Thread(
        target=lambda: reports.append(
            back_up(ports_of(slow, tmp_path, "first"), [Source("shop", DictEngine(TABLES), 60.0)])
        )
    )
    first.start()
    assert reached.wait(20)
    second = ports_of(shared, tmp_path, "second", ahead=timedelta(minutes=3))
    report = back_up(second, [Source("shop", DictEngine(TABLES), 60.0)])
    assert [notice.code for notice in report.sources[0].notices] == ["swept"]
    go_on.set()
    first.join(20)
    assert isinstance(reports[0].sources[0].error, LeaseError)
    assert [entry.backup for entry in second.catalog.entries()] == [report.sources[0].backup]
    assert second.catalog.unfinished("shop") == []
    assert verify(second, [], deep=True).outcome == "ok"


def test_a_manifest_published_while_its_folder_is_listed_stops_the_sweep() -> None:
    """A sweep that finds a manifest in what it is about to delete deletes nothing and lets the backup be."""
    store = HookedStore()
    catalog = Catalog(store)
    backup = store_backup(store, Codec(1), {"a": [b"x" * 100]})
    published: list[str] = []

    def publish_late(method: str, key: str) -> None:
        if method == "list" and key.endswith(f"{backup.id}/") and not published:
            published.append(backup.id)
            catalog.publish(backup)

    store.before = publish_late
    assert catalog.sweep("src").kept == (backup.id,)
    assert catalog.get(backup.id) == backup
    with pytest.raises(IntegrityError, match="is a backup"):
        catalog.discard("src", backup.id)


def test_a_lease_that_nobody_took_is_regained_after_an_outage() -> None:
    """A store that was away for longer than a lease lives costs no backup: the holder renews and goes on."""
    store = HookedStore()
    passed = [0.0]
    start = datetime(2026, 11, 22, tzinfo=UTC)
    with acquire(
        store,
        "n",
        ttl_s=60.0,
        now=lambda: start + timedelta(seconds=passed[0]),
        monotonic=lambda: passed[0],
        holder=Holder("here", 1),
        cancel=CancelToken(),
    ) as lease:
        passed[0] = 100.0
        lease.ensure()
        assert lease._state.expires_at == start + timedelta(seconds=160)
        passed[0] = 200.0

        def away(method: str, _key: str) -> None:
            if method == "put":
                raise StoreUnavailable("the store is away")

        store.before = away
        with pytest.raises(LeaseError, match="the store is away"):
            lease.ensure()
        store.before = lambda _method, _key: None
        taken = dataclasses.replace(lease._state, token="other")
        store.plant("leases/n/0000000002.json", b"{}" + str(taken.token).encode())
        with pytest.raises(LeaseError, match="took over"):
            lease.ensure()
