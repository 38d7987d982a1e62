"""Databases that refuse, are gone, or lack something: one clear line, the right code, and the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devstack import truth
from devstack.ports import free_port
from devstack.postgres import Postgres
from tests.e2e.conftest import MakeSite
from tests.support.drd_site import Site
from tests.support.trading_site import CLICKHOUSE, POSTGRES, REDIS, SOURCES, BackedUp, Platform, Targets

pytestmark = pytest.mark.e2e

WRONG = "wrong-password-3fd1c8"
SAYS_WRONG = {
    POSTGRES: 'password authentication failed for user "admin"',
    REDIS: "refused the password of user default",
    CLICKHOUSE: "wrong user or password",
}


def backups_in(site: Site) -> list[str]:
    """Return the sources of which the store holds a backup, or anything at all."""
    folder = site.store_dir / "backups"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def with_wrong_password(site: Site, *sources: str) -> None:
    """Give these sources a password that is not theirs."""
    site.env["WRONG"] = WRONG
    site.secrets.add(WRONG)
    for source in sources:
        site.sources[source]["password"] = {"env": "WRONG"}


def test_wrong_passwords(make_site: MakeSite) -> None:
    """A wrong password is exit 13, says whose, leaves nothing in the store; JSON and check say the same."""
    site = make_site()
    with_wrong_password(site, *SOURCES)
    run = site("backup", "now")
    assert run.rc == 13, run.described
    assert len(run.failures) == 3, run.described
    for failure, source in zip(run.failures, SOURCES, strict=True):
        assert failure.headline.startswith(f"backup {source}: "), run.described
        assert SAYS_WRONG[source] in failure.headline, run.described
        assert "password" in failure.hint, run.described
    assert "0 of 3 sources backed up" in run.out
    assert backups_in(site) == []
    document = site("backup", "now", "--json")
    assert (document.rc, document.json["outcome"]) == (13, "failed"), document.described
    for line in document.json["backups"]:
        assert (line["outcome"], line["id"]) == ("failed", None)
        assert (line["error"]["subject"], line["error"]["exit_code"]) == (line["source"], 13)
    check = site("check", "--json")
    assert check.rc == 13, check.described
    failed = {item["name"].partition(":")[0]: item for item in check.json["items"] if item["outcome"] == "failed"}
    assert set(failed) == set(SOURCES), check.described
    for source, item in failed.items():
        assert SAYS_WRONG[source] in item["detail"]
        assert item["hint"]


def test_wrong_password_beside_others(make_site: MakeSite) -> None:
    """One source with a wrong password: the other two are backed up and listed, exit 3."""
    site = make_site()
    with_wrong_password(site, REDIS)
    run = site("backup", "now")
    run.fails(13, f"backup {REDIS}: ", SAYS_WRONG[REDIS], rc=3)
    assert "2 of 3 sources backed up" in run.out, run.described
    assert backups_in(site) == sorted([POSTGRES, CLICKHOUSE])
    assert site("verify", "--deep").succeeds().out.count("✓") == 3


def test_servers_down(make_site: MakeSite) -> None:
    """Servers that are not there: exit 13, an error for each that names the address, none takes long."""
    site = make_site()
    port = free_port()
    site.sources[POSTGRES]["url"] = f"postgresql://admin@127.0.0.1:{port}/trading_platform"
    site.sources[REDIS]["url"] = f"redis://127.0.0.1:{port}"
    site.sources[CLICKHOUSE]["url"] = f"http://admin@127.0.0.1:{port}"
    run = site("backup", "now")
    assert run.rc == 13, run.described
    assert "Traceback" not in run.text
    assert run.duration_s < 20, run.described
    assert [failure.exit_code for failure in run.failures] == [13, 13, 13], run.described
    for failure, source in zip(run.failures, SOURCES, strict=True):
        assert failure.headline.startswith(f"backup {source}: "), failure
        assert f"127.0.0.1:{port}" in failure.headline, failure
        assert failure.hint, failure
    plain = [line for line in run.err.splitlines() if not line.startswith("backup ")]
    assert plain == [], "only progress belongs on standard error"
    assert backups_in(site) == []


@pytest.mark.parametrize("source", SOURCES)
def test_restore_target_down(backed_up: BackedUp, tmp_path: Path, source: str) -> None:
    """A restore into a server that is not there: exit 13, the address and a hint."""
    scheme = {POSTGRES: "postgresql://admin@", REDIS: "redis://", CLICKHOUSE: "http://admin@"}[source]
    address = f"127.0.0.1:{free_port()}"
    site = backed_up.site.at(tmp_path)
    database = "/restored" if source == POSTGRES else ""
    run = site("restore", "--at", "now", "--source", source, "--into", f"{scheme}{address}{database}")
    run.fails(13, f"restore {source}: ", address)


def test_redis_that_refuses_psync(platform: Platform, make_site: MakeSite) -> None:
    """An ACL user that may not replicate: exit 13, and the hint is the ACL command that helps."""
    with platform.redis.client() as client:
        client.execute_command("ACL SETUSER", "nosync", "on", f">{WRONG}", "~*", "&*", "+@all", "-psync", "-sync")
        site = make_site(REDIS)
        site.env["NOSYNC"] = WRONG
        site.secrets.add(WRONG)
        site.sources[REDIS] |= {"username": "nosync", "password": {"env": "NOSYNC"}}
        try:
            site("backup", "now").fails(13, f"backup {REDIS}: ", "nosync", "PSYNC", hint="ACL SETUSER nosync +psync")
        finally:
            client.acl_deluser("nosync")
    assert backups_in(site) == []


def test_clickhouse_that_cannot_reach_the_gateway(make_site: MakeSite) -> None:
    """A gateway address that leads nowhere: an error within a bounded time, and nothing is left behind."""
    site = make_site(CLICKHOUSE)
    dead = f"http://127.0.0.1:{free_port()}"
    site.sources[CLICKHOUSE] |= {"gateway": {"advertise": dead}, "s3_retry_attempts": 3}
    run = site("backup", "now")
    run.fails(13, f"backup {CLICKHOUSE}: ", "cannot reach", dead, hint="advertise")
    assert run.duration_s < 60, run.described
    assert list((site.store_dir / "backups").rglob("*.age")) == []
    check = site("check")
    assert check.rc == 13, check.described
    assert "way to the gateway" in check.out
    del site.sources[CLICKHOUSE]["gateway"]
    site("backup", "now").succeeds()


def new_server(site: Site, server: Postgres, database: str) -> None:
    """Point the site's PostgreSQL source at another server."""
    site.env["NEW_PASSWORD"] = server.password
    site.secrets.add(server.password)
    site.sources[POSTGRES] |= {"url": server.url(database), "password": {"env": "NEW_PASSWORD"}}


def test_client_tools_missing_or_too_old(postgres_17: Postgres, make_site: MakeSite, tmp_path: Path) -> None:
    """A server newer than every pg_dump here, and no pg_dump at all: exit 13, and what to install."""
    site = make_site(POSTGRES)
    new_server(site, postgres_17, "postgres")
    site("backup", "now").fails(13, f"backup {POSTGRES}: ", "pg_dump", "older than the server's 17", hint="install")
    check = site("check")
    assert check.rc == 13, check.described
    assert "older than the server's 17" in check.out
    site.env["PATH"] = str(tmp_path)
    site("backup", "now").fails(13, f"backup {POSTGRES}: ", "pg_dump was not found", hint="postgresql-client-17")
    assert backups_in(site) == []


def test_extension_missing_in_the_target(
    platform: Platform, postgres_17: Postgres, make_site: MakeSite, request: pytest.FixtureRequest
) -> None:
    """PostgreSQL 17 has no adminpack: the restore of a database that uses it names it and makes no database."""
    database = platform.postgres.fresh_database()
    request.addfinalizer(lambda: platform.postgres.drop_database(database))
    with platform.postgres.connect(database) as connection:
        connection.execute("CREATE EXTENSION adminpack")
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS i")
    site = make_site(POSTGRES)
    site.sources[POSTGRES]["url"] = platform.postgres.url(database)
    site("backup", "now").succeeds()
    site.sources[POSTGRES]["tools_dir"] = str(postgres_17.bin_dir)
    new_server(site, postgres_17, database)
    before = databases_of(postgres_17)
    run = site("restore", "--at", "now")
    run.fails(13, f"restore {POSTGRES}: ", "adminpack", hint="install")
    assert databases_of(postgres_17) == before


def databases_of(server: Postgres) -> list[Any]:
    """Return the names of a server's databases."""
    with server.connect() as connection:
        return connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()


@pytest.mark.parametrize("source", SOURCES)
def test_target_not_empty(platform: Platform, backed_up: BackedUp, tmp_path: Path, source: str) -> None:
    """The live databases hold data: exit 14, what they hold, what to do, and nothing is touched."""
    site = backed_up.site.at(tmp_path)
    run = site("restore", "--at", "now", "--source", source)
    run.fails(14, f"restore {source}: ", "Nothing was changed", hint="--into")
    dry = site("restore", "--at", "now", "--source", source, "--dry-run").succeeds()
    assert "would be refused (exit 14)" in dry.out
    assert truth.of(platform.stack) == platform.truth


def test_one_target_not_empty_stops_all(
    platform: Platform, backed_up: BackedUp, targets: Targets, tmp_path: Path
) -> None:
    """Three targets of which one holds a key: exit 14 for the whole run, and the two empty ones stay empty."""
    site = backed_up.site.at(tmp_path, sources=targets.sources())
    with platform.redis_target.client() as client:
        client.set("mine", "42")
        before = {source: targets.state(source) for source in SOURCES}
        site("restore", "--at", "now").fails(14, f"restore {REDIS}: ", "1 key")
        assert {source: targets.state(source) for source in SOURCES} == before
        assert client.get("mine") == b"42"
