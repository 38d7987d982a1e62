"""A digest of a key's value that does not depend on how a server encodes or orders it.

Equal digests of two keys mean: same name, same kind, same content (elements and their order for lists and streams,
members, scores, fields as sets). Not covered: time to live, LRU and LFU data, a stream group's pending entries and
consumers, values of modules, hashes whose fields expire. Layouts from redis ``listpack.c``, ``ziplist.c``,
``intset.c``, ``zipmap.c`` and ``t_stream.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from drd.engines.redis.rdb import values as kinds
from drd.engines.redis.rdb.cursor import Cursor
from drd.engines.redis.rdb.walk import read_string
from drd.errors import IntegrityError

DIGEST_BYTES = 16
_DUMP_TAIL_BYTES = 10  # RDB version and CRC-64 at the end of what DUMP returns
_DOUBLE = struct.Struct("<d")
_ID = struct.Struct(">QQ")


def key_digest(name: bytes, kind: int, value: bytes) -> int | None:
    """Digest one key with its raw value; None for kinds that are not covered.

    Raises :class:`~drd.errors.IntegrityError` for a malformed value.
    """
    try:
        content = _content(kind, value)
    except (IndexError, struct.error) as error:
        raise IntegrityError("a value does not have the form of its type") from error
    if content is None:
        return None
    label, pieces = content
    digest = blake2b(label, digest_size=DIGEST_BYTES)
    for piece in (name, *pieces):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return int.from_bytes(digest.digest(), "little")


def dump_digest(name: bytes, payload: bytes) -> int | None:
    """Digest one key as the DUMP command returned it."""
    if len(payload) <= _DUMP_TAIL_BYTES:
        raise IntegrityError("DUMP returned too little")
    return key_digest(name, payload[0], payload[1:-_DUMP_TAIL_BYTES])


def combine(digests: Iterable[int]) -> str:
    """Combine digests of keys regardless of order: their sum, so equal pairs do not cancel."""
    return f"{sum(digests) % (1 << 8 * DIGEST_BYTES):032x}"


def _content(kind: int, value: bytes) -> tuple[bytes, Iterable[bytes]] | None:
    cursor = Cursor([value])
    if kind == kinds.STRING:
        return b"string", [read_string(cursor)]
    if kind in {kinds.LIST, kinds.LIST_ZIPLIST, kinds.LIST_QUICKLIST, kinds.LIST_QUICKLIST_2}:
        return b"list", _list(kind, cursor)
    if kind in {kinds.SET, kinds.SET_INTSET, kinds.SET_LISTPACK}:
        return b"set", sorted(_set(kind, cursor))
    if kind in {kinds.ZSET, kinds.ZSET_2, kinds.ZSET_ZIPLIST, kinds.ZSET_LISTPACK}:
        return b"zset", _flat(sorted(_zset(kind, cursor)))
    if kind in {kinds.HASH, kinds.HASH_ZIPMAP, kinds.HASH_ZIPLIST, kinds.HASH_LISTPACK}:
        return b"hash", _flat(sorted(_hash(kind, cursor)))
    if kind in {kinds.STREAM_1, kinds.STREAM_2, kinds.STREAM_3}:
        return b"stream", list(_stream(kind, cursor))
    return None


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [piece for pair in pairs for piece in pair]


def _pairs(items: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    flat = list(items)
    if len(flat) % 2:
        raise IntegrityError("a value of pairs has an odd number of elements")
    return zip(flat[::2], flat[1::2], strict=True)


def _strings(cursor: Cursor) -> Iterator[bytes]:
    for _ in range(cursor.length()):
        yield read_string(cursor)


def _list(kind: int, cursor: Cursor) -> list[bytes]:
    if kind == kinds.LIST:
        return list(_strings(cursor))
    if kind == kinds.LIST_ZIPLIST:
        return ziplist(read_string(cursor))
    if kind == kinds.LIST_QUICKLIST:
        return [element for node in _strings(cursor) for element in ziplist(node)]
    out: list[bytes] = []
    for _ in range(cursor.length()):
        plain = cursor.length() == 1
        node = read_string(cursor)
        out += [node] if plain else listpack(node)
    return out


def _set(kind: int, cursor: Cursor) -> Iterable[bytes]:
    if kind == kinds.SET:
        return _strings(cursor)
    return intset(read_string(cursor)) if kind == kinds.SET_INTSET else listpack(read_string(cursor))


def _zset(kind: int, cursor: Cursor) -> Iterator[tuple[bytes, bytes]]:
    if kind in {kinds.ZSET_ZIPLIST, kinds.ZSET_LISTPACK}:
        packed = read_string(cursor)
        for member, score in _pairs(ziplist(packed) if kind == kinds.ZSET_ZIPLIST else listpack(packed)):
            yield member, _score(score)
        return
    for _ in range(cursor.length()):
        member = read_string(cursor)
        if kind == kinds.ZSET_2:
            yield member, _DOUBLE.pack(_DOUBLE.unpack(cursor.take(8))[0] + 0.0)
            continue
        size = cursor.byte()
        yield member, _score({253: b"nan", 254: b"inf", 255: b"-inf"}.get(size) or cursor.take(size))


def _score(text: bytes) -> bytes:
    try:
        return _DOUBLE.pack(float(text) + 0.0)  # adding 0 makes -0 and 0 equal, as they are to Redis
    except ValueError as error:
        raise IntegrityError("a score is no number") from error


def _hash(kind: int, cursor: Cursor) -> Iterable[tuple[bytes, bytes]]:
    if kind == kinds.HASH:
        return [(read_string(cursor), read_string(cursor)) for _ in range(cursor.length())]
    packed = read_string(cursor)
    if kind == kinds.HASH_ZIPMAP:
        return _pairs(zipmap(packed))
    return _pairs(ziplist(packed) if kind == kinds.HASH_ZIPLIST else listpack(packed))


def intset(data: bytes) -> list[bytes]:
    """Decode a set of integers to decimal texts."""
    width, count = struct.unpack_from("<II", data)
    if width not in {2, 4, 8} or 8 + width * count != len(data):
        raise IntegrityError("an integer set does not have its stated size")
    return [b"%d" % n for n in struct.unpack(f"<{count}{ {2: 'h', 4: 'i', 8: 'q'}[width] }", data[8:])]


def zipmap(data: bytes) -> Iterator[bytes]:
    """Decode a hash of Redis before 2.6: field, value, field, value."""
    at, field = 1, True
    while data[at] != 255:
        size = data[at]
        at += 1
        if size == 254:
            size = int.from_bytes(data[at : at + 4], "little")
            at += 4
        free = 0 if field else data[at]
        at += not field
        yield data[at : at + size]
        at += size + free
        field = not field


def ziplist(data: bytes) -> list[bytes]:
    """Decode a ziplist; integers become decimal texts."""
    out: list[bytes] = []
    at = 10
    while data[at] != 255:
        at += 5 if data[at] == 254 else 1
        first = data[at]
        if first < 0xC0:
            if first < 0x40:
                size, at = first, at + 1
            elif first < 0x80:
                size, at = (first & 0x3F) << 8 | data[at + 1], at + 2
            else:
                size, at = int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
            out.append(data[at : at + size])
            at += size
            continue
        at += 1
        width = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}.get(first)
        if width:
            out.append(b"%d" % int.from_bytes(data[at : at + width], "little", signed=True))
            at += width
        elif 0xF1 <= first <= 0xFD:
            out.append(b"%d" % ((first & 0x0F) - 1))
        else:
            raise IntegrityError(f"unknown ziplist encoding {first:#04x}")
    return out


def listpack(data: bytes) -> list[bytes]:
    """Decode a listpack; integers become decimal texts."""
    out: list[bytes] = []
    at = 6
    while (first := data[at]) != 255:
        if first < 0x80:
            out.append(b"%d" % first)
            size = 1
        elif first < 0xC0:
            size = 1 + (first & 0x3F)
            out.append(data[at + 1 : at + size])
        elif first < 0xE0:
            number = (first & 0x1F) << 8 | data[at + 1]
            out.append(b"%d" % (number - 8192 if number >= 4096 else number))
            size = 2
        elif first < 0xF0:
            size = 2 + ((first & 0x0F) << 8 | data[at + 1])
            out.append(data[at + 2 : at + size])
        elif first == 0xF0:
            size = 5 + int.from_bytes(data[at + 1 : at + 5], "little")
            out.append(data[at + 5 : at + size])
        elif first <= 0xF4:
            width = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}[first]
            size = 1 + width
            out.append(b"%d" % int.from_bytes(data[at + 1 : at + size], "little", signed=True))
        else:
            raise IntegrityError(f"unknown listpack encoding {first:#04x}")
        at += size + _back_length_bytes(size)
    return out


def _back_length_bytes(size: int) -> int:
    """How many bytes a listpack uses to state the size of the entry before, seven bits each."""
    return 1 if size < 128 else 2 if size < 16384 else 3 if size < 2097152 else 4 if size < 268435456 else 5


def _stream(kind: int, cursor: Cursor) -> Iterator[bytes]:
    """Yield the entries that are not deleted, then the last id, then each group's name and last id."""
    for _ in range(cursor.length()):
        node = read_string(cursor)
        yield from _stream_node(_ID.unpack(node), listpack(read_string(cursor)))
    cursor.length()
    yield b"last %d-%d" % (cursor.length(), cursor.length())
    if kind != kinds.STREAM_1:
        for _ in range(5):
            cursor.length()
    groups = []
    for _ in range(cursor.length()):
        groups.append((read_string(cursor), b"group %d-%d" % (cursor.length(), cursor.length())))
        _skip_group(kind, cursor)
    yield from _flat(sorted(groups))


def _skip_group(kind: int, cursor: Cursor) -> None:
    if kind != kinds.STREAM_1:
        cursor.length()
    for _ in range(cursor.length()):
        cursor.skip(24)
        cursor.length()
    for _ in range(cursor.length()):
        read_string(cursor)
        cursor.skip(16 if kind == kinds.STREAM_3 else 8)
        for _ in range(cursor.length()):
            cursor.skip(16)


def _stream_node(master: tuple[int, int], items: list[bytes]) -> Iterator[bytes]:
    """Decode one node: a master entry with the common fields, then entries as differences to it."""
    try:
        fields = int(items[2])
        common, at = items[3 : 3 + fields], 4 + fields
        while at < len(items):
            flags, entry_id = int(items[at]), (master[0] + int(items[at + 1]), master[1] + int(items[at + 2]))
            at += 3
            if flags & 2:  # same fields as the master entry: values only
                body = _flat(zip(common, items[at : at + fields], strict=True))
                at += fields
            else:
                count = 2 * int(items[at])
                body = items[at + 1 : at + 1 + count]
                at += 1 + count
            at += 1  # number of items, for walking backwards
            if not flags & 1:  # 1: deleted
                yield b"%d-%d" % entry_id
                yield from body
    except ValueError as error:
        raise IntegrityError("a stream node is malformed") from error
