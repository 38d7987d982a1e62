"""Turns the objects a ClickHouse server puts into one tar artifact and its index, while they arrive.

Objects become members of a tar (:mod:`arranging` says where in it); the parts of a multipart upload become
``<key>.part-00001``… (``cat`` joins them). A key that is put again is a second member: tar's rule that the last one
wins is the index's too.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from drd.engines.clickhouse.arranging import ArrangedTar, Place
from drd.engines.clickhouse.packindex import TAR_ARTIFACT, PackedObject, PackIndex
from drd.engines.clickhouse.s3wire import Body, S3Failure
from drd.engines.clickhouse.spaces import Stat
from drd.protocols import ArtifactSink, BytesLike

LOCK_KEY = ".lock"
MANIFEST_KEY = ".backup"
BUFFER_BYTES = 32 << 20  # larger bodies are streamed while they hold the tar
MAX_MANIFEST_BYTES = 1 << 30
_MAX_LOCK_BYTES = 64 << 10


@dataclass
class _Upload:
    key: str
    parts: dict[int, tuple[Stat, Place]] = field(default_factory=dict)


class PackingSpace:
    """The object space of one backup being taken; thread-safe.

    ``first_data_at`` is when the first object that is not the lock began to arrive: ClickHouse has collected the
    parts of every table before it writes the first file. A lock lives in memory alone; the server's own
    manifest (``.backup``) is kept in memory too, since it is wanted at the end.
    """

    def __init__(self, sink: ArtifactSink, now: Callable[[], datetime]) -> None:
        self._tar = ArrangedTar(sink.open(TAR_ARTIFACT))
        self._now = now
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[tuple[Place, ...], str]] = {}
        self._locks: dict[str, bytes] = {}
        self._uploads: dict[str, _Upload] = {}
        self._manifest: dict[tuple[str, int], bytes] = {}
        self.first_data_at: datetime | None = None
        self.bytes_in = 0

    def stat(self, key: str) -> Stat | None:
        """Return size and ETag of a lock or of what was packed."""
        with self._lock:
            if key in self._locks:
                return Stat(len(self._locks[key]), _etag_of(self._locks[key]))
            found = self._objects.get(key)
        return Stat(sum(place.size for place in found[0]), found[1]) if found else None

    def read(self, key: str, start: int, length: int) -> Iterator[BytesLike]:
        """Yield what is still in memory: the lock and the manifest; the rest is on its way to the store."""
        with self._lock:
            held = self._locks.get(key)
        if held is None and key == MANIFEST_KEY and key in self._objects:
            held = self.manifest()
        if held is None:
            raise S3Failure(501, "NotImplemented", "objects of a running backup cannot be read back")
        yield held[start : start + length]

    def put(self, key: str, body: Body) -> Stat:
        """Pack one object; it is in the index only after its digests were right and the artifact took it."""
        if key.rsplit("/", 1)[-1] == LOCK_KEY:
            if body.length > _MAX_LOCK_BYTES:
                raise S3Failure(400, "EntityTooLarge", "a lock is a small object", hang_up=True)
            data = bytes(body.whole())
            with self._lock:
                self._locks[key] = data
            return Stat(len(data), _etag_of(data))
        place = self._pack(key, body, remember=(key, 0))
        stat = Stat(body.length, body.sha256[:32])
        with self._lock:
            self._objects[key] = (place,), stat.etag
        return stat

    def put_file(self, key: str, size: int, chunks: Iterable[bytes]) -> None:
        """Pack one object that comes from a trusted place (a shared volume) and needs no check of digests."""
        if key == MANIFEST_KEY:
            data = b"".join(chunks)
            self._remember((key, 0), data)
            chunks = (data,)
        place = self._tar.add(key, size, chunks)
        with self._lock:
            self._objects[key] = (place,), ""
            self.bytes_in += size

    def delete(self, key: str) -> None:
        """Forget an object; its bytes stay in the tar and leave the index."""
        with self._lock:
            self._locks.pop(key, None)
            self._objects.pop(key, None)

    def keys(self, prefix: str) -> Sequence[str]:
        """List what exists."""
        with self._lock:
            return sorted(k for k in {*self._objects, *self._locks} if k.startswith(prefix))

    def begin(self, key: str) -> str:
        """Start a multipart upload."""
        upload = secrets.token_hex(16)
        with self._lock:
            if len(self._uploads) >= 1000:
                raise S3Failure(503, "SlowDown", "too many open uploads")
            self._uploads[upload] = _Upload(key)
        return upload

    def put_part(self, upload: str, key: str, number: int, body: Body) -> Stat:
        """Pack one part as a member of its own."""
        entry = self._upload(upload, key)
        place = self._pack(f"{key}.part-{number:05d}", body, remember=(key, number))
        stat = Stat(body.length, body.sha256[:32])
        with self._lock:
            entry.parts[number] = stat, place
        return stat

    def complete(self, upload: str, key: str, parts: Sequence[tuple[int, str]]) -> Stat:
        """Join parts in the index."""
        entry = self._upload(upload, key)
        if not parts or [n for n, _ in parts] != sorted({n for n, _ in parts}):
            raise S3Failure(400, "InvalidPartOrder", "parts must be listed once each, ascending")
        with self._lock:
            if any(n not in entry.parts or entry.parts[n][0].etag != etag for n, etag in parts):
                raise S3Failure(400, "InvalidPart", "a listed part was not uploaded")
            places = tuple(entry.parts[n][1] for n, _ in parts)
            size = sum(place.size for place in places)
            joined = "".join(etag for _, etag in parts).encode()
            stat = Stat(size, f"{_etag_of(joined)}-{len(parts)}")
            self._objects[key] = places, stat.etag
            del self._uploads[upload]
        return stat

    def abandon(self, upload: str, key: str) -> None:
        """Forget an upload."""
        self._upload(upload, key)
        with self._lock:
            self._uploads.pop(upload, None)

    def manifest(self) -> bytes:
        """Return the server's own manifest, ``b""`` when it never came."""
        with self._lock:
            return b"".join(data for (key, _), data in sorted(self._manifest.items()) if key == MANIFEST_KEY)

    def finish(self) -> PackIndex:
        """Close the tar and return the index."""
        self._tar.finish()
        with self._lock:
            return PackIndex((TAR_ARTIFACT,), {key: _packed(places) for key, (places, _) in self._objects.items()})

    def abort(self) -> None:
        """Drop the tar. Waits for a body under way: stop the server first."""
        self._tar.abort()

    def _upload(self, upload: str, key: str) -> _Upload:
        with self._lock:
            entry = self._uploads.get(upload)
        if entry is None or entry.key != key:
            raise S3Failure(404, "NoSuchUpload", "no such upload")
        return entry

    def _pack(self, member: str, body: Body, remember: tuple[str, int]) -> Place:
        """Write a body as a member; buffered and verified first unless it is large."""
        with self._lock:
            self.first_data_at = self.first_data_at or self._now()
        chunks: Iterable[memoryview] = body.chunks()
        if body.length <= BUFFER_BYTES:
            data = body.whole()
            chunks = (data,)
            if remember[0] == MANIFEST_KEY:
                self._remember(remember, bytes(data))
        elif remember[0] == MANIFEST_KEY:
            raise S3Failure(400, "EntityTooLarge", "the manifest must come in parts of at most 32 MiB", hang_up=True)
        place = self._tar.add(member, body.length, chunks)
        with self._lock:
            self.bytes_in += body.length
        return place

    def _remember(self, which: tuple[str, int], data: bytes) -> None:
        with self._lock:
            if which[1] == 0:
                self._manifest.clear()
            if sum(map(len, self._manifest.values())) + len(data) > MAX_MANIFEST_BYTES:
                raise S3Failure(400, "EntityTooLarge", "the manifest is larger than 1 GiB")
            self._manifest[which] = data


def _packed(places: Sequence[Place]) -> PackedObject:
    segments = tuple((0, place.offset, place.size) for place in places if place.size)
    return PackedObject(sum(place.size for place in places), segments)


def _etag_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
