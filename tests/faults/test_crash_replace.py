"""drd dies at its first, second, … n-th change to the store while it replaces live data: never neither of both."""

from __future__ import annotations

import itertools
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from tests.support.drd_site import Site
from tests.support.forked_drd import ForkedDrd, forked_drd
from tests.support.replace_site import replace_site

pytestmark = pytest.mark.faults

CHANGES = ("restores/", "manifest.json", "pins/")
"""What a restore in place changes in the store besides leases and parts, whose tests are elsewhere."""


class Live(ABC):
    """Live data of a row or two, and a site that backs it up."""

    site: Site
    source: str

    @abstractmethod
    def write(self, value: str) -> None:
        """Make ``value`` all that is there."""

    @abstractmethod
    def read(self) -> list[str]:
        """Return what is there; whoever connects is answered."""

    @abstractmethod
    def left(self) -> list[str]:
        """Name what is on the server besides the live data."""

    def settle(self) -> None:  # noqa: B027  most need nothing
        """End what would end by itself in some seconds."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what a test leaves besides the live data."""


class LivePostgres(Live):
    """A database with one table."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        self.server = server
        self.database = server.fresh_database("crash")
        self.source = "shop"
        self.site = replace_site(
            folder, self.source, {"type": "postgres", "url": server.url(self.database)}, server.password
        )

    def write(self, value: str) -> None:
        with self.server.connect(self.database) as session:
            session.execute("DROP TABLE IF EXISTS t")
            session.execute("CREATE TABLE t (v text PRIMARY KEY)")
            session.execute("INSERT INTO t VALUES (%s)", (value,))

    def read(self) -> list[str]:
        with self.server.connect(self.database) as session:
            return [row[0] for row in session.execute("SELECT v FROM t").fetchall()]

    def left(self) -> list[str]:
        with self.server.connect() as session:
            rows = session.execute(
                "SELECT datname FROM pg_database WHERE strpos(datname, %s) > 0", (self.database,)
            ).fetchall()
        return [str(row[0]) for row in rows if row[0] != self.database]

    def clear(self) -> None:
        for name in [*self.left(), self.database]:
            self.server.drop_database(name)


class LiveClickHouse(Live):
    """A database with a table, and a materialized view that follows it."""

    def __init__(self, server: ClickHouse, database: str, folder: Path) -> None:
        self.server = server
        self.database = database
        self.source = "ticks"
        source = {"type": "clickhouse", "url": server.url, "databases": [database]}
        self.site = replace_site(folder, self.source, source, server.password)
        server.query(f"CREATE DATABASE {database}")
        server.query(f"CREATE TABLE {database}.t (v String) ENGINE = MergeTree ORDER BY v")
        server.query(f"CREATE MATERIALIZED VIEW {database}.mv ENGINE = Log AS SELECT v FROM {database}.t")

    def write(self, value: str) -> None:
        for table in ("t", "mv"):
            self.server.query(f"TRUNCATE TABLE {self.database}.{table}")
        self.server.query(f"INSERT INTO {self.database}.t VALUES ('{value}')")

    def read(self) -> list[str]:
        seen, followed = (
            [row["v"] for row in self.server.rows(f"SELECT v FROM {self.database}.{table}")] for table in ("t", "mv")
        )
        assert followed == seen
        return seen

    def left(self) -> list[str]:
        rows = self.server.rows(f"SELECT name FROM system.databases WHERE name LIKE '%{self.database}%'")
        return [row["name"] for row in rows if row["name"] != self.database]

    def clear(self) -> None:
        for name in self.left():
            self.server.query(f"DROP DATABASE IF EXISTS `{name}` SYNC")


class LiveRedis(Live):
    """One key; what is kept of it is a backup."""

    def __init__(self, server: Redis, folder: Path) -> None:
        self.server = server
        self.source = "cache"
        self.site = replace_site(folder, self.source, {"type": "redis", "url": server.url}, server.password)
        server.flush()

    def write(self, value: str) -> None:
        with self.server.client() as client:
            client.set("v", value)

    def read(self) -> list[str]:
        with self.server.client() as client:
            return [] if (found := client.get("v")) is None else [found.decode()]

    def left(self) -> list[str]:
        with self.server.client() as client:
            role = client.info("replication")["role"]
        return [] if role == "master" else [role]

    def settle(self) -> None:
        with self.server.client() as client:
            client.execute_command("CLIENT", "UNPAUSE")

    def clear(self) -> None:
        with self.server.client() as client:
            client.replicaof("NO", "ONE")


@pytest.fixture(params=["postgres", "clickhouse", "redis"])
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    """Give each kind of live data in turn."""
    made: Live
    if request.param == "postgres":
        made = LivePostgres(request.getfixturevalue("postgres"), tmp_path)
    elif request.param == "clickhouse":
        server, database = (request.getfixturevalue(f"clickhouse_{word}") for word in ("source", "database"))
        made = LiveClickHouse(server, database, tmp_path)
    else:
        made = LiveRedis(request.getfixturevalue("redis_source"), tmp_path)
    yield made
    made.clear()


def ended_well(live: Live, drd: ForkedDrd, replace: list[str]) -> None:
    """Demand that after a death the data is one of both, and that rerun, ``undo``, ``drop-old`` and ``verify`` work."""
    assert live.read() in (["old"], ["new"])
    records = drd("restore", "list")["restores"]
    if live.read() == ["old"]:
        drd("restore", "undo", records[0]["restore"])
        assert live.read() == ["new"]
    again = drd(*replace)["restores"][0]["replaced"]["restore"]
    assert live.read() == ["old"]
    drd("restore", "undo", again)
    cleared_up(live, drd)


def cleared_up(live: Live, drd: ForkedDrd) -> None:
    """Demand that every restore has ended, and that nothing is left but the live data once ``drop-old`` ran."""
    assert live.read() == ["new"]
    for record in drd("restore", "list")["restores"]:
        assert not record["interrupted"]
        drd("restore", "drop-old", record["restore"])
    checked = drd("verify", "--deep")
    assert (checked["outcome"], checked["unfinished"]) == ("ok", [])
    assert live.read() == ["new"]
    assert live.left() == []
    assert list((live.site.store_dir / "pins").rglob("*.json")) == []


def backed_up(live: Live) -> list[str]:
    """Return the command that replaces live data, which is new, by what was backed up, which is old."""
    live.write("old")
    at = live.site("backup", "now", "--json").succeeds().json["backups"][0]["recovery_point"]
    live.write("new")
    return ["restore", "--at", at, "--replace"]


def test_death_at_every_change_of_a_replace(live: Live) -> None:
    """For every n: old or new data serves, and who comes next goes on, back, and clears up."""
    replace = backed_up(live)
    pristine = live.site.folder / "pristine"
    shutil.copytree(live.site.store_dir, pristine)
    with forked_drd(live.site) as drd:
        for nth in itertools.count(1):
            died = drd.dies(nth, *replace, of=CHANGES)
            live.settle()
            ended_well(live, drd, replace)
            if not died:
                break
            shutil.rmtree(live.site.store_dir)
            shutil.copytree(pristine, live.site.store_dir)
    assert nth > 3


def test_death_at_every_change_of_an_undo(redis_source: Redis, tmp_path: Path) -> None:
    """Of a Redis, whose undo is a backup and a load: for every n ``undo`` again ends it, and ``drop-old`` clears up."""
    live = LiveRedis(redis_source, tmp_path)
    replace = backed_up(live)
    pristine = live.site.folder / "pristine"
    with forked_drd(live.site) as drd:
        restore = drd(*replace)["restores"][0]["replaced"]["restore"]
        shutil.copytree(live.site.store_dir, pristine)
        for nth in itertools.count(1):
            died = drd.dies(nth, "restore", "undo", restore, of=CHANGES)
            live.settle()
            assert live.read() in (["old"], ["new"])
            drd("restore", "undo", restore)
            cleared_up(live, drd)
            if not died:
                break
            shutil.rmtree(live.site.store_dir)
            shutil.copytree(pristine, live.site.store_dir)
            live.write("old")
    assert nth > 4
