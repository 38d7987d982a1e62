"""Ask the daemon of this machine whether it is alive: exit 0 or 1. For health checks of containers, so it is light.

``python -m drd.cli.health [ADDRESS]``: as in ``daemon.listen``, or a URL; without one, the default of that key.
Imports nothing but the standard library: it is run every half a minute for years.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
from collections.abc import Sequence

DEFAULT_LISTEN = "127.0.0.1:8088"
TIMEOUT_S = 4.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104  # asked of, not bound to


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one word and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    address = given[0] if given else DEFAULT_LISTEN
    try:
        status = _status(address)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"drd does not answer at {address}: {error}", file=sys.stderr)
        return 1
    print("alive" if status == http.HTTPStatus.OK else f"drd answers {status} at {address}")
    return 0 if status == http.HTTPStatus.OK else 1


def _status(address: str) -> int:
    """Return the status of ``/healthz``; https is tried where http is refused, and no certificate is looked at."""
    if address.startswith("unix:"):
        return _asked(_UnixConnection(address.removeprefix("unix:")))
    place = address.removeprefix("http://").removeprefix("https://").partition("/")[0]
    host, _, port = place.rpartition(":")
    at = f"{_EVERYWHERE.get(host, host)}:{port}"
    if not address.startswith("https://"):
        try:
            return _asked(http.client.HTTPConnection(at, timeout=TIMEOUT_S))
        except (http.client.HTTPException, ConnectionResetError):
            if address.startswith("http://"):
                raise
    # The question is whether the process of this very container lives; its certificate is made for another name.
    unchecked = ssl._create_unverified_context()  # noqa: S323, SLF001
    return _asked(http.client.HTTPSConnection(at, timeout=TIMEOUT_S, context=unchecked))


def _asked(connection: http.client.HTTPConnection) -> int:
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
