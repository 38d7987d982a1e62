"""The trading platform on real servers, and sites from which the ``drd`` command backs it up and restores it.

``platform`` is the session's stack with a little data, which tests read and never change (``platform.truth`` is what
it holds). ``make_site`` makes a folder with a ``drd.yaml``, an age key pair and a fresh store; every run of it is
searched for secrets. ``backed_up`` is a local store with one backup of each source, made once; ``copy_of_store`` is a
test's own copy of it. Where to restore into: ``redis_to_fill``, ``clickhouse_to_fill`` (the stack's second servers) and
``postgres_to_fill`` (a database name) are empty at the start of a test and emptied after it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyrage
import pytest

from devstack import truth
from devstack.clickhouse import ClickHouse
from devstack.errors import ServiceMissing
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.s3 import Identity, SeaweedS3
from devstack.server import private_file
from devstack.stack import Stack
from devstack.trading import CLICKHOUSE_DATABASE, POSTGRES_DATABASE
from devstack.workspace import Workspace
from tests.support.drd_site import Run, Site

POSTGRES, REDIS, CLICKHOUSE = SOURCES = ("trading-postgres", "trading-redis", "market-data")
MakeSite: TypeAlias = Callable[..., Site]


@dataclass(frozen=True)
class Platform:
    """The running stack and what its sources hold."""

    stack: Stack
    truth: truth.Truth

    @property
    def postgres(self) -> Postgres:
        """The PostgreSQL server, with the database ``trading_platform``."""
        assert self.stack.postgres
        return self.stack.postgres

    @property
    def redis(self) -> Redis:
        """The Redis to back up."""
        assert self.stack.redis
        return self.stack.redis

    @property
    def redis_target(self) -> Redis:
        """An empty Redis with the same password."""
        assert self.stack.redis_target
        return self.stack.redis_target

    @property
    def clickhouse(self) -> ClickHouse:
        """The ClickHouse to back up, with the database ``market_data``."""
        assert self.stack.clickhouse
        return self.stack.clickhouse

    @property
    def clickhouse_target(self) -> ClickHouse:
        """A ClickHouse without the database, with the same password."""
        assert self.stack.clickhouse_target
        return self.stack.clickhouse_target

    @property
    def s3(self) -> SeaweedS3:
        """The S3 store."""
        assert self.stack.s3
        return self.stack.s3

    @property
    def secrets(self) -> dict[str, str]:
        """Environment variables by which a configuration refers to the servers' secrets."""
        return {
            "POSTGRES_PASSWORD": self.postgres.password,
            "REDIS_PASSWORD": self.redis.password,
            "CLICKHOUSE_PASSWORD": self.clickhouse.password,
            **{f"S3_{who.name.upper()}_SECRET": who.secret_access_key for who in self.s3.identities},
        }

    def sources(self) -> dict[str, Any]:
        """Return the three sources as a configuration has them."""
        return {
            POSTGRES: {
                "type": "postgres",
                "url": self.postgres.url(POSTGRES_DATABASE),
                "password": {"env": "POSTGRES_PASSWORD"},
            },
            REDIS: {"type": "redis", "url": self.redis.url, "password": {"env": "REDIS_PASSWORD"}},
            CLICKHOUSE: {
                "type": "clickhouse",
                "url": self.clickhouse.url,
                "password": {"env": "CLICKHOUSE_PASSWORD"},
                "databases": [CLICKHOUSE_DATABASE],
            },
        }

    def s3_store(self, bucket: str, identity: Identity | None = None) -> dict[str, Any]:
        """Return ``store`` as a configuration has it, with short patience."""
        who = identity or self.s3.objects
        return {
            "type": "s3",
            "bucket": bucket,
            "prefix": "trading",
            "endpoint_url": self.s3.url,
            "access_key_id": who.access_key_id,
            "secret_access_key": {"env": f"S3_{who.name.upper()}_SECRET"},
            "patience": "20s",
        }


@pytest.fixture(scope="session")
def platform(workspace: Workspace) -> Platform:
    """Give the trading platform on servers of its own, at a fiftieth of its size."""
    try:
        stack = Stack.start(workspace)
    except ServiceMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have every service: {missing}", pytrace=False)
        pytest.skip(str(missing))
    stack.load(0.02)
    return Platform(stack, truth.of(stack))


@pytest.fixture(scope="session")
def make_key(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[str, str]]:
    """Give a function that writes a new age identity to a file and returns its recipient and the identity."""

    def make(path: Path) -> tuple[str, str]:
        identity = pyrage.x25519.Identity.generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        private_file(path, f"{identity}\n")
        return str(identity.to_public()), str(identity)

    return make


def _site(platform: Platform, folder: Path, store: dict[str, Any], names: tuple[str, ...], key: Any) -> Site:
    recipient, identity = key(folder / "identity.txt")
    sources = platform.sources()
    config = {
        "store": store,
        "encryption": {"recipients": [recipient], "identity": {"file": str(folder / "identity.txt")}},
        "spool": {"dir": str(folder / "spool")},
        "sources": {name: sources[name] for name in names},
    }
    return Site(folder, config, env=platform.secrets, secrets=[*platform.secrets.values(), identity])


@pytest.fixture
def make_site(platform: Platform, tmp_path: Path, make_key: Any) -> Iterator[MakeSite]:
    """Give ``make_site(*sources, store="local" or "s3", identity=None)``: a site of its own, with a fresh store."""
    buckets: list[str] = []

    def make(*sources: str, store: str = "local", identity: Identity | None = None, name: str = "site") -> Site:
        folder = tmp_path / name
        if store == "s3":
            buckets.append(platform.s3.fresh_bucket("e2e"))
            where = platform.s3_store(buckets[-1], identity)
        else:
            where = {"type": "local", "path": str(folder / "store")}
        return _site(platform, folder, where, sources or SOURCES, make_key)

    yield make
    for bucket in buckets:
        platform.s3.drop_bucket(bucket)


@dataclass(frozen=True)
class BackedUp:
    """A site with a local store that holds one backup of each source; do not change it, copy it."""

    site: Site
    run: Run
    ids: dict[str, str]


@pytest.fixture(scope="session")
def backed_up(platform: Platform, tmp_path_factory: pytest.TempPathFactory, make_key: Any) -> BackedUp:
    """Give a local store with one encrypted backup of each source, taken once a session."""
    folder = tmp_path_factory.mktemp("backed-up")
    site = _site(platform, folder, {"type": "local", "path": str(folder / "store")}, SOURCES, make_key)
    run = site("backup", "now", "--json").succeeds()
    return BackedUp(site, run, {line["source"]: line["id"] for line in run.json["backups"]})


@pytest.fixture
def copy_of_store(backed_up: BackedUp, tmp_path: Path) -> Site:
    """Give a site of the test's own whose store is a copy of ``backed_up``'s."""
    store = tmp_path / "copy" / "store"
    shutil.copytree(backed_up.site.store_dir, store)
    return backed_up.site.at(tmp_path / "copy", store={"type": "local", "path": str(store)})


@pytest.fixture
def redis_to_fill(platform: Platform) -> Iterator[Redis]:
    """Give an empty Redis, flushed afterwards."""
    platform.redis_target.flush()
    yield platform.redis_target
    platform.redis_target.flush()


@pytest.fixture
def clickhouse_to_fill(platform: Platform) -> Iterator[ClickHouse]:
    """Give a ClickHouse without the platform's database, dropped again afterwards."""
    drop = f"DROP DATABASE IF EXISTS {CLICKHOUSE_DATABASE} SYNC"
    platform.clickhouse_target.query(drop)
    yield platform.clickhouse_target
    platform.clickhouse_target.query(drop)


@pytest.fixture
def postgres_to_fill(platform: Platform) -> Iterator[str]:
    """Give the name of a database that does not exist on the platform's PostgreSQL; dropped afterwards."""
    name = "restored_platform"
    platform.postgres.drop_database(name)
    yield name
    platform.postgres.drop_database(name)
