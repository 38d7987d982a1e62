"""The platform's servers together, started side by side and filled with its data."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from devstack import load, obtain
from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.s3 import SeaweedS3
from devstack.server import Server
from devstack.trading import BUCKET, CLICKHOUSE_DATABASE, POSTGRES_DATABASE
from devstack.workspace import Workspace

SERVICES = tuple(obtain.BY_SERVICE)


@dataclass(slots=True)
class Stack:
    """Running servers; a service that was left out is None. A target has its source's password."""

    workspace: Workspace
    postgres: Postgres | None = None
    redis: Redis | None = None
    redis_target: Redis | None = None
    clickhouse: ClickHouse | None = None
    clickhouse_target: ClickHouse | None = None
    s3: SeaweedS3 | None = None

    @classmethod
    def start(cls, workspace: Workspace, services: Collection[str] = SERVICES) -> Stack:
        """Start the named services side by side; the bucket exists when it returns."""
        stack = cls(workspace)
        if "postgres" in services:
            stack.postgres = Postgres(workspace)
        if "redis" in services:
            password = secrets.token_urlsafe(18)
            digest = {"enable-debug-command": "local"}  # DEBUG DIGEST is how the demo compares, without drd
            stack.redis = Redis(workspace, name="redis", password=password, options=digest)
            stack.redis_target = Redis(workspace, name="redis-target", password=password, options=digest)
        if "clickhouse" in services:
            source = ClickHouse(workspace, name="clickhouse")
            stack.clickhouse = source
            stack.clickhouse_target = ClickHouse(
                workspace, name="clickhouse-target", password=source.password, backups_dir=source.backups_dir
            )
        if "s3" in services:
            stack.s3 = SeaweedS3(workspace)
        with ThreadPoolExecutor() as pool:
            for started in [pool.submit(server.start) for server in stack.servers]:
                started.result()
        if stack.s3 is not None:
            stack.s3.client().create_bucket(Bucket=BUCKET)
        return stack

    @property
    def servers(self) -> list[Server]:
        """Every server of the stack."""
        everyone: tuple[Server | None, ...] = (
            self.postgres,
            self.redis,
            self.redis_target,
            self.clickhouse,
            self.clickhouse_target,
            self.s3,
        )
        return [server for server in everyone if server is not None]

    def load(self, scale: float = 1.0, seed: int = 1) -> dict[str, int]:
        """Fill the sources with the platform's data, side by side; return rows by table, and keys."""
        return self._everywhere(
            lambda server: self._load_postgres(server, scale, seed),
            lambda server: load.load_redis(server.client(), scale=scale, seed=seed),
            lambda server: load.load_clickhouse(server, scale=scale, seed=seed),
        )

    def load_more(self, seed: int = 2) -> dict[str, int]:
        """Let the platform live on for a while; return rows by table, and keys."""
        return self._everywhere(
            lambda server: self._load_more_postgres(server, seed),
            lambda server: load.load_more_redis(server.client(), seed=seed),
            lambda server: load.load_more_clickhouse(server, seed=seed),
        )

    def _everywhere(
        self,
        postgres: Callable[[Postgres], dict[str, int]],
        redis: Callable[[Redis], int],
        clickhouse: Callable[[ClickHouse], dict[str, int]],
    ) -> dict[str, int]:
        """Do one thing to each source at the same time."""
        with ThreadPoolExecutor() as pool:
            rows = pool.submit(postgres, self.postgres) if self.postgres else None
            keys = pool.submit(redis, self.redis) if self.redis else None
            ticks = pool.submit(clickhouse, self.clickhouse) if self.clickhouse else None
        result: dict[str, int] = rows.result() if rows else {}
        if keys:
            result["redis keys"] = keys.result()
        return result | (ticks.result() if ticks else {})

    @staticmethod
    def _load_postgres(server: Postgres, scale: float, seed: int) -> dict[str, int]:
        with server.connect() as connection:
            create = f"CREATE DATABASE {POSTGRES_DATABASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
            connection.execute(create.encode())
        with server.connect(POSTGRES_DATABASE) as connection:
            return load.load_postgres(connection, scale=scale, seed=seed)

    @staticmethod
    def _load_more_postgres(server: Postgres, seed: int) -> dict[str, int]:
        with server.connect(POSTGRES_DATABASE) as connection:
            return load.load_more_postgres(connection, seed=seed)

    def lose_everything(self) -> None:
        """Drop the databases and flush Redis: the disaster that the demo recovers from. The store stays."""
        if self.postgres:
            self.postgres.drop_database(POSTGRES_DATABASE)
        if self.redis:
            self.redis.flush()
        if self.clickhouse:
            self.clickhouse.query(f"DROP DATABASE IF EXISTS {CLICKHOUSE_DATABASE} SYNC")
