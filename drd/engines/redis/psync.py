"""A full synchronisation as a replica, by hand: the handshake and both wire forms.

Facts from redis ``src/replication.c`` and field notes: replies may be preceded by bare newlines (keepalives); the
payload comes as ``$EOF:<40 bytes>`` … same 40 bytes, or as ``$<length>``; 7.0.x may add a newline after the mark.
Without ``capa eof``, or with its ``repl-diskless-sync no``, the server writes its own dump file first, as for any
replica; with ``rdb-only`` (7.0+) it keeps no replica buffer
for us and ends after the snapshot. Capabilities that change the payload (dual channel, compression) are not announced.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from drd.cancel import CancelToken
from drd.engines.redis.connect import Side, refusal, refused, unreachable
from drd.engines.redis.settings import Address, RedisSettings
from drd.errors import DrdError

_READ_BYTES = 1 << 18
_LINE_LIMIT_BYTES = 1 << 16
_MARK_BYTES = 40
_CLOSED_HINT = (
    "see the server's log: its BGSAVE failed, it was stopped, or drd read too slowly for repl-timeout or "
    "client-output-buffer-limit replica"
)


class FullSync:
    """A snapshot on its way: ``chunks`` may be read once.

    ``rdb_only``: the server keeps no output buffer for this connection, so reading slowly is allowed. ``started_at`` is
    when the server announced the snapshot, by the clock given. ``size_bytes``: in the length-prefixed form only.
    """

    def __init__(
        self, wire: _Wire, *, rdb_only: bool, started_at: datetime, replid: str, offset: int, header: str
    ) -> None:
        self._wire = wire
        self.rdb_only = rdb_only
        self.started_at = started_at
        self.replid = replid
        self.offset = offset
        self.mark = header[4:].encode() if header.startswith("EOF:") else b""
        self.size_bytes = None if self.mark else int(header)

    def chunks(self) -> Iterator[bytes]:
        """Yield the snapshot's bytes, up to 512 KiB at once; raises when the stream ends before its own end."""
        return self._until_mark() if self.mark else self._counted()

    def _counted(self) -> Iterator[bytes]:
        left = self.size_bytes or 0
        while left:
            held = bytearray()
            while len(held) < min(left, _READ_BYTES):
                held += self._wire.some(min(left, _READ_BYTES) - len(held))
            left -= len(held)
            yield bytes(held)

    def _until_mark(self) -> Iterator[bytes]:
        """Gather what comes in small pieces, always holding back as much as may be the beginning of the mark."""
        back = _MARK_BYTES - 1
        held = bytearray()
        while True:
            seen = max(0, len(held) - back)
            held += self._wire.some(_READ_BYTES)
            at = held.find(self.mark, seen)
            if at >= 0:
                if at:
                    yield bytes(held[:at])
                return
            if len(held) >= _READ_BYTES:
                yield bytes(held[:-back])
                del held[:-back]


@dataclass
class _Wire:
    """Bytes in and out of one connection, with errors already drd's."""

    sock: socket.socket
    address: Address
    side: Side
    cancel: CancelToken
    buffered: bytes = b""

    def send(self, *words: str) -> None:
        parts = [word.encode() for word in words]
        frame = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
        with self.guard():
            self.sock.sendall(frame)

    def some(self, limit: int) -> bytes:
        """Return 1 to ``limit`` bytes; a closed connection raises."""
        if self.buffered:
            piece, self.buffered = self.buffered[:limit], self.buffered[limit:]
            return piece
        with self.guard():
            piece = self.sock.recv(limit)
        if not piece:
            self.cancel.raise_if_cancelled()
            raise unreachable(
                self.side, f"{self.address} closed the connection in the middle of a snapshot", _CLOSED_HINT
            )
        return piece

    def line(self) -> str:
        """Return the next line that is not a bare keepalive newline, without its end."""
        while True:
            head, newline, tail = self.buffered.partition(b"\n")
            if newline:
                self.buffered = tail
                if stripped := head.strip(b"\r"):
                    return stripped.decode("utf-8", "backslashreplace")
                continue
            if len(head) > _LINE_LIMIT_BYTES:
                raise refused(self.side, f"{self.address} does not speak the Redis protocol")
            self.buffered = b""
            self.buffered = head + self.some(_READ_BYTES)

    @contextmanager
    def guard(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise unreachable(self.side, f"{self.address} sent nothing for {self.sock.gettimeout():.0f} s") from error
        except OSError as error:
            self.cancel.raise_if_cancelled()
            raise unreachable(self.side, f"the connection to {self.address} broke: {error}", _CLOSED_HINT) from error


def _connect(settings: RedisSettings, address: Address, side: Side) -> socket.socket:
    """Open a TCP or TLS connection; raises drd errors."""
    context = settings.ssl_context()
    try:
        plain = socket.create_connection((address.host, address.port), timeout=min(10.0, settings.timeout_s))
        plain.settimeout(settings.timeout_s)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as error:
        raise unreachable(
            side, f"no connection to {address}: {error}", "is it up, and is the address right?"
        ) from error
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=address.host)
    except (OSError, ValueError) as error:
        plain.close()
        if isinstance(error, ssl.SSLCertVerificationError):
            raise refused(
                side, f"the certificate of {address} is not trusted: {error.verify_message}", "set ca_file"
            ) from error
        raise unreachable(side, f"TLS with {address} failed: {error}", "does this port speak TLS?") from error


def _expect(wire: _Wire, settings: RedisSettings, doing: str) -> str:
    reply = wire.line()
    if reply.startswith("-"):
        raise refusal(wire.side, wire.address, reply[1:], settings.login, doing)
    return reply


def _handshake(wire: _Wire, settings: RedisSettings, announce_version: str | None) -> bool:
    """Log in and announce what drd can take; return whether the server granted ``rdb-only``."""
    login = settings.login
    if login.password:
        secret = login.password.reveal()
        wire.send("AUTH", *([login.username, secret] if login.username else [secret]))
        _expect(wire, settings, "AUTH")
    wire.send("REPLCONF", "capa", "eof")
    reply = wire.line()
    if reply.startswith(("-NOAUTH", "-NOPERM", "-LOADING")):
        raise refusal(wire.side, wire.address, reply[1:], login, "REPLCONF" if "NOPERM" not in reply else "PSYNC")
    if announce_version:
        wire.send("REPLCONF", "version", announce_version)
        wire.line()  # -ERR from servers that do not know it is fine
    wire.send("REPLCONF", "rdb-only", "1")
    return wire.line().startswith("+")


@contextmanager
def full_sync(
    settings: RedisSettings,
    address: Address,
    side: Side,
    *,
    cancel: CancelToken,
    now: Callable[[], datetime],
    announce_version: str | None = None,
    rdb_only: bool = True,
) -> Iterator[FullSync]:
    """Ask ``address`` for a snapshot and lend it; the connection is closed at the end, which ends the server's fork.

    ``announce_version`` is the server's own version for Valkey, which otherwise writes an older format or aborts.
    Raises :class:`~drd.errors.SourceRefused` (or the target's kind) for a wrong password or a missing right, a
    retryable error for an unreachable, loading or disconnecting server, :class:`~drd.errors.Cancelled`.
    """
    sock = _connect(settings, address, side)
    wire = _Wire(sock, address, side, cancel)
    try:
        with cancel.on_cancel(lambda: _shut(sock)):
            granted = _handshake(wire, settings, announce_version)
            wire.send("PSYNC", "?", "-1")
            reply = _expect(wire, settings, "PSYNC")
            started_at = now()
            words = reply.split()
            if len(words) != 3 or words[0] != "+FULLRESYNC" or not words[2].isdigit():
                raise refused(side, f"{address} answered PSYNC with {reply[:80]}")
            header = wire.line()
            if not header.startswith("$") or not (header[1:].isdigit() or len(header) == 5 + _MARK_BYTES):
                raise _bad_header(side, address, header)
            yield FullSync(
                wire,
                rdb_only=granted and rdb_only,
                started_at=started_at,
                replid=words[1],
                offset=int(words[2]),
                header=header[1:],
            )
    finally:
        sock.close()
    cancel.raise_if_cancelled()


def _bad_header(side: Side, address: Address, header: str) -> DrdError:
    if header.startswith("-"):
        return unreachable(side, f"{address} could not make a snapshot: {header[1:]}", _CLOSED_HINT)
    return refused(side, f"{address} announced its snapshot with {header[:80]}")


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was gone already, which is what was wanted
