"""``restore --replace`` of PostgreSQL: swapped at once, kept, undone, dropped; and hurt at every step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devstack.postgres import Postgres
from tests.conftest import StartPostgres
from tests.support.drd_site import Site
from tests.support.replace_site import DIED, hurt, reading, replace_site

pytestmark = pytest.mark.faults

REPLACE = ("restore", "--at", "now", "--replace")
BEFORE, AFTER = [(1, "one"), (2, "two")], [(1, "one"), (3, "three")]


class World:
    """A database that was backed up and changed since, and its site."""

    def __init__(self, server: Postgres, database: str, site: Site) -> None:
        self.server = server
        self.database = database
        self.site = site

    def rows(self, database: str | None = None) -> list[Any]:
        with self.server.connect(database or self.database) as session:
            return session.execute("SELECT id, v FROM t ORDER BY id").fetchall()

    def databases(self) -> dict[str, str | None]:
        """Return the databases that have to do with this one, and their comments."""
        with self.server.connect() as session:
            rows = session.execute(
                "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE strpos(datname, %s) > 0",
                (self.database,),
            ).fetchall()
        return {str(name): comment for name, comment in rows}

    def properties(self, database: str) -> tuple[Any, ...]:
        with self.server.connect() as session:
            row = session.execute(
                """SELECT d.datdba::regrole::text, d.encoding, d.datcollate, d.datconnlimit, d.datallowconn,
                          (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(d.datacl) a),
                          shobj_description(d.oid, 'pg_database'),
                          (SELECT array_agg(s.setconfig::text) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid)
                     FROM pg_database d WHERE datname = %s""",
                (database,),
            ).fetchone()
        assert row
        return row

    def untouched(self) -> None:
        """Demand that the live data is as it was before, and that nothing else is there."""
        assert self.rows() == AFTER
        assert list(self.databases()) == [self.database]


@pytest.fixture(scope="module")
def backed_up(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give a database of every property, with one backup."""
    name = postgres.fresh_database("replace")
    role = f"{name}_owner"
    with postgres.connect(name) as session:
        session.execute(f"CREATE ROLE {role}".encode())
        for statement in (
            "CREATE TABLE t (id int PRIMARY KEY, v text)",
            "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
            f"ALTER TABLE t OWNER TO {role}",
            f"ALTER DATABASE {name} OWNER TO {role}",
            f"ALTER DATABASE {name} SET work_mem = '7MB'",
            f"ALTER DATABASE {name} CONNECTION LIMIT 40",
            f"GRANT CONNECT ON DATABASE {name} TO pg_monitor",
            f"COMMENT ON DATABASE {name} IS 'the shop''s own'",
        ):
            session.execute(statement.encode())
    site = replace_site(
        tmp_path_factory.mktemp("replace"), "shop", {"type": "postgres", "url": postgres.url(name)}, postgres.password
    )
    site("backup", "now").succeeds()
    yield World(postgres, name, site)
    postgres.drop_database(name)
    with postgres.connect() as session:
        session.execute(f"DROP ROLE {role}".encode())


@pytest.fixture
def world(backed_up: World, tmp_path: Path) -> Iterator[World]:
    """Give the database as it was changed after its backup; whatever else a test leaves is dropped."""
    with backed_up.server.connect(backed_up.database) as session:
        session.execute("DELETE FROM t")
        session.execute("INSERT INTO t VALUES (1, 'one'), (3, 'three')")
    yield backed_up
    for name in backed_up.databases():
        if name != backed_up.database:
            backed_up.server.drop_database(name)
    for record in (backed_up.site.store_dir / "restores").glob("*.json"):
        record.unlink()


def test_replace_undo_and_drop(world: World) -> None:
    """Readers see the live data until the swap, the backup after it; properties as backed up; undo and drop-old."""
    before = world.properties(world.database)
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(world.server.connect(world.database))
        with reading(world.rows) as reader:
            done = world.site(*REPLACE, "--json").succeeds().json
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")
    assert reader.seen == [AFTER, BEFORE]
    assert len(reader.failed) <= 3, reader.failed
    (line,) = done["restores"]
    assert line["checked"] is True
    (old,) = line["replaced"]["old"]
    restore = line["replaced"]["restore"]
    assert world.rows(old) == AFTER
    assert "_before_" in old
    assert world.properties(world.database) == before

    (listed,) = world.site("restore", "list", "--json").succeeds().json["restores"]
    assert (listed["restore"], listed["state"]) == (restore, "replaced")
    undone = world.site("restore", "undo", restore[-6:]).succeeds()
    assert f"drd restore drop-old {restore}" in undone.out
    assert world.rows() == AFTER
    assert world.properties(world.database) == before
    world.site("restore", "undo", restore).succeeds()
    assert world.rows() == AFTER
    assert len(world.databases()) == 2
    world.site("restore", "drop-old", restore).succeeds()
    world.untouched()
    world.site("restore", "drop-old", restore).succeeds()
    world.site("restore", "undo", restore).fails(
        10, "cannot be undone: its old data was dropped", hint="drd restore list"
    )


def test_drop_the_old_copy(world: World) -> None:
    """After ``drop-old`` only the restored database is there."""
    said = world.site(*REPLACE).succeeds().out
    restore = said.rpartition("drop-old ")[2].strip()
    world.site("restore", "drop-old", restore).succeeds()
    assert world.rows() == BEFORE
    assert list(world.databases()) == [world.database]


def test_dry_run(world: World) -> None:
    """``--dry-run`` says the steps and changes nothing; without ``--replace`` the target is refused as ever."""
    run = world.site(*REPLACE, "--dry-run").succeeds()
    assert "swap by one transaction" in run.out
    assert world.site(*REPLACE, "--dry-run", "--json").succeeds().json["restores"][0]["steps"]
    world.site("restore", "--at", "now").fails(14, "already holds 1 table", hint="--replace")
    world.untouched()
    world.site(*REPLACE, "--no-compare").fails(2, "always compares")
    world.site("restore").fails(2, "--at TIME is missing")
    world.site("restore", "undo", "nosuch").fails(10, "no restore has the id")


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("interrupt", "after:stage"),
        ("fail", "after:stage"),
        ("differ", "after:fingerprint"),
        ("fail", "drd.engines.postgres.moves:_rename:2"),
    ],
)
def test_a_failure_changes_nothing(world: World, how: str, where: str) -> None:
    """A refusal at any step, or data that reads back otherwise: the live data is as it was, nothing is left."""
    done = hurt(world.site, how, where, *REPLACE)
    assert done.returncode == {"differ": 20, "interrupt": 130, "fail": 13}[how], done.stdout + done.stderr
    assert "could not" not in done.stdout + done.stderr
    world.untouched()
    assert world.site("restore", "list", "--json").succeeds().json["restores"][0]["state"] == "failed"


@pytest.mark.parametrize(
    "where",
    ["drd.engines.postgres.place:apply_comment:1", "after:stage", "drd.engines.postgres.moves:_rename:2"],
)
def test_killed_before_the_swap(world: World, where: str) -> None:
    """Killed at a step up to and in the swap: the live data serves on; the next run clears up and succeeds."""
    assert hurt(world.site, "kill", where, *REPLACE).returncode == DIED
    assert world.rows() == AFTER
    (record,) = world.site("restore", "list", "--json").succeeds().json["restores"]
    assert record["interrupted"]
    run = world.site(*REPLACE, "--json").succeeds()
    assert "interrupted and undone" in run.err
    assert world.rows() == BEFORE
    assert len(world.databases()) == 2


def test_killed_and_undone(world: World) -> None:
    """``undo`` of a killed restore clears up after it; ``drop-old`` before that is refused."""
    assert hurt(world.site, "kill", "before:swap", *REPLACE).returncode == DIED
    (record,) = world.site("restore", "list", "--json").succeeds().json["restores"]
    world.site("restore", "drop-old", record["restore"]).fails(2, "was interrupted", hint="drd restore undo")
    assert "as it was before" in world.site("restore", "undo", record["restore"]).succeeds().out
    world.untouched()


def test_killed_after_the_swap(world: World) -> None:
    """Killed when the data is in place: the next run says so, and the way back is there."""
    assert hurt(world.site, "kill", "after:swap", *REPLACE).returncode == DIED
    assert world.rows() == BEFORE
    (record,) = world.site("restore", "list", "--json").succeeds().json["restores"]
    world.site("restore", "undo", record["restore"]).succeeds()
    assert world.rows() == AFTER


@pytest.mark.parametrize("where", ["drd.engines.postgres.moves:_rename:2", "after:undo"])
def test_killed_in_undo(world: World, where: str) -> None:
    """Killed while going back: the live name is always there, and ``undo`` again ends it."""
    restore = world.site(*REPLACE, "--json").succeeds().json["restores"][0]["replaced"]["restore"]
    assert hurt(world.site, "kill", where, "restore", "undo", restore).returncode == DIED
    assert world.rows() == (AFTER if where == "after:undo" else BEFORE)
    world.site("restore", "undo", restore).succeeds()
    assert world.rows() == AFTER
    assert len(world.databases()) == 2


def test_who_may_not(world: World) -> None:
    """A user without CREATEDB is refused by name, before anything is made."""
    role = f"{world.database}_poor"
    with world.server.connect() as session:
        session.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD '{world.server.password}' IN ROLE pg_read_all_data".encode()
        )
    try:
        site = world.site.at(world.site.folder / "poor")
        site.sources["shop"]["url"] = world.server.url(world.database, user=role)
        site(*REPLACE).fails(13, role, "may not create databases", hint="CREATEDB")
        world.untouched()
    finally:
        with world.server.connect() as session:
            session.execute(f"DROP ROLE {role}".encode())


def test_as_the_owner(world: World) -> None:
    """The owner with CREATEDB may; a superuser's session, which it cannot end, stops the swap and nothing else."""
    role, owner = f"{world.database}_user", f"{world.database}_owner"
    with world.server.connect() as session:
        session.execute(
            f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{world.server.password}' IN ROLE {owner}".encode()
        )
    with world.server.connect(world.database) as session:
        session.execute(f"GRANT ALL ON SCHEMA public TO {owner}".encode())
    try:
        site = world.site.at(world.site.folder / "owner")
        site.sources["shop"]["url"] = world.server.url(world.database, user=role)
        with world.server.connect(world.database) as session:
            site(*REPLACE).fails(13, "could not be ended", "the live data was not touched", hint="pg_signal_backend")
            assert session.execute("SELECT count(*) FROM t").fetchone() == (2,)
        world.untouched()
        restore = site(*REPLACE, "--json").succeeds().json["restores"][0]["replaced"]["restore"]
        assert world.rows() == BEFORE
        site("restore", "undo", restore).succeeds()
        site("restore", "drop-old", restore).succeeds()
        world.untouched()
    finally:
        with world.server.connect() as session:
            session.execute(f"DROP OWNED BY {role}".encode())
            session.execute(f"DROP ROLE {role}".encode())


def test_closed_to_clients(world: World) -> None:
    """Live data that was closed to clients before the restore is replaced all the same, and kept closed."""
    with world.server.connect() as session:
        session.execute(f"ALTER DATABASE {world.database} ALLOW_CONNECTIONS false".encode())
    try:
        world.site("restore", "--at", "now").fails(14, "what nobody may look at", hint="--replace")
        restore = world.site(*REPLACE, "--json").succeeds().json["restores"][0]["replaced"]["restore"]
        assert world.rows() == BEFORE
        world.site("restore", "undo", restore).succeeds()
        with pytest.raises(psycopg.OperationalError, match="not currently accepting"):
            world.rows()
    finally:
        with world.server.connect() as session:
            session.execute(f"ALTER DATABASE {world.database} ALLOW_CONNECTIONS true".encode())
    assert world.rows() == AFTER


def test_logical_replication(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """What failed with a subscription in it is removed; what stays with the old copy is named, and who it feeds."""
    server = start_postgres(settings={"wal_level": "logical"})
    name = server.fresh_database("fed")
    with server.connect(name) as session:
        for statement in (
            "CREATE TABLE t AS SELECT 1 AS id, 'one' AS v",
            "CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=9 dbname=x' PUBLICATION p WITH (connect = false)",
            "ALTER SUBSCRIPTION sub ENABLE",
            "SELECT pg_create_logical_replication_slot('sl', 'pgoutput')",
        ):
            session.execute(statement.encode())
    source = {"type": "postgres", "url": server.url(name)}
    world = World(server, name, replace_site(tmp_path, "shop", source, server.password))
    world.site("backup", "now").succeeds()

    assert hurt(world.site, "differ", "after:fingerprint", *REPLACE).returncode == 20
    assert list(world.databases()) == [name]
    assert hurt(world.site, "fail", "drd.engines.postgres.place:apply_properties:1", *REPLACE).returncode == 13
    assert list(world.databases()) == [name]

    stays = f"replication slot sl of {name}, subscription sub of {name}"
    assert stays in world.site(*REPLACE, "--dry-run").succeeds().out
    done = world.site(*REPLACE, "--json").succeeds()
    assert stays in done.out
    replaced = done.json["restores"][0]["replaced"]
    (old,) = replaced["old"]
    drop = ("restore", "drop-old", replaced["restore"])
    world.site(*drop).fails(13, f"subscription sub still feeds {old}", hint="ALTER SUBSCRIPTION sub DISABLE")
    with server.connect(old) as session:
        session.execute("ALTER SUBSCRIPTION sub DISABLE")
    with server.connect() as session:
        session.execute(f"ALTER DATABASE {old} ALLOW_CONNECTIONS false".encode())
    world.site(*drop).succeeds()
    assert list(world.databases()) == [name]
    with server.connect(name) as session:
        assert session.execute("SELECT subname, subenabled FROM pg_subscription").fetchall() == [("sub", False)]


def test_who_may_not_make_an_object(world: World) -> None:
    """What only a superuser can make is refused with what to do about it, and nothing is left."""
    role = f"{world.database}_maker"
    with world.server.connect(world.database) as session:
        session.execute("CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
        session.execute("CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION seen()")
        session.execute(
            f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{world.server.password}' "
            f"IN ROLE pg_read_all_data, {world.database}_owner".encode()
        )
    site = world.site.at(world.site.folder / "maker", store={"type": "local", "path": str(world.site.folder / "other")})
    try:
        site("backup", "now").succeeds()
        site.sources["shop"]["url"] = world.server.url(world.database, user=role)
        site(*REPLACE).fails(13, "permission denied to create event trigger", hint="restore as a superuser")
        world.untouched()
    finally:
        with world.server.connect(world.database) as session:
            session.execute("DROP EVENT TRIGGER e")
            session.execute("DROP FUNCTION seen()")
            session.execute(f"DROP ROLE {role}".encode())
