"""What a ClickHouse backup must look like at rest, checked without a server, and how to restore it without drd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from drd.engines.clickhouse import cityhash, increments
from drd.engines.clickhouse.manifest import ManifestFile, ServerManifest, parse_manifest
from drd.engines.clickhouse.packindex import INDEX_ARTIFACT, PackIndex, read_index
from drd.engines.clickhouse.packing import MANIFEST_KEY
from drd.engines.clickhouse.runbook import runbook
from drd.errors import IntegrityError
from drd.model import Backup, EngineRunbook, Problem, Progress
from drd.protocols import ArtifactReader, BytesLike, WorkContext

MAX_PROBLEMS = 200


class ClickHouseFormat:
    """Implements :class:`drd.protocols.Format` for all three modes."""

    kind: Literal["clickhouse"] = "clickhouse"

    def verify(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> list[Problem]:  # noqa: ARG002
        """Hold every file against the server's own manifest: present, size, CityHash128 of its bytes.

        Reads everything once, in the order in which it lies in the artifacts. At most 200 problems are listed.
        """
        try:
            index = read_index(artifacts)
            if MANIFEST_KEY not in index.objects:
                return [
                    Problem(MANIFEST_KEY, "the server's own manifest is missing", "RESTORE cannot read this backup")
                ]
            manifest = _manifest(index, artifacts)
            of_base = _base_of(manifest, index, artifacts)
        except IntegrityError as error:
            return [Problem(error.subject or INDEX_ARTIFACT, error.message, "the backup cannot be restored")]
        problems = list(_problems(manifest, index, artifacts, ctx))
        if of_base is not None:
            problems += [
                Problem(found.subject, f"of the base: {found.message}", found.effect)
                for found in _problems(*of_base, artifacts, ctx)
            ]
        return problems

    def runbook(self, backup: Backup) -> EngineRunbook:
        """Return how to restore without drd; see :meth:`drd.protocols.Format.runbook`."""
        return runbook(backup)


def _bytes_of(index: PackIndex, key: str, artifacts: ArtifactReader) -> Iterator[BytesLike]:
    for artifact, offset, size in index.ranges(key, 0, index.objects[key].size):
        with artifacts.open(artifact, start=offset, length=size) as stream:
            yield from stream.chunks()


def _manifest(index: PackIndex, artifacts: ArtifactReader) -> ServerManifest:
    return parse_manifest(bytes(piece) for piece in _bytes_of(index, MANIFEST_KEY, artifacts))


def _base_of(
    manifest: ServerManifest, index: PackIndex, artifacts: ArtifactReader
) -> tuple[ServerManifest, PackIndex] | None:
    """Return what the backup needs of the one it is built on, and where that lies; None for one that is built on none.

    Raises :class:`~drd.errors.IntegrityError` when it is not there, or another one.
    """
    if not manifest.base_backup_uuid:
        return None
    view = increments.view_of_base(index)
    if view is None or MANIFEST_KEY not in view.objects:
        raise IntegrityError(f"it is built on the backup {manifest.base_backup_uuid}, of which it names nothing")
    whole = _manifest(view, artifacts)
    wanted = set(increments.needed(manifest, whole).values())
    files = [item for item in whole.files if item.key in wanted]
    return ServerManifest(files, whole.base_backup_uuid, whole.uuid), view


def _problems(
    manifest: ServerManifest, index: PackIndex, artifacts: ArtifactReader, ctx: WorkContext
) -> Iterator[Problem]:
    """Yield what is wrong; every object is read once, however many files share it."""
    by_key: dict[str, ManifestFile] = {}
    for item in manifest.files:
        if item.size > item.in_base:
            by_key.setdefault(item.key, item)
    found = 0
    readable: list[tuple[tuple[int, int], ManifestFile]] = []
    for key, item in by_key.items():
        have = index.objects.get(key)
        if have is not None and have.size == item.size - item.in_base:
            readable.append((have.segments[0][:2], item))
            continue
        found += 1
        if found <= MAX_PROBLEMS:
            what = "is missing" if have is None else f"has {have.size} bytes instead of {item.size - item.in_base}"
            yield Problem(key, what, "RESTORE fails")
    done, total = 0, sum(item.size for _, item in readable)
    for _, item in sorted(readable, key=lambda pair: pair[0]):
        ctx.cancel.raise_if_cancelled()
        if item.in_base:
            continue  # its checksum covers the ancestor's bytes too
        try:
            wrong = cityhash.checksum(_pieces(index, item.key, artifacts)) != item.checksum
        except IntegrityError as error:
            yield Problem(error.subject or item.key, error.message, "RESTORE fails")
            return  # a damaged part is named once, not for every file in it
        done += item.size
        ctx.progress(Progress(ctx.source, "checksums of ClickHouse", done, total))
        if wrong:
            found += 1
            if found <= MAX_PROBLEMS:
                yield Problem(
                    item.key, "the bytes are not those of the checksum in .backup", "RESTORE brings damaged data"
                )
    if found > MAX_PROBLEMS:
        yield Problem("…", f"{found - MAX_PROBLEMS} more files", "")


def _pieces(index: PackIndex, key: str, artifacts: ArtifactReader) -> Iterator[bytes | memoryview]:
    for piece in _bytes_of(index, key, artifacts):
        yield piece if isinstance(piece, bytes | memoryview) else bytes(piece)
