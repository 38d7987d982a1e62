"""The repository and its catalog, from the bucket alone."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from drd.errors import CatalogError, ConfigError, IntegrityError, NoSuchBackup, StoreRefused, StoreUnavailable
from drd.model import Backup, BackupHead, ObjectInfo
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.repository import Repository
from tests.support.backups import AT, ID, describe, store_backup
from tests.support.hooked_store import HookedStore

OLD, NEW = "20261121T181455Z-aaaaaa", "20261123T181455Z-bbbbbb"


def published(store: HookedStore, *ids: str, source: str = "src") -> list[Backup]:
    backups = [store_backup(store, Codec(1), {"a": [b"x" * 200]}, backup_id=i, source=source) for i in ids]
    for backup in backups:
        Catalog(store).publish(backup)
    return backups


def unfinished(store: HookedStore, backup_id: str, source: str = "src") -> None:
    store_backup(store, Codec(1), {"a": [b"y" * 200]}, backup_id=backup_id, source=source)


def test_a_backup_exists_when_its_manifest_does() -> None:
    """Parts alone are no backup; the manifest, put last and only if absent, makes one."""
    store = HookedStore()
    backup = store_backup(store, Codec(1), {"a": [b"x" * 200]})
    catalog = Catalog(store)
    assert (catalog.entries(), catalog.unfinished("src")) == ([], [ID])
    catalog.publish(backup)
    assert [(e.id, e.backup, e.problem) for e in catalog.entries()] == [(ID, backup, None)]
    assert (catalog.sources(), catalog.unfinished("src")) == (["src"], [])


def test_an_emptied_folder_that_the_store_still_lists_is_nothing() -> None:
    """A store that lists folders without objects, as SeaweedFS does, shows nothing unfinished, and nothing to sweep."""

    class KeepsFolders(HookedStore):
        def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
            found = list(super().list(prefix, delimiter=delimiter))
            if delimiter and prefix == "backups/src/":
                found.append(ObjectInfo(f"backups/src/{NEW}/", 0))
            return iter(found)

    store = KeepsFolders()
    published(store, ID)
    catalog = Catalog(store)
    assert catalog.unfinished("src") == []
    assert catalog.sweep("src").ids == ()
    unfinished(store, OLD)
    assert catalog.unfinished("src") == [OLD]
    assert catalog.sweep("src").ids == (OLD,)


def test_listing_reads_manifests_and_lists_no_part() -> None:
    """Entries ascend by id over all sources; only folders are listed, and the format is looked up once."""
    store = HookedStore()
    published(store, ID, OLD)
    published(store, NEW, "20261120T181455Z-cccccc", source="other")
    store.calls.clear()
    found = [entry.id for entry in Catalog(store).entries()]
    assert found == sorted(found)
    assert len(found) == 4
    assert {key for method, key in store.calls if method == "list"} == {
        "backups/",
        "backups/src/",
        "backups/other/",
    }
    read = [key for method, key in store.calls if method == "get"]
    assert read.count("drd.json") == 1
    assert all(key.endswith("manifest.json") for key in read if key != "drd.json")


def test_a_damaged_manifest_is_an_entry_with_a_problem() -> None:
    """One damaged manifest hides neither itself nor the others; getting it raises."""
    store = HookedStore()
    published(store, OLD, ID)
    store.plant(layout.manifest_key("src", OLD), b"{}")
    catalog = Catalog(store)
    damaged, good = catalog.entries("src")
    assert damaged.backup is None
    assert OLD in (damaged.problem or "")
    assert good.problem is None
    with pytest.raises(IntegrityError):
        catalog.get(OLD)


def test_a_failing_store_is_not_an_empty_catalog() -> None:
    """A store error while reading manifests is raised, never taken for a missing backup."""
    store = HookedStore()
    published(store, OLD, ID)

    def fail(method: str, _key: str) -> None:
        if method == "get":
            raise StoreUnavailable("gone")

    store.before = fail
    with pytest.raises(StoreUnavailable):
        Catalog(store).entries()


def test_backups_are_found_by_parts_of_their_id() -> None:
    """A full id, a unique beginning or end is found; what is ambiguous, unknown or unfinished says so."""
    store = HookedStore()
    published(store, OLD, ID)
    unfinished(store, NEW)
    catalog = Catalog(store)
    for text in (ID, "k3f9qa", "20261122", "20261122T18"):
        assert catalog.get(text).id == ID
    for text, says in (("202611", "several"), (NEW, "never finished"), ("nope", "no backup"), ("qa", "no backup")):
        with pytest.raises(NoSuchBackup, match=says) as caught:
            catalog.get(text)
        assert caught.value.hint


def test_foreign_names_in_the_bucket_are_passed_over() -> None:
    """Folders that are no sources or ids do not disturb."""
    store = HookedStore()
    published(store, ID)
    for key in (
        "backups/UPPER/x",
        "backups/src/notes/readme",
        "backups/readme",
        "backups/src/99999999T999999Z-aaaaaa/x",
    ):
        store.plant(key, b"?")
    assert [entry.id for entry in Catalog(store).entries()] == [ID]
    assert Catalog(store).unfinished("src") == []


def test_publish_is_repeatable_and_never_overwrites() -> None:
    """The same manifest again is fine (a put whose answer was lost); another under its id is refused."""
    store = HookedStore()
    (backup,) = published(store, ID)
    catalog = Catalog(store)
    catalog.publish(backup)
    with pytest.raises(IntegrityError, match="exists already"):
        catalog.publish(dataclasses.replace(backup, rows=4))
    assert catalog.get(ID) == backup


def test_sweep_removes_only_what_is_unfinished() -> None:
    """Finished backups keep every object; kept and younger ids stay; the report counts."""
    store = HookedStore()
    published(store, ID)
    before = store.contents()
    for backup_id in (OLD, NEW):
        unfinished(store, backup_id)
    catalog = Catalog(store)
    limit = datetime(2026, 11, 22, tzinfo=UTC)
    assert catalog.sweep("src", older_than=limit, keep=[OLD]).ids == ()
    report = catalog.sweep("src", older_than=limit)
    assert (report.ids, report.objects) == ((OLD,), 4)
    assert catalog.sweep("src").ids == (NEW,)
    assert catalog.sweep("src").objects == 0
    assert store.contents() == before


def test_sweep_spares_what_a_backup_refers_to() -> None:
    """Parts of a folder whose manifest is gone stay while a descendant needs them, or may need them."""
    store = HookedStore()
    parent = store_backup(store, Codec(1), {"a": [b"x" * 200]}, backup_id=OLD)
    child = dataclasses.replace(describe(parent.artifacts, parent=OLD), plain_bytes=200)
    catalog = Catalog(store)
    catalog.publish(child)
    before = store.contents()
    assert (catalog.sweep("src").ids, catalog.sweep("src").kept) == ((), (OLD,))
    store.plant(layout.manifest_key("src", ID), b"damaged")
    assert catalog.sweep("src").kept == (OLD,)
    unfinished(store, NEW)
    assert catalog.sweep("src").ids == (NEW,)
    assert store.contents().keys() == before.keys()


def test_a_refused_deletion_is_raised() -> None:
    """A sweep or a discard that may not delete says so instead of reporting success."""
    store = HookedStore()
    unfinished(store, OLD)

    def refuse(method: str, _key: str) -> None:
        if method == "delete":
            raise StoreRefused("no right to delete")

    store.before = refuse
    with pytest.raises(StoreRefused):
        Catalog(store).sweep("src")


def test_discard_refuses_a_backup() -> None:
    """Only what has no manifest can be discarded."""
    store = HookedStore()
    published(store, ID)
    unfinished(store, NEW)
    before = store.contents()
    with pytest.raises(IntegrityError):
        Catalog(store).discard("src", ID)
    assert store.contents() == before
    assert Catalog(store).discard("src", NEW)[0] == 4
    with pytest.raises(ConfigError):
        Catalog(store).discard("src", "../x")


def test_a_repository_is_made_once() -> None:
    """Racing creators agree on one repository id; opening finds it; an empty store has none."""
    store = HookedStore()
    repository = Repository(store)
    assert repository.peek() is None
    with pytest.raises(CatalogError):
        repository.open()
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(repository.open_or_create(AT).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert set(ids) == {repository.open().id}
    assert repository.open().created_at == AT


def test_foreign_newer_and_damaged_repositories_are_refused() -> None:
    """A bucket of something else is not written to; a newer format and damage are named."""
    store = HookedStore({"holiday.jpg": b"x"})
    with pytest.raises(ConfigError, match="holiday"):
        Repository(store).open_or_create(AT)
    assert list(store.contents()) == ["holiday.jpg"]
    store = HookedStore()
    Repository(store).open_or_create(AT)
    document = json.loads(store.contents()[layout.REPOSITORY_KEY])
    store.plant(layout.REPOSITORY_KEY, json.dumps(document | {"format_version": 2}).encode())
    with pytest.raises(IntegrityError, match="version 2") as caught:
        Repository(store).open()
    assert "upgrade" in caught.value.hint
    for bad in (b"", b"null", b"{}", b'{"kind": "drd-repository", "format_version": -1}', b"x" * 100_000):
        store.plant(layout.REPOSITORY_KEY, bad)
        with pytest.raises(IntegrityError, match=r"drd\.json"):
            Repository(store).peek()


def test_a_lost_repository_object_loses_no_backup() -> None:
    """Without drd.json backups are still listed, and the next backup writes a new one."""
    store = HookedStore()
    Repository(store).open_or_create(AT)
    published(store, ID)
    store.remove(layout.REPOSITORY_KEY)
    assert Catalog(store).get(ID).id == ID
    assert Repository(store).open_or_create(AT).format_version == 1


def test_another_repository_than_the_configured_one_is_not_written_to() -> None:
    """With signing.repository nothing goes where it would not count; a lost drd.json gets the id back."""
    store = HookedStore()
    other = Repository(store).open_or_create(AT)
    with pytest.raises(ConfigError, match=other.id) as caught:
        Repository(store, "8a0c9d52").open_or_create(AT)
    assert "signing.repository" in caught.value.hint
    assert Repository(store, other.id).open_or_create(AT) == other
    store.remove(layout.REPOSITORY_KEY)
    assert Repository(store, "8a0c9d52").open_or_create(AT).id == "8a0c9d52"
    assert Repository(store).open().id == "8a0c9d52"


def test_a_survey_reads_heads_and_builds_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bounded read a backup and one listing, no part object and no whole manifest: 10,000 must be quick."""
    store = HookedStore()
    backups = published(store, OLD, ID, NEW)
    unfinished(store, "20261124T181455Z-dddddd")
    monkeypatch.setattr("drd.repository.manifest.Part", None)
    monkeypatch.setattr("drd.repository.manifest.from_json", None)
    lengths: list[int | None] = []
    get = store.get

    def noted(key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if key != layout.REPOSITORY_KEY:
            lengths.append(length)
        return get(key, start=start, length=length)

    monkeypatch.setattr(store, "get", noted)
    store.calls.clear()
    survey = Catalog(store).survey("src")
    assert [entry.id for entry in survey.entries] == [OLD, ID, NEW]
    for entry, backup in zip(survey.entries, sorted(backups, key=lambda b: b.id), strict=True):
        assert entry.backup is not None
        assert all(getattr(entry.backup, f.name) == getattr(backup, f.name) for f in dataclasses.fields(BackupHead))
    assert survey.unfinished == ("20261124T181455Z-dddddd",)
    assert sorted(store.calls).count(("get", layout.manifest_key("src", ID))) == 1
    assert [call for call in store.calls if call[0] in {"list", "stat"}] == [
        ("list", "backups/src/"),
        ("stat", layout.manifest_key("src", "20261124T181455Z-dddddd")),
        ("list", layout.backup_prefix("src", "20261124T181455Z-dddddd")),
    ]
    assert all(length is not None and length <= 64 << 10 for length in lengths), lengths


def test_a_survey_says_what_is_unreadable() -> None:
    """A damaged head is a problem; a manifest that drd did not lay out, or with a huge head, is read whole."""
    store = HookedStore()
    published(store, OLD, ID)
    (large,) = [describe(backup_id=NEW, facts={"x": "y" * 100_000})]
    Catalog(store).publish(large)
    key = layout.manifest_key("src", OLD)
    store.plant(key, store.contents()[key].replace(b'"plain_bytes": 200,\n', b'"plain_bytes": -1,\n'))
    foreign = layout.manifest_key("src", ID)
    store.plant(foreign, json.dumps(json.loads(store.contents()[foreign])).encode())
    damaged, other, huge = Catalog(store).survey("src").entries
    assert "bad plain_bytes" in (damaged.problem or "")
    assert other.backup == Catalog(store).get(ID)
    assert huge.backup == large
    store.plant(foreign, store.contents()[foreign].replace(b"15.8", b"15.9"))
    assert "digest" in (Catalog(store).survey("src").entries[1].problem or "")


def test_a_sweep_with_nothing_to_sweep_reads_no_manifest() -> None:
    """Every backup sweeps first: that must not read every manifest there is."""
    store = HookedStore()
    published(store, OLD, ID, NEW)
    store.calls.clear()
    assert Catalog(store).sweep("src").ids == ()
    assert not [key for method, key in store.calls if method == "get" and key.endswith("manifest.json")]
