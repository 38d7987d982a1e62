"""Backups made through the real pipeline, for tests of the repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from drd.cancel import CancelToken
from drd.model import Artifact, Backup, Json
from drd.protocols import Cut, Store
from drd.repository.codec import Codec
from drd.repository.pipeline import PartReader, PartSink

ID = "20261122T181455Z-k3f9qa"
AT = datetime(2026, 11, 22, 18, 14, 55, tzinfo=UTC)


def describe(
    artifacts: tuple[Artifact, ...] = (),
    *,
    backup_id: str = ID,
    source: str = "src",
    recipients: tuple[str, ...] = (),
    parent: str | None = None,
    recovery_point: datetime = AT,
    facts: dict[str, Json] | None = None,
) -> Backup:
    """Make the content of a manifest."""
    return Backup(
        id=backup_id,
        source=source,
        engine="postgres",
        engine_version="15.8",
        kind="incremental" if parent else "full",
        parent=parent,
        started_at=recovery_point,
        finished_at=recovery_point,
        recovery_point=recovery_point,
        window_start=None,
        artifacts=artifacts,
        compression="zstd",
        encryption="age" if recipients else "none",
        recipients=recipients,
        plain_bytes=sum(artifact.plain_bytes for artifact in artifacts),
        stored_bytes=sum(artifact.stored_bytes for artifact in artifacts),
        rows=3,
        lease_generation=1,
        repository_id="8a0c9d52-8b5f-4a7e-9f0e-0d4f1f1d2c3b",
        tools={"pg_dump": "15.8"},
        labels={"env": "tëst"},
        facts=facts or {},
        warnings=("no-globals",),
    )


def store_backup(
    store: Store,
    codec: Codec,
    contents: Mapping[str, Iterable[bytes]],
    *,
    part_size: int = 64,
    backup_id: str = ID,
    source: str = "src",
    cut: Cut = "size",
    **options: object,
) -> Backup:
    """Write artifacts, given as the pieces of each, through a sink; return the unpublished backup."""
    with PartSink(
        store,
        codec,
        source=source,
        backup_id=backup_id,
        workers=2,
        part_size=part_size,
        cancel=CancelToken(),
        **options,  # type: ignore[arg-type]
    ) as sink:
        for name, pieces in contents.items():
            writer = sink.open(name, cut=cut)
            for piece in pieces:
                writer.write(piece)
            writer.close()
        artifacts = sink.finish()
    return describe(artifacts, backup_id=backup_id, source=source, recipients=codec.recipients)


def reader_of(store: Store, codec: Codec, backup: Backup, **options: object) -> PartReader:
    """Open a reader with small defaults."""
    settings: dict[str, object] = {"workers": 2, "memory_limit_bytes": 1 << 20, "cancel": CancelToken()} | options
    return PartReader(store, codec, backup, **settings)  # type: ignore[arg-type]


def with_parts(backup: Backup, **changes: object) -> Backup:
    """Change every part of a backup alike."""
    artifacts = tuple(
        dataclasses.replace(a, parts=tuple(dataclasses.replace(p, **changes) for p in a.parts))  # type: ignore[arg-type]
        for a in backup.artifacts
    )
    return dataclasses.replace(backup, artifacts=artifacts)
