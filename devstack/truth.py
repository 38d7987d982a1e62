"""What the platform's databases hold, read directly and without drd: the measure of every restore."""

from __future__ import annotations

from psycopg import sql

from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.stack import Stack
from devstack.trading import CLICKHOUSE_DATABASE, POSTGRES_DATABASE

Truth = dict[str, tuple[int, str]]
"""Name of a table (or of Redis) to its number of rows or keys and a digest of its content."""


def of(stack: Stack) -> Truth:
    """Read everything; a database that is absent has no entries."""
    found: Truth = {}
    if stack.postgres:
        found |= of_postgres(stack.postgres)
    if stack.redis:
        found |= of_redis(stack.redis)
    if stack.clickhouse:
        found |= of_clickhouse(stack.clickhouse)
    return found


def of_postgres(server: Postgres, database: str = POSTGRES_DATABASE) -> Truth:
    """Count each table's rows and digest them, sorted, as text."""
    with server.connect() as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).fetchone() is None:
            return {}
    found: Truth = {}
    with server.connect(database) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        for (table,) in tables:
            query = sql.SQL(
                "SELECT count(*), md5(coalesce(string_agg(h, '' ORDER BY h), ''))"
                " FROM (SELECT md5(t::text) h FROM {} t) x"
            ).format(sql.Identifier("public", table))
            row = connection.execute(query).fetchone()
            if row is not None:
                found[f"{database}.{table}"] = (int(row[0]), str(row[1])[:12])
    return found


def of_redis(server: Redis, name: str = "redis") -> Truth:
    """Count the keys of all databases, and take the server's own digest of all it holds."""
    with server.client() as client:
        keys = sum(int(numbers["keys"]) for numbers in client.info("keyspace").values())
        digest = client.execute_command("DEBUG", "DIGEST")
    text = digest.decode() if isinstance(digest, bytes) else str(digest)
    return {name: (keys, text[:12])} if keys else {}


def of_clickhouse(server: ClickHouse, database: str = CLICKHOUSE_DATABASE) -> Truth:
    """Count each table's rows and add up a hash of each."""
    tables = server.rows(f"SELECT name FROM system.tables WHERE database = '{database}' ORDER BY name")
    found: Truth = {}
    for table in tables:
        query = f"SELECT count() AS n, hex(sum(cityHash64(*))) AS h FROM `{database}`.`{table['name']}`"
        row = server.rows(query)[0]
        found[f"{database}.{table['name']}"] = (int(row["n"]), str(row["h"])[:12])
    return found
