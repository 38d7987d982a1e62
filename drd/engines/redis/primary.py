"""Play the primary of a replication for one replica: give it a snapshot straight from the backup, keep nothing.

The target of a restore connects here, logs in with a password made for this one restore, asks for synchronisation
and gets ``+FULLRESYNC`` and the snapshot in the length-prefixed form (so a stream that breaks is never loaded). No
redis-server is needed here, no disk, and memory is one chunk. While the pipeline has nothing yet, bare newlines keep
the replica patient; after the snapshot, PING commands do, as from a real primary (redis ``src/replication.c``).
Anyone else who connects is asked for the password and learns nothing.
"""

from __future__ import annotations

import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from hmac import compare_digest
from typing import Self

from drd.engines.redis.settings import Address
from drd.errors import DrdError, TargetError

_KEEPALIVE_S = 1.0
_PING_S = 5.0
_LINE_LIMIT_BYTES = 1 << 14
_LOGIN_S = 10.0
_CONNECTIONS = 32  # strangers cannot keep the target out, nor cost much
_PING = b"*1\r\n$4\r\nPING\r\n"

Snapshot = Callable[[], Iterator[memoryview]]


class ActingPrimary:
    """A listener in a thread of its own; a context manager. ``snapshot`` opens the bytes anew for each attempt.

    ``connected``: a replica logged in. ``sent``: a whole snapshot was handed over. ``error``: why the bytes could not
    be read from the backup (then no further attempt is served). ``history`` is the replication id and offset that
    the snapshot is announced with; a made-up one without it.
    """

    def __init__(
        self,
        listen: str,
        size_bytes: int,
        snapshot: Snapshot,
        passed: Callable[[int], None],
        silence_s: float,
        history: tuple[str, int] | None = None,
    ) -> None:
        self.password = secrets.token_hex(32)  # until the target was given one
        self.connected = threading.Event()
        self.sent = threading.Event()
        self.error: DrdError | None = None
        self._size = size_bytes
        self._snapshot = snapshot
        self._passed = passed
        self._silence_s = silence_s
        self._stop = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._feeding = threading.Lock()
        self._replid, self._offset = history or (secrets.token_hex(20), 0)
        try:
            self._listener = socket.create_server(
                (listen, 0), family=socket.AF_INET6 if ":" in listen else socket.AF_INET
            )
        except OSError as error:
            raise TargetError(
                f"cannot listen on {listen} for the target to connect to: {error.strerror}",
                hint="set holder_listen to an address of this host, or restore_via: keys",
            ) from error
        self.address = Address(listen, self._listener.getsockname()[1])
        self._listener.settimeout(0.2)
        self._thread = threading.Thread(target=self._run, name="drd-redis-primary", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()
        self._listener.close()
        for thread in list(self._connections.values()):
            thread.join()

    def stop(self) -> None:
        """Drop the replica and stop listening at once; quick, idempotent, from any thread."""
        self._stop.set()
        for wakened in (self._listener, *self._connections):  # a listener that is shut down wakes its accept (Linux)
            with suppress(OSError):
                wakened.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self._stop.is_set() and self.error is None:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if len(self._connections) >= _CONNECTIONS:
                connection.close()
                continue
            thread = threading.Thread(target=self._attend, args=(connection,), name="drd-redis-replica", daemon=True)
            self._connections[connection] = thread
            thread.start()
            if self._stop.is_set():  # stop() may not have seen this one
                self.stop()

    def _attend(self, connection: socket.socket) -> None:
        """Serve one connection; what the backup raises ends the restore, anything else only this connection."""
        try:
            with closing(connection):
                self._serve(_Replica(connection))
        except (OSError, _Refused):
            return  # a stranger, or a replica that went away: it may come again
        except DrdError as error:
            self.error = error
        finally:
            self._connections.pop(connection, None)

    def _serve(self, replica: _Replica) -> None:
        """Answer one connection until it ends."""
        replica.socket.settimeout(_LOGIN_S)
        trusted = False
        while not self._stop.is_set():
            words = replica.command()
            name = words[0].upper()
            if name == b"AUTH":
                trusted = len(words) > 1 and compare_digest(words[-1], self.password.encode())
                if not trusted:
                    replica.send(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
                    raise _Refused
                self.connected.set()
                replica.send(b"+OK\r\n")
            elif not trusted:
                replica.send(b"-NOAUTH Authentication required.\r\n")
            elif name == b"PING":
                replica.send(b"+PONG\r\n")
            elif name == b"REPLCONF" and words[1:2] and words[1].lower() != b"ack":
                replica.send(b"+OK\r\n")
            elif name in {b"PSYNC", b"SYNC"}:
                with self._feeding:  # one at a time: a replica that comes again waits for its former self to end
                    self._hand_over(replica, full=name == b"PSYNC")
                    self._keep_alive(replica)
                return
            elif name != b"REPLCONF":
                replica.send(b"-ERR unknown command\r\n")

    def _hand_over(self, replica: _Replica, *, full: bool) -> None:
        if full:
            replica.send(b"+FULLRESYNC %s %d\r\n" % (self._replid.encode(), self._offset))
        replica.socket.settimeout(self._silence_s)
        with closing(_Patient(self._snapshot())) as chunks:
            while (first := chunks.next_within(_KEEPALIVE_S)) is None:
                replica.send(b"\n")
                if self._stop.is_set():
                    raise _Refused
            replica.send(b"$%d\r\n" % self._size)
            sent = 0
            piece: memoryview | None = first
            while sent < self._size:
                if piece is None or self._stop.is_set():
                    if self._stop.is_set():
                        raise _Refused
                    piece = chunks.next_within(_KEEPALIVE_S)
                    continue
                replica.socket.sendall(piece)
                sent += len(piece)
                self._passed(len(piece))
                piece = chunks.next_within(_KEEPALIVE_S) if sent < self._size else None
        self.sent.set()

    def _keep_alive(self, replica: _Replica) -> None:
        """Be a quiet primary until the replica leaves: it must see its link up for the restore to be proven."""
        next_ping = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= next_ping:
                replica.send(_PING)
                next_ping = time.monotonic() + _PING_S
            ready, _, _ = select.select([replica.socket], [], [], 0.2)
            if ready and not replica.socket.recv(1 << 14):
                return


class _Refused(Exception):
    """The connection is over; nothing is wrong with the restore."""


class _Replica:
    """The replica's side of one connection, as commands."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def command(self) -> list[bytes]:
        """Read one command: an array of bulk strings, or words on a line."""
        line = self._line()
        if not line.startswith(b"*"):
            return line.split() or self.command()
        return [self._bulk() for _ in range(self._number(line))]

    def _bulk(self) -> bytes:
        size = self._number(self._line())
        while len(self._buffer) < size + 2:
            self._more()
        word, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
        return word

    def _number(self, line: bytes) -> int:
        if not line[1:].isdigit() or int(line[1:]) > _LINE_LIMIT_BYTES:
            raise _Refused
        return int(line[1:])

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LINE_LIMIT_BYTES:
                raise _Refused
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def _more(self) -> None:
        piece = self.socket.recv(1 << 14)
        if not piece:
            raise _Refused
        self._buffer += piece


class _Patient:
    """An iterator read one step ahead in a thread, so that waiting for it can be interrupted."""

    def __init__(self, chunks: Iterator[memoryview]) -> None:
        self._chunks = chunks
        self._ready = threading.Condition()
        self._piece: memoryview | None = None
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="drd-redis-readahead", daemon=True)
        self._thread.start()

    def next_within(self, seconds: float) -> memoryview | None:
        """Return the next piece, or None when there is none yet; raises what reading raised."""
        with self._ready:
            self._ready.wait_for(lambda: self._piece is not None or self._ended, seconds)
            piece, self._piece = self._piece, None
            self._ready.notify_all()
            if piece is None and self._ended:
                if self._error is not None:
                    raise self._error
                raise TargetError("the backup's snapshot ended before its stated size")
            return piece

    def close(self) -> None:
        """Let the thread end; it is not waited for while the store answers slowly."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _read(self) -> None:
        try:
            for piece in self._chunks:
                with self._ready:
                    self._ready.wait_for(lambda: self._piece is None or self._closed)
                    if self._closed:
                        return
                    self._piece = piece
                    self._ready.notify_all()
        except BaseException as error:  # noqa: BLE001 - handed on by next_within()
            self._error = error
        finally:
            with self._ready:
                self._ended = True
                self._ready.notify_all()
