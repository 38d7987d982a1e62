"""A Redis backup at rest: is every snapshot whole, and how to restore it with stock tools."""

from __future__ import annotations

import json
from collections.abc import Iterator

from drd.engines.redis.fingerprint import aligned, from_scans
from drd.engines.redis.rdb.scan import NOT_CHECKED, Scan, scan_chunks
from drd.engines.redis.restore import snapshots_of
from drd.engines.redis.runbook import runbook
from drd.errors import IntegrityError
from drd.model import (
    FINGERPRINT_ARTIFACT,
    Backup,
    EngineKind,
    EngineRunbook,
    Fingerprint,
    Json,
    Problem,
    Progress,
    compare_fingerprints,
)
from drd.protocols import ArtifactReader, WorkContext


class RedisFormat:
    """Implements :class:`drd.protocols.Format` for RDB snapshots; needs no server."""

    kind: EngineKind = "redis"

    def verify(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> list[Problem]:
        """Read every snapshot: CRC-64, structure, counts and sampled keys against the fingerprint of backup time."""
        problems: list[Problem] = []
        scans: list[Scan] = []
        for name in snapshots_of(artifacts):
            try:
                with artifacts.open(name) as stream:
                    scans.append(scan_chunks(_counted(stream.chunks(), artifacts.size(name), ctx), None, ctx.cancel))
            except IntegrityError as error:
                problems.append(Problem(name, error.message, "this snapshot cannot be restored"))
        shards = backup.facts.get("shards")
        expected = len(shards) if isinstance(shards, list) else 1
        if not problems and len(scans) != expected:
            problems.append(
                Problem("snapshots", f"{expected} shards were saved, {len(scans)} are here", "data is missing")
            )
        if problems or any(scan.structure == NOT_CHECKED for scan in scans):
            return problems
        return _compare(artifacts, scans)

    def runbook(self, backup: Backup) -> EngineRunbook:
        """Return how to restore without drd; see :meth:`drd.protocols.Format.runbook`."""
        return runbook(backup)


def _counted(chunks: Iterator[memoryview], size: int, ctx: WorkContext) -> Iterator[memoryview]:
    done = 0
    for chunk in chunks:
        done += len(chunk)
        yield chunk
        ctx.progress(Progress(ctx.source, "verify", done, size, "snapshot"))


def _compare(artifacts: ArtifactReader, scans: list[Scan]) -> list[Problem]:
    """Compare what the snapshots hold with the fingerprint artifact, where there is one."""
    if FINGERPRINT_ARTIFACT not in artifacts.names():
        return []
    with artifacts.open(FINGERPRINT_ARTIFACT) as stream:
        expected = parse_fingerprint(stream.read())
    return [
        Problem(
            d.name, f"{d.fact} is {d.found}, but was {d.expected} at backup time", "the snapshot is not the one taken"
        )
        for d in compare_fingerprints(expected, aligned(expected, from_scans(scans)))
    ]


def parse_fingerprint(data: bytes) -> Fingerprint:
    """Read the fingerprint artifact; raises :class:`~drd.errors.IntegrityError` when it is malformed."""
    try:
        raw = json.loads(data)
        items: dict[str, dict[str, Json]] = {str(k): dict(v) for k, v in raw["items"].items()}
        return Fingerprint("redis", items, tuple(str(c) for c in raw["compared"]), int(raw.get("version", 1)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{FINGERPRINT_ARTIFACT} is malformed: {error}") from error
