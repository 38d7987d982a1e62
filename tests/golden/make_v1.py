"""Make the golden repositories of format version 1: run once, then committed and never made again.

``python tests/golden/make_v1.py DIRECTORY`` writes ``plain/`` and ``encrypted/``, each a whole repository with a full
backup, an incremental one that refers to its parts, and a raw artifact. A change of drd that cannot read what lies
in ``tests/golden/v1`` breaks every backup in the field; a new format gets a new script and folder beside this one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drd.cancel import CancelToken
from drd.model import Artifact, Backup, Part, Secret
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec, recipient_of
from drd.repository.pipeline import PartSink
from drd.repository.repository import Repository
from drd.stores.memory import MemoryStore

# Made for these files alone; it opens nothing else.
IDENTITY = Secret("AGE-SECRET-KEY-1FVMCYKAZ22PVELLM58WCSR6KEKMDGLXVSQ2AUX73T7EXFMV4M92SNSTYM5")
FULL, INCREMENTAL = "20261122T181455Z-gqqden", "20261123T181455Z-gqqdez"
SOURCE = "trading-postgres"
AT = datetime(2026, 11, 22, 18, 14, 55, 123456, tzinfo=UTC)
PART_BYTES = 1000


def content(name: str, size: int) -> bytes:
    """Return the bytes an artifact was made of: they depend on its name alone, and half of them compress."""
    noise = hashlib.shake_256(name.encode()).digest(size // 2)
    return (noise + b"row\t0001\t2026-11-22\n" * size)[:size]


FULL_CONTENT = {"toc.dat": content("toc", 700), "data/3101.dat": content("t", 5300), "data/empty.dat": b""}
INCREMENTAL_CONTENT = FULL_CONTENT | {
    "data/3101.dat": content("t", 5300) + b"new rows",
    "toc.dat": content("toc2", 710),
}
RAW_CONTENT = content("raw", 900)
RAW_NAME = "clickhouse/data/db/t%2Eicks/all_1_1_0/x.bin"


def main(directory: Path) -> None:
    """Write both repositories below ``directory``."""
    for kind, codec in (("plain", Codec(1)), ("encrypted", Codec(1, (recipient_of(IDENTITY),)))):
        store = MemoryStore()
        info = Repository(store).open_or_create(AT)
        full = backup(store, codec, FULL, FULL_CONTENT, info.id)
        Catalog(store).publish(full)
        Catalog(store).publish(backup(store, codec, INCREMENTAL, INCREMENTAL_CONTENT, info.id, full))
        for found in store.list(""):
            path = directory / kind / found.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(found.key))


def backup(
    store: MemoryStore,
    codec: Codec,
    backup_id: str,
    contents: dict[str, bytes],
    repository_id: str,
    parent: Backup | None = None,
) -> Backup:
    """Store one backup and return what its manifest will say."""
    reuse = {part.plain_sha256: part for artifact in parent.artifacts for part in artifact.parts} if parent else {}
    with PartSink(
        store,
        codec,
        source=SOURCE,
        backup_id=backup_id,
        workers=2,
        part_size=PART_BYTES,
        cancel=CancelToken(),
        reuse=reuse,
    ) as sink:
        for name, data in contents.items():
            writer = sink.open(name)
            writer.write(data)
            writer.close()
        artifacts = sink.finish()
    raw_key = layout.direct_prefix(SOURCE, backup_id) + RAW_NAME.removeprefix("clickhouse/")
    store.put(raw_key, RAW_CONTENT)
    raw = Artifact(RAW_NAME, (Part(raw_key, len(RAW_CONTENT), len(RAW_CONTENT), "", ""),), raw=True)
    began = layout.backup_time(backup_id)
    full = Backup(
        id=backup_id,
        source=SOURCE,
        engine="postgres",
        engine_version="15.8 (Debian 15.8-1)",
        kind="incremental" if parent else "full",
        parent=parent.id if parent else None,
        started_at=began,
        finished_at=began + timedelta(seconds=4.25),
        recovery_point=began + timedelta(microseconds=123456),
        window_start=None,
        artifacts=(*artifacts, raw),
        compression="zstd",
        encryption="age" if codec.encrypted else "none",
        recipients=codec.recipients,
        plain_bytes=0,
        stored_bytes=sink.bytes_stored + len(RAW_CONTENT),
        rows=3_000_086,
        lease_generation=7,
        repository_id=repository_id,
        tools={"pg_dump": "17.2"},
        labels={"environment": "prüfung"},
        facts={"encoding": "UTF8", "tables": 4, "ratio": 0.25, "nested": [{"a": None}, True]},
        warnings=("no-globals",),
    )
    return dataclasses.replace(full, plain_bytes=sum(artifact.plain_bytes for artifact in full.artifacts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
