"""A ClickHouse database with everything that a careless tool loses, and what is needed to back it up in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from devstack.clickhouse import ClickHouse
from drd.cancel import CancelToken
from drd.engines.clickhouse.engine import ClickHouseEngine
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.model import Backup, DumpResult, Secret
from tests.support.artifacts import MemoryReader, MemorySink, backup_of, work_context

WORLD = """
CREATE DATABASE {db};
CREATE TABLE {db}.ticks (exchange LowCardinality(String), symbol String, timestamp DateTime64(6), price Decimal64(8),
  volume Decimal64(8), side Enum8('buy' = 1, 'sell' = 2), trade_id UInt64, is_maker Bool)
  ENGINE = MergeTree PARTITION BY toYYYYMMDD(timestamp) ORDER BY (exchange, symbol, timestamp);
INSERT INTO {db}.ticks SELECT ['binance', 'okx'][1 + number % 2], ['BTCUSDT', 'ETHUSDT'][1 + number % 2],
  toDateTime64('2026-01-01 00:00:00', 6) + number * 60, 40000 + number / 100, (sipHash64(number) % 100000) / 1000,
  1 + number % 2, number, number % 3 = 0 FROM numbers({rows});
CREATE TABLE {db}.performance_metrics (timestamp DateTime64(3), metric_name String, metric_value Float64,
  tags Map(String, String)) ENGINE = MergeTree PARTITION BY toYYYYMMDD(timestamp) ORDER BY (metric_name, timestamp);
INSERT INTO {db}.performance_metrics SELECT toDateTime64('2026-01-01 00:00:00', 3) + number, 'latency', number / 7,
  map('host', toString(number % 10)) FROM numbers(5000);
CREATE TABLE {db}.latest (symbol String, price Float64, version UInt64)
  ENGINE = ReplacingMergeTree(version) ORDER BY symbol;
INSERT INTO {db}.latest VALUES ('BTC', 1, 1), ('ETH', 2, 1);
INSERT INTO {db}.latest VALUES ('BTC', 3, 2);
CREATE TABLE {db}.short_lived (at DateTime, v UInt32) ENGINE = MergeTree ORDER BY v TTL at + INTERVAL 1 DAY
  SETTINGS merge_with_ttl_timeout = 1;
SYSTEM STOP TTL MERGES {db}.short_lived;
SYSTEM STOP MERGES {db}.short_lived;
INSERT INTO {db}.short_lived SELECT now() - INTERVAL 1 YEAR, number FROM numbers(1000)
  SETTINGS materialize_ttl_after_modify = 0;
CREATE TABLE {db}.empty (v UInt32) ENGINE = MergeTree ORDER BY v;
CREATE TABLE {db}.log (v UInt32) ENGINE = Log;
INSERT INTO {db}.log SELECT number FROM numbers(1000);
CREATE TABLE {db}.memory (v UInt32) ENGINE = Memory;
INSERT INTO {db}.memory SELECT number FROM numbers(77);
CREATE TABLE {db}.`we.ird "q" \\` é中 %2E` (`a b` UInt32) ENGINE = MergeTree ORDER BY `a b`;
INSERT INTO {db}.`we.ird "q" \\` é中 %2E` SELECT number FROM numbers(5);
CREATE VIEW {db}.by_symbol AS SELECT symbol, count() AS c FROM {db}.ticks GROUP BY symbol;
CREATE MATERIALIZED VIEW {db}.counts ENGINE = SummingMergeTree ORDER BY symbol AS
  SELECT symbol, count() AS c FROM {db}.ticks GROUP BY symbol;
INSERT INTO {db}.ticks SELECT * REPLACE (trade_id + 1000000 AS trade_id) FROM {db}.ticks LIMIT 100;
CREATE DICTIONARY {db}.names (v UInt64, twice UInt64 DEFAULT 0) PRIMARY KEY v
  SOURCE(CLICKHOUSE(DB '{db}' TABLE 'log')) LIFETIME(0) LAYOUT(FLAT())
"""


def fill(server: ClickHouse, database: str, *, rows: int = 20_000) -> None:
    """Make the trading tables and every kind of table beside them."""
    for statement in WORLD.format(db=database, rows=rows).split(";\n"):
        server.query(statement, settings={"max_partitions_per_insert_block": 1000})


def add_big_file(server: ClickHouse, database: str, *, megabytes: int = 40) -> None:
    """Add a table whose one column file is larger than ClickHouse puts in one request."""
    server.query(f"CREATE TABLE {database}.big (s String CODEC(NONE)) ENGINE = MergeTree ORDER BY tuple()")
    server.query(
        f"INSERT INTO {database}.big SELECT randomPrintableASCII(1000) FROM numbers({megabytes * 1000})",
        settings={
            "max_insert_threads": 1,
            "min_insert_block_size_bytes": 1 << 30,
            "min_insert_block_size_rows": 1 << 20,
        },
    )


def settings_of(server: ClickHouse, *databases: str, path: str = "", **more: Any) -> ClickHouseSettings:
    """Make settings for a devstack server."""
    more.setdefault("password", Secret(server.password))
    return ClickHouseSettings(url=server.url + path, databases=databases, **more)


def engine(server: ClickHouse, *databases: str, path: str = "", **more: Any) -> ClickHouseEngine:
    """Make an engine for a devstack server."""
    return ClickHouseEngine(settings_of(server, *databases, path=path, **more))


def dump(
    source: ClickHouseEngine, spool: Path, sink: MemorySink | None = None, cancel: CancelToken | None = None
) -> tuple[DumpResult, Backup, MemoryReader]:
    """Take a backup into memory."""
    sink = sink or MemorySink()
    result = source.dump(sink, work_context(spool, cancel=cancel))
    return result, backup_of("clickhouse", result, sink.artifacts), MemoryReader(sink.artifacts)


def unfinished(server: ClickHouse) -> int:
    """Count the jobs that a server still runs."""
    return int(server.query("SELECT count() FROM system.backups WHERE status IN ('CREATING_BACKUP', 'RESTORING')"))
