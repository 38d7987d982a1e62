"""The tar of a backup, arranged so that what did not change since the last one lies in the same parts again.

A MergeTree part never changes: its files come back byte by byte in each backup until a merge replaces it. But they
arrive in no order, so here each of them, or the small ones of a MergeTree part together and by name, is a *piece*: a
run of the tar that begins and ends with a part of the artifact, wherever it lies. Equal pieces are equal parts, and
those are referred to instead of being stored again.

What is less than :data:`GROUP_BYTES` in all lies together by name, at the end. A run of many files is cut after a name
that its checksum chooses: so a file more or less moves no cut but the next.
"""

from __future__ import annotations

import tarfile
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from drd.engines.clickhouse.s3wire import CHUNK_BYTES
from drd.protocols import ArtifactWriter, BytesLike

PIECE_BYTES = 2 << 20
"""A larger file is a piece by itself and streamed; smaller ones gather in memory until they make one."""
PENDING_BYTES = 16 << 20
"""How much gathers at most: then the group that was added to longest ago is written, or what is large in it."""
APART_BYTES = 256 << 10
"""A file of this size is a piece by itself where a MergeTree part has more small files than may gather."""
GROUP_BYTES = 64 << 10
"""A MergeTree part with less is no piece: parts of an artifact that are as small are not shared."""
_ONE_IN = 4
_BLOCK = 512


@dataclass(eq=False, slots=True)
class Place:
    """Where the bytes of a member are in the tar; known once they are written."""

    size: int
    offset: int = -1


@dataclass(slots=True)
class _Member:
    name: str
    header: bytes
    data: bytearray
    place: Place

    @property
    def size(self) -> int:
        return len(self.header) + _padded(self.place.size)


@dataclass(slots=True)
class _Group:
    members: list[_Member] = field(default_factory=list)
    size: int = 0

    def large(self) -> list[_Member]:
        """Return what may be a piece by itself; nothing where a name is there twice, as their order matters."""
        once = len({member.name for member in self.members}) == len(self.members)
        return [member for member in self.members if member.size >= APART_BYTES] if once else []


class ArrangedTar:
    """A standard tar (pax where names need it) written into one artifact. Thread-safe."""

    def __init__(self, writer: ArtifactWriter) -> None:
        self._writer = writer
        self._offset = 0
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}  # the one that was added to last is the last
        self._groups_bytes = 0
        self._rest = _Group()
        self._rest_names: set[str] = set()
        self._apart: set[str] = set()  # groups that are too large to be held whole

    def add(self, name: str, size: int, chunks: Iterable[BytesLike]) -> Place:
        """Take a member in; of several with one name, the last stays behind the others.

        When ``chunks`` raises, the tar stays sound and the error goes on; when the artifact raises, nothing more may be
        added. The place is known after :meth:`finish`.
        """
        place = Place(size)
        header = _header(name, size)
        key = _group_of(name)
        if size >= PIECE_BYTES:
            with self._lock:
                held = self._groups.get(key)
                if held and any(member.name == name for member in held.members):
                    self._write_group(key)
                if name in self._rest_names:
                    self._write_rest()
                self._writer.begin_piece(len(header) + _padded(size))
                self._append(header, place, chunks)
            return place
        data = bytearray()
        for piece in chunks:
            data += piece
        member = _Member(name, header, data, place)
        with self._lock:
            group = self._groups.pop(key, None) or _Group()
            self._groups[key] = group
            group.members.append(member)
            group.size += member.size
            self._groups_bytes += member.size
            while self._groups_bytes + self._rest.size > PENDING_BYTES:
                self._make_room()
        return place

    def finish(self) -> None:
        """Write what is held and tar's end mark, and close the artifact."""
        with self._lock:
            for key in sorted(self._groups, key=lambda key: ("/" not in key, key)):  # what always differs comes last
                if "/" not in key:
                    self._write_rest()
                self._write_group(key)
            self._write_rest()
            self._writer.begin_piece(2 * _BLOCK)
            self._zeros(2 * _BLOCK)
            self._writer.close()

    def abort(self) -> None:
        """Drop the artifact. Waits for a member under way."""
        with self._lock:
            self._writer.abort()

    def _make_room(self) -> None:
        if self._rest.size > PENDING_BYTES // 2 or not self._groups:
            self._write_rest()
        elif len(self._groups) > 1:
            oldest = next(iter(self._groups))
            if self._groups[oldest].size > PENDING_BYTES // 2:
                self._apart.add(oldest)
            self._write_group(oldest)
        else:
            self._write_apart()

    def _write_apart(self) -> None:
        """Write of the only group, which goes on, what may be a piece by itself; all of it when there is no such file.

        The server sends the files of a part in another order each time: so only single files would be the same again.
        """
        (key,) = self._groups
        group = self._groups[key]
        self._apart.add(key)
        large = group.large()
        if key == "" or not large:
            self._write_group(key)
            return
        self._write_older(large)
        for member in large:
            self._write_piece([member])
            group.size -= member.size
            self._groups_bytes -= member.size
        group.members = [member for member in group.members if member.size < APART_BYTES]

    def _write_group(self, key: str) -> None:
        """Write a group, or lay it to the rest when it is small."""
        group = self._groups.pop(key, None)
        if group is None:
            return
        self._groups_bytes -= group.size
        if key == "" or (group.size < GROUP_BYTES and "/" in key):
            self._rest.members += group.members
            self._rest.size += group.size
            self._rest_names.update(member.name for member in group.members)
            return
        self._write_older(group.members)
        large = group.large() if key in self._apart or group.size > PENDING_BYTES // 2 else []
        for member in large:
            self._write_piece([member])
        self._write([member for member in group.members if member.size < APART_BYTES] if large else group.members)

    def _write_older(self, members: Iterable[_Member]) -> None:
        """Write the rest first where it holds older members of the same names."""
        if not self._rest_names.isdisjoint(member.name for member in members):
            self._write_rest()

    def _write_rest(self) -> None:
        rest, self._rest = self._rest, _Group()
        self._rest_names.clear()
        self._write(rest.members)

    def _write(self, members: list[_Member]) -> None:
        for piece in _pieces(sorted(members, key=lambda member: member.name)):
            self._write_piece(piece)

    def _write_piece(self, members: list[_Member]) -> int:
        size = sum(member.size for member in members)
        self._writer.begin_piece(size)
        for member in members:
            self._append(member.header, member.place, (member.data,))
        return size

    def _append(self, header: bytes, place: Place, chunks: Iterable[BytesLike]) -> None:
        """Write a member; when ``chunks`` raises, it is filled up with zeros."""
        self._put(header)
        place.offset = self._offset
        end = self._offset + _padded(place.size)
        source = iter(chunks)
        while True:
            try:
                piece = next(source, None)
            except BaseException:
                self._zeros(end - self._offset)
                raise
            if piece is None:
                break
            self._put(piece)
        self._zeros(end - self._offset)

    def _put(self, data: BytesLike) -> None:
        self._writer.write(data)
        self._offset += len(data)

    def _zeros(self, count: int) -> None:
        while count > 0:
            self._put(bytes(min(count, CHUNK_BYTES)))
            count -= CHUNK_BYTES


def _header(name: str, size: int) -> bytes:
    """Spell a header that depends on name and size alone."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _group_of(name: str) -> str:
    """Return the folder of a MergeTree part, ``data/<database>/<table>/<part>``; the name itself for one at the top.

    All else (definitions, tables that are one folder of files) belongs to the rest: "".
    """
    words = name.split("/")
    if len(words) == 1:
        return name
    return "/".join(words[:4]) if words[0] == "data" and len(words) >= 5 else ""


def _pieces(members: Iterable[_Member]) -> Iterator[list[_Member]]:
    piece: list[_Member] = []
    size = 0
    for member in members:
        piece.append(member)
        size += member.size
        if size >= PIECE_BYTES and zlib.crc32(member.name.encode("utf-8", "surrogateescape")) % _ONE_IN == 0:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
