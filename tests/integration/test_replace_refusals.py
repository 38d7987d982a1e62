"""What a restore in place refuses before anything is made, and what only several databases show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from drd.engines.clickhouse.swap import ClickHouseReplacer
from drd.engines.postgres import catalog
from drd.engines.postgres.connection import endpoint_of
from drd.engines.postgres.settings import ALL_DATABASES, PostgresSettings
from drd.engines.postgres.swap import PostgresReplacer
from drd.engines.redis import RedisSettings
from drd.engines.redis.swap import RedisReplacer
from drd.errors import TargetError
from drd.model import Secret
from tests.support import clickhouse_world, postgres_engine, redis_world

pytestmark = pytest.mark.integration

ID = "20261122T181455Z-k3f9qa"
HUGE = 1 << 60


def save_nothing(_engine: Any) -> None:
    raise AssertionError("PostgreSQL keeps the old databases beside")


@pytest.fixture
def two(postgres: Postgres) -> Iterator[tuple[str, str]]:
    """Give two databases with a row each; what a test makes of them is dropped."""
    names = postgres.fresh_database("one"), postgres.fresh_database("two")
    for name in names:
        with postgres.connect(name) as session:
            session.execute("CREATE TABLE t AS SELECT 1 AS v")
    yield names
    with postgres.connect() as session:
        rows = session.execute(
            "SELECT datname FROM pg_database WHERE strpos(datname, %s) > 0 OR strpos(datname, %s) > 0", names
        ).fetchall()
    for (name,) in rows:
        postgres.drop_database(name)


def rows(server: Postgres, names: tuple[str, ...]) -> list[int]:
    found = []
    for name in names:
        with server.connect(name) as session:
            row = session.execute("SELECT count(*) FROM t").fetchone()
            assert row
            found.append(row[0])
    return found


def test_several_postgres_databases_change_places_together(
    postgres: Postgres, two: tuple[str, str], tmp_path: Path
) -> None:
    """All databases of a source are swapped, undone and dropped at once."""
    settings = PostgresSettings(
        postgres.url("postgres"), Secret(postgres.password), databases=two, tools_dir=postgres.bin_dir
    )
    engine = postgres_engine.engine_for(postgres, databases=two)
    dumped = postgres_engine.dump_of(engine, tmp_path)
    for name in two:
        with postgres.connect(name) as session:
            session.execute("INSERT INTO t SELECT 2")
    replacer, ctx = PostgresReplacer(settings), postgres_engine.in_spool(tmp_path)
    replacer.stage(ID, dumped.backup, dumped.reader, ctx)
    assert rows(postgres, two) == [2, 2]
    found = replacer.fingerprint(ID, dumped.result.fingerprint, ctx)
    assert found.items.keys() == dumped.result.fingerprint.items.keys()
    old = replacer.swap(ID, dumped.backup, dumped.reader, ctx, save_nothing)
    assert rows(postgres, two) == [1, 1]
    assert rows(postgres, tuple(old)) == [2, 2]
    endpoint = endpoint_of(settings, "source")
    with postgres.connect() as session:
        everything = catalog.database_names(session, ALL_DATABASES, endpoint)
        assert {*two} <= {*everything}
        assert not {*old} & {*everything}
        assert {*old} <= {*catalog.kept_copies(session, endpoint)}
    assert replacer.recover(ID).replaced is True
    assert rows(postgres, tuple(replacer.undo(ID))) == [1, 1]
    assert rows(postgres, two) == [2, 2]
    assert len(replacer.drop_old(ID)) == 2
    assert replacer.drop_old(ID) == []
    with pytest.raises(TargetError, match="no old copy"):
        replacer.undo(ID)


def test_postgres_refusals(postgres: Postgres, pg_database: str, tmp_path: Path) -> None:
    """No room for a second copy, and a template database: refused by name."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE t AS SELECT 1 AS v")
    dumped = postgres_engine.dump_of(postgres_engine.engine_for(postgres, pg_database), tmp_path)
    replacer = PostgresReplacer(PostgresSettings(postgres.url(pg_database), Secret(postgres.password)))
    assert len(replacer.survey(dumped.backup, dumped.reader)) == 4
    with pytest.raises(TargetError, match="MiB free, and a second copy needs"):
        replacer.survey(replace(dumped.backup, plain_bytes=HUGE), dumped.reader)
    with postgres.connect() as session:
        session.execute(f"ALTER DATABASE {pg_database} IS_TEMPLATE true".encode())
        try:
            with pytest.raises(TargetError, match="is a template database"):
                replacer.survey(dumped.backup, dumped.reader)
        finally:
            session.execute(f"ALTER DATABASE {pg_database} IS_TEMPLATE false".encode())


def test_redis_refusals(empty_redis_source: Redis, tmp_path: Path) -> None:
    """No memory for two data sets, and a configuration without replication: refused by name."""
    redis_world.fill(empty_redis_source, keys=5)
    taken = redis_world.Taken(redis_world.engine(empty_redis_source), tmp_path)
    settings = RedisSettings(empty_redis_source.url, password=Secret(empty_redis_source.password))
    assert len(RedisReplacer(settings).survey(taken.backup, taken.reader)) == 4
    huge = replace(taken.backup, facts=taken.backup.facts | {"used_memory_bytes": HUGE})
    with pytest.raises(TargetError, match="its machine has"):
        RedisReplacer(settings).survey(huge, taken.reader)
    with pytest.raises(TargetError, match="restore_via is keys"):
        RedisReplacer(replace(settings, restore_via="keys")).survey(taken.backup, taken.reader)


def test_clickhouse_refusals(clickhouse_source: ClickHouse, clickhouse_database: str, tmp_path: Path) -> None:
    """No room, another name in the URL, a table whose column names its database: refused by name, nothing left."""
    db = clickhouse_database
    clickhouse_source.query(f"CREATE DATABASE {db}")
    clickhouse_source.query(f"CREATE TABLE {db}.t (v UInt8) ENGINE = MergeTree ORDER BY v")
    source = clickhouse_world.engine(clickhouse_source, db)
    result, backup, artifacts = clickhouse_world.dump(source, tmp_path)
    settings = clickhouse_world.settings_of(clickhouse_source, db)
    assert len(ClickHouseReplacer(settings).survey(backup, artifacts)) == 4
    with pytest.raises(TargetError, match="MiB free, and a second copy needs"):
        ClickHouseReplacer(settings).survey(replace(backup, plain_bytes=HUGE), artifacts)
    elsewhere = replace(settings, url=f"{settings.url}/other", databases=())
    with pytest.raises(TargetError, match="the URL names other"):
        ClickHouseReplacer(elsewhere).survey(backup, artifacts)

    clickhouse_source.query(f"CREATE TABLE {db}.j (k UInt8, x UInt8) ENGINE = Join(ANY, LEFT, k)")
    clickhouse_source.query(f"ALTER TABLE {db}.t ADD COLUMN w UInt8 DEFAULT joinGet('{db}.j', 'x', v)")
    result, backup, artifacts = clickhouse_world.dump(source, tmp_path)
    replacer, ctx = ClickHouseReplacer(settings), postgres_engine.in_spool(tmp_path)
    replacer.stage(ID, backup, artifacts, ctx)
    replacer.fingerprint(ID, result.fingerprint, ctx)
    with pytest.raises(TargetError, match="names its database in its definition"):
        replacer.swap(ID, backup, artifacts, ctx, save_nothing)
    assert replacer.recover(ID).replaced is False
    names = clickhouse_source.query(f"SELECT name, comment FROM system.databases WHERE name LIKE '%{db}%'")
    assert names.split() == [db]
