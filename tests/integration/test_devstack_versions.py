"""Other versions of the servers start and take the platform's and the awkward data."""

from __future__ import annotations

import pytest

from devstack import load
from devstack.awkward import drop_awkward, make_awkward

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("major", [17, 18])
def test_newer_postgres(start_postgres, major: int):
    """A PostgreSQL from a wheel is a whole one: its data load, its own pg_dump lies beside it."""
    postgres = start_postgres(major=major)
    made = make_awkward(postgres)
    with postgres.connect(postgres.fresh_database()) as connection:
        assert connection.info.server_version // 10000 == major
        assert load.load_postgres(connection, scale=0.01)["orders"] == 1000
    drop_awkward(postgres, made)
    assert (postgres.bin_dir / "pg_dump").exists()


@pytest.mark.parametrize("version", ["redis-6.2", "valkey-9"])
def test_other_redis(start_redis, version: str):
    """Older Redis and newer Valkey take the platform's keys."""
    server = start_redis(version=version)
    assert load.load_redis(server.client(), scale=0.01) > 500
