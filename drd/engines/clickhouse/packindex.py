"""Which bytes of which artifact each object of a ClickHouse backup is: ``clickhouse/index.json``.

Format: ``{"version": 1, "artifacts": [name…], "databases": [name…], "objects": {key: [size, [[artifact number,
offset, length]…]]}}``. Names of tables are in it, so it is an artifact (encrypted), not part of the manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from drd.engines.clickhouse.quoting import from_file_name
from drd.errors import IntegrityError
from drd.protocols import ArtifactReader, ArtifactSink, ArtifactStream

TAR_ARTIFACT = "clickhouse/backup.tar"
INDEX_ARTIFACT = "clickhouse/index.json"
MAX_INDEX_BYTES = 1 << 30
_VERSION = 1
_UNUSABLE = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")


class NoArtifacts:
    """The reader of a backup that holds nothing."""

    def names(self) -> Sequence[str]:
        """Return no name."""
        return ()

    def size(self, name: str) -> int:
        """Refuse."""
        raise IntegrityError(f"there is no artifact {name}")

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> ArtifactStream:
        """Refuse."""
        raise IntegrityError(f"there is no artifact {name} ({start}, {length})")


def usable_key(key: str) -> bool:
    """Whether a key can be an object and a path below a folder: no empty, ``.`` or ``..`` segment, no control."""
    return (
        0 < len(key.encode("utf-8", "surrogatepass")) <= 1024
        and all(segment not in {"", ".", ".."} for segment in key.split("/"))
        and not _UNUSABLE.search(key)
    )


@dataclass(frozen=True, slots=True)
class PackedObject:
    """One object: its size and its segments as (artifact number, offset, length), in order."""

    size: int
    segments: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class PackIndex:
    """The objects of one backup; about 250 bytes of memory an object."""

    artifacts: tuple[str, ...]
    objects: dict[str, PackedObject] = field(default_factory=dict)

    def databases(self) -> list[str]:
        """Name the databases, from ``metadata/<database>.sql`` and the tables below ``metadata/<database>/``."""
        return databases_of(self.objects)

    def ranges(self, key: str, start: int, length: int) -> Iterator[tuple[str, int, int]]:
        """Yield (artifact, offset, length) for a range of an object."""
        for number, offset, size in self.objects[key].segments:
            if length <= 0:
                return
            if start >= size:
                start -= size
                continue
            take = min(size - start, length)
            yield self.artifacts[number], offset + start, take
            start, length = 0, length - take


def databases_of(keys: Iterator[str] | Sequence[str] | dict[str, PackedObject]) -> list[str]:
    """Name the databases whose definitions or tables are among the keys of a backup."""
    names = set()
    for key in keys:
        parts = key.split("/")
        if parts[0] == "metadata" and len(parts) in {2, 3}:
            names.add(parts[1].removesuffix(".sql") if len(parts) == 2 else parts[1])
    return sorted(name for n in names if (name := from_file_name(n)) != "system")


def write_index(index: PackIndex, sink: ArtifactSink) -> None:
    """Write the index as an artifact, a few thousand objects at a time."""
    writer = sink.open(INDEX_ARTIFACT)
    try:
        head = {"version": _VERSION, "artifacts": list(index.artifacts), "databases": index.databases()}
        writer.write((json.dumps(head)[:-1] + ', "objects": {\n').encode())
        lines: list[str] = []
        for count, (key, item) in enumerate(index.objects.items()):
            lines.append(f"{',' if count else ''}{json.dumps(key)}:{json.dumps([item.size, item.segments])}\n")
            if len(lines) >= 5000:
                writer.write("".join(lines).encode())
                lines.clear()
        writer.write(("".join(lines) + "}}\n").encode())
    except BaseException:
        writer.abort()
        raise
    writer.close()


def read_index(artifacts: ArtifactReader) -> PackIndex:
    """Read and check the index; for a backup that the server wrote itself, make one of its raw artifacts.

    Every segment lies inside its artifact and sums to the object's size. Raises
    :class:`~drd.errors.IntegrityError` otherwise.
    """
    names = artifacts.names()
    if INDEX_ARTIFACT not in names:
        raw = [n for n in names if n.startswith("clickhouse/")]
        if not raw:
            raise IntegrityError("the backup holds neither an index nor objects of ClickHouse", hint="drd verify it")
        objects = {
            name.removeprefix("clickhouse/"): PackedObject(size, ((number, 0, size),))
            for number, name in enumerate(raw)
            for size in [artifacts.size(name)]
        }
        return PackIndex(tuple(raw), objects)
    if artifacts.size(INDEX_ARTIFACT) > MAX_INDEX_BYTES:
        raise IntegrityError(f"{INDEX_ARTIFACT} is larger than 1 GiB")
    with artifacts.open(INDEX_ARTIFACT) as stream:
        return parse_index(stream.read(), artifacts)


def parse_index(data: bytes, artifacts: ArtifactReader) -> PackIndex:
    """Parse the bytes of an index; raises :class:`~drd.errors.IntegrityError` for anything but a sound one."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{INDEX_ARTIFACT} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise IntegrityError(
            f"{INDEX_ARTIFACT} is not of version {_VERSION}", hint="use the drd that wrote it, or newer"
        )
    tars, objects = document.get("artifacts"), document.get("objects")
    if not isinstance(tars, list) or not all(isinstance(t, str) for t in tars) or not isinstance(objects, dict):
        raise IntegrityError(f"{INDEX_ARTIFACT} is malformed")
    sizes = [artifacts.size(name) for name in tars]
    return PackIndex(tuple(tars), {key: _parse_object(key, value, sizes) for key, value in objects.items()})


def _parse_object(key: str, value: Any, sizes: list[int]) -> PackedObject:
    wrong = IntegrityError(f"{INDEX_ARTIFACT}: the entry {key[:200]!r} is malformed")
    if not usable_key(key) or not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
        raise wrong
    segments: list[tuple[int, int, int]] = []
    for segment in value[1]:
        if not isinstance(segment, list) or len(segment) != 3 or not all(type(n) is int and n >= 0 for n in segment):
            raise wrong
        number, offset, length = segment
        if number >= len(sizes) or offset + length > sizes[number]:
            raise wrong
        segments.append((number, offset, length))
    if type(value[0]) is not int or value[0] != sum(s[2] for s in segments):
        raise wrong
    return PackedObject(value[0], tuple(segments))
