"""The generated data are repeatable, cover every type, and the awkward database survives stock tools."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime

import pytest

from devstack import load
from devstack.awkward import Awkward
from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis

pytestmark = pytest.mark.integration

_END = datetime(2026, 11, 22, 12, tzinfo=UTC)
_SCALE = 0.01


def _orders_digest(postgres: Postgres, database: str) -> object:
    with postgres.connect(database) as connection:
        load.load_postgres(connection, scale=_SCALE, seed=7, end_at=_END)
        return connection.execute("SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o").fetchone()


def test_postgres_data_are_the_same_for_the_same_seed(postgres: Postgres, pg_database: str):
    """Two loads with one seed and time give equal rows."""
    other = postgres.fresh_database()
    try:
        assert _orders_digest(postgres, pg_database) == _orders_digest(postgres, other)
    finally:
        postgres.drop_database(other)


def test_postgres_lives_on(postgres: Postgres, pg_database: str):
    """Loading more adds rows, changes some through the trigger, and keeps every constraint."""
    with postgres.connect(pg_database) as connection:
        before = load.load_postgres(connection, scale=_SCALE)
        assert before == {"users": 200, "orders": 1000, "strategies": 150, "api_keys": 100}
        after = load.load_more_postgres(connection)
        assert after["orders"] != before["orders"]
        changed = connection.execute(
            "SELECT count(*) FROM orders WHERE updated_at > now() - interval '5 min'"
        ).fetchone()
    assert changed
    assert changed[0] > 0


def test_redis_has_every_family_and_type(empty_redis_source: Redis):
    """Strings, hashes, lists, sets, sorted sets and streams with a group are there, some keys expire."""
    client = empty_redis_source.client()
    count = load.load_redis(client, scale=_SCALE, seed=7, end_at=datetime.now(UTC))
    names = list(client.scan_iter(count=1000))
    assert len(names) == count
    assert {client.type(name) for name in names} == {b"string", b"hash", b"list", b"set", b"zset", b"stream"}
    assert client.info("keyspace")["db0"]["expires"] > 100
    assert len(client.xinfo_groups("signals:BTC/USDT")) == 1
    assert load.load_more_redis(client) > count


def test_clickhouse_klines_have_no_gaps(clickhouse_source: ClickHouse, clickhouse_database: str):
    """Every market has one candle a minute and the four tables are filled; more rows can be added."""
    database = clickhouse_database
    counts = load.load_clickhouse(clickhouse_source, database=database, scale=_SCALE, end_at=_END)
    assert counts["ticks"] == 5000
    steps = clickhouse_source.rows(
        f"SELECT toFloat64(open_time - previous) AS step, count() AS times "
        f"FROM (SELECT open_time, lagInFrame(open_time) OVER (PARTITION BY exchange, symbol ORDER BY open_time) "
        f"AS previous FROM {database}.klines WHERE interval = '1m') "
        f"WHERE toUnixTimestamp64Milli(previous) > 0 GROUP BY step"
    )
    assert steps == [{"step": 60.0, "times": 100 * 59}]
    more = load.load_more_clickhouse(clickhouse_source, database=database)
    assert more["ticks"] == 5100


def test_awkward_database_goes_through_stock_tools(postgres: Postgres, awkward: Awkward, tmp_path):
    """pg_dump and pg_restore take it without an error, so an error of drd's is drd's."""
    environment = {**os.environ, "PGPASSWORD": postgres.password}
    where = ["-h", postgres.host, "-p", str(postgres.port), "-U", postgres.user]
    archive = str(tmp_path / "a.dump")
    dump = [str(postgres.bin_dir / "pg_dump"), *where, "-Fc", "-f", archive, "-d", awkward.database]
    subprocess.run(dump, check=True, env=environment, capture_output=True)
    postgres.drop_database(awkward.database)
    restore = [str(postgres.bin_dir / "pg_restore"), *where, "-C", "--exit-on-error", "-d", "postgres", archive]
    subprocess.run(restore, check=True, env=environment, capture_output=True)
    with postgres.connect(awkward.database) as connection:
        row = connection.execute(
            "SELECT count(*), bool_and(label IS NOT DISTINCT FROM label) FROM app.kinds"
        ).fetchone()
        objects = {
            oid: bytes(connection.execute("SELECT lo_get(%s)", [oid]).fetchone()[0]) for oid in awkward.large_objects
        }
    assert row == (500, True)
    assert objects == awkward.large_objects


def test_cluster_spreads_keys(redis_cluster):
    """The cluster takes keys on every node."""
    redis_cluster.flush()
    load.load_redis_cluster(redis_cluster.client(), keys=120)
    sizes = [node.client().dbsize() for node in redis_cluster.nodes]
    assert sum(sizes) == 120
    assert min(sizes) > 0


def test_sentinel_names_the_primary(redis_sentinel):
    """The sentinel answers with the primary's address."""
    assert redis_sentinel.current_primary() == (redis_sentinel.primary.host, redis_sentinel.primary.port)
