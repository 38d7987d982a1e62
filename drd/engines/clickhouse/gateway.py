"""A short-lived S3 endpoint inside drd, through which one server takes or restores one backup.

It serves one random bucket to one random key pair, the few calls ClickHouse makes, and refuses everything else. It
checks the signature of every request before it reads a byte of its body, and the body against what was signed.
"""

from __future__ import annotations

import io
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import cast

from drd.engines.clickhouse.budget import Budget
from drd.engines.clickhouse.exchange import Desk, Exchange
from drd.engines.clickhouse.packing import PackingSpace
from drd.engines.clickhouse.s3wire import Disconnected, S3Failure
from drd.engines.clickhouse.sigv4 import Signer
from drd.engines.clickhouse.spaces import BackupSpace

MAX_CONNECTIONS = 96
BODY_BUDGET_BYTES = 64 << 20  # bodies in memory at once
IDLE_S = 120.0


class Gateway:
    """Serve ``space`` from a thread per connection, from :meth:`start` to :meth:`stop`.

    ``advertise`` is the URL base the server reaches it at; else ``host`` (or the listening address) and the port.

    ``failure`` holds the first drd error a handler met (a lost store, a damaged part): whoever polls the server
    raises it. ``refusal`` is why the last request without a right signature was turned
    away. ``requests`` and ``bytes_moved`` grow with admitted work, for the watch on progress.
    """

    def __init__(
        self,
        space: BackupSpace | PackingSpace,
        listen: tuple[str, int],
        now: Callable[[], datetime],
        *,
        advertise: str = "",
        host: str = "",
    ) -> None:
        self.bucket = f"drd-{secrets.token_hex(12)}"
        self.access_key_id = secrets.token_hex(10).upper()
        self.secret_access_key = secrets.token_hex(20)
        self._listen = self._bound = listen
        self._advertise = advertise.rstrip("/")
        self._host = host
        self._socket: socket.socket | None = None
        self._peers: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._budget = Budget(BODY_BUDGET_BYTES)
        signer = Signer(self.access_key_id, self.secret_access_key, now)
        self._desk = Desk(
            self.bucket, signer, space, self._budget, now, self._admitted, self._count, self.fail, self._refused
        )
        self._closing = threading.Event()
        self.failure: BaseException | None = None
        self.refusal: S3Failure | None = None
        self.requests = 0
        self.bytes_moved = 0

    @property
    def base_url(self) -> str:
        """Where the server reaches the gateway, without the bucket."""
        if self._advertise:
            return self._advertise
        host = self._host or self._bound[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{self._bound[1]}"

    @property
    def url(self) -> str:
        """Location for ``S3('…')``: the bucket itself is the backup's folder."""
        return f"{self.base_url}/{self.bucket}/"

    def start(self) -> None:
        """Listen and serve; raises OSError when the address cannot be had."""
        host, port = self._listen
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(MAX_CONNECTIONS)
        except OSError:
            listener.close()
            raise
        self._socket = listener
        self._bound = listener.getsockname()[:2]
        self._spawn(self._accept, "drd-gateway")

    def stop(self) -> None:
        """Refuse further work and wait until every handler has ended; idempotent."""
        self.refuse()
        while True:
            with self._lock:
                threads = list(self._threads)
            if not threads:
                return
            for thread in threads:
                thread.join()

    def refuse(self) -> None:
        """Serve nothing more: drop the listener and every connection; idempotent, does not wait."""
        with self._lock:
            self._closing.set()
            peers = [*self._peers, *([self._socket] if self._socket else [])]
        self._budget.close()
        for peer in peers:
            with suppress(OSError):  # already closed by the other side
                peer.shutdown(socket.SHUT_RDWR)

    def raise_failure(self) -> None:
        """Raise what a handler met, if anything."""
        if self.failure is not None:
            raise self.failure

    def _spawn(self, target: Callable[..., None], name: str, *args: object) -> None:
        def run() -> None:
            try:
                target(*args)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(self) -> None:
        listener = cast("socket.socket", self._socket)
        with listener:
            while not self._closing.is_set():
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return  # refuse() shut it
                with self._lock:
                    full = self._closing.is_set() or len(self._peers) >= MAX_CONNECTIONS
                    if not full:
                        self._peers.add(peer)
                if full:
                    peer.close()
                    continue
                self._spawn(self._converse, "drd-gateway-peer", peer)

    def _converse(self, peer: socket.socket) -> None:
        """Answer one connection until it ends."""
        try:
            peer.settimeout(IDLE_S)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with peer.makefile("rb", 256 << 10) as stream:
                while (
                    not self._closing.is_set() and Exchange(self._desk, peer, cast("io.BufferedReader", stream)).serve()
                ):
                    pass
        except (OSError, Disconnected):
            pass  # the client is gone; its retry, if any, is a new connection
        except BaseException as error:  # noqa: BLE001 - handed to the thread that polls the server
            self.fail(error)
        finally:
            with self._lock:
                self._peers.discard(peer)
            peer.close()

    def fail(self, error: BaseException) -> None:
        """Keep the first error and stop serving."""
        with self._lock:
            if self.failure is None:
                self.failure = error
        self.refuse()

    def _refused(self, failure: S3Failure) -> None:
        self.refusal = failure

    def _admitted(self) -> None:
        with self._lock:
            self.requests += 1

    def _count(self, moved: int) -> None:
        with self._lock:
            self.bytes_moved += moved
