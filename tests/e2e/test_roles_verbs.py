"""Sampling, differences and pruning on a real S3 store, under roles that may not do all and under object lock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from devstack.redis import Redis
from drd.errors import StoreRefused
from tests.e2e.conftest import MakeSite
from tests.e2e.test_prune import LAST_ONE
from tests.support.drd_site import Site
from tests.support.roles import grant_roles
from tests.support.trading_site import REDIS, Platform


@pytest.fixture
def site(make_site: MakeSite, platform: Platform, empty_redis_source: Redis) -> Site:
    """Give a site over SeaweedFS whose one source is a Redis of the test's own."""
    made = make_site(REDIS, store="s3")
    made.sources[REDIS] = {"type": "redis", "url": empty_redis_source.url, "password": {"env": "OWN_REDIS"}}
    made.env["OWN_REDIS"] = empty_redis_source.password
    return made


def taken(site: Site, server: Redis, keys: int) -> str:
    """Take a backup of that many keys; return its id."""
    server.flush()
    with server.client() as client:
        client.mset({f"k:{n}": "x" * 100 for n in range(keys)})
    found: str = site("backup", "now", "--json").succeeds().json["backups"][0]["id"]
    return found


def as_role(platform: Platform, site: Site, role: str) -> None:
    """Let the site's store be used by another identity from the next run on."""
    who = getattr(platform.s3, role)
    site.config["store"] = platform.s3_store(site.config["store"]["bucket"], who)


def test_samples_and_differences_of_a_bucket(platform: Platform, site: Site, empty_redis_source: Redis) -> None:
    """Sample by sample all is read; differences come from encrypted fingerprints; each role is told what it cannot."""
    first = taken(site, empty_redis_source, 50)
    second = taken(site, empty_redis_source, 20)
    site("verify", "--sample", "1B").succeeds()
    sample = site("verify", "--sample", "100%", "--json").succeeds().json
    assert sample["coverage"][0]["read_bytes"] == sample["coverage"][0]["total_bytes"]
    shown = site("show", "--diff", first, second).succeeds().out
    assert "50 → 20" in shown

    bucket = site.config["store"]["bucket"]
    grant_roles(platform.s3, bucket)
    as_role(platform, site, "restore")
    said = site("verify", "--sample", "100%").succeeds()
    assert "verified/" in said.text
    site("show", "--diff", first, second).succeeds()
    as_role(platform, site, "prune")
    site("show", "--diff", first, second)
    refused = site("verify", "--sample", "100%")
    assert refused.rc == StoreRefused.exit_code, refused.described
    as_role(platform, site, "backup")
    assert site("verify", "--sample", "100%").rc == StoreRefused.exit_code
    site.config["retention"] = dict(LAST_ONE)
    site("prune", "--apply").fails(StoreRefused.exit_code, "AccessDenied")
    as_role(platform, site, "objects")
    assert [line["id"] for line in site("list", "--json").succeeds().json["backups"]] == [first, second]


def test_prune_under_object_lock(platform: Platform, site: Site, empty_redis_source: Redis) -> None:
    """What is locked stays and is named with its date, exit 0; run again it says the same; all restores."""
    client = platform.s3.client()
    bucket = f"{site.config['store']['bucket']}-lock"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    site.config["store"] = platform.s3_store(bucket, platform.s3.keeper)
    site.config["store"]["object_lock"] = {"mode": "governance", "days": 2}
    ids = [taken(site, empty_redis_source, n) for n in (10, 20, 30)]
    site.config["retention"] = dict(LAST_ONE)
    day = datetime.now(UTC) + timedelta(days=2)
    for _ in range(2):
        run = site("prune", "--apply").succeeds()
        assert f"{day:%Y-%m-%d}" in run.out
        document = site("prune", "--apply", "--json").succeeds().json
        assert {item["id"] for item in document["remove"]} == set(ids[:2])
        assert [line["id"] for line in site("list", "--json").succeeds().json["backups"]] == ids
    site("verify", "--deep").succeeds()
