"""Make the golden repositories of manifest version 3: run once, then committed and never made again.

``python -m tests.golden.make_v3 DIRECTORY`` writes ``plain/`` and ``signed/`` (encrypted, too), each a whole
repository: a full backup, and an incremental one whose engine named parts of the first without having their bytes. Both
have facts of their artifacts. A change of drd that cannot read what lies in ``tests/golden/v3`` breaks backups in the
field.
"""

from __future__ import annotations

import hashlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from drd.cancel import CancelToken
from drd.model import Backup, Json, Secret
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec, recipient_of
from drd.repository.layout import backup_time
from drd.repository.pipeline import PartSink
from drd.repository.repository import Repository
from drd.repository.signing import Signing
from drd.stores.memory import MemoryStore
from tests.golden.make_v1 import IDENTITY, SOURCE, content

FULL, INCREMENTAL = "20261124T181455Z-gqqden", "20261125T181455Z-gqqdez"
AT = datetime(2026, 11, 24, 18, 14, 55, tzinfo=UTC)
RANGE_BYTES = 1500
TABLE = "data/3101.dat"
FULL_CONTENT = {"toc.dat": content("toc", 700), TABLE: content("t", 6000)}
INCREMENTAL_CONTENT = {"toc.dat": content("toc2", 710), TABLE: content("t", 6000) + b"new rows"}
# The number of parts up to the end of each range; a range of 1500 bytes is a part of 1000 and one of 500.
FULL_FACTS: dict[str, Json] = {"version": 1, "ends": [2, 4, 6, 8], "xmin": "748", "hole": None}
INCREMENTAL_FACTS = FULL_FACTS | {"ends": [2, 4, 6, 8, 9], "xmin": "751"}


def signing_of(seed: bytes) -> Signing:
    """Return a signer whose key is made from ``seed``."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    return Signing(lambda: Secret(pem))


SIGNING = signing_of(b"made for the golden repositories alone")


def main(directory: Path) -> None:
    """Write both repositories below ``directory``."""
    for kind, codec, signing in (
        ("plain", Codec(1), Signing()),
        ("signed", Codec(1, (recipient_of(IDENTITY),)), SIGNING),
    ):
        store = MemoryStore()
        repository_id = Repository(store).open_or_create(AT).id
        catalog = Catalog(store, signing)
        full = catalog.publish(backup(store, codec, repository_id, None))
        catalog.publish(backup(store, codec, repository_id, full))
        for found in store.list(""):
            path = directory / kind / found.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(found.key))


def backup(store: MemoryStore, codec: Codec, repository_id: str, parent: Backup | None) -> Backup:
    """Store one backup and return what its manifest will say."""
    backup_id, contents = (INCREMENTAL, INCREMENTAL_CONTENT) if parent else (FULL, FULL_CONTENT)
    reuse = {part.plain_sha256: part for artifact in parent.artifacts for part in artifact.parts} if parent else {}
    with PartSink(
        store,
        codec,
        source=SOURCE,
        backup_id=backup_id,
        workers=2,
        part_size=1000,
        cancel=CancelToken(),
        reuse=reuse,
    ) as sink:
        toc, table = sink.open("toc.dat"), sink.open(TABLE)
        toc.write(contents["toc.dat"])
        toc.close()
        if parent is not None:
            for part in next(artifact.parts for artifact in parent.artifacts if artifact.name == TABLE):
                table.refer(part.plain_sha256, part.plain_bytes)
            table.write(contents[TABLE][len(FULL_CONTENT[TABLE]) :])
        else:
            for begin in range(0, len(contents[TABLE]), RANGE_BYTES):
                table.write(contents[TABLE][begin : begin + RANGE_BYTES])
                table.end_part()
        table.note(INCREMENTAL_FACTS if parent else FULL_FACTS)
        table.close()
        artifacts = sink.finish()
    began = backup_time(backup_id)
    return Backup(
        id=backup_id,
        source=SOURCE,
        engine="postgres",
        engine_version="17.2",
        kind="incremental" if parent else "full",
        parent=parent.id if parent else None,
        started_at=began,
        finished_at=began + timedelta(seconds=4.25),
        recovery_point=began,
        window_start=None,
        artifacts=artifacts,
        compression="zstd",
        encryption="age" if codec.encrypted else "none",
        recipients=codec.recipients,
        plain_bytes=sum(artifact.plain_bytes for artifact in artifacts),
        stored_bytes=sink.bytes_stored,
        rows=86,
        lease_generation=7,
        repository_id=repository_id,
        tools={"pg_dump": "17.2"},
        labels={"environment": "prüfung"},
        facts={"encoding": "UTF8"},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
