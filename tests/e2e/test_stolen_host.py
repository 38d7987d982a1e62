"""What a thief of the backup host holds: its configuration, its keys, its recipients; and what he can do with them."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.conftest import MakeSite
from tests.support.roles import grant_roles
from tests.support.trading_site import REDIS, Platform

pytestmark = pytest.mark.e2e


def test_a_stolen_backup_host_reads_and_destroys_nothing(platform: Platform, make_site: MakeSite) -> None:
    """It backs up and lists; no data comes out of the bucket, with or without an identity, and no backup goes away."""
    site = make_site(REDIS, store="s3", identity=platform.s3.backup)
    bucket = site.config["store"]["bucket"]
    grant_roles(platform.s3, bucket)
    identity = site.config["encryption"].pop("identity")
    backup = site("backup", "now", "--json").succeeds().json["backups"][0]["id"]
    for verb in (("list",), ("status",), ("show", backup), ("verify",), ("runbook", backup)):
        site(*verb).succeeds()

    hint = "encryption.identity"
    site("restore", "--at", "now", "--source", REDIS, "--into", "out").fails(2, "no identity is configured", hint=hint)
    site("verify", "--deep").fails(2, "no identity is configured", hint=hint)
    site.config["encryption"]["identity"] = identity  # even so: this role reads no part
    site("restore", "--at", "now", "--source", REDIS, "--into", "out").fails(12, "AccessDenied", hint="s3:GetObject")
    assert not (site.folder / "out" / REDIS).exists()

    site("backup", "now").succeeds()
    site.config["retention"] = {
        "keep_last": 1,
        "keep_within": None,
        "keep_daily": 0,
        "keep_weekly": 0,
        "keep_monthly": 0,
    }
    site("prune", "--apply").fails(12, "AccessDenied", hint="s3:DeleteObject")
    assert backup in site("list").succeeds().out

    restorer = site.at(site.folder / "restorer")
    restorer.config["store"] = platform.s3_store(bucket, platform.s3.restore)
    restorer("verify", "--deep").succeeds()
    restorer("restore", "--at", "now", "--source", REDIS, "--into", "out").succeeds()
    shutil.rmtree(restorer.folder / "out")


def test_nothing_in_the_bucket_tells_data_or_names(platform: Platform, make_site: MakeSite) -> None:
    """No object, under no key, holds a table's name, a key of Redis or a value in the clear."""
    site = make_site("trading-postgres", REDIS)
    site("backup", "now").succeeds()
    with platform.redis.client() as client:
        names = {key if isinstance(key, bytes) else str(key).encode() for key in list(client.scan_iter(count=50))[:50]}
    names |= {table.encode() for table in tables_of(platform)}
    assert len(names) > 20
    for path in site.store_dir.rglob("*"):
        where = str(path.relative_to(site.store_dir)).encode()
        data = where + (path.read_bytes() if path.is_file() else b"")
        for name in names:
            assert name not in data, f"{name!r} stands in {path}"


def tables_of(platform: Platform) -> list[str]:
    """Return the names of the platform's PostgreSQL tables that are long enough not to occur by chance."""
    with platform.postgres.connect(platform_database(platform)) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return [str(row[0]) for row in rows if len(str(row[0])) >= 8]


def platform_database(platform: Platform) -> str:
    """Return the database of the trading platform."""
    return str(platform.sources()["trading-postgres"]["url"].rpartition("/")[2])
