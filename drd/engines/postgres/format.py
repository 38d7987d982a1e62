"""What a PostgreSQL backup looks like at rest: checked without a server, and restored without drd."""

from __future__ import annotations

import hashlib
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

from drd.engines.postgres.archive import Archive
from drd.engines.postgres.digest import ArchivedTableDigest, LargeObjectsDigest, table_digest
from drd.engines.postgres.inventory import inventory
from drd.engines.postgres.pack import TAR_NAME
from drd.engines.postgres.restore import read_databases
from drd.engines.postgres.runbook import runbook
from drd.engines.postgres.sqltext import dotted
from drd.errors import IntegrityError
from drd.model import (
    FINGERPRINT_ARTIFACT,
    Backup,
    Difference,
    EngineKind,
    EngineRunbook,
    Fingerprint,
    Json,
    Problem,
    compare_fingerprints,
)
from drd.protocols import ArtifactReader, WorkContext

_LOST = "this database cannot be restored whole from this backup"
_SHOWN = 20


class PostgresFormat:
    """Implements :class:`drd.protocols.Format` for dumps."""

    kind: EngineKind = "postgres"

    def verify(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> list[Problem]:
        """Read everything: tables of contents, packs, each table's rows and digest against the fingerprint."""
        del backup
        problems: list[Problem] = []
        found: dict[str, dict[str, Json]] = {}
        stored = _stored_fingerprint(artifacts) if FINGERPRINT_ARTIFACT in artifacts.names() else None
        try:
            databases = read_databases(artifacts)
        except IntegrityError as error:
            return [Problem("databases.json", error.message, _LOST)]
        for database in databases:
            prefix = f"{database['artifact']}/"
            try:
                archive = Archive(artifacts, prefix)
                problems += _unmatched(archive)
                found |= _digests(archive, str(database["name"]), stored.items if stored else {}, ctx)
            except IntegrityError as error:
                problems.append(Problem(prefix.rstrip("/"), error.message, _LOST))
        if stored is not None and not problems:
            problems += _differences(stored, found)
        return problems

    def runbook(self, backup: Backup) -> EngineRunbook:
        """Return how to restore without drd; see :meth:`drd.protocols.Format.runbook`."""
        return runbook(backup)


def _unmatched(archive: Archive) -> list[Problem]:
    """Compare the files that the table of contents names with those that are there."""
    named = set(archive.toc.data_files())
    for listing in [name for name in named if name.endswith(".toc")]:
        named.update(archive.large_object_files(listing))
    present = archive.own | set(archive.index.names())
    problems = [
        Problem(archive.prefix + name, "is named by the table of contents and missing", _LOST)
        for name in sorted(named - present)[:_SHOWN]
    ]
    problems += [
        Problem(archive.prefix + name, "is not named by the table of contents", "something wrote into this backup")
        for name in sorted(present - named)[:_SHOWN]
    ]
    return problems


def _digests(
    archive: Archive, database: str, expected: dict[str, dict[str, Json]], ctx: WorkContext
) -> dict[str, dict[str, Json]]:
    """Digest every file and return this archive's fingerprint items; ``expected`` says in which ranges."""
    items = {
        name: expected.get(dotted(database, entry.schema, entry.tag), {})
        for name, entry in archive.toc.data_files().items()
    }
    tables: dict[str, dict[str, Json]] = {}
    objects = LargeObjectsDigest()
    with ThreadPoolExecutor(max(1, ctx.jobs), thread_name_prefix="pg-verify") as pool:
        alone = {
            name: pool.submit(_digest_alone, archive, name, items.get(name, {}), ctx) for name in sorted(archive.own)
        }
        packed = pool.submit(_digest_pack, archive, tables, objects, ctx)
    packed.result()
    for name, future in alone.items():
        _take(name, future.result(), tables, objects)
    return inventory(archive.toc, database, tables, objects.facts())


class _FileDigest:
    """Both digests a file may need; which one counts is told by its name."""

    def __init__(self, expected: dict[str, Json] | None = None) -> None:
        self.table = ArchivedTableDigest(table_digest(expected or {}))
        self.content = hashlib.sha256()
        self.size_bytes = 0

    def update(self, data: bytes) -> None:
        self.table.update(data, len(data))
        self.content.update(data)
        self.size_bytes += len(data)


def _digest_alone(archive: Archive, name: str, expected: dict[str, Json], ctx: WorkContext) -> _FileDigest:
    digest = _FileDigest(expected)
    with archive.open(name) as stream:
        for chunk in stream.chunks():
            ctx.cancel.raise_if_cancelled()
            digest.update(bytes(chunk))
    return digest


def _digest_pack(
    archive: Archive, tables: dict[str, dict[str, Json]], objects: LargeObjectsDigest, ctx: WorkContext
) -> None:
    """Walk the tar as ``tar`` would and compare each member's place with the index."""
    if not len(archive.index):
        return
    seen = 0
    with archive.artifacts.open(archive.prefix + TAR_NAME) as stream:
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=1 << 20) as tar:
                for member in tar:
                    ctx.cancel.raise_if_cancelled()
                    if archive.index.find(member.name) != (member.offset_data, member.size) or not member.isreg():
                        raise IntegrityError(
                            f"{archive.prefix}{TAR_NAME} and its index disagree about {member.name[:40]}"
                        )
                    content = tar.extractfile(member)
                    digest = _FileDigest()
                    digest.update(content.read() if content else b"")
                    if digest.size_bytes != member.size:
                        raise IntegrityError(f"{archive.prefix}{TAR_NAME} ends within {member.name}")
                    _take(member.name, digest, tables, objects)
                    seen += 1
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise IntegrityError(f"{archive.prefix}{TAR_NAME} is damaged: {error}") from error
    if seen != len(archive.index):
        raise IntegrityError(f"{archive.prefix}{TAR_NAME} has {seen} members, its index {len(archive.index)}")


def _take(name: str, digest: _FileDigest, tables: dict[str, dict[str, Json]], objects: LargeObjectsDigest) -> None:
    if name.startswith("blob_"):
        objects.add(int(name[5:-4]), digest.size_bytes, digest.content.digest())
    elif name.endswith(".dat"):
        facts = digest.table.facts()
        if facts is None:
            raise IntegrityError(f"{name} does not end as pg_dump ends a table: it is cut short")
        tables[name] = facts


def _stored_fingerprint(artifacts: ArtifactReader) -> Fingerprint:
    with artifacts.open(FINGERPRINT_ARTIFACT) as stream:
        data = stream.read()
    try:
        found: dict[str, Any] = json.loads(data)
        return Fingerprint("postgres", found["items"], tuple(found["compared"]), found["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{FINGERPRINT_ARTIFACT} is damaged: {error}") from error


def _differences(stored: Fingerprint, found: dict[str, dict[str, Json]]) -> list[Problem]:
    differences: list[Difference] = compare_fingerprints(stored, Fingerprint("postgres", found, stored.compared))
    return [
        Problem(one.name, f"{one.fact} is {one.found}, the fingerprint says {one.expected}", _LOST)
        for one in differences[:_SHOWN]
    ]
