"""The checksum in ClickHouse's manifest: CityHash128 1.0.2 chained over blocks of 2048 bytes.

Each block is hashed with the former result as seed, beginning with (0, 0); printed as 32 hex digits, the high word
first. Source: src/IO/HashingWriteBuffer.h; equal on all of 1,230 files of a real backup.

The PyPI package ``clickhouse-cityhash`` (C) is used when installed: some 600 MB/s on the reference machine. Its
seeded function ignores the seed (1.0.2.6), so the seed goes in by a property of the hash itself: CityHash128(s) of 16
bytes and more is CityHash128WithSeed(s + 16, (Fetch64(s) ^ k3, Fetch64(s + 8))). Without the package a Python
version computes the same at about 5 MB/s.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

BLOCK_BYTES = 2048
_M = (1 << 64) - 1
_K0, _K1, _K2, _K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
_MUL = 0x9DDFEA08EB382D69
_two = struct.Struct("<QQ")

Seeded = Callable[[bytes, int, int], tuple[int, int]]


def _native() -> Seeded | None:
    try:
        from clickhouse_cityhash.cityhash import CityHash128  # noqa: PLC0415 - an optional dependency
    except ImportError:
        return None
    pack = _two.pack

    def seeded(block: bytes, low: int, high: int) -> tuple[int, int]:
        value = CityHash128(pack(low ^ _K3, high) + block)
        return value >> 64, value & _M

    return seeded


class Chained:
    """The checksum of one file, fed in pieces."""

    def __init__(self, seeded: Seeded | None = None) -> None:
        self._seeded = seeded or SEEDED
        self._low = self._high = 0
        self._rest = b""

    def update(self, data: bytes | memoryview) -> None:
        """Add a piece of any size."""
        seeded, low, high = self._seeded, self._low, self._high
        whole = self._rest + data if self._rest else bytes(data)
        end = len(whole) - len(whole) % BLOCK_BYTES
        for start in range(0, end, BLOCK_BYTES):
            low, high = seeded(whole[start : start + BLOCK_BYTES], low, high)
        self._low, self._high, self._rest = low, high, whole[end:]

    def hexdigest(self) -> str:
        """Return the checksum as the manifest spells it."""
        low, high = self._low, self._high
        if self._rest:
            low, high = self._seeded(self._rest, low, high)
        return f"{high:016x}{low:016x}"


def checksum(pieces: Iterable[bytes | memoryview]) -> str:
    """Return the checksum of a whole file."""
    chained = Chained()
    for piece in pieces:
        chained.update(piece)
    return chained.hexdigest()


def _rotate(value: int, shift: int) -> int:
    return (value >> shift | value << (64 - shift)) & _M if shift else value


def _mix(value: int) -> int:
    return value ^ value >> 47


def _hash16(u: int, v: int) -> int:
    a = _mix((u ^ v) * _MUL & _M)
    return _mix((v ^ a) * _MUL & _M) * _MUL & _M


def _hash_to16(s: bytes, n: int) -> int:
    if n > 8:
        a, b = _u64(s, 0), _u64(s, n - 8)
        return _hash16(a, _rotate(b + n & _M, n)) ^ b
    if n >= 4:
        return _hash16(n + (_u32(s, 0) << 3), _u32(s, n - 4))
    if n > 0:
        y = s[0] + (s[n >> 1] << 8)
        z = n + (s[n - 1] << 2)
        return _mix(y * _K2 & _M ^ z * _K3 & _M) * _K2 & _M
    return _K2


def _u64(s: bytes, at: int) -> int:
    return int.from_bytes(s[at : at + 8], "little")


def _u32(s: bytes, at: int) -> int:
    return int.from_bytes(s[at : at + 4], "little")


def _weak(s: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = struct.unpack_from("<4Q", s, at)
    a = a + w & _M
    b = _rotate(b + a + z & _M, 21)
    c = a
    a = a + x + y & _M
    return a + z & _M, b + _rotate(a, 44) + c & _M


def _short(s: bytes, low: int, high: int) -> tuple[int, int]:
    """CityMurmur, for less than 128 bytes."""
    n, a, b = len(s), low, high
    if n <= 16:
        a = _mix(a * _K1 & _M) * _K1 & _M
        c = b * _K1 + _hash_to16(s, n) & _M
        d = _mix(a + (_u64(s, 0) if n >= 8 else c) & _M)
    else:
        c = _hash16(_u64(s, n - 8) + _K1 & _M, a)
        d = _hash16(b + n & _M, c + _u64(s, n - 16) & _M)
        a = a + d & _M
        for at in range(0, (n - 1) // 16 * 16, 16):
            a = (a ^ _mix(_u64(s, at) * _K1 & _M) * _K1 & _M) * _K1 & _M
            b ^= a
            c = (c ^ _mix(_u64(s, at + 8) * _K1 & _M) * _K1 & _M) * _K1 & _M
            d ^= c
    a, b = _hash16(a, c), _hash16(d, b)
    return a ^ b, _hash16(b, a)


def python_seeded(s: bytes, low: int, high: int) -> tuple[int, int]:
    """CityHash128WithSeed 1.0.2 of ``s``: takes and returns (low, high)."""
    n = len(s)
    if n < 128:
        return _short(s, low, high)
    x, y, z = low, high, n * _K1 & _M
    v0 = _rotate(y ^ _K1, 49) * _K1 + _u64(s, 0) & _M
    v1 = _rotate(v0, 42) * _K1 + _u64(s, 8) & _M
    w0 = _rotate(y + z & _M, 35) * _K1 + x & _M
    w1 = _rotate(x + _u64(s, 88) & _M, 53) * _K1 & _M
    at, left = 0, n
    while left >= 128:
        for _ in (0, 1):
            x = _rotate(x + y + v0 + _u64(s, at + 16) & _M, 37) * _K1 & _M
            y = _rotate(y + v1 + _u64(s, at + 48) & _M, 42) * _K1 & _M
            x ^= w1
            y ^= v0
            z = _rotate(z ^ w0, 33)
            v0, v1 = _weak(s, at, v1 * _K1 & _M, x + w0 & _M)
            w0, w1 = _weak(s, at + 32, z + w1 & _M, y)
            z, x = x, z
            at += 64
        left -= 128
    y = y + _rotate(w0, 37) * _K0 + z & _M
    x = x + _rotate(v0 + z & _M, 49) * _K0 & _M
    done = 0
    while done < left:
        done += 32
        y = _rotate(y - x & _M, 42) * _K0 + v1 & _M
        w0 = w0 + _u64(s, n - done + 16) & _M
        x = _rotate(x, 49) * _K0 + w0 & _M
        w0 = w0 + v0 & _M
        v0, v1 = _weak(s, n - done, v0, v1)
    x = _hash16(x, v0)
    y = _hash16(y, w0)
    return _hash16(x + v1 & _M, w1) + y & _M, _hash16(x + w1 & _M, y + v1 & _M)


SEEDED: Seeded = _native() or python_seeded
