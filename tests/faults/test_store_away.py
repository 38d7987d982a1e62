"""S3 that goes away in the middle: drd outlives a short outage, and fails cleanly after a long one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.s3 import SeaweedS3
from devstack.workspace import Workspace
from tests.faults.conftest import FASTER, MakeSite, slow_down, spools
from tests.faults.subjects import PostgresSubject, Subject, wait_for
from tests.support.drd_site import Site

pytestmark = pytest.mark.faults

PREFIX = "trading"


@pytest.fixture(scope="module")
def own_s3(workspace: Workspace, s3: SeaweedS3) -> Iterator[SeaweedS3]:
    """Give an S3 store of this module's own, to be paused and killed (``s3`` is asked for: a missing one skips)."""
    server = SeaweedS3(workspace, name="s3-faults").start()
    yield server
    server.remove()


@pytest.fixture
def away(own_s3: SeaweedS3) -> Iterator[SeaweedS3]:
    """Give the store running, and running again afterwards."""
    yield own_s3.start()
    own_s3.start()


class Bucket:
    """A fresh bucket, a store section for it, and what lies in it."""

    def __init__(self, server: SeaweedS3) -> None:
        self.server = server
        self.name = server.fresh_bucket("faults")

    def section(self, patience: str) -> dict[str, Any]:
        """Return ``store`` as a configuration has it."""
        return {
            "type": "s3",
            "bucket": self.name,
            "prefix": PREFIX,
            "endpoint_url": self.server.url,
            "access_key_id": self.server.objects.access_key_id,
            "secret_access_key": {"env": "S3_SECRET"},
            "connect_timeout": "2s",
            "read_timeout": "3s",
            "patience": patience,
        }

    def parts(self, source: str) -> int:
        """Count the objects below a source's folder."""
        found = self.server.client().list_objects_v2(Bucket=self.name, Prefix=f"{PREFIX}/backups/{source}/")
        return found["KeyCount"]


def s3_site(make_site: MakeSite, bucket: Bucket, subject: Subject, patience: str = "60s") -> Site:
    """Make a site whose store is the bucket."""
    site = make_site(subject, store=bucket.section(patience))
    site.env["S3_SECRET"] = bucket.server.objects.secret_access_key
    site.secrets.add(bucket.server.objects.secret_access_key)
    return site


@pytest.mark.parametrize("outage", ["pause", "kill"])
def test_backup_outlives_an_outage(make_site: MakeSite, pg: PostgresSubject, away: SeaweedS3, outage: str) -> None:
    """The store stands still, or is killed and restarted, in the middle of a backup: it succeeds and restores equal."""
    pg.clear()
    bucket = Bucket(away)
    site = s3_site(make_site, bucket, pg)
    slow_down(site, FASTER)
    running = site.start("backup", "now", "--json")
    wait_for("two parts", lambda: bucket.parts(pg.name) > 1, running=running)
    if outage == "pause":
        away.pause()
        time.sleep(3.5)  # longer than read_timeout: what was under way fails
        away.resume()
    else:
        away.kill()
        time.sleep(0.5)
        away.start()
    assert running.finish().succeeds().json["outcome"] == "ok"
    slow_down(site, None)
    site("verify", "--deep").succeeds()
    site("restore", "--at", "now", *pg.into()).succeeds()
    assert pg.target_digest() == pg.source_digest()
    pg.clear()


def test_backup_gives_up_when_the_store_stays_away(make_site: MakeSite, subject: Subject, away: SeaweedS3) -> None:
    """After ``patience`` drd says that the store is away (12); no backup exists, the next run sweeps and succeeds."""
    bucket = Bucket(away)
    site = s3_site(make_site, bucket, subject, patience="2s")
    slow_down(site)
    running = site.start("backup", "now")
    wait_for("two parts", lambda: bucket.parts(subject.name) > 1, running=running)
    away.kill()
    running.finish(60).fails(12, f"backup {subject.name}", "127.0.0.1", hint="")
    assert spools(site) == []
    wait_for("the server to be left alone", lambda: subject.leftovers() == [])
    away.start()
    slow_down(site, None)
    assert site("list", "--json").succeeds().json == {"backups": []}
    assert bucket.parts(subject.name) > 1
    rerun = site("backup", "now", "--json").succeeds().json["backups"][0]
    assert "swept" in {warning["code"] for warning in rerun["warnings"]}
    checked = site("verify", "--deep", "--json").succeeds().json
    assert (checked["outcome"], checked["unfinished"]) == ("ok", [])


def test_restore_when_the_store_goes_away(make_site: MakeSite, subject: Subject, away: SeaweedS3) -> None:
    """A restore fails with 12 when the store stays away, leaves the target as empty as it was, and works afterwards."""
    bucket = Bucket(away)
    site = s3_site(make_site, bucket, subject, patience="2s")
    site("backup", "now").succeeds()
    slow_down(site)
    restore = ("restore", "--at", "now", "--source", subject.name, *subject.into())
    running = site.start(*restore)
    wait_for("the target to receive data", subject.restoring, running=running)
    away.kill()
    running.finish(60).fails(12, f"restore {subject.name}", "127.0.0.1")
    assert subject.target_digest() is None
    wait_for("the servers to be left alone", lambda: subject.leftovers() == [])
    assert spools(site) == []
    away.start()
    slow_down(site, None)
    site(*restore).succeeds()
    assert subject.target_digest() == subject.source_digest()
