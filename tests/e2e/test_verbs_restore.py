"""``restore``: into other servers, into files, and, after the platform was lost, to the state of a chosen time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from devstack import load
from devstack.trading import CLICKHOUSE_DATABASE
from tests.e2e.conftest import MakeSite
from tests.support.drd_site import Site
from tests.support.trading_site import (
    POSTGRES,
    REDIS,
    RESTORED_DATABASE,
    SOURCES,
    BackedUp,
    Platform,
    Targets,
)

pytestmark = pytest.mark.e2e


@pytest.fixture
def site(backed_up: BackedUp, tmp_path: Path) -> Site:
    """Give a site over the shared store, which it only reads."""
    return backed_up.site.at(tmp_path)


@pytest.mark.parametrize("source", SOURCES)
def test_into_another_server(site: Site, backed_up: BackedUp, targets: Targets, source: str) -> None:
    """``--into URL``: every row is there, no secret in any argv meanwhile; a second time is refused untouched."""
    into = ("restore", "--at", "now", "--source", source, "--into", targets.url(source))
    with site.watching_argv():
        document = site(*into, "--json").succeeds().json
    assert document["outcome"] == "ok"
    (line,) = document["restores"]
    assert (line["source"], line["backup"], line["outcome"]) == (source, backed_up.ids[source], "ok")
    assert line["checked"] is True
    assert line["duration_s"] > 0
    assert targets.found(source) == targets.expected(source)
    before = targets.state(source)
    site(*into).fails(14, f"restore {source}: ", "holds", "Nothing was changed", hint="--into")
    error = site(*into, "--json").json["error"]
    assert (error["code"], error["subject"], error["exit_code"]) == ("target_not_empty", source, 14)
    assert targets.state(source) == before


def test_arguments_of_the_client_tools(platform: Platform, make_site: MakeSite, targets: Targets) -> None:
    """Every client tool is started without a secret in its arguments; here each one writes them down."""
    site = make_site(POSTGRES)
    tools, log = site.folder / "tools", site.folder / "arguments"
    tools.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore"):
        recorder = tools / name
        real = platform.postgres.bin_dir / name
        recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >>"{log}"\nexec "{real}" "$@"\n')
        recorder.chmod(0o755)
    site.sources[POSTGRES]["tools_dir"] = str(tools)
    site("backup", "now").succeeds()
    site("restore", "--at", "now", "--source", POSTGRES, "--into", targets.url(POSTGRES)).succeeds()
    lines = log.read_text()
    worked = {line.split()[0] for line in lines.splitlines() if "--version" not in line}
    assert worked == {"pg_dump", "pg_dumpall", "pg_restore"}
    site.demand_no_secret(lines, "the arguments of a client tool")


def test_into_with_a_password_of_its_own(platform: Platform, site: Site, targets: Targets) -> None:
    """``--password-env`` and ``--password-file`` give the target's password; a wrong one is exit 13."""
    site.sources[REDIS] = {"type": "redis", "url": "redis://127.0.0.1:1"}
    into = ("restore", "--at", "now", "--source", REDIS, "--into", targets.url(REDIS))
    site(*into).fails(13, f"restore {REDIS}: ", hint="password")
    secret = site.folder / "password"
    secret.write_text(platform.redis.password + "\n")
    site(*into, "--password-file", str(secret)).succeeds()
    platform.redis_target.flush()
    site(*into, "--password-env", "REDIS_PASSWORD").succeeds()
    assert targets.found(REDIS) == targets.expected(REDIS)
    site(*into, "--password-env", "NOT_SET").fails(2, "--password-env", "NOT_SET")


def test_into_a_directory(site: Site, backed_up: BackedUp) -> None:
    """``--into DIR``: files of stock formats that the stock tools read; a second time is refused."""
    folder = site.folder / "files"
    document = site("restore", "--at", "now", "--into", str(folder), "--json").succeeds().json
    assert document["outcome"] == "ok"
    assert [line["backup"] for line in document["restores"]] == [backed_up.ids[source] for source in SOURCES]
    assert sorted(path.name for path in folder.iterdir()) == sorted(SOURCES)
    checked = subprocess.run(
        ["redis-check-rdb", str(folder / REDIS / "dump.rdb")], capture_output=True, text=True, check=False
    )
    assert "RDB looks OK" in checked.stdout, checked.stdout
    fingerprint = json.loads((folder / POSTGRES / "fingerprint.json").read_text())
    assert fingerprint["items"]
    before = sorted(folder.rglob("*"))
    site("restore", "--at", "now", "--into", str(folder)).fails(14, "exists already. Nothing was changed")
    assert sorted(folder.rglob("*")) == before
    dry = site("restore", "--at", "now", "--into", str(folder / "other"), "--dry-run", "--json").succeeds()
    assert dry.json["outcome"] == "planned"
    assert not (folder / "other").exists()


def test_wrong_ways_in(site: Site, targets: Targets) -> None:
    """One URL for three sources, another kind of database, a source that is not there: exit 2."""
    into = ("restore", "--at", "now", "--into")
    site(*into, targets.url(REDIS)).fails(2, "--into URL takes one source", hint="--source")
    site(*into, targets.url(REDIS), "--source", POSTGRES).fails(2, POSTGRES, "cannot go into redis://", hint="postgres")
    site(*into, "ftp://127.0.0.1/x", "--source", POSTGRES).fails(2, POSTGRES, "cannot go into ftp://")


def test_dry_run_changes_nothing(site: Site, targets: Targets) -> None:
    """``--dry-run`` tells the plan and touches nothing."""
    before = {source: targets.state(source) for source in SOURCES}
    site.config["sources"] = targets.sources()
    run = site("restore", "--at", "now", "--dry-run").succeeds()
    for source in SOURCES:
        assert source in run.out
    assert {source: targets.state(source) for source in SOURCES} == before


def test_lost_and_restored_to_a_time(platform: Platform, make_site: MakeSite, targets: Targets) -> None:
    """Two backups to S3 with changes between them; all is lost; the time of the first brings back just its state."""
    site = make_site(store="s3")
    first = site("backup", "now", "--json").succeeds().json
    at = max(line["recovery_point"] for line in first["backups"])
    site.config["sources"] = targets.sources()
    assert site("restore", "--at", at).succeeds().out.count("Nothing was overwritten") == 1
    assert {source: targets.found(source) for source in SOURCES} == {s: targets.expected(s) for s in SOURCES}

    with platform.postgres.connect(RESTORED_DATABASE) as connection:
        load.load_more_postgres(connection)
    load.load_more_redis(platform.redis_target.client())
    platform.clickhouse_target.query(f"TRUNCATE TABLE {CLICKHOUSE_DATABASE}.klines")
    later = {source: targets.found(source) for source in SOURCES}
    with site.watching_argv():
        second = site("backup", "now", "--json").succeeds().json
    assert len(site("list", "--json").succeeds().json["backups"]) == 6

    targets.empty()
    between = site("restore", "--at", at, "--json").succeeds().json
    assert [line["backup"] for line in between["restores"]] == [line["id"] for line in first["backups"]]
    assert {source: targets.found(source) for source in SOURCES} == {s: targets.expected(s) for s in SOURCES}

    targets.empty()
    newest = site("restore", "--at", "now", "--json").succeeds().json
    assert [line["backup"] for line in newest["restores"]] == [line["id"] for line in second["backups"]]
    assert {source: targets.found(source) for source in SOURCES} == later
    site("verify", "--deep").succeeds()
