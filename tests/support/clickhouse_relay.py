"""A relay before a ClickHouse: it passes HTTP on, with TLS to its client, and holds a statement until it is told."""

from __future__ import annotations

import http.client
import select
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_plus

from tests.support.certificates import self_signed

WAIT_S = 60.0


class Held:
    """One statement that does not go on to the server until :meth:`release`, or never (:meth:`drop`)."""

    def __init__(self, word: str, nth: int) -> None:
        self.word = word
        self.left = nth
        self._reached = threading.Event()
        self._told = threading.Event()
        self._passes = False

    def reached(self) -> None:
        """Wait until the statement is here."""
        assert self._reached.wait(WAIT_S), f"no statement with {self.word!r} came"

    def release(self) -> None:
        """Let it go on."""
        self._passes = True
        self._told.set()

    def drop(self) -> None:
        """Lose it, and its connection."""
        self._told.set()

    def passes(self) -> bool:
        """Hold the statement, in the thread of its connection; say whether it goes on then."""
        self._reached.set()
        return self._told.wait(WAIT_S) and self._passes


class Relay:
    """Listens on loopback for ``https``; thread-safe. ``statements`` is what was asked, in order."""

    def __init__(self, port: int, folder: Path) -> None:
        self.ca_file = self_signed(folder)
        self.statements: list[str] = []
        self._held: list[Held] = []
        self._lock = threading.Lock()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not relay.lets(f"{unquote_plus(self.path)} {body.decode('utf-8', 'replace')}"):
                    self.close_connection = True
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
                with suppress(OSError, http.client.HTTPException):
                    upstream.request(self.command, self.path, body, dict(self.headers.items()))
                    asked, _, _ = select.select([self.connection, upstream.sock], [], [], WAIT_S)
                    if upstream.sock in asked:
                        self.answer(upstream.getresponse())
                    else:  # the client is gone, which the server is to see
                        self.close_connection = True
                upstream.close()

            def answer(self, response: http.client.HTTPResponse) -> None:
                data = response.read()
                self.send_response_only(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in {"transfer-encoding", "content-length", "connection", "keep-alive"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.ca_file)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients here are killed
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://admin@127.0.0.1:{self._server.server_address[1]}"

    def hold(self, word: str, nth: int = 1) -> Held:
        """Hold the n-th statement from now on that has ``word`` in it."""
        held = Held(word, nth)
        with self._lock:
            self._held.append(held)
        return held

    def lets(self, statement: str) -> bool:
        """Note a statement, hold it where that is wanted, and say whether it goes on."""
        with self._lock:
            self.statements.append(statement)
            hit = None
            for held in self._held:
                held.left -= held.word in statement
                if held.left == 0 and hit is None:
                    hit = held
            self._held = [held for held in self._held if held is not hit]
        return hit is None or hit.passes()

    def serve(self) -> None:
        """Pass on until stopped."""
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """Stop, and let go of what is held."""
        for held in self._held:
            held.drop()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def relay_to(port: int, folder: Path) -> Iterator[Relay]:
    """Run a relay for the length of the block."""
    relay = Relay(port, folder)
    thread = threading.Thread(target=relay.serve)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join()
