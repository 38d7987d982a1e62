"""Fill ``trading_platform`` in PostgreSQL with generated rows, the same for the same seed and time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg

from devstack.sizes import Sizes, batches, now
from devstack.trading import EXCHANGES, POSTGRES_CONSTRAINTS, POSTGRES_TABLES, SYMBOLS

_USERS = """
INSERT INTO users
SELECT md5(format('%%s:user:%%s', %(seed)s::int, n))::uuid,
       format('trader_%%s_%%s', n, substr(md5(format('%%s:name:%%s', %(seed)s::int, n)), 1, 6)),
       format('%%s.%%s@%%s', substr(md5(format('%%s:mail:%%s', %(seed)s::int, n)), 1, 10), n,
              (ARRAY['example.com', 'example.org', 'mail.example.net'])[1 + n %% 3]),
       '$2b$12$' || substr(encode(sha256(format('%%s:hash:%%s', %(seed)s::int, n)::bytea), 'base64')
                 || md5(format('%%s:salt:%%s', %(seed)s::int, n)), 1, 53),
       (ARRAY['free', 'free', 'free', 'free', 'free', 'premium', 'premium', 'pro', 'enterprise']
           )[1 + floor(random() * 9)::int],
       (ARRAY['active', 'active', 'active', 'active', 'active', 'active', 'inactive', 'suspended']
           )[1 + floor(random() * 8)::int],
       made, made + random() * (%(end_at)s::timestamptz - made)
FROM (SELECT n, %(end_at)s::timestamptz - random() * interval '700 days' AS made
      FROM generate_series(%(first)s::int, %(last)s::int) AS n OFFSET 0) AS base
"""

_ORDERS = """
INSERT INTO orders
SELECT md5(format('%%s:order:%%s', %(seed)s::int, n))::uuid, md5(format('%%s:user:%%s', %(seed)s::int, who))::uuid,
       (%(exchanges)s::text[])[1 + n %% %(exchange_count)s::int], (%(symbols)s::text[])[market],
       CASE WHEN random() < 0.5 THEN 'buy' ELSE 'sell' END,
       (ARRAY['market', 'limit', 'limit', 'limit', 'stop', 'stop_limit'])[1 + floor(random() * 6)::int],
       quantity, price, status,
       CASE status WHEN 'filled' THEN quantity WHEN 'partial_filled' THEN round(quantity * part, 8) ELSE 0 END,
       CASE WHEN status IN ('filled', 'partial_filled') THEN round(price * (0.9995 + part / 1000), 8) END,
       made, made + part * interval '2 hours'
FROM (SELECT n, 1 + floor(power(random(), 3) * %(users)s::int)::int AS who, market,
             round((0.0001 + random() * random() * 5)::numeric, 8) AS quantity,
             round((60000 / power(market::float8, 2.2::float8) * (0.9 + random() * 0.2))::numeric, 8) AS price,
             (ARRAY['filled', 'filled', 'filled', 'filled', 'filled', 'cancelled', 'cancelled', 'partial_filled',
                    'pending', 'submitted', 'rejected', 'failed'])[1 + floor(random() * 12)::int] AS status,
             random()::numeric AS part,
             %(end_at)s::timestamptz - CASE n WHEN %(last)s::int THEN 0 ELSE random() END * %(span)s::interval AS made
      FROM (SELECT n, 1 + floor(power(random(), 2) * %(symbol_count)s::int)::int AS market
            FROM generate_series(%(first)s::int, %(last)s::int) AS n OFFSET 0) AS markets OFFSET 0) AS base
"""

_STRATEGIES = """
INSERT INTO strategies
SELECT md5(format('%%s:strategy:%%s', %(seed)s::int, n))::uuid,
       md5(format('%%s:user:%%s', %(seed)s::int, 1 + n %% %(users)s::int))::uuid,
       format('%%s %%s #%%s', initcap(kind), symbol, n), kind,
       jsonb_build_object('symbol', symbol, 'timeframe', (ARRAY['1m', '5m', '15m', '1h', '4h', '1d'])[1 + n %% 6],
           'fast', 3 + n %% 20, 'slow', 25 + n %% 100, 'stop_loss', round((random() * 0.1)::numeric, 5),
           'take_profit', round((random() * 0.3)::numeric, 5), 'max_position', round((random() * 50000)::numeric, 2),
           'weights', (SELECT jsonb_agg(round(random()::numeric, 6)) FROM generate_series(1, 5 + n %% 12)),
           'model', jsonb_build_object('name', 'gbm-' || n %% 7, 'sha', md5(format('%%s:model:%%s', %(seed)s::int, n))),
           'note', repeat('Reviewed by the desk; ', n %% 5)),
       random() < 0.4, made, made + random() * (%(end_at)s::timestamptz - made)
FROM (SELECT n, (ARRAY['grid', 'momentum', 'mean_reversion', 'arbitrage', 'market_making'])[1 + n %% 5] AS kind,
             (%(symbols)s::text[])[1 + n %% %(symbol_count)s::int] AS symbol,
             %(end_at)s::timestamptz - random() * interval '500 days' AS made
      FROM generate_series(%(first)s::int, %(last)s::int) AS n OFFSET 0) AS base
"""

_API_KEYS = """
INSERT INTO api_keys
SELECT md5(format('%%s:key:%%s', %(seed)s::int, n))::uuid,
       md5(format('%%s:user:%%s', %(seed)s::int, 1 + (n * 7) %% %(users)s::int))::uuid,
       (%(exchanges)s::text[])[1 + n %% %(exchange_count)s::int], format('key %%s', n),
       encode(sha256(format('%%s:public:%%s', %(seed)s::int, n)::bytea), 'base64'),
       encode(sha512(format('%%s:secret:%%s', %(seed)s::int, n)::bytea), 'base64'),
       CASE WHEN n %% 3 = 0 THEN encode(sha224(format('%%s:pass:%%s', %(seed)s::int, n)::bytea), 'base64') END,
       CASE WHEN n %% 2 = 0 THEN '["read", "trade"]' ELSE '["read"]' END::jsonb, random() < 0.8, made, made
FROM (SELECT n, %(end_at)s::timestamptz - random() * interval '400 days' AS made
      FROM generate_series(%(first)s::int, %(last)s::int) AS n OFFSET 0) AS base
"""

Connection = psycopg.Connection[tuple[Any, ...]]


def load_postgres(
    connection: Connection, *, scale: float = 1.0, seed: int = 1, end_at: datetime | None = None
) -> dict[str, int]:
    """Create the four tables in an empty database and fill them; return the rows of each."""
    sizes = Sizes.of(scale)
    end = end_at or now()
    connection.execute(POSTGRES_TABLES.encode())
    _fill_postgres(connection, "users", _USERS, 1, sizes.users, sizes.users, seed, end)
    _fill_postgres(connection, "strategies", _STRATEGIES, 1, sizes.strategies, sizes.users, seed, end)
    _fill_postgres(connection, "api_keys", _API_KEYS, 1, sizes.api_keys, sizes.users, seed, end)
    _fill_postgres(connection, "orders", _ORDERS, 1, sizes.orders, sizes.users, seed, end)
    connection.execute(POSTGRES_CONSTRAINTS.encode())
    connection.execute("ANALYZE")
    return count_postgres(connection)


def _fill_postgres(
    connection: Connection,
    table: str,
    sql: str,
    first: int,
    last: int,
    users: int,
    seed: int,
    end_at: datetime,
    span: timedelta = timedelta(days=365),
) -> None:
    for start, stop in batches(first, last):
        values = {
            "seed": seed,
            "first": start,
            "last": stop,
            "users": users,
            "end_at": end_at,
            "span": span,
            "exchanges": list(EXCHANGES),
            "exchange_count": len(EXCHANGES),
            "symbols": list(SYMBOLS),
            "symbol_count": len(SYMBOLS),
        }
        with connection.transaction():
            tag = sum(table.encode())  # each table and batch has a random sequence of its own
            connection.execute("SELECT setseed(%s)", [((seed * 7919 + tag * 104729 + start) % 100_003) / 100_003])
            connection.execute(sql.encode(), {key: value for key, value in values.items() if f"%({key})s" in sql})


def load_more_postgres(connection: Connection, *, seed: int = 2, end_at: datetime | None = None) -> dict[str, int]:
    """Live on for a while: about 1 % new users and orders, some orders change, a few users go; return the rows."""
    end = end_at or now()
    counts = count_postgres(connection)
    users = max(5, counts["users"] // 100)
    _fill_postgres(connection, "users", _USERS, 1, users, users, seed, end)
    _fill_postgres(connection, "orders", _ORDERS, 1, max(20, counts["orders"] // 100), users, seed, end)
    connection.execute(
        "UPDATE orders SET status = 'cancelled' WHERE status = 'pending' AND get_byte(uuid_send(id), 0) < 64"
    )
    connection.execute("DELETE FROM users WHERE status = 'suspended' AND get_byte(uuid_send(id), 0) < 4")
    return count_postgres(connection)


def grow_postgres(
    connection: Connection, *, orders: float, others: float, end_at: datetime, span: timedelta, seed: int = 1
) -> dict[str, int]:
    """Add rows behind those of :func:`load_postgres`, whose seed it must be: these shares of what is there.

    New orders are made within the ``span`` before ``end_at``; ``others`` holds for the other three tables.
    """
    counts = count_postgres(connection)
    tables = {"users": _USERS, "strategies": _STRATEGIES, "api_keys": _API_KEYS, "orders": _ORDERS}
    for table, sql in tables.items():
        more = round(counts[table] * (orders if table == "orders" else others))
        last = counts[table] + more
        _fill_postgres(connection, table, sql, counts[table] + 1, last, counts["users"], seed, end_at, span)
    return count_postgres(connection)


def count_postgres(connection: Connection) -> dict[str, int]:
    """Return the rows of each table of the platform."""
    result = {}
    for table in ("users", "orders", "strategies", "api_keys"):
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        result[table] = int(row[0]) if row else 0
    return result
