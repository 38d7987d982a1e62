"""Fill ``market_data`` in ClickHouse with generated rows, the same for the same seed and time."""

from __future__ import annotations

from datetime import datetime

from devstack.clickhouse import ClickHouse
from devstack.sizes import Sizes, batches, now
from devstack.trading import CLICKHOUSE_DATABASE, CLICKHOUSE_TABLES, EXCHANGES, SYMBOLS

_TICK_DAYS = 14
_EXCHANGE = f"{list(EXCHANGES)}[1 + h % {len(EXCHANGES)}]"
_RANK = f"1 + intDiv(h, 8) % {len(SYMBOLS)}"
_SYMBOL = f"{list(SYMBOLS)}[rank]"

# Times are spread over the last days, so every load touches every partition; prices wander around a base.
_TICKS = f"""
INSERT INTO {{database}}.ticks
SELECT {_EXCHANGE}, {_SYMBOL}, at, toDecimal64(price, 8), toDecimal64((h % 1000003) / 250000.0, 8),
       if(bitTest(h, 40), 'buy', 'sell'), {{seed}} * 1000000000000 + n, bitTest(h, 41)
FROM (SELECT number AS n, sipHash64(n, {{seed}}) AS h, {_RANK} AS rank,
             fromUnixTimestamp64Micro(toInt64({{end_us}} - ({{total}} - n) * {{step_us}} + h % 1000), 'UTC') AS at,
             60000 / pow(rank, 2.2) * (1 + 0.05 * sin(n / ({{total}} / 20)) + 0.002 * sin(n / 997) + (h % 1009) / 5e6)
                 AS price
      FROM numbers({{first}}, {{count}}))
"""

# One candle for each market and interval, without gaps: what a drill's "no gaps" check looks at.
_KLINES = """
INSERT INTO {{database}}.klines
SELECT {exchanges}[1 + m % {exchange_count}], {symbols}[rank], '{{interval}}', at,
       addMilliseconds(addSeconds(at, {{seconds}}), -1), toDecimal64(open, 8),
       toDecimal64(greatest(open, close) * 1.001, 8), toDecimal64(least(open, close) * 0.999, 8),
       toDecimal64(close, 8), toDecimal64(volume, 8),
       toDecimal64(volume * open, 8), toUInt32(1 + h % 5000)
FROM (SELECT intDiv(number, {{count}}) AS m, number % {{count}} AS k, sipHash64(m, k, {{seed}}) AS h,
             1 + intDiv(m, {exchange_count}) AS rank, toDateTime64({{start_s}} + k * {{seconds}}, 3, 'UTC') AS at,
             60000 / pow(rank, 2.2) * (1 + 0.05 * sin(k / 360)) AS open,
             open * (1 + (toInt64(h % 2001) - 1000) / 1e6) AS close, (h % 1000003) / 10000.0 AS volume
      FROM numbers({{rows}}))
""".format(exchanges=list(EXCHANGES), symbols=list(SYMBOLS), exchange_count=len(EXCHANGES))

_EXECUTIONS = f"""
INSERT INTO {{database}}.strategy_executions
SELECT toUUID(lower(hex(MD5(concat('1:strategy:', toString(1 + h % {{strategies}})))))),
       toUUID(lower(hex(MD5(concat('1:user:', toString(1 + (1 + h % {{strategies}}) % {{users}})))))),
       fromUnixTimestamp64Milli(toInt64({{end_ms}} - ({{total}} - n) * {{step_ms}}), 'UTC'),
       if(h % 10 < 3, 'buy', if(h % 10 < 6, 'sell', 'hold')), (h % 10007) / 10007,
       concat('{{{{"symbol":"', {list(SYMBOLS)}[1 + h % {len(SYMBOLS)}], '","price":', toString((h % 6000000) / 100),
              ',"book":[', toString(h % 997), ',', toString(h % 991), '],"id":"', lower(hex(h)), '"}}}}'),
       concat(arrayElement(['Momentum turned after ', 'Spread widened beyond ', 'Volume confirms a break of ',
              'Risk limit reached at '], 1 + h % 4), toString((h % 90001) / 100), ' with confidence class ',
              lower(hex(bitAnd(h, 65535)))), toUInt32(1 + h % 900)
FROM (SELECT number AS n, sipHash64(n, {{seed}}, 'x') AS h FROM numbers({{first}}, {{count}}))
"""

_METRICS = f"""
INSERT INTO {{database}}.performance_metrics
SELECT fromUnixTimestamp64Milli(toInt64({{end_ms}} - ({{total}} - n) * {{step_ms}}), 'UTC'),
       ['api_latency_ms', 'orders_per_second', 'ws_clients', 'pnl_total', 'error_rate'][1 + h % 5], (h % 1000003) / 777,
       map('host', concat('node-', toString(h % 12)), 'service', ['gateway', 'engine', 'risk', 'market'][1 + h % 4],
           'exchange', {_EXCHANGE})
FROM (SELECT number AS n, sipHash64(n, {{seed}}, 'm') AS h FROM numbers({{first}}, {{count}}))
"""


def load_clickhouse(
    server: ClickHouse,
    *,
    database: str = CLICKHOUSE_DATABASE,
    scale: float = 1.0,
    seed: int = 1,
    end_at: datetime | None = None,
) -> dict[str, int]:
    """Create the database with its four tables and fill them; return the rows of each."""
    sizes = Sizes.of(scale)
    end = end_at or now()
    server.query(f"CREATE DATABASE {database}")
    for statement in CLICKHOUSE_TABLES:
        server.query(statement.format(database=database))
    _fill(server, _TICKS, database, sizes.ticks, sizes, seed, end)
    _fill(server, _EXECUTIONS, database, sizes.executions, sizes, seed, end)
    _fill(server, _METRICS, database, sizes.metrics, sizes, seed, end)
    _fill_klines(server, database, "1m", 60, sizes.kline_minutes, seed, end)
    _fill_klines(server, database, "1h", 3600, max(24, sizes.kline_minutes // 6), seed, end)
    return count_clickhouse(server, database)


def load_more_clickhouse(
    server: ClickHouse, *, database: str = CLICKHOUSE_DATABASE, seed: int = 2, end_at: datetime | None = None
) -> dict[str, int]:
    """Live on for a while: about 2 % new ticks, executions and metrics in new parts; return the rows of each table."""
    counts = count_clickhouse(server, database)
    sizes = Sizes.of(1)
    end = end_at or now()
    for table, sql in (("ticks", _TICKS), ("strategy_executions", _EXECUTIONS), ("performance_metrics", _METRICS)):
        _fill(server, sql, database, max(10, counts[table] // 50), sizes, seed, end)
    return count_clickhouse(server, database)


def _fill(server: ClickHouse, sql: str, database: str, total: int, sizes: Sizes, seed: int, end_at: datetime) -> None:
    span_s = _TICK_DAYS * 86400
    end_us = int(end_at.timestamp() * 1_000_000)
    for first, last in batches(0, total - 1):
        statement = sql.format(
            database=database,
            seed=seed,
            first=first,
            count=last - first + 1,
            total=total,
            end_us=end_us,
            step_us=max(1, span_s * 1_000_000 // total),
            end_ms=end_us // 1000,
            step_ms=max(1, span_s * 1000 // total),
            strategies=sizes.strategies,
            users=sizes.users,
        )
        server.query(statement)


def _fill_klines(
    server: ClickHouse, database: str, interval: str, seconds: int, count: int, seed: int, end_at: datetime
) -> None:
    """Add the last ``count`` full candles of every market."""
    last_s = int(end_at.timestamp()) // seconds * seconds
    statement = _KLINES.format(
        database=database,
        interval=interval,
        seconds=seconds,
        seed=seed,
        count=count,
        rows=count * len(EXCHANGES) * len(SYMBOLS),
        start_s=last_s - count * seconds,
    )
    server.query(statement, settings={"max_partitions_per_insert_block": 1000})


def count_clickhouse(server: ClickHouse, database: str = CLICKHOUSE_DATABASE) -> dict[str, int]:
    """Return the rows of each table of the platform."""
    tables = ("ticks", "klines", "strategy_executions", "performance_metrics")
    return {table: int(server.query(f"SELECT count() FROM {database}.{table}")) for table in tables}
