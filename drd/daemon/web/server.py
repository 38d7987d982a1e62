"""The HTTP server: one event loop in one thread beside the daemon, which handles no signal and holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import threading
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from drd.daemon.web.settings import MOST_HEAD_BYTES, Place
from drd.errors import ConfigError

HEAD_S = 10.0
"""How long a client may take to send the head of a request, and how long a connection may idle."""
EXCHANGE_S = 40.0
"""How long a request may take from its head to the last byte of the answer, the client's reading included."""
_MOST_CONNECTIONS = 256
_CROWD = 192
"""Of more connections than these, the one that has waited longest for a head is cut off when another comes."""
_START_S = 15.0
_STOP_S = 5.0
_UNIX_MODE = 0o660


class WebServer:
    """Serves an application until it is closed. Made, started and closed by one thread."""

    def __init__(self, app: ASGIApp, place: Place) -> None:
        self._place = place
        self._certificate = _certificate_state(place)
        self._config = uvicorn.Config(
            app,
            http=_BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            loop="asyncio",
            log_config=None,
            log_level="error",  # what strangers send is not worth a line each
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=int(HEAD_S),
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            ssl_certfile=place.cert_file,
            ssl_keyfile=place.key_file,
        )
        try:
            self._config.load()
        except (OSError, ssl.SSLError) as error:
            raise _no_certificate(place, error) from error
        if self._config.ssl is not None:
            self._config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._socket = _listening(place)
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._serve, name="drd-web", daemon=True)
        self._failure: BaseException | None = None
        self._closed = False

    @property
    def place(self) -> Place:
        """Where it listens, with the port that was found."""
        if self._place.unix is not None:
            return self._place
        host, port = self._socket.getsockname()[:2]
        return Place(host=host, port=port, cert_file=self._place.cert_file, key_file=self._place.key_file)

    @property
    def alive(self) -> bool:
        """Whether it serves: it was started, not closed, and its thread has not died."""
        return self._thread.is_alive() and not self._server.should_exit

    def start(self) -> None:
        """Begin to serve; return when it does."""
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(_START_S / 0.02)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.02)
        if not self._server.started:
            raise ConfigError(
                f"the HTTP server did not start on {self._place}: {self._failure or 'no reason given'}",
                hint="look at daemon.listen",
            )

    def renew_certificate(self) -> bool:
        """Take a certificate that was renewed on disk, for connections from now on; return whether there was one.

        Raises ConfigError, and goes on with the old one, when it is no good.
        """
        place, state = self._place, _certificate_state(self._place)
        if self._config.ssl is None or place.cert_file is None or state == self._certificate:
            return False
        self._certificate = state
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(place.cert_file, place.key_file)
            self._config.ssl.load_cert_chain(place.cert_file, place.key_file)
        except (OSError, ssl.SSLError) as error:
            raise _no_certificate(place, error) from error
        return True

    def close(self) -> None:
        """Stop serving: no new requests, a short while for those under way; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        self._socket.close()
        if self._place.unix is not None:
            self._place.unix.unlink(missing_ok=True)

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # noqa: BLE001 - the thread's outermost place; start() tells of it
            self._failure = error


class _BoundedProtocol(H11Protocol):
    """HTTP/1.1 in which no connection lasts: a client that is slow to send or to read is cut off.

    However many connections say nothing, there is room for one that asks.
    """

    _until: asyncio.TimerHandle | None = None
    since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client a while to send a head."""
        super().connection_made(transport)
        self._allow(HEAD_S)
        if len(self.connections) > _CROWD:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        if self._until is not None:
            self._until.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Give a request that has begun its time."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._allow(EXCHANGE_S)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; a request whose body is none gets no answer, as one may be under way already."""
        if self.conn.our_state is h11.IDLE:
            super().send_400_response(msg)
            return
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Let what is written drain within the exchange's time; then the next head is waited for."""
        super().on_response_complete()
        if not self.transport.get_write_buffer_size():
            self._allow(HEAD_S)

    def _make_room(self) -> None:
        """Cut off the connection that has waited longest for a head."""
        idle = [one for one in self.connections if isinstance(one, _BoundedProtocol) and one.waits and one is not self]
        if idle:
            min(idle, key=lambda one: one.since_s).transport.abort()

    @property
    def waits(self) -> bool:
        """Whether nothing is asked on this connection, or everything answered."""
        answered: bool = getattr(self.cycle, "response_complete", True)  # None before the first request
        return answered and not self.transport.is_closing()

    def _allow(self, seconds: float) -> None:
        self.since_s = self.loop.time()
        if self._until is not None:
            self._until.cancel()
        self._until = self.loop.call_later(seconds, self.transport.abort)


def _listening(place: Place) -> socket.socket:
    """Bind, so that whoever starts the daemon hears at once when the address is taken."""
    try:
        if place.unix is not None:
            return _unix_socket(place.unix)
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        host = place.host if place.host != "localhost" else "127.0.0.1"
        return socket.create_server((host, place.port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {place}: {error.strerror or error}",
            subject="daemon.listen",
            hint="another program listens there, or the address is not this machine's: change daemon.listen",
        ) from error


def _unix_socket(path: Path) -> socket.socket:
    """Listen on a socket of the file system, for owner and group; one that a dead process left is replaced."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        mask = os.umask(0o777 & ~_UNIX_MODE)
        try:
            listening.bind(str(path))
        finally:
            os.umask(mask)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def _certificate_state(place: Place) -> tuple[Any, ...]:
    """Return what changes when a certificate is renewed."""
    out: list[Any] = []
    for path in (place.cert_file, place.key_file):
        with contextlib.suppress(OSError):
            out.append(path and (path.stat().st_mtime_ns, path.stat().st_ino))
    return tuple(out)


def _no_certificate(place: Place, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
    return ConfigError(
        f"daemon.tls: the certificate {place.cert_file} with the key {place.key_file} cannot be used: {reason}",
        hint="both are PEM, the key without a passphrase, and they belong together",
    )
