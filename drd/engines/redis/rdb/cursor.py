"""A reading position in a stream of bytes of unknown length, with bounded memory."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from drd.errors import IntegrityError
from drd.protocols import BytesLike

TAKE_LIMIT_BYTES = 1 << 30  # no key or string of Redis is longer than proto-max-bulk-len, 512 MiB by default
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class Cursor:
    """Read forward through ``chunks``; every method raises :class:`~drd.errors.IntegrityError` past the end.

    Between :meth:`mark` and :meth:`marked` everything read is kept, up to ``keep_limit_bytes``.
    """

    __slots__ = ("_base", "_buffer", "_chunks", "_keep_limit", "_mark", "_position")

    def __init__(self, chunks: Iterable[BytesLike], keep_limit_bytes: int = TAKE_LIMIT_BYTES) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._position = 0
        self._base = 0  # offset of the buffer's first byte in the stream
        self._mark: int | None = None
        self._keep_limit = keep_limit_bytes

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._base + self._position

    def mark(self) -> None:
        """Begin to keep what is read from here."""
        self._mark = self._position

    def marked(self) -> bytes:
        """Return what was read since :meth:`mark`, and keep no more."""
        assert self._mark is not None  # noqa: S101 - a slip of the caller, not of the data
        piece = self._buffer[self._mark : self._position]
        self._mark = None
        return piece

    def byte(self) -> int:
        """Read one byte."""
        if self._position >= len(self._buffer):
            self._fill(1)
        value = self._buffer[self._position]
        self._position += 1
        return value

    def take(self, size: int) -> bytes:
        """Read exactly ``size`` bytes."""
        end = self._position + size
        if end > len(self._buffer):
            if size > TAKE_LIMIT_BYTES:
                raise IntegrityError(f"offset {self.offset}: a length of {size} bytes is not possible")
            self._fill(size)
            end = self._position + size
        piece = self._buffer[self._position : end]
        self._position = end
        return piece

    def skip(self, size: int) -> None:
        """Pass over exactly ``size`` bytes without keeping them (unless marked)."""
        end = self._position + size
        if end <= len(self._buffer):
            self._position = end
            return
        if self._mark is not None:
            self._fill(size)
            self._position += size
            return
        missing = end - len(self._buffer)
        self._base += len(self._buffer)
        self._buffer, self._position = b"", 0
        while missing:
            piece = self._next()
            if len(piece) > missing:
                self._buffer, self._position = bytes(piece), missing
                return
            self._base += len(piece)
            missing -= len(piece)

    def length(self) -> int:
        """Read a length; raises when a special encoding stands there instead."""
        value, special = self.length_or_encoding()
        if special:
            raise IntegrityError(f"offset {self.offset}: an encoding where a length belongs")
        return value

    def length_or_encoding(self) -> tuple[int, bool]:
        """Read a length, or the number of a special string encoding and True."""
        first = self.byte()
        kind = first >> 6
        if kind == 0:
            return first, False
        if kind == 1:
            return (first & 0x3F) << 8 | self.byte(), False
        if kind == 3:
            return first & 0x3F, True
        if first == 0x80:
            return int(_U32.unpack(self.take(4))[0]), False
        if first == 0x81:
            return int(_U64.unpack(self.take(8))[0]), False
        raise IntegrityError(f"offset {self.offset}: {first:#04x} begins no length")

    def at_end(self) -> bool:
        """Whether nothing is left."""
        while self._position >= len(self._buffer):
            piece = next(self._chunks, None)
            if piece is None:
                return True
            self._base += self._position
            self._buffer, self._position = bytes(piece), 0
        return False

    def _next(self) -> BytesLike:
        piece = next(self._chunks, None)
        if piece is None:
            raise IntegrityError(f"the snapshot ends early, at offset {self._base + len(self._buffer)}")
        return piece

    def _fill(self, size: int) -> None:
        """Make at least ``size`` unread bytes available, dropping what was read and is not marked."""
        start = self._position if self._mark is None else self._mark
        pieces: list[BytesLike] = [self._buffer[start:]]
        have = len(self._buffer) - self._position
        if size + self._position - start > self._keep_limit:
            raise IntegrityError(f"offset {self.offset}: a value is larger than {self._keep_limit} bytes")
        while have < size:
            piece = self._next()
            pieces.append(piece)
            have += len(piece)
        self._base += start
        self._position -= start
        self._mark = None if self._mark is None else 0
        self._buffer = b"".join(pieces)
