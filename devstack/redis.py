"""A Redis server: password, append-only file on as the platform has it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack import obtain
from devstack.server import Server, private_file
from devstack.workspace import Workspace

_ONCE = Retry(NoBackoff(), 0)


class Redis(Server):
    """Redis 7 on loopback with ``requirepass`` (and ``masterauth``), reached by ``client()``.

    ``append_only`` as on the platform; ``diskless_sync_delay_s`` 0 makes a full synchronisation start at once;
    ``options`` are lines of redis.conf and win. ``version`` may be another server, see :data:`obtain.REDIS_PYPI`.
    """

    kind = "redis"

    def __init__(
        self,
        workspace: Workspace,
        *,
        name: str | None = None,
        append_only: bool = True,
        diskless_sync_delay_s: int = 0,
        password: str | None = None,
        options: Mapping[str, str] | None = None,
        version: str | None = None,
        ready_timeout_s: float = 30.0,
    ) -> None:
        self.program = obtain.redis_program(version) if version else obtain.redis_server()
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)
        self.password = secrets.token_urlsafe(18) if password is None else password
        self.options = {
            "appendonly": "yes" if append_only else "no",
            "repl-diskless-sync-delay": str(diskless_sync_delay_s),
            "save": '""',
            **(options or {}),
        }

    @property
    def url(self) -> str:
        """URL without the password."""
        return f"redis://{self.host}:{self.port}"

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        """Return a client that answers bytes."""
        return redis.Redis(host=self.host, port=self.port, password=self.password or None, db=db, **options)

    def flush(self) -> None:
        """Empty every database."""
        with self.client() as client:
            client.flushall()

    def prepare(self) -> None:
        """Write redis.conf; the password is in it and not in the arguments."""
        lines = {"bind": self.host, "port": str(self.port), "dir": str(self.dir), "protected-mode": "no"}
        if self.password:
            lines |= {"requirepass": self.password, "masterauth": self.password}
        lines |= self.options
        private_file(self.dir / "redis.conf", "".join(f"{key} {value}\n" for key, value in lines.items()))

    def argv(self) -> Sequence[str]:
        """Return the server's command line."""
        return [str(self.program), str(self.dir / "redis.conf")]

    def probe(self) -> str | None:
        """PING, which says LOADING until the data are there."""
        try:
            with self.client(socket_timeout=2, socket_connect_timeout=2, retry=_ONCE) as client:
                client.ping()
        except redis.RedisError as error:
            return str(error)
        return None
