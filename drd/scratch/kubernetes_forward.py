"""A port of this machine that leads to a port of a pod, for a drd that runs outside the cluster.

Every connection gets a stream of its own through the API server. Nothing comes back this way: what a server in the
pod would have to connect to, it cannot reach.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from drd.errors import ScratchError
from drd.scratch.kubernetes_api import Cluster

_CHUNK = 1 << 16


class Forward:
    """Listens on a loopback port until it is closed; ``port`` is its number."""

    def __init__(self, cluster: Cluster, pod: str, port: int) -> None:
        self._cluster = cluster
        self._pod = pod
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, name=f"drd-forward-{pod}", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:  # closed
                return
            with self._lock:
                if self._closed:
                    here.close()
                    return
                self._open.add(here)
            threading.Thread(target=self._serve, args=(here,), name=f"drd-forward-{self._pod}", daemon=True).start()

    def _serve(self, here: socket.socket) -> None:
        try:
            stream = self._cluster.open_port(self._pod, self._target)
        except ScratchError:  # the client sees its connection end, and the pod's death is looked at elsewhere
            self._drop(here)
            return
        there = stream.socket(self._target)
        try:
            _pump(here, there)
        finally:
            with contextlib.suppress(OSError):
                there.close()
            stream.close()
            self._drop(here)

    def _drop(self, here: socket.socket) -> None:
        with self._lock:
            self._open.discard(here)
        with contextlib.suppress(OSError):
            here.shutdown(socket.SHUT_RDWR)
        here.close()

    def close(self) -> None:
        """Stop listening and end every connection; idempotent."""
        with self._lock:
            self._closed = True
            connections = list(self._open)
        self._listener.close()
        for here in connections:
            with contextlib.suppress(OSError):
                here.shutdown(socket.SHUT_RDWR)


def _pump(here: socket.socket, there: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    other = {here: there, there: here}
    with contextlib.suppress(OSError):
        while True:
            for ready in select.select([here, there], [], [])[0]:
                data = ready.recv(_CHUNK)
                if not data:
                    return
                other[ready].sendall(data)
