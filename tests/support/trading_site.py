"""The trading platform's servers as drd's tests see them: what to back up, where to restore into, what is there."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devstack import truth
from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.s3 import Identity, SeaweedS3
from devstack.stack import Stack
from devstack.trading import CLICKHOUSE_DATABASE, POSTGRES_DATABASE
from tests.support.drd_site import Run, Site

POSTGRES, REDIS, CLICKHOUSE = SOURCES = ("trading-postgres", "trading-redis", "market-data")
ENGINES = {POSTGRES: "postgres", REDIS: "redis", CLICKHOUSE: "clickhouse"}
RESTORED_DATABASE = "restored_platform"


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
        """A second Redis with the same password."""
        assert self.stack.redis_target
        return self.stack.redis_target

    @property
    def clickhouse(self) -> ClickHouse:
        """The ClickHouse to back up, with the database ``market_data``."""
        assert self.stack.clickhouse
        return self.stack.clickhouse

    @property
    def clickhouse_target(self) -> ClickHouse:
        """A second ClickHouse with the same password."""
        assert self.stack.clickhouse_target
        return self.stack.clickhouse_target

    @property
    def s3(self) -> SeaweedS3:
        """The S3 store."""
        assert self.stack.s3
        return self.stack.s3

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a configuration refers to the servers' secrets."""
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
        """Return ``store`` as a configuration has it; an identity other than ``objects`` may be named."""
        who = identity or self.s3.objects
        return {
            "type": "s3",
            "bucket": bucket,
            "prefix": "trading",
            "endpoint_url": self.s3.url,
            "access_key_id": who.access_key_id,
            "secret_access_key": {"env": f"S3_{who.name.upper()}_SECRET"},
            "patience": "10s",
        }

    def site(self, folder: Path, store: dict[str, Any], sources: tuple[str, ...], key: tuple[str, str]) -> Site:
        """Return a site of these sources; ``key`` is a recipient and its identity, already in the site's folder."""
        recipient, identity = key
        everything = self.sources()
        config = {
            "store": store,
            "encryption": {"recipients": [recipient], "identity": {"file": str(folder / "identity.txt")}},
            "spool": {"dir": str(folder / "spool")},
            "sources": {name: everything[name] for name in sources or SOURCES},
        }
        return Site(folder, config, env=self.environment, secrets=[*self.environment.values(), identity])


@dataclass(frozen=True)
class BackedUp:
    """A site whose local store holds one backup of each source; do not change it, copy it."""

    site: Site
    run: Run
    ids: dict[str, str]

    def recovery_point(self, source: str) -> str:
        """Return the time that the backup of a source is of, as ``--at`` takes it."""
        return str(next(line["recovery_point"] for line in self.run.json["backups"] if line["source"] == source))

    def copy(self, folder: Path) -> Site:
        """Return a site in a new folder with a copy of the store."""
        shutil.copytree(self.site.store_dir, folder / "store")
        return self.site.at(folder, store={"type": "local", "path": str(folder / "store")})

    def once_more(self, folder: Path) -> BackedUp:
        """Return a copy with a second, newer backup of each source, whose ids it gives."""
        site = self.copy(folder)
        run = site("backup", "now", "--json").succeeds()
        return replace(self, site=site, run=run, ids={line["source"]: line["id"] for line in run.json["backups"]})


@dataclass(frozen=True)
class Targets:
    """Where tests restore into: an absent database, an empty Redis, a ClickHouse without the platform's database."""

    platform: Platform

    def empty(self) -> None:
        """Remove what was restored."""
        self.platform.postgres.drop_database(RESTORED_DATABASE)
        self.platform.redis_target.flush()
        self.platform.clickhouse_target.query(f"DROP DATABASE IF EXISTS {CLICKHOUSE_DATABASE} SYNC")

    def url(self, source: str) -> str:
        """Return what to give to ``--into`` for a source."""
        return {
            POSTGRES: self.platform.postgres.url(RESTORED_DATABASE),
            REDIS: self.platform.redis_target.url,
            CLICKHOUSE: self.platform.clickhouse_target.url,
        }[source]

    def sources(self) -> dict[str, Any]:
        """Return the three sources of a configuration whose servers are the targets."""
        sources = copy.deepcopy(self.platform.sources())
        for name, source in sources.items():
            source["url"] = self.url(name)
        return sources

    def found(self, source: str) -> truth.Truth:
        """Read what a target holds now, without drd; empty when it holds nothing."""
        if source == POSTGRES:
            return _bare(truth.of_postgres(self.platform.postgres, RESTORED_DATABASE))
        if source == REDIS:
            return truth.of_redis(self.platform.redis_target)
        return _bare(truth.of_clickhouse(self.platform.clickhouse_target))

    def expected(self, source: str) -> truth.Truth:
        """Return what the platform holds of a source, in the names of :meth:`found`."""
        if source == REDIS:
            return {"redis": self.platform.truth["redis"]}
        database = POSTGRES_DATABASE if source == POSTGRES else CLICKHOUSE_DATABASE
        return _bare({name: facts for name, facts in self.platform.truth.items() if name.startswith(f"{database}.")})

    def state(self, source: str) -> object:
        """Return all that a restore could leave behind on a target's server: data, databases, roles, replication."""
        if source == POSTGRES:
            with self.platform.postgres.connect() as connection:
                databases = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
                roles = connection.execute("SELECT rolname FROM pg_roles ORDER BY 1").fetchall()
            return (databases, roles, self.found(source))
        if source == REDIS:
            with self.platform.redis_target.client() as client:
                return (client.info("replication")["role"], client.acl_list(), self.found(source))
        names = self.platform.clickhouse_target.query("SELECT name FROM system.databases ORDER BY 1")
        return (names, self.found(source))


def _bare(found: truth.Truth) -> truth.Truth:
    """Leave out the databases' names."""
    return {name.partition(".")[2]: facts for name, facts in found.items()}


def chain_of_numbers(site: Site, clickhouse: ClickHouse, kinds: Sequence[str], rows: int) -> tuple[str, list[str]]:
    """Back up a ClickHouse database that grows by ``rows`` each time, then drop it; return its name and the ids.

    The database has one table, ``t``, and ``site`` backs up nothing else of ClickHouse from here on.
    """
    database = clickhouse.fresh_database()
    clickhouse.query(f"CREATE DATABASE {database}")
    clickhouse.query(f"CREATE TABLE {database}.t (n UInt64) ENGINE = MergeTree ORDER BY n")
    site.sources[CLICKHOUSE]["databases"] = [database]
    ids = []
    try:
        for number, kind in enumerate(kinds):
            clickhouse.query(f"INSERT INTO {database}.t SELECT rand64({number}) FROM numbers({rows})")
            taken = site("backup", "now", "--kind", kind, "--json").succeeds().json["backups"][0]
            assert taken["kind"] == kind
            ids.append(taken["id"])
    finally:
        clickhouse.query(f"DROP DATABASE {database} SYNC")
    return database, ids
