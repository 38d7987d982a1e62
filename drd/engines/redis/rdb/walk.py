"""Walk through a snapshot key by key: counts, aux fields, function libraries, and each value's raw bytes if wanted."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from drd.engines.redis.rdb.cursor import Cursor
from drd.engines.redis.rdb.values import (
    LARGEST_REDIS_VERSION,
    VALKEY_VERSIONS,
    UnsupportedValue,
    has_field_expiry,
    skip_module,
    skip_string,
    skippers,
)
from drd.errors import IntegrityError
from drd.protocols import BytesLike

_META, _SLOT_INFO, _FUNCTION, _FUNCTION_PRE_GA, _MODULE_AUX = 243, 244, 245, 246, 247
_IDLE, _FREQ, _AUX, _RESIZE, _EXPIRE_MS, _EXPIRE_S, _SELECT, _EOF = 248, 249, 250, 251, 252, 253, 254, 255
_I64 = struct.Struct("<q")
_I32 = struct.Struct("<i")
_INTEGERS = (struct.Struct("<b"), struct.Struct("<h"), struct.Struct("<i"))


class Entry(NamedTuple):
    """One key. ``value`` is its raw encoding (empty unless asked for); ``expires_ms`` is unix time or None."""

    db: int
    name: bytes
    kind: int
    value: bytes
    expires_ms: int | None


@dataclass
class Counts:
    """Keys of one database: all, those with a time to live, those with fields that expire by themselves."""

    keys: int = 0
    expires: int = 0
    field_expires: int = 0


@dataclass
class Walk:
    """One pass over a snapshot; iterate :meth:`entries` to the end, then read the rest of the attributes.

    Memory is bounded by the largest key name and, with ``values``, by the largest value (``keep_limit_bytes``).
    """

    chunks: Iterable[BytesLike]
    values: bool = False
    keep_limit_bytes: int = 1 << 30
    magic: str = ""
    version: int = 0
    aux: dict[str, str] = field(default_factory=dict)
    libraries: list[bytes] = field(default_factory=list)
    databases: dict[int, Counts] = field(default_factory=dict)
    hints: dict[int, tuple[int, int]] = field(default_factory=dict)
    checksum: int | None = None

    def entries(self) -> Iterator[Entry]:
        """Yield every key in the stream's order; raises :class:`~drd.errors.IntegrityError` for anything malformed."""
        cursor = Cursor(self.chunks, self.keep_limit_bytes)
        self.magic, self.version = read_magic(cursor)
        require_support(self.magic, self.version)
        skip = skippers(self.magic)
        db, counts, expires_ms = 0, Counts(), None
        while (opcode := cursor.byte()) != _EOF:
            if passer := skip.get(opcode):
                name = read_string(cursor)
                value = b""
                if self.values:
                    cursor.mark()
                    passer(cursor)
                    value = cursor.marked()
                else:
                    passer(cursor)
                if not counts.keys:
                    self.databases[db] = counts
                counts.keys += 1
                counts.expires += expires_ms is not None
                counts.field_expires += has_field_expiry(self.magic, opcode)
                yield Entry(db, name, opcode, value, expires_ms)
                expires_ms = None
            elif opcode == _EXPIRE_MS:
                expires_ms = int(_I64.unpack(cursor.take(8))[0])
            elif opcode == _EXPIRE_S:
                expires_ms = int(_I32.unpack(cursor.take(4))[0]) * 1000
            elif opcode == _SELECT:
                db = cursor.length()
                counts = self.databases.get(db) or Counts()
            elif opcode == _RESIZE:
                self.hints[db] = (cursor.length(), cursor.length())
            else:
                self._other(cursor, opcode)
        if self.version >= 5:
            self.checksum = int.from_bytes(cursor.take(8), "little")
        if not cursor.at_end():
            raise IntegrityError(f"offset {cursor.offset}: bytes follow the end of the snapshot")

    def _other(self, cursor: Cursor, opcode: int) -> None:
        """Read what stands between keys and is none."""
        if opcode == _AUX:
            name = read_string(cursor)
            self.aux[name.decode("utf-8", "backslashreplace")] = read_string(cursor).decode("utf-8", "backslashreplace")
        elif opcode == _FUNCTION:
            self.libraries.append(read_string(cursor))
        elif opcode == _IDLE:
            cursor.length()
        elif opcode == _FREQ:
            cursor.byte()
        elif opcode == _SLOT_INFO:
            for _ in range(3):
                cursor.length()
        elif opcode == _MODULE_AUX:
            cursor.length()
            for _ in range(2):  # when: an opcode and its number
                cursor.length()
            skip_module(cursor)
        elif opcode == _META and self.magic == "VALKEY":  # a slot import under way: name, ranges of slots
            skip_string(cursor)
            for _ in range(2 * cursor.length()):
                cursor.length()
        else:
            raise UnsupportedValue(f"offset {cursor.offset - 1}: unknown type or opcode {opcode}")


def read_magic(cursor: Cursor) -> tuple[str, int]:
    """Read ``REDIS0010`` or ``VALKEY080``; raises :class:`~drd.errors.IntegrityError` for anything else."""
    head = cursor.take(9)
    for magic in ("REDIS", "VALKEY"):
        if head.startswith(magic.encode()) and head[len(magic) :].isdigit():
            return magic, int(head[len(magic) :])
    raise IntegrityError("this is not an RDB snapshot: it begins with neither REDIS nor VALKEY and a version")


def is_supported(magic: str, version: int) -> bool:
    """Whether this reader knows the version."""
    return version in VALKEY_VERSIONS if magic == "VALKEY" else 1 <= version <= LARGEST_REDIS_VERSION


def require_support(magic: str, version: int) -> None:
    """Raise :class:`UnsupportedValue` when this reader does not know the version."""
    if not is_supported(magic, version):
        raise UnsupportedValue(
            f"drd's own reader does not know {magic} RDB version {version}",
            hint="install the redis-check-rdb of that server and point tools_dir to it",
        )


def read_string(cursor: Cursor) -> bytes:
    """Read one string in any encoding; integers become their decimal text."""
    size, special = cursor.length_or_encoding()
    if not special:
        return cursor.take(size)
    if size < 3:
        return b"%d" % _INTEGERS[size].unpack(cursor.take(1 << size))[0]
    if size == 3:
        packed, plain = cursor.length(), cursor.length()
        return lzf(cursor.take(packed), plain)
    raise IntegrityError(f"offset {cursor.offset}: unknown string encoding {size}")


def lzf(data: bytes, size: int) -> bytes:
    """Expand LZF data to exactly ``size`` bytes; raises :class:`~drd.errors.IntegrityError` when it does not fit."""
    out = bytearray()
    at, end = 0, len(data)
    try:
        while at < end and len(out) <= size:
            control = data[at]
            at += 1
            if control < 32:
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            start = len(out) - ((control & 31) << 8) - data[at] - 1
            at += 1
            length += 2
            if start < 0:
                break
            pattern = out[start : start + length]
            while len(pattern) < length:  # the copy may read what it writes
                pattern += pattern[: length - len(pattern)]
            out += pattern
    except IndexError:
        out.clear()
    if len(out) != size or at != end:
        raise IntegrityError("a compressed string does not expand to the length it states")
    return bytes(out)
