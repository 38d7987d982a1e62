"""What a gateway serves during a restore: the objects of a finished backup, read-only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drd.engines.clickhouse.packindex import PackedObject, PackIndex
from drd.protocols import ArtifactReader, BytesLike


@dataclass(frozen=True)
class Stat:
    """Size and ETag of one object."""

    size: int
    etag: str


class BackupSpace:
    """A finished backup, read-only: objects are ranges of its tar artifacts, or raw artifacts in direct mode."""

    def __init__(self, index: PackIndex, artifacts: ArtifactReader) -> None:
        self._index = index
        self._artifacts = artifacts

    def stat(self, key: str) -> Stat | None:
        """Return size and ETag, None when there is no such object."""
        found = self._index.objects.get(key)
        return Stat(found.size, _etag(key, found)) if found else None

    def read(self, key: str, start: int, length: int) -> Iterator[BytesLike]:
        """Yield a range of an object that exists; raises :class:`~drd.errors.IntegrityError` for damaged parts."""
        for artifact, offset, size in self._index.ranges(key, start, length):
            with self._artifacts.open(artifact, start=offset, length=size) as stream:
                yield from stream.chunks()

    def keys(self, prefix: str) -> Sequence[str]:
        """List keys in ascending order."""
        return sorted(k for k in self._index.objects if k.startswith(prefix))


def _etag(key: str, found: PackedObject) -> str:
    return hashlib.md5(f"{key}{found.segments}".encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
