"""An HTTP server on loopback that answers as it is told: for what a well-behaved S3 never says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Scripted:
    """One answer. ``missing_bytes`` are promised in Content-Length and never sent; ``hang_up`` sends nothing."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    missing_bytes: int = 0
    hang_up: bool = False


@dataclass(frozen=True)
class Seen:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def s3_error(status: int, code: str, message: str = "as scripted") -> Scripted:
    """Make an S3 error answer."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Scripted(status, body.encode(), {"Content-Type": "application/xml"})


class ScriptedServer:
    """Gives the answers in turn, the last one again and again; remembers the requests."""

    def __init__(self, answers: Sequence[Scripted], tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self._answers = list(answers)
        self._lock = threading.Lock()
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = script.next(Seen(self.command, self.path, headers, body))
                self.close_connection = True
                if reply.hang_up:
                    return
                self.send_response_only(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body) + reply.missing_bytes))
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def next(self, request: Seen) -> Scripted:
        """Note a request and take the next answer."""
        with self._lock:
            self.seen.append(request)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def serve(self) -> None:
        """Answer until stopped."""
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """Stop answering and release the port."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def scripted(*answers: Scripted, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Run a scripted server for the length of the block."""
    server = ScriptedServer(answers, tls)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
