"""What a stranger found while trying to break the PostgreSQL engine on real servers; each was a defect once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devstack import obtain
from devstack.postgres import Postgres
from drd.engines.postgres import dump as dumping
from drd.engines.postgres import load as loading
from drd.engines.postgres.engine import PostgresEngine
from drd.engines.postgres.examine import PostgresExaminer
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.toc import TocEntry
from drd.errors import SourceError, TargetError, ToolError
from drd.model import Finding, Secret
from tests.conftest import StartPostgres
from tests.support.postgres_engine import differences, dump_of, engine_for, in_spool, restore_of


@pytest.fixture
def elsewhere(postgres: Postgres) -> Iterator[str]:
    """Give the name of a database that does not exist; it goes with the test."""
    name = postgres.fresh_database("r")
    postgres.drop_database(name)
    yield name
    postgres.drop_database(name)


def test_tables_emptied_after_the_snapshot_keep_their_rows(
    postgres: Postgres, pg_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUNCATE and ALTER TABLE are not seen through a snapshot, so between snapshot and dump they must wait."""
    blocked: list[str] = []
    original = dumping._require_spool

    def meanwhile(*args: Any) -> bool:
        with postgres.connect(pg_database) as session:
            session.execute("SET lock_timeout = '100ms'")
            for statement in ("TRUNCATE a", 'ALTER TABLE "B%" ALTER v TYPE bigint', "DROP TABLE a"):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    session.execute(statement)
                blocked.append(statement)
        return original(*args)

    monkeypatch.setattr(dumping, "_require_spool", meanwhile)
    with postgres.connect(pg_database) as session:
        session.execute('CREATE TABLE a AS SELECT generate_series(1, 9) AS v; CREATE TABLE "B%" AS TABLE a')
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    assert len(blocked) == 3
    assert [item["rows"] for item in dumped.result.fingerprint.items.values()] == [9, 9]


def test_a_truncate_under_way_is_waited_for(postgres: Postgres, pg_database: str, tmp_path: Path) -> None:
    """A table that is being loaded anew when the dump begins comes with its new rows, not without any."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE a AS SELECT generate_series(1, 9) AS v")
    loader = postgres.connect(pg_database)
    loader.execute("BEGIN; TRUNCATE a; INSERT INTO a SELECT generate_series(1, 5)")
    timer = threading.Timer(0.7, lambda: loader.execute("COMMIT"))
    timer.start()
    try:
        dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    finally:
        timer.join()
        loader.close()
    assert [item["rows"] for item in dumped.result.fingerprint.items.values()] == [5]


def test_where_tables_cannot_be_held_the_loss_is_seen(
    postgres: Postgres, pg_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too many tables to hold in all databases, one that was emptied before its turn fails the dump by name."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE emptied AS SELECT generate_series(1, 9) AS v")
    original = dumping._require_spool

    def meanwhile(*args: Any) -> bool:
        with postgres.connect(pg_database) as session:
            session.execute("TRUNCATE emptied")
        return original(*args)

    monkeypatch.setattr(dumping, "room_for_locks", lambda _sessions: False)
    monkeypatch.setattr(dumping, "_require_spool", meanwhile)
    with pytest.raises(SourceError, match="emptied was emptied"):
        dump_of(engine_for(postgres, databases=(pg_database, "postgres")), tmp_path)


def test_what_pg_dump_leaves_out_is_said(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """A user who may not read subscriptions gets a backup without them, and is told."""
    server = start_postgres()
    with server.connect() as session:
        session.execute("CREATE ROLE bk LOGIN PASSWORD 'p'; GRANT pg_read_all_data TO bk; CREATE TABLE a (v int)")
        session.execute("CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)")
    dumped = dump_of(engine_for(server, user="bk", password=Secret("p")), tmp_path)
    assert any("subscriptions not dumped" in notice.message for notice in dumped.result.notices)


def test_a_persons_database_is_never_swept(
    postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path
) -> None:
    """A database that is called as drd calls its own, and is not drd's, stays."""
    name = "drd_restore_orders_v2"
    with postgres.connect() as session:
        session.execute(f"CREATE DATABASE {name}")
    try:
        restore_of(engine_for(postgres, elsewhere), dump_of(engine_for(postgres, pg_database), tmp_path), tmp_path)
        with postgres.connect(name) as session:
            assert session.info.dbname == name
        with postgres.connect(elsewhere) as session:
            comment = session.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
            ).fetchone()
        assert comment == (None,)
    finally:
        postgres.drop_database(name)


def test_an_onlooker_does_not_stop_the_last_step(
    postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path
) -> None:
    """Monitoring that connects to every database it finds does not make a finished restore fail."""
    over = threading.Event()
    seen: dict[str, psycopg.Connection[Any]] = {}

    def look() -> None:
        with postgres.connect() as session:
            while not over.wait(0.02):
                names = session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'drd_restore_%'").fetchall()
                for (name,) in names:
                    if name not in seen:
                        seen[name] = postgres.connect(name)

    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE a AS SELECT generate_series(1, 9) AS v")
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        restore_of(engine_for(postgres, elsewhere), dumped, tmp_path)
    finally:
        over.set()
        onlooker.join()
        for session in seen.values():
            session.close()
    assert seen
    assert differences(engine_for(postgres, elsewhere), dumped, tmp_path) == []


def test_settings_of_the_server_and_the_role_do_no_harm(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """An idle timeout, arrays without NULL and a read-only default change nothing in dump, restore and comparison."""
    server = start_postgres(settings={"idle_session_timeout": "500ms", "array_nulls": "off"})
    with server.connect() as session:
        session.execute("SET array_nulls = on")
        session.execute("CREATE TABLE a (v text[]); INSERT INTO a VALUES ('{NULL,a}')")
        session.execute(
            """CREATE FUNCTION slow(text[]) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_sleep(1.2); RETURN 1; END'"""
        )
        session.execute("CREATE INDEX ON a (slow(v))")
        session.execute("ALTER ROLE admin SET default_transaction_read_only = on")
    dumped = dump_of(engine_for(server), tmp_path)
    target = engine_for(server, "copy")
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []


def test_the_first_failure_is_the_one_reported(
    postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one of several loading threads fails, its reason is given, not that of a thread that stopped for it."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE large AS SELECT repeat('x', 1000) AS v FROM generate_series(1, 20000)")
        session.execute("CREATE TABLE small AS SELECT 1 AS v")
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    counted = loading.Loader._counted

    def broken(self: loading.Loader, entry: TocEntry) -> Iterator[memoryview]:
        if entry.tag == "small":
            raise TargetError("the real reason")
        for piece in counted(self, entry):
            self._failed.wait(5)
            yield piece

    monkeypatch.setattr(loading.Loader, "_counted", broken)
    with pytest.raises(TargetError, match="the real reason"):
        restore_of(engine_for(postgres, elsewhere), dumped, tmp_path)


def test_a_foreign_partition_whose_server_is_away_stops_nothing(
    postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path
) -> None:
    """ANALYZE asks the servers behind foreign partitions; after a disaster they may be gone, too.

    All other tables, and the partitions that are here, have their statistics all the same.
    """
    with postgres.connect(pg_database) as session:
        session.execute("CREATE EXTENSION postgres_fdw; CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw")
        session.execute(
            "CREATE TABLE p (v int) PARTITION BY LIST (v); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)"
        )
        session.execute(
            "INSERT INTO p1 VALUES (1); CREATE FOREIGN TABLE p2 PARTITION OF p FOR VALUES IN (2) SERVER away"
        )
        session.execute('CREATE TABLE "other, one" AS SELECT generate_series(1, 9) AS v')
        session.execute('CREATE MATERIALIZED VIEW m AS SELECT v FROM "other, one"')
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    result = restore_of(engine_for(postgres, elsewhere), dumped, tmp_path)
    assert "statistics-incomplete" in {notice.code for notice in result.notices}
    assert differences(engine_for(postgres, elsewhere), dumped, tmp_path) == []
    with postgres.connect(elsewhere) as session:
        known = session.execute("SELECT tablename FROM pg_stats WHERE schemaname = 'public' ORDER BY 1").fetchall()
    assert [name for (name,) in known] == ["m", "other, one", "p1"]


def test_a_backup_that_a_newer_pg_dump_wrote(
    postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restored by a pg_restore that reads it though an older one is there, and its schema compared to the letter.

    Where only older clients are, the restore says which it needs, and schemas are compared by names.
    """
    newer, find_tool = obtain.postgres_bin(17), dumping.find_tool
    monkeypatch.setattr(dumping, "find_tool", lambda name, _major, _dir, cancel: find_tool(name, 17, newer, cancel))
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 1 CHECK (n IN (1, 2)))")
        session.execute("INSERT INTO t VALUES (1)")
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    backup = dumped.backup
    assert backup.tools["pg_dump"].startswith("17")

    def settings(database: str, tools: Path) -> PostgresSettings:
        return PostgresSettings(postgres.url(database), Secret(postgres.password), tools_dir=tools)

    def schema(tools: Path) -> Finding:
        examiner = PostgresExaminer(settings(pg_database, tools))
        return next(iter(examiner.examine(backup, dumped.reader, in_spool(tmp_path))))

    PostgresEngine(settings(elsewhere, newer)).restore(backup, dumped.reader, in_spool(tmp_path))
    assert differences(engine_for(postgres, elsewhere), dumped, tmp_path) == []
    assert (schema(newer).outcome, "and definition" in schema(newer).detail) == ("passed", True)
    with postgres.connect(pg_database) as session:
        session.execute("ALTER TABLE t ALTER n SET DEFAULT 2")
    assert schema(newer).outcome == "failed"
    by_names = schema(postgres.bin_dir)
    assert (by_names.outcome, "of another version" in by_names.detail) == ("passed", True)
    with pytest.raises(ToolError, match="older than the backup's pg_dump 17"):
        PostgresEngine(settings(elsewhere, postgres.bin_dir)).restore(backup, dumped.reader, in_spool(tmp_path))
