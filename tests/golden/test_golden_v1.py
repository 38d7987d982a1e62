"""Repositories that an earlier drd wrote stay readable, with drd and with stock tools."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from drd.cancel import CancelToken
from drd.errors import ConfigError
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.manifest import to_json
from drd.repository.pipeline import PartReader
from drd.repository.planning import chain, plan_restore
from drd.repository.repository import Repository
from drd.stores.memory import MemoryStore

HERE = Path(__file__).parent


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make_v1", HERE / "make_v1.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = load_maker()


@pytest.fixture(params=["plain", "encrypted"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str) -> MemoryStore:
    root, store = HERE / "v1" / kind, MemoryStore()
    for path in root.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(root).as_posix(), path.read_bytes())
    return store


def test_everything_in_it_is_read(store: MemoryStore) -> None:
    """Both backups are listed, planned, chained and give back every byte of every artifact."""
    assert Repository(store).open().format_version == 1
    catalog = Catalog(store)
    entries = catalog.entries(MAKER.SOURCE)
    assert [(entry.id, entry.problem) for entry in entries] == [(MAKER.FULL, None), (MAKER.INCREMENTAL, None)]
    full, incremental = (catalog.get(found) for found in (MAKER.FULL, MAKER.INCREMENTAL))
    assert chain(incremental, {full.id: full}) == (full,)
    assert plan_restore(entries, MAKER.AT + timedelta(hours=1), [MAKER.SOURCE])[0].backup == full
    codec = Codec(1, (), (MAKER.IDENTITY,))
    for backup, contents in ((full, MAKER.FULL_CONTENT), (incremental, MAKER.INCREMENTAL_CONTENT)):
        expected = contents | {MAKER.RAW_NAME: MAKER.RAW_CONTENT}
        with PartReader(store, codec, backup, workers=2, cancel=CancelToken()) as reader:
            assert {name: reader.open(name).read() for name in reader.names()} == expected
    own = {part.key.split("/")[2] for part in incremental.artifacts[0].parts}
    assert own == {MAKER.FULL, MAKER.INCREMENTAL}


def test_manifests_say_what_they_said(store: MemoryStore) -> None:
    """Every field has the value it was written with, and writing it again gives the same bytes."""
    backup = Catalog(store).get(MAKER.FULL)
    key = f"backups/{MAKER.SOURCE}/{MAKER.FULL}/manifest.json"
    assert to_json(backup) == store.get(key)
    assert (backup.recovery_point, backup.duration_s, backup.rows) == (MAKER.AT, 4.25, 3_000_086)
    assert backup.labels == {"environment": "prüfung"}
    assert backup.facts == {"encoding": "UTF8", "tables": 4, "ratio": 0.25, "nested": [{"a": None}, True]}


def test_without_the_identity_it_is_listed_and_not_read(store: MemoryStore, kind: str) -> None:
    """A host without the key sees the catalog; opening an encrypted backup there says what is missing."""
    backup = Catalog(store).get(MAKER.FULL)
    if kind == "encrypted":
        with pytest.raises(ConfigError, match=backup.recipients[0]):
            PartReader(store, Codec(1), backup, workers=1, cancel=CancelToken())


def test_stock_tools_read_every_part(kind: str, tmp_path: Path) -> None:
    """With age, zstd and the manifest's list of keys alone, artifacts come back: no lock-in."""
    root = HERE / "v1" / kind
    manifest = json.loads((root / f"backups/{MAKER.SOURCE}/{MAKER.FULL}/manifest.json").read_text())
    identity = tmp_path / "identity.txt"
    identity.write_text(MAKER.IDENTITY.reveal())
    for artifact in manifest["artifacts"]:
        if artifact["raw"]:
            continue
        whole = b""
        for part in artifact["parts"]:
            frame = (root / part["key"]).read_bytes()
            if kind == "encrypted":
                frame = subprocess.run(
                    ["age", "-d", "-i", identity], input=frame, check=True, capture_output=True
                ).stdout
            whole += subprocess.run(["zstd", "-dc"], input=frame, check=True, capture_output=True).stdout
        assert whole == MAKER.FULL_CONTENT[artifact["name"]]
