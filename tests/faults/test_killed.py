"""``kill -9`` of drd in the middle of its work: nothing half-made shows, no process stays, the next run works."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from devstack.postgres import Postgres
from devstack.s3 import SeaweedS3
from tests.faults.conftest import MakeSite, RestoreSite, slow_down, spools
from tests.faults.subjects import (
    ClickHouseSubject,
    PostgresSubject,
    Subject,
    family,
    names_of,
    parts_in_store,
    wait_for,
)
from tests.support.drd_site import Site

pytestmark = pytest.mark.faults


def killed_backup(site: Site, subject: Subject, kind: str = "full") -> None:
    """Kill a second backup in its middle, and see that no child outlives it."""
    before = parts_in_store(site, subject.name)
    slow_down(site)
    running = site.start("backup", "now", "--kind", kind)
    wait_for("two parts of the backup", lambda: parts_in_store(site, subject.name) > before + 1, running=running)
    children = family(running)
    running.process.send_signal(signal.SIGKILL)
    assert running.finish().rc == -signal.SIGKILL
    wait_for("the children's end", lambda: names_of(children) == [])
    slow_down(site, None)


def test_killed_backup(make_site: MakeSite, subject: Subject) -> None:
    """Nothing half-made is listed, a rerun succeeds at once and sweeps, and the earlier backup restores equal."""
    site = make_site(subject)
    first = site("backup", "now", "--json").succeeds().json["backups"][0]
    killed_backup(site, subject)
    assert [b["id"] for b in site("list", "--json").succeeds().json["backups"]] == [first["id"]]
    checked = site("verify", "--deep", "--json").succeeds().json
    assert checked["outcome"] == "ok"
    assert len(checked["unfinished"]) == 1

    rerun = site("backup", "now", "--json").succeeds().json["backups"][0]
    assert "swept" in {warning["code"] for warning in rerun["warnings"]}
    assert site("verify", "--json").succeeds().json["unfinished"] == []
    assert spools(site) == []

    restored = site("restore", "--at", first["recovery_point"], "--json", "--source", subject.name, *subject.into())
    assert restored.succeeds().json["restores"][0]["backup"] == first["id"]
    assert subject.target_digest() == subject.source_digest()


@pytest.fixture(params=["pg", "clickhouse"])
def growing(request: pytest.FixtureRequest) -> Iterator[PostgresSubject | ClickHouseSubject]:
    """Give each database whose backups build on each other, of its own and with some megabytes in it."""
    server = request.getfixturevalue(request.param).server
    made: PostgresSubject | ClickHouseSubject
    if isinstance(server, Postgres):
        made = PostgresSubject(server)
    else:
        made = ClickHouseSubject(server, request.getfixturevalue("clickhouse_target"))
    made.fill(6)
    yield made
    made.close()


def test_killed_incremental_backup(make_site: MakeSite, growing: PostgresSubject | ClickHouseSubject) -> None:
    """The parent is whole, restores, and is built on again; what the killed one stored goes with the next."""
    site = make_site(growing)
    parent = site("backup", "now", "--json").succeeds().json["backups"][0]
    then = growing.source_digest()
    growing.grow(8)
    killed_backup(site, growing, kind="auto")
    assert [b["id"] for b in site("list", "--json").succeeds().json["backups"]] == [parent["id"]]
    checked = site("verify", "--deep", "--json").succeeds().json
    assert (checked["outcome"], len(checked["unfinished"])) == ("ok", 1)

    rerun = site("backup", "now", "--json").succeeds().json["backups"][0]
    assert (rerun["kind"], rerun["parent"]) == ("incremental", parent["id"])
    assert parent["stored_bytes"] < rerun["stored_bytes"] < 10 << 20
    assert "swept" in {warning["code"] for warning in rerun["warnings"]}
    checked = site("verify", "--deep", "--json").succeeds().json
    assert (checked["outcome"], checked["unfinished"]) == ("ok", [])
    for made, digest in ((parent, then), (rerun, growing.source_digest())):
        growing.clear()
        (line,) = site("restore", "--at", made["recovery_point"], "--json", *growing.into()).succeeds().json["restores"]
        assert line["backup"] == made["id"]
        assert growing.target_digest() == digest


def test_killed_backup_ends_on_the_server(make_site: MakeSite, subject: Subject) -> None:
    """After the next run at the latest, no session, replica or job of the killed one is left on the server."""
    site = make_site(subject)
    killed_backup(site, subject)
    site("backup", "now").succeeds()
    wait_for("the server to be left alone", lambda: subject.leftovers() == [], timeout_s=10)


def test_killed_restore(restore_site: RestoreSite, subject: Subject) -> None:
    """No half-made database shows under the final name as if it were whole, and the same command again succeeds."""
    site = restore_site(subject)
    slow_down(site)
    restore = ("restore", "--at", "now", "--source", subject.name, *subject.into())
    running = site.start(*restore)
    wait_for("the target to receive data", subject.restoring, running=running)
    children = family(running)
    running.process.send_signal(signal.SIGKILL)
    running.finish()
    wait_for("the children's end", lambda: names_of(children) == [])
    slow_down(site, None)
    assert subject.target_digest() is None
    run = site(*restore).succeeds()
    assert "interrupted" in run.out or "was killed" in run.out
    assert subject.target_digest() == subject.source_digest()
    wait_for("nothing to be left", lambda: subject.leftovers() == [])


def test_killed_direct_backup(make_site: MakeSite, clickhouse: ClickHouseSubject, s3: SeaweedS3, bucket: str) -> None:
    """A BACKUP that the server makes to the bucket by itself goes on without drd; the next run ends it and says so."""
    clickhouse.clear()
    store = {
        "type": "s3",
        "bucket": bucket,
        "endpoint_url": s3.url,
        "access_key_id": s3.admin.access_key_id,
        "secret_access_key": {"env": "S3_SECRET"},
    }
    site = make_site(clickhouse, store=store)
    site.env["S3_SECRET"] = s3.admin.secret_access_key
    source = site.config["sources"][clickhouse.name]
    source |= {"mode": "direct", "bandwidth": "2MiB"}

    def going() -> bool:
        return any("CREATING_BACKUP drd-" in one for one in clickhouse.leftovers())

    running = site.start("backup", "now")
    wait_for("the server's job", going, running=running)
    running.process.send_signal(signal.SIGKILL)
    running.finish()
    assert going()
    del source["bandwidth"]
    made = site("backup", "now", "--json").succeeds().json["backups"][0]
    assert "orphan-ended" in {warning["code"] for warning in made["warnings"]}
    assert clickhouse.leftovers() == []
    assert [b["id"] for b in site("list", "--json").succeeds().json["backups"]] == [made["id"]]
