"""``restore --replace`` of ClickHouse: renamed at once, definitions follow; undone, dropped; and hurt at every step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.clickhouse import ClickHouse
from devstack.process import is_alive
from drd.engines.clickhouse.client import SOURCE, Server
from drd.engines.clickhouse.dump import choose_databases
from tests.faults.subjects import family, wait_for
from tests.support.clickhouse_relay import relay_to
from tests.support.clickhouse_world import fill, settings_of
from tests.support.drd_site import Site
from tests.support.replace_site import DIED, hurt, reading, replace_site

pytestmark = pytest.mark.faults

REPLACE = ("restore", "--at", "now", "--replace")


class World:
    """A database that was backed up and changed since, and its site."""

    def __init__(self, server: ClickHouse, database: str, site: Site) -> None:
        self.server = server
        self.database = database
        self.site = site

    def query(self, text: str) -> str:
        return self.server.query(text.format(db=self.database)).strip()

    def state(self, database: str | None = None) -> dict[str, str]:
        """Return what a client finds in every table and view, and how each of them is made."""
        db = database or self.database
        rows = self.server.rows(
            "SELECT name, engine, replaceRegexpAll(create_table_query, ' UUID .[0-9a-f-]{36}.', '') AS made "
            f"FROM system.tables WHERE database = '{db}' AND name NOT LIKE '.inner%' ORDER BY name"
        )
        out = {row["name"]: row["made"] for row in rows}
        for row in rows:
            quoted = row["name"].replace("\\", "\\\\").replace("`", "\\`")
            if row["engine"] not in {"Dictionary", "URL"} and row["name"] != "short_lived":
                out[row["name"] + " rows"] = self.server.query(f"SELECT count() FROM {db}.`{quoted}`").strip()
        return out

    def databases(self) -> list[str]:
        rows = self.server.rows(f"SELECT name FROM system.databases WHERE name LIKE '%{self.database}%' ORDER BY name")
        return [row["name"] for row in rows]

    def works(self) -> None:
        """Demand that views, also materialized ones, see what is written to the live tables, and nothing else does."""
        before = int(self.query("SELECT sum(c) FROM {db}.counts"))
        latest = int(self.query("SELECT count() FROM {db}.latest"))
        others = {name: self.state(name) for name in self.databases() if name != self.database}
        self.query("INSERT INTO {db}.ticks SELECT * FROM {db}.ticks LIMIT 7")
        assert int(self.query("SELECT sum(c) FROM {db}.counts")) == before + 7
        assert int(self.query("SELECT count() FROM {db}.latest")) > latest
        assert self.query("SELECT sum(c) FROM {db}.by_symbol") == self.query("SELECT count() FROM {db}.ticks")
        assert {name: self.state(name) for name in self.databases() if name != self.database} == others


@pytest.fixture
def world(clickhouse_source: ClickHouse, clickhouse_database: str, tmp_path: Path) -> Iterator[World]:
    """Give a database with every kind of table, backed up and changed after that."""
    fill(clickhouse_source, clickhouse_database, rows=500)
    source = {"type": "clickhouse", "url": clickhouse_source.url, "databases": [clickhouse_database]}
    made = World(
        clickhouse_source,
        clickhouse_database,
        replace_site(tmp_path, "ticks", source, clickhouse_source.password),
    )
    made.query(
        "CREATE MATERIALIZED VIEW {db}.into_latest TO {db}.latest AS "
        "SELECT symbol, toFloat64(price) AS price, trade_id AS version FROM {db}.ticks"
    )
    made.query("CREATE TABLE {db}.outside (v UInt8) ENGINE = URL('http://127.0.0.1:1/x', CSV)")
    made.query("ALTER DATABASE {db} MODIFY COMMENT 'market data'")
    made.site("backup", "now").succeeds()
    yield made
    for name in made.databases():
        if name != made.database:
            clickhouse_source.query(f"DROP DATABASE IF EXISTS `{name}` SYNC")


def change(world: World) -> dict[str, str]:
    """Change the live data: other rows, a table gone, one that is new, a view made anew; return its state."""
    world.query("TRUNCATE TABLE {db}.ticks")
    world.query("DROP TABLE {db}.empty")
    world.query("CREATE TABLE {db}.new (v UInt8) ENGINE = MergeTree ORDER BY v")
    world.query(
        "CREATE OR REPLACE VIEW {db}.by_symbol AS SELECT symbol, count() + 0 AS c FROM {db}.ticks GROUP BY symbol"
    )
    return world.state()


def records(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.site("restore", "list", "--json").succeeds().json["restores"]
    return found


def test_replace_undo_and_drop(world: World) -> None:
    """Readers go on until the swap; every definition is the backup's; materialized views work; undo and drop-old."""
    backed_up = world.state()
    changed = change(world)
    assert "two renames each" in world.site(*REPLACE, "--dry-run").succeeds().out
    assert world.state() == changed
    with reading(lambda: world.query("SELECT count() FROM {db}.ticks")) as reader:
        (line,) = world.site(*REPLACE, "--json").succeeds().json["restores"]
    assert reader.seen == ["0", backed_up["ticks rows"]]
    assert len(reader.failed) <= 2, reader.failed
    assert world.state() == backed_up
    assert world.query("SELECT comment FROM system.databases WHERE name = '{db}'") == "market data"
    (old,) = line["replaced"]["old"]
    assert world.databases() == sorted([world.database, old])
    everything = Server(settings_of(world.server), SOURCE)
    assert world.database in choose_databases(everything, everything.settings)
    assert old not in choose_databases(everything, everything.settings)
    world.works()
    restore = line["replaced"]["restore"]
    world.site("restore", "undo", restore).succeeds()
    assert world.state() == changed
    assert world.query("SELECT comment FROM system.databases WHERE name = '{db}'") == "market data"
    world.query("INSERT INTO {db}.ticks (symbol, timestamp) SELECT 'X', now() FROM numbers(20)")
    world.works()
    world.site("restore", "undo", restore).succeeds()
    world.site("restore", "drop-old", restore).succeeds()
    assert world.databases() == [world.database]


def test_rows_that_no_backup_holds_are_named(
    clickhouse_source: ClickHouse, clickhouse_database: str, tmp_path: Path
) -> None:
    """The plan and the report name a Set table, which comes back empty; its name, a line feed in it, fakes no line."""
    db, run = clickhouse_database, clickhouse_source.query
    run(f"CREATE DATABASE {db}")
    run(f"CREATE TABLE {db}.plain (k UInt32) ENGINE = MergeTree ORDER BY k")
    run(f"CREATE TABLE {db}.`seen\\n✓ fine` (k UInt32) ENGINE = Set")
    for name in ("plain", "`seen\\n✓ fine`"):
        run(f"INSERT INTO {db}.{name} SELECT number FROM numbers(10)")
    source = {"type": "clickhouse", "url": clickhouse_source.url, "databases": [db]}
    site = replace_site(tmp_path, "ticks", source, clickhouse_source.password)
    site("backup", "now").succeeds()
    plan = site(*REPLACE, "--dry-run").succeeds().out
    done = site(*REPLACE).succeeds().out
    named = rf"{db}.`seen\n✓ fine` (Set)"
    assert f"only there are the rows of {named}, of which BACKUP saves none" in plan
    assert f"no rows of {named} were brought back" in done
    assert not [line for line in (plan + done).splitlines() if line.startswith("✓ fine")]
    assert run(f"SELECT count() FROM {db}.plain").strip() == "10"
    (old,) = (name for name in clickhouse_source.query("SHOW DATABASES").split() if name.startswith(f"{db}_before"))
    run(f"DROP DATABASE {old} SYNC")


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("differ", "after:fingerprint"),
        ("fail", "drd.engines.clickhouse.finish:_pending:1"),
    ],
)
def test_a_failure_changes_nothing(world: World, how: str, where: str) -> None:
    """A refusal before, in and after the renames, or data that reads back otherwise: all is as it was."""
    changed = change(world)
    done = hurt(world.site, how, where, *REPLACE)
    assert done.returncode == (20 if how == "differ" else 13), done.stdout + done.stderr
    assert world.state() == changed
    assert world.databases() == [world.database]
    assert world.query("SELECT comment FROM system.databases WHERE name = '{db}'") == "market data"
    assert records(world)[0]["state"] == "failed"


def test_killed_before_the_swap(world: World) -> None:
    """Killed before the renames: the live data serves on, the copy reaches nothing outside, the next run succeeds."""
    backed_up = world.state()
    changed = change(world)
    assert hurt(world.site, "kill", "drd.engines.clickhouse.swap:by_hands:1", *REPLACE).returncode == DIED
    assert world.state() == changed
    engines = "SELECT engine FROM system.tables WHERE database LIKE 'drd_new_%{db}' AND name = 'outside'"
    assert world.query(engines) == "Null"
    assert "interrupted and undone" in world.site(*REPLACE).succeeds().err
    assert world.state() == backed_up
    assert len(world.databases()) == 2
    world.works()


def kill_between(world: World, folder: Path, *, hands: bool) -> None:
    """Kill drd as the second rename is on its way, which arrives unless the ``hands`` that sent it are killed too."""
    with relay_to(world.server.port, folder) as relay:
        direct, source = world.site.sources["ticks"], {"url": relay.url, "ca_file": str(relay.ca_file)}
        world.site.sources["ticks"] = direct | source
        held = relay.hold("RENAME DATABASE", 2)
        drd = world.site.start(*REPLACE)
        held.reached()
        (other,) = family(drd)
        assert world.database not in world.databases()
        for pid in [drd.pid, other.pid] if hands else [drd.pid]:
            os.kill(pid, signal.SIGKILL)
        if hands:
            held.drop()
        else:
            held.release()
        assert drd.finish().rc == -signal.SIGKILL
        wait_for("the hands to end", lambda: not is_alive(other))
        world.site.sources["ticks"] = direct


@pytest.mark.parametrize("hands", [False, True], ids=["drd", "drd and its hands"])
def test_killed_in_the_swap(world: World, tmp_path: Path, hands: bool) -> None:
    """Killed between the renames: the second pair of hands ends the swap with all that follows it, views included.

    Where it is killed as well, the next run ends the swap. The way back is there all the same.
    """
    backed_up = world.state()
    changed = change(world)
    kill_between(world, tmp_path, hands=hands)
    assert world.databases().count(world.database) == (not hands)
    if not hands:
        assert world.state() == backed_up
        world.works()
    world.site("restore", "--at", "now").fails(14, "already holds")
    if hands:
        assert world.state() == backed_up
        world.works()
    (record,) = records(world)
    assert record["state"] == "replaced"
    world.site("restore", "undo", record["restore"]).succeeds()
    assert world.state() == changed


def test_killed_in_undo(world: World) -> None:
    """Killed while going back: what follows is done without it, every view is at work, and ``undo`` again ends it."""
    changed = change(world)
    restore = world.site(*REPLACE, "--json").succeeds().json["restores"][0]["replaced"]["restore"]
    for where in ("drd.engines.clickhouse.swap:by_hands:1", "drd.engines.clickhouse.finish:_attach:1"):
        assert hurt(world.site, "kill", where, "restore", "undo", restore).returncode == DIED
    wait_for("the views", lambda: world.state() == changed)
    world.site("restore", "undo", restore).succeeds()
    assert world.state() == changed
    world.query("INSERT INTO {db}.ticks (symbol, timestamp) SELECT 'X', now() FROM numbers(20)")
    world.works()
