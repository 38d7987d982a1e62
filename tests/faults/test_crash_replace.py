"""drd dies while it replaces live data, goes back, or gives the old data up: never neither of both.

It dies before its first, second, … n-th step: a change or a read of the store, or something that is sent to a server.
There are some hundreds of them, so a run takes a few, chosen by ``DRD_CRASH_SEED``; ``DRD_CRASH_STEPS=40`` takes as
many of each command, and ``DRD_CRASH_STEPS=all`` every one, which takes the better part of an hour.
"""

from __future__ import annotations

import os
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.clickhouse import ClickHouse
from devstack.errors import DevstackError
from devstack.postgres import Postgres
from devstack.redis import Redis
from tests.faults.subjects import wait_for
from tests.support.drd_site import Site
from tests.support.forked_drd import ForkedDrd, forked_drd
from tests.support.replace_site import replace_site

pytestmark = pytest.mark.faults

CHANGES = ("restores/", "manifest.json", "pins/")
"""What a restore in place changes in the store besides leases and parts, whose tests are elsewhere."""
ALL = ("change", "read", "server")
FEW = 2
"""How many changes, and how many steps of any kind, a run takes of each command unless it is told."""


@dataclass(frozen=True)
class Death:
    """Where a command dies: before its n-th step of these kinds."""

    kinds: tuple[str, ...]
    nth: int


def deaths(chance: random.Random, steps: list[str]) -> list[Death]:
    """Choose where a command of these steps dies, in turn."""
    wanted = os.environ.get("DRD_CRASH_STEPS", "")
    if wanted:
        count = len(steps) if wanted == "all" else min(int(wanted), len(steps))
        return [Death(ALL, nth) for nth in spread(chance, len(steps), count)]
    changes = spread(chance, steps.count("change"), FEW)
    return [Death(("change",), nth) for nth in changes] + [Death(ALL, nth) for nth in spread(chance, len(steps), FEW)]


def spread(chance: random.Random, count: int, wanted: int) -> list[int]:
    """Choose a number in each of so many equal stretches of 1 to ``count``."""
    return [1 + int((stretch + chance.random()) * count / wanted) for stretch in range(wanted)]


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

    def settle(self) -> None:
        """Wait for the process that renames, which is not killed with drd, to end what it began, views included."""

        def served() -> bool:
            try:
                return bool(self.read())
            except DevstackError:
                return False

        wait_for("the name and the view", served, timeout_s=10)


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


class Course:
    """Replace, go back, and give up what is kept; and how each of them ends that died in its course."""

    def __init__(self, live: Live, drd: ForkedDrd) -> None:
        self.live = live
        self.drd = drd
        live.write("old")
        at = drd("backup", "now")["backups"][0]["recovery_point"]
        live.write("new")
        self.replace = ("restore", "--at", at, "--replace")

    def steps(self) -> list[list[str]]:
        """Run all three undisturbed; return the steps of each."""
        out = []
        for verb in ("replace", "undo", "drop-old"):
            command = self.replace if verb == "replace" else ("restore", verb, self.newest())
            out.append(self.drd.steps(*command, of=CHANGES, kinds=ALL))
            assert self.live.read() == (["old"] if verb == "replace" else ["new"])
        self.cleared_up()
        return out

    def newest(self) -> str:
        """Name the restore that began last."""
        records = self.drd("restore", "list")["restores"]
        found: str = max(records, key=lambda record: record["started_at"])["restore"]
        return found

    def dies(self, death: Death, *command: str) -> None:
        """Let a command die: one of both data sets serves, whole, without any further command."""
        self.drd.dies(death.nth, *command, of=CHANGES, kinds=death.kinds)
        self.live.settle()
        assert self.live.read() in (["old"], ["new"]), death

    def run(self, replace: Death, undo: Death, drop: Death) -> None:
        """Let each die: the next one ends it, and afterwards all is as it was before."""
        self.dies(replace, *self.replace)
        records = self.drd("restore", "list")["restores"]
        if self.live.read() == ["old"]:
            self.drd("restore", "undo", records[0]["restore"])
            assert self.live.read() == ["new"]
        again = self.drd(*self.replace)["restores"][0]["replaced"]["restore"]
        assert self.live.read() == ["old"]
        self.dies(undo, "restore", "undo", again)
        self.drd("restore", "undo", again)
        assert self.live.read() == ["new"]
        self.dies(drop, "restore", "drop-old", again)
        assert self.live.read() == ["new"]
        self.cleared_up()

    def cleared_up(self) -> None:
        """Demand that every restore has ended, and that nothing but the live data is left once ``drop-old`` ran."""
        live, drd = self.live, self.drd
        for record in drd("restore", "list")["restores"]:
            assert not record["interrupted"]
            drd("restore", "drop-old", record["restore"])
        checked = drd("verify", "--deep")
        assert (checked["outcome"], checked["unfinished"]) == ("ok", [])
        assert live.read() == ["new"]
        assert live.left() == []
        assert list((live.site.store_dir / "pins").rglob("*.json")) == []


def test_death_at_steps_of_replace_undo_and_drop_old(live: Live) -> None:
    """Whatever the step: old or new data serves, who comes next goes on or back, and nothing is left over."""
    chance = random.Random(os.environ.get("DRD_CRASH_SEED", "1"))
    with forked_drd(live.site) as drd:
        course = Course(live, drd)
        pristine = live.site.folder / "pristine"
        shutil.copytree(live.site.store_dir, pristine)
        plans = [deaths(chance, steps) for steps in course.steps()]
        for number in range(max(map(len, plans))):
            where = [plan[number % len(plan)] for plan in plans]
            shutil.rmtree(live.site.store_dir)
            shutil.copytree(pristine, live.site.store_dir)
            try:
                course.run(*where)
            except Exception as error:
                error.add_note(f"round {number}: {where}")
                raise
