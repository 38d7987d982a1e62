"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 20000, 32000  # below Linux' range for outgoing connections, which would take a port in between
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """Return a port that nobody listens on now; a server that loses the race for it is started again on another."""
    for _ in range(200):
        port = _RANDOM.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")
