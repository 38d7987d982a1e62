"""Where each kind of value ends: pass over values of every known RDB type without understanding them.

Layouts from redis ``src/rdb.c`` and ``src/rdb.h`` (RDB 6 to 12, and type 26 of 13) and valkey ``src/rdb.h`` 9.x
(RDB 80 and 81). An unknown type cannot be passed over, so it raises.
"""

from __future__ import annotations

from collections.abc import Callable

from drd.engines.redis.rdb.cursor import Cursor
from drd.errors import IntegrityError

STRING, LIST, SET, ZSET, HASH, ZSET_2, MODULE_2 = 0, 1, 2, 3, 4, 5, 7
HASH_ZIPMAP, LIST_ZIPLIST, SET_INTSET, ZSET_ZIPLIST, HASH_ZIPLIST = 9, 10, 11, 12, 13
LIST_QUICKLIST, STREAM_1, HASH_LISTPACK, ZSET_LISTPACK, LIST_QUICKLIST_2 = 14, 15, 16, 17, 18
STREAM_2, SET_LISTPACK, STREAM_3 = 19, 20, 21
HASH_TTL_PRE_GA, HASH_LISTPACK_TTL_PRE_GA, HASH_TTL, HASH_LISTPACK_TTL = 22, 23, 24, 25
VALKEY_HASH_2 = 22

LARGEST_REDIS_VERSION = 12
VALKEY_VERSIONS = (80, 81)
_LZF = 3
_STREAM_ID_BYTES = 16


class UnsupportedValue(IntegrityError):
    """A value of a type this reader does not know: the server is newer, or the bytes are damaged."""


def skip_string(cursor: Cursor) -> None:
    """Pass over one string in any encoding."""
    size, special = cursor.length_or_encoding()
    if not special:
        cursor.skip(size)
    elif size < _LZF:
        cursor.skip(1 << size)  # 8, 16 or 32 bit integer
    elif size == _LZF:
        packed = cursor.length()
        cursor.length()
        cursor.skip(packed)
    else:
        raise IntegrityError(f"offset {cursor.offset}: unknown string encoding {size}")


def _strings(cursor: Cursor, per_element: int = 1) -> None:
    for _ in range(cursor.length()):
        for _ in range(per_element):
            skip_string(cursor)


def _pairs(cursor: Cursor) -> None:
    _strings(cursor, 2)


def _zset_text(cursor: Cursor) -> None:
    for _ in range(cursor.length()):
        skip_string(cursor)
        size = cursor.byte()
        if size < 253:  # 253 to 255: nan and the infinities
            cursor.skip(size)


def _zset_binary(cursor: Cursor) -> None:
    for _ in range(cursor.length()):
        skip_string(cursor)
        cursor.skip(8)


def _quicklist_2(cursor: Cursor) -> None:
    for _ in range(cursor.length()):
        if cursor.length() not in {1, 2}:
            raise IntegrityError(f"offset {cursor.offset}: unknown list node")
        skip_string(cursor)


def _hash_ttl(cursor: Cursor, *, minimum: bool) -> None:
    if minimum:
        cursor.skip(8)
    for _ in range(cursor.length()):
        cursor.length()
        skip_string(cursor)
        skip_string(cursor)


def _listpack_ttl(cursor: Cursor) -> None:
    cursor.skip(8)
    skip_string(cursor)


def _valkey_hash_ttl(cursor: Cursor) -> None:
    for _ in range(cursor.length()):
        skip_string(cursor)
        skip_string(cursor)
        cursor.skip(8)


def skip_module(cursor: Cursor) -> None:
    """Pass over what a module wrote, up to its end mark (the module's id is already read)."""
    while (opcode := cursor.length()) != 0:
        if opcode in {1, 2}:
            cursor.length()
        elif opcode == 3:
            cursor.skip(4)
        elif opcode == 4:
            cursor.skip(8)
        elif opcode == 5:
            skip_string(cursor)
        else:
            raise IntegrityError(f"offset {cursor.offset}: unknown module opcode {opcode}")


def _module(cursor: Cursor) -> None:
    cursor.length()
    skip_module(cursor)


def _stream(cursor: Cursor, version: int) -> None:
    _pairs(cursor)  # node key and listpack
    for _ in range(3 if version == 1 else 8):  # length, last id; from 2 on first id, maximal deleted id, entries added
        cursor.length()
    for _ in range(cursor.length()):  # groups
        skip_string(cursor)
        for _ in range(2 if version == 1 else 3):  # last id, entries read
            cursor.length()
        for _ in range(cursor.length()):  # pending entries
            cursor.skip(_STREAM_ID_BYTES + 8)
            cursor.length()
        for _ in range(cursor.length()):  # consumers
            skip_string(cursor)
            cursor.skip(8 if version < 3 else 16)
            for _ in range(cursor.length()):
                cursor.skip(_STREAM_ID_BYTES)


_COMMON: dict[int, Callable[[Cursor], None]] = {
    STRING: skip_string,
    LIST: _strings,
    SET: _strings,
    ZSET: _zset_text,
    HASH: _pairs,
    ZSET_2: _zset_binary,
    MODULE_2: _module,
    **dict.fromkeys((HASH_ZIPMAP, LIST_ZIPLIST, SET_INTSET, ZSET_ZIPLIST, HASH_ZIPLIST), skip_string),
    LIST_QUICKLIST: _strings,
    STREAM_1: lambda c: _stream(c, 1),
    HASH_LISTPACK: skip_string,
    ZSET_LISTPACK: skip_string,
    LIST_QUICKLIST_2: _quicklist_2,
    STREAM_2: lambda c: _stream(c, 2),
    SET_LISTPACK: skip_string,
    STREAM_3: lambda c: _stream(c, 3),
}
_REDIS = _COMMON | {
    HASH_TTL_PRE_GA: lambda c: _hash_ttl(c, minimum=False),
    HASH_LISTPACK_TTL_PRE_GA: skip_string,
    HASH_TTL: lambda c: _hash_ttl(c, minimum=True),
    HASH_LISTPACK_TTL: _listpack_ttl,
}
_VALKEY = _COMMON | {VALKEY_HASH_2: _valkey_hash_ttl}


def skippers(magic: str) -> dict[int, Callable[[Cursor], None]]:
    """Return, for ``REDIS`` or ``VALKEY``, what passes over a value of each type."""
    return _VALKEY if magic == "VALKEY" else _REDIS


def has_field_expiry(magic: str, kind: int) -> bool:
    """Whether values of this type hold fields that expire by themselves."""
    return kind == VALKEY_HASH_2 if magic == "VALKEY" else kind in {22, 23, 24, 25}
