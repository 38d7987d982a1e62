"""The reader of RDB snapshots: every layout passed over right, and nothing malformed makes it hang or crash."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.cancel import CancelToken
from drd.engines.redis.rdb.canonical import combine, dump_digest, intset, key_digest, listpack, ziplist, zipmap
from drd.engines.redis.rdb.crc import crc64
from drd.engines.redis.rdb.cursor import Cursor
from drd.engines.redis.rdb.scan import NOT_CHECKED, scan_chunks
from drd.engines.redis.rdb.values import UnsupportedValue
from drd.engines.redis.rdb.walk import Counts, Walk, lzf, read_string
from drd.errors import IntegrityError

NO_TOOLS = Path("/nonexistent")
ID = b"\x00" * 15 + b"\x01"
EMPTY_LISTPACK = b"\x07\x00\x00\x00\x00\x00\xff"


def string(data: bytes) -> bytes:
    """Encode a string with its length."""
    return length(len(data)) + data


def length(n: int) -> bytes:
    if n < 64:
        return bytes([n])
    if n < 16384:
        return bytes([0x40 | n >> 8, n & 255])
    return b"\x80" + struct.pack(">I", n) if n < 1 << 32 else b"\x81" + struct.pack(">Q", n)


def snapshot(body: bytes, version: int = 12, magic: bytes = b"REDIS") -> bytes:
    """Put a body into a whole snapshot with a right checksum."""
    head = magic + f"{version:0{9 - len(magic)}d}".encode() + body + b"\xff"
    return head + (crc64(head).to_bytes(8, "little") if version >= 5 else b"")


def stream(version: int) -> bytes:
    """Encode a stream with one node, one group, one pending entry and one consumer."""
    more = length(0) * 5 if version > 1 else b""
    group = string(b"g") + length(1) + length(2) + (length(1) if version > 1 else b"")
    pending = length(1) + ID + b"\x00" * 8 + length(1)
    consumer = length(1) + string(b"c") + b"\x00" * (16 if version > 2 else 8) + length(1) + ID
    return (
        length(1) + string(ID) + string(EMPTY_LISTPACK) + length(0) * 3 + more + length(1) + group + pending + consumer
    )


S = string(b"element")
VALUES = {
    "string": (0, S),
    "int8": (0, b"\xc0\xff"),
    "int16": (0, b"\xc1\xff\x01"),
    "int32": (0, b"\xc2\xff\x01\x02\x03"),
    "lzf": (0, b"\xc3" + length(4) + length(9) + b"\x00a\xe0\x00"[:4]),
    "list": (1, length(2) + S + S),
    "set": (2, length(2) + S + S),
    "zset": (3, length(3) + S + b"\x031.5" + S + b"\xfe" + S + b"\xfd"),
    "hash": (4, length(1) + S + S),
    "zset2": (5, length(1) + S + struct.pack("<d", 1.5)),
    "module2": (
        7,
        b"\x81" + b"\x01" * 8 + b"\x01\x05\x02\x06\x03" + b"\x00" * 4 + b"\x04" + b"\x00" * 8 + b"\x05" + S + b"\x00",
    ),
    **{f"blob{kind}": (kind, S) for kind in (9, 10, 11, 12, 13, 16, 17, 20, 23)},
    "quicklist": (14, length(1) + S),
    "quicklist2": (18, length(2) + length(1) + S + length(2) + S),
    "stream1": (15, stream(1)),
    "stream2": (19, stream(2)),
    "stream3": (21, stream(3)),
    "hash_ttl_pre": (22, length(1) + length(99) + S + S),
    "hash_ttl": (24, b"\x00" * 8 + length(1) + length(99) + S + S),
    "listpack_ttl": (25, b"\x00" * 8 + S),
}


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_of_value_is_passed_over(name):
    """After a value of each kind the next key is found, in one piece and byte by byte, and its bytes are kept whole."""
    kind, value = VALUES[name]
    body = bytes([kind]) + string(b"key") + value + b"\x00" + string(b"after") + S
    data = snapshot(body)
    for chunks in ([data], [data[i : i + 1] for i in range(len(data))]):
        seen = list(Walk(chunks, values=True).entries())
        assert [(e.name, e.kind, e.value) for e in seen] == [(b"key", kind, value), (b"after", 0, S)]


def test_valkey_has_another_type_22_and_slot_imports():
    """With Valkey's magic, type 22 is a hash with expiring fields and opcode 243 a slot import."""
    imports = b"\xf3" + string(b"job") + length(1) + length(0) + length(99)
    hash_2 = b"\x16" + string(b"h") + length(1) + S + S + b"\xff" * 8
    walk = Walk([snapshot(imports + hash_2 + b"\x00" + string(b"k") + S, 80, b"VALKEY")])
    assert [e.name for e in walk.entries()] == [b"h", b"k"]
    assert walk.databases == {0: Counts(2, 0, 1)}
    with pytest.raises(UnsupportedValue, match="opcode 243"):
        list(Walk([snapshot(imports)]).entries())


def test_counts_aux_functions_and_expiries():
    """Opcodes between keys are read: aux fields, libraries, LRU, LFU, module and slot data, both expiry forms."""
    body = (
        b"\xfa" + string(b"redis-ver") + string(b"7.4.0") + b"\xfa" + string(b"ctime") + b"\xc2\x01\x00\x00\x00"
        + b"\xf7" + length(5) + length(2) + length(1) + b"\x00" + b"\xf5" + string(b"#!lua name=x")
        + b"\xfe\x00\xfb\x02\x01\xf4\x01\x02\x03\xf8\x05\xf9\x07\x00" + string(b"a") + S
        + b"\xfc" + struct.pack("<q", 1234567890123) + b"\x00" + string(b"b") + S
        + b"\xfe\x44\x00\xfb\x01\x01\xfd" + struct.pack("<i", 1000) + b"\x00" + string(b"c") + S
    )  # fmt: skip
    walk = Walk([snapshot(body)])
    assert [(e.db, e.name, e.expires_ms) for e in walk.entries()] == [
        (0, b"a", None),
        (0, b"b", 1234567890123),
        (1024, b"c", 1000000),
    ]
    assert walk.aux == {"redis-ver": "7.4.0", "ctime": "1"}
    assert walk.libraries == [b"#!lua name=x"]
    assert walk.hints == {0: (2, 1), 1024: (1, 1)}
    assert walk.databases == {0: Counts(2, 1), 1024: Counts(1, 1)}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x06" + string(b"k") + S, "unknown type or opcode 6"),
        (b"\xf6" + S, "unknown type or opcode 246"),
        (b"\x00" + string(b"k") + b"\xc4", "unknown string encoding 4"),
        (b"\x00" + string(b"k") + b"\xbf", "begins no length"),
        (b"\xfe\xc0", "an encoding where a length belongs"),
        (b"\x00\x81" + b"\xff" * 8, "not possible"),
        (b"\x01" + string(b"k") + b"\x81" + b"\x01" * 8, "unknown string encoding"),
        (b"\x00" + string(b"k") + b"\x80\x00\x00\xff\xff", "ends early"),
        (b"\x12" + string(b"k") + b"\x01\x03" + S, "unknown list node"),
        (b"\x07" + string(b"k") + b"\x01\x09", "unknown module opcode 9"),
    ],
)
def test_malformed_snapshots_are_named(body, message):
    """Each way to be malformed is told apart, and is an integrity error."""
    with pytest.raises(IntegrityError, match=message):
        list(Walk([snapshot(body)]).entries())


def test_bytes_after_the_end_and_strange_heads():
    """What follows the end, another magic, and a version of the future are refused."""
    with pytest.raises(IntegrityError, match="bytes follow"):
        list(Walk([snapshot(b"") + b"x"]).entries())
    with pytest.raises(IntegrityError, match="not an RDB snapshot"):
        list(Walk([b"PGDMP1234567890"]).entries())
    with pytest.raises(UnsupportedValue, match="version 13"):
        list(Walk([snapshot(b"", 13)]).entries())


@pytest.mark.parametrize("position", [0, 5, 12, 30, -1, -9])
def test_one_flipped_bit_never_passes_a_scan(position):
    """A scan of a snapshot with one wrong bit fails wherever the bit is, with and without redis-check-rdb."""
    data = bytearray(snapshot(b"\xfe\x00\xfb\x01\x00\x00" + string(b"name") + string(b"x" * 40)))
    data[position] ^= 1
    for tools in (NO_TOOLS, None):
        with pytest.raises(IntegrityError):
            scan_chunks(iter([bytes(data)]), tools, CancelToken())


def test_a_scan_counts_by_database_and_samples():
    """Counts come out per database whatever the chunks, and look-alikes of headers inside values do no harm."""
    fake = b"\xfe\x07\xfb\x09\x09"
    body = b"\xfe\x00\xfb\x02\x01\x00" + string(b"a") + string(fake * 50)
    body += (
        b"\xfc" + b"\xff" * 7 + b"\x7f" + b"\x00" + string(fake) + S + b"\xfe\x09\xfb\x01\x00\x00" + string(b"c") + S
    )
    data = snapshot(body, 10)
    for size in (1, 3, 64, 1 << 20):
        for tools in (NO_TOOLS, None):
            chunks = iter([data[i : i + size] for i in range(0, len(data), size)])
            scan = scan_chunks(chunks, tools, CancelToken())
            assert scan.databases == {0: Counts(2, 1), 9: Counts(1, 0)}
            assert (scan.exact, scan.checksummed, scan.keys) == (True, True, 3)
            assert {db: [name for name, _ in pairs] for db, pairs in scan.samples.items()} == {0: [b"a"], 9: [b"c"]}


def test_the_sample_does_not_depend_on_how_the_stream_is_cut():
    """A snapshot larger than what is sampled gives the same sample in the server's pieces and in parts of a backup."""
    keys = 130
    body = b"\xfe\x00\xfb" + length(keys) + b"\x00"
    body += b"".join(b"\x00" + string(b"key %d" % n) + string(bytes([n]) * 60_000) for n in range(keys))
    data = snapshot(body, 10)
    assert len(data) > 7 << 20
    scans = [
        scan_chunks((data[i : i + size] for i in range(0, len(data), size)), NO_TOOLS, CancelToken())
        for size in (16384, 1 << 20, 3_000_000, len(data))
    ]
    assert 0 < len(scans[0].samples[0]) < keys
    assert all(scan.samples == scans[0].samples and scan.keys == keys for scan in scans)


def test_a_version_nobody_knows_is_checked_by_its_checksum_alone():
    """A snapshot of the future passes on its checksum and says so; without checksum it is refused."""
    data = snapshot(b"\xfe\x00whatever is new", 99)
    scan = scan_chunks(iter([data]), NO_TOOLS, CancelToken())
    assert (scan.structure, scan.checksummed, scan.exact) == (NOT_CHECKED, True, False)
    with pytest.raises(UnsupportedValue, match="writes no checksum"):
        scan_chunks(iter([data[:-8] + bytes(8)]), NO_TOOLS, CancelToken())


def test_snapshots_without_checksum_are_read_and_marked():
    """A checksum of zero means the server wrote none: the structure still has to be right."""
    data = snapshot(b"\x00" + string(b"k") + S, 10)[:-8] + bytes(8)
    assert scan_chunks(iter([data]), NO_TOOLS, CancelToken()).checksummed is False
    assert scan_chunks(iter([snapshot(b"\x00" + string(b"k") + S, 4)]), NO_TOOLS, CancelToken()).keys == 1


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=400), st.sampled_from([b"REDIS0010", b"REDIS0006", b"VALKEY080", b""]), st.booleans())
def test_arbitrary_bytes_only_ever_raise_integrity_errors(data, head, sealed):
    """Whatever the bytes, the reader ends, and with nothing but an integrity error or a result."""
    whole = head + data
    if sealed:
        whole += b"\xff" + crc64(whole + b"\xff").to_bytes(8, "little")
    try:
        scan_chunks(iter([whole[i : i + 50] for i in range(0, len(whole), 50)]), NO_TOOLS, CancelToken())
    except IntegrityError:
        return


@settings(max_examples=300, deadline=2000)
@given(st.sampled_from(sorted(VALUES)), st.data())
def test_mutated_values_only_ever_raise_integrity_errors(name, data):
    """A known layout with some bytes changed, cut or added still only raises integrity errors, digests included."""
    kind, value = VALUES[name]
    value = bytearray(value)
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(value[: data.draw(st.integers(0, len(value)))])
    for candidate in (bytes(value), cut):
        with suppress(IntegrityError):
            list(Walk([snapshot(bytes([kind]) + string(b"key") + candidate)]).entries())
        with suppress(IntegrityError):
            key_digest(b"key", kind, candidate)


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=200), st.sampled_from([listpack, ziplist, intset, lambda d: list(zipmap(d))]))
def test_packed_forms_end_or_fail(data, decode):
    """The packed encodings end on any bytes; what they raise is what key_digest turns into an integrity error."""
    try:
        decode(data)
    except (IntegrityError, IndexError, struct.error):
        return


@given(st.binary(max_size=300), st.integers(0, 400))
def test_lzf_never_makes_more_than_stated(data, size):
    """Expanding arbitrary bytes gives exactly the stated size or an integrity error."""
    try:
        assert len(lzf(data, size)) == size
    except IntegrityError:
        return


def test_lzf_expands_literals_and_overlapping_copies():
    """A literal run, a short copy and a long overlapping copy come out right."""
    assert lzf(b"\x02abc\x20\x02", 6) == b"abcabc"
    assert lzf(b"\x00a\xe0\x05\x00", 15) == b"a" * 15


def test_integers_of_packed_forms():
    """All integer encodings of ziplists, listpacks and integer sets come out as decimal texts."""
    ints = (
        b"\xc0\xfe\xff" + b"\xd0\x01\x00\x01\x00" + b"\xe0" + struct.pack("<q", -5) + b"\xf0\xff\xff\xff" + b"\xfe\x80"
    )
    entries, at = b"", 0
    for size in (3, 5, 9, 4, 2):
        entries += b"\x00" + ints[at : at + size]
        at += size
    entries += b"\x00\xf1" + b"\x00\xfd" + b"\x00\x02ab" + b"\xfe\x00\x00\x00\x00\x40\x02cd"
    expected = [b"-2", b"65537", b"-5", b"-1", b"-128", b"0", b"12", b"ab", b"cd"]
    assert ziplist(bytes(10) + entries + b"\xff") == expected
    packed = b"\x05\x01" + b"\xdf\xff\x02" + b"\xf1\x00\x80\x03" + b"\xf2\xff\xff\xff\x04" + b"\xf3\x01\x00\x00\x00\x05"
    packed += b"\xf4" + struct.pack("<q", 1 << 40) + b"\x09" + b"\x83abc\x04" + b"\xe0\x02xy\x04"
    packed += b"\xf0\x02\x00\x00\x00zz\x07"
    expected = [b"5", b"-1", b"-32768", b"-1", b"1", b"1099511627776", b"abc", b"xy", b"zz"]
    assert listpack(bytes(6) + packed + b"\xff") == expected
    assert intset(struct.pack("<IIhh", 2, 2, -1, 7)) == [b"-1", b"7"]
    assert list(zipmap(b"\x02\x01a\x02\x01xyz\x03bcd\x01\x00e\xff")) == [b"a", b"xy", b"bcd", b"e"]


def test_the_digest_does_not_depend_on_encoding_or_order():
    """A set as integers, as strings in another order and as a listpack has one digest; another element another."""
    as_intset = key_digest(b"k", 11, string(struct.pack("<IIhh", 2, 2, 1, 2)))
    as_strings = key_digest(b"k", 2, length(2) + string(b"2") + b"\xc0\x01")
    as_listpack = key_digest(b"k", 20, string(bytes(6) + b"\x02\x01\x01\x01\xff"))
    assert as_intset == as_strings == as_listpack
    assert key_digest(b"k", 2, length(2) + string(b"2") + b"\xc0\x03") != as_strings
    assert key_digest(b"other", 2, length(2) + string(b"2") + b"\xc0\x01") != as_strings
    assert key_digest(b"k", 7, VALUES["module2"][1]) is None
    assert dump_digest(b"k", b"\x02" + length(2) + string(b"2") + b"\xc0\x01" + bytes(10)) == as_strings
    with pytest.raises(IntegrityError):
        dump_digest(b"k", b"short")


def test_combined_digests_do_not_cancel():
    """The combination ignores order, but two equal digests are not the same as none."""
    assert combine([1, 2, 3]) == combine([3, 1, 2])
    assert combine([5, 5]) != combine([])


def test_the_checksum_is_redis_own():
    """The self-test value of redis crc64.c, at once and continued."""
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"6789", crc64(b"12345")) == 0xE9C6D914C4B8D9CA


def test_a_cursor_keeps_only_what_is_marked():
    """Marked bytes survive refills, others are dropped, and a value beyond the limit is refused."""
    cursor = Cursor([b"ab", b"cd", b"ef", b"gh"], keep_limit_bytes=5)
    cursor.skip(1)
    cursor.mark()
    assert cursor.take(3) == b"bcd"
    assert cursor.marked() == b"bcd"
    assert cursor.offset == 4
    cursor.mark()
    with pytest.raises(IntegrityError, match="larger than"):
        cursor.skip(6)
    assert read_string(Cursor([b"\x02", b"h", b"i"])) == b"hi"
