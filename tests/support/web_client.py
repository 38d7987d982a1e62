"""A client that says exactly what it is told to, for tests of the daemon's HTTP server."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drd.daemon.web.server import Place


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def ask(
    place: Place,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    trust: Path | None = None,
    **headers: str,
) -> Answer:
    """Send one request on a connection of its own; ``content_type`` becomes ``Content-Type``."""
    connection: http.client.HTTPConnection
    if place.unix is not None:
        connection = _UnixConnection(place.unix)
    elif place.cert_file is not None:
        context = ssl.create_default_context(cafile=trust or place.cert_file)
        connection = http.client.HTTPSConnection(place.host, place.port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def raw(place: Place, data: bytes, *, for_s: float = 10.0) -> tuple[bytes, float]:
    """Send bytes, and return what comes back until the server closes, and how long that took; at most ``for_s``."""
    began = time.monotonic()
    out = b""
    with socket.create_connection((place.host, place.port), timeout=for_s) as connection:
        connection.sendall(data)
        try:
            while piece := connection.recv(65536):
                out += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return out, time.monotonic() - began
