"""Fill the trading platform with generated data, at any scale, the same for the same seed and time.

Rows are made inside the servers (``generate_series``, ``numbers()``, Lua): scale 1 takes seconds, scale 50 makes
gigabytes. ``end_at`` is the newest time in the data and defaults to now.
"""

from __future__ import annotations

from devstack.load_clickhouse import count_clickhouse, load_clickhouse, load_more_clickhouse
from devstack.load_postgres import count_postgres, grow_postgres, load_more_postgres, load_postgres
from devstack.load_redis import load_more_redis, load_redis, load_redis_cluster
from devstack.sizes import Sizes

__all__ = [
    "Sizes",
    "count_clickhouse",
    "count_postgres",
    "grow_postgres",
    "load_clickhouse",
    "load_more_clickhouse",
    "load_more_postgres",
    "load_more_redis",
    "load_postgres",
    "load_redis",
    "load_redis_cluster",
]
