"""``drd runbook``: exactly what it prints, run without drd against the real store, brings the data back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import truth
from devstack.awkward import Awkward, drop_awkward, make_awkward
from devstack.postgres import Postgres
from devstack.trading import POSTGRES_DATABASE
from tests.conftest import StartPostgres
from tests.e2e.conftest import MakeSite
from tests.support.bare_shell import BareShell
from tests.support.drd_site import Site
from tests.support.trading_site import POSTGRES, Platform

pytestmark = pytest.mark.e2e


@pytest.fixture
def shell(tmp_path: Path, platform: Platform, aws_cli: Path) -> BareShell:
    """Give a shell whose PATH holds the AWS command line and PostgreSQL's clients besides a system's own tools."""
    clients = [platform.postgres.bin_dir / name for name in ("psql", "pg_restore")]
    return BareShell(tmp_path / "bare", [aws_cli, *clients])


@pytest.fixture
def awkward(platform: Platform) -> Iterator[Awkward]:
    """Give the awkward database on the platform's server."""
    made = make_awkward(platform.postgres)
    yield made
    drop_awkward(platform.postgres, made)


def back_up(site: Site, source: str, *, encrypted: bool = True) -> str:
    """Take one backup and return the script that drd prints for it."""
    if not encrypted:
        del site.config["encryption"]
    run = site("backup", "now", source, "--json").succeeds()
    return site("runbook", run.json["backups"][0]["id"]).succeeds().out


def access(platform: Platform, site: Site, folder: Path) -> dict[str, str]:
    """Return the environment with which a person runs the script: a work folder, the store's key, the identity."""
    return {
        "DRD_WORK": str(folder / "work"),
        "DRD_IDENTITY": str(site.identity_file),
        "AWS_ACCESS_KEY_ID": platform.s3.reader.access_key_id,
        "AWS_SECRET_ACCESS_KEY": platform.s3.reader.secret_access_key,
    }


def libpq(server: Postgres) -> dict[str, str]:
    return {"PGHOST": server.host, "PGPORT": str(server.port), "PGUSER": server.user, "PGPASSWORD": server.password}


def asked(server: Postgres, program: str, *arguments: str) -> str:
    """Run one of PostgreSQL's dump programs and return what it says, without the token it makes up for each run."""
    argv = [str(server.bin_dir / program), *arguments]
    env = {**libpq(server), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", done.stdout)


def schema_of(server: Postgres, database: str) -> str:
    """Return everything about a database but its rows."""
    return asked(server, "pg_dump", "--schema-only", "--create", f"--dbname={database}")


def globals_of(server: Postgres, roles: tuple[str, ...]) -> list[str]:
    """Return everything about some roles, passwords included."""
    lines = asked(server, "pg_dumpall", "--globals-only", "--database=postgres").splitlines()
    return [re.sub(r" GRANTED BY \S+;", ";", line) for line in lines if any(role in line for role in roles)]


def large_objects_of(server: Postgres, database: str) -> dict[int, bytes]:
    with server.connect(database) as connection:
        rows = connection.execute("SELECT oid, lo_get(oid) FROM pg_largeobject_metadata ORDER BY 1").fetchall()
    return {int(oid): bytes(content) for oid, content in rows}


def both_databases(site: Site, awkward: Awkward) -> None:
    site.sources[POSTGRES] |= {"databases": [POSTGRES_DATABASE, awkward.database]}


def demand_equal_postgres(source: Postgres, target: Postgres, awkward: Awkward) -> None:
    for database in (POSTGRES_DATABASE, awkward.database):
        assert truth.of_postgres(target, database) == truth.of_postgres(source, database)
    assert schema_of(target, awkward.database) == schema_of(source, awkward.database)
    assert large_objects_of(target, awkward.database) == awkward.large_objects
    assert globals_of(target, awkward.roles) == globals_of(source, awkward.roles)


def test_postgres_from_an_encrypted_bucket(
    platform: Platform, make_site: MakeSite, start_postgres: StartPostgres, shell: BareShell, awkward: Awkward,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Two databases, an awkward one with roles and large objects among them, come back equal on a fresh server."""
    site = make_site(POSTGRES, store="s3")
    both_databases(site, awkward)
    script = back_up(site, POSTGRES)
    fresh = start_postgres()
    env = access(platform, site, tmp_path) | libpq(fresh)
    ended = shell.run(script, env).succeeds()
    for secret in {*site.secrets, fresh.password}:
        assert secret not in script + ended.text
    demand_equal_postgres(platform.postgres, fresh, awkward)
