"""Backups whose manifests are of version 3, as the first drd that knew it wrote them, stay readable."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from drd.cancel import CancelToken
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.layout import manifest_key, owner_of
from drd.repository.manifest import head_of, to_json
from drd.repository.pipeline import PartReader
from drd.repository.planning import chain, plan_restore
from drd.repository.signing import Signing, Trust
from drd.stores.memory import MemoryStore
from tests.golden import make_v3 as made

HERE = Path(__file__).parent
PUBLIC_KEY = "ed25519:LwOpP55HpOHCeYqhw/XKGe/JhH78phWzv8CdmfTv7rA="
CONTENTS = {made.FULL: made.FULL_CONTENT, made.INCREMENTAL: made.INCREMENTAL_CONTENT}


@pytest.fixture(params=["plain", "signed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str) -> MemoryStore:
    root, store = HERE / "v3" / kind, MemoryStore()
    for path in root.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(root).as_posix(), path.read_bytes())
    return store


@pytest.fixture
def catalog(store: MemoryStore, kind: str) -> Catalog:
    return Catalog(store, Signing(None, Trust((PUBLIC_KEY,))) if kind == "signed" else Signing())


def test_everything_in_it_is_read(catalog: Catalog, store: MemoryStore) -> None:
    """Both backups are listed, believed, planned, chained and give back every byte of every artifact."""
    entries = catalog.entries(made.SOURCE)
    assert [(entry.id, entry.problem) for entry in entries] == [(made.FULL, None), (made.INCREMENTAL, None)]
    full, incremental = (catalog.get(found) for found in CONTENTS)
    assert [entry.backup for entry in catalog.survey(made.SOURCE).entries] in (
        [head_of(full), head_of(incremental)],
        [full, incremental],  # where signatures are asked for, manifests are read whole
    )
    assert chain(incremental, {full.id: full}) == (full,)
    assert plan_restore(entries, made.AT + timedelta(hours=1), [made.SOURCE])[0].backup == full
    codec = Codec(1, (), (made.IDENTITY,))
    for backup in (full, incremental):
        with PartReader(store, codec, backup, workers=2, cancel=CancelToken()) as reader:
            assert {name: reader.open(name).read() for name in reader.names()} == CONTENTS[backup.id]


def test_manifests_say_what_they_said(catalog: Catalog, store: MemoryStore, kind: str) -> None:
    """Facts and parts are what was written, what was named lies with the parent, and writing gives the same bytes."""
    for backup_id, facts in ((made.FULL, made.FULL_FACTS), (made.INCREMENTAL, made.INCREMENTAL_FACTS)):
        backup = catalog.get(backup_id)
        assert to_json(backup) == store.get(manifest_key(made.SOURCE, backup_id))
        assert (backup.schema_version, backup.signature is not None) == (3, kind == "signed")
        assert {artifact.name: artifact.facts for artifact in backup.artifacts} == {"toc.dat": {}, made.TABLE: facts}
        table = backup.artifact(made.TABLE)
        assert table is not None
        assert facts["ends"][-1] == len(table.parts)  # type: ignore[index, call-overload]
    assert [owner_of(part.key) for part in table.parts] == [made.FULL] * 8 + [made.INCREMENTAL]


def test_stock_tools_read_the_table_of_the_incremental_one(catalog: Catalog, kind: str, tmp_path: Path) -> None:
    """With age, zstd and the manifest's list of keys alone, the parts of both backups make the whole table."""
    identity = tmp_path / "identity.txt"
    identity.write_text(made.IDENTITY.reveal())
    table = catalog.get(made.INCREMENTAL).artifact(made.TABLE)
    assert table is not None
    opened = f"age -d -i {identity} | zstd -dc" if kind == "signed" else "zstd -dc"
    whole = b"".join(
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", opened],
            input=(HERE / "v3" / kind / part.key).read_bytes(),
            check=True,
            capture_output=True,
        ).stdout
        for part in table.parts
    )
    assert whole == made.INCREMENTAL_CONTENT[made.TABLE]
