"""Surveys of a source: what is read again when, and what is believed."""

from __future__ import annotations

from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from tests.support.backups import describe, store_backup
from tests.support.hooked_store import HookedStore

IDS = [f"2026112{day}T181455Z-aaaaaa" for day in range(1, 6)]


def test_a_refresh_reads_new_manifests_and_damaged_ones_alone() -> None:
    """What is known is not read again; what came, went or has a problem is as a whole survey says."""
    store = HookedStore()
    catalog = Catalog(store)
    for backup_id in IDS[:4]:
        catalog.publish(store_backup(store, Codec(1), {"a": [b"x" * 200]}, backup_id=backup_id))
    store.plant(layout.manifest_key("src", IDS[1]), b"nonsense")
    first = catalog.survey("src")
    catalog.remove("src", IDS[3])
    catalog.publish(describe(backup_id=IDS[4]))
    store_backup(store, Codec(1), {"a": [b"y"]}, backup_id="20261130T000000Z-aaaaaa")
    store.calls.clear()
    second = catalog.refresh("src", {entry.id: entry for entry in first.entries})
    read = {key.split("/")[2] for method, key in store.calls if method == "get"}
    assert read == {IDS[1], IDS[4], "20261130T000000Z-aaaaaa"}
    assert second == catalog.survey("src")
    assert [entry.id for entry in second.entries] == [IDS[0], IDS[1], IDS[2], IDS[4]]
    assert second.unfinished == ("20261130T000000Z-aaaaaa",)
