"""``drd runbook``: exactly what it prints, run without drd against the real store, brings the data back."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from psycopg.conninfo import make_conninfo

from devstack import truth
from devstack.awkward import Awkward, drop_awkward, make_awkward
from devstack.ports import free_port
from devstack.postgres import Postgres
from devstack.trading import CLICKHOUSE_DATABASE, POSTGRES_DATABASE
from drd import errors
from tests.conftest import StartPostgres
from tests.e2e.conftest import MakeSite
from tests.support.bare_shell import BareShell
from tests.support.drd_site import Site
from tests.support.trading_site import CLICKHOUSE, POSTGRES, REDIS, BackedUp, Platform, Targets

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


def access_by_folder(site: Site, folder: Path) -> dict[str, str]:
    return {"DRD_WORK": str(folder / "work"), "DRD_IDENTITY": str(site.identity_file)}


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
    return asked(
        server, "pg_dump", "--schema-only", "--create", "--encoding=UTF8", f"--dbname={make_conninfo(dbname=database)}"
    )


def globals_of(server: Postgres, roles: tuple[str, ...]) -> list[str]:
    """Return everything about some roles, passwords included."""
    lines = asked(server, "pg_dumpall", "--globals-only", "--database=postgres").splitlines()
    hash_of_password = re.compile(r"PASSWORD '[^']*'")  # random, so that any short name may occur in it
    about = [line for line in lines if any(role in hash_of_password.sub("", line) for role in roles)]
    return [re.sub(r" GRANTED BY \S+;", ";", line) for line in about]


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


def test_postgres_from_a_plain_folder(
    platform: Platform,
    make_site: MakeSite,
    start_postgres: StartPostgres,
    postgres_17: Postgres,
    awkward: Awkward,
    tmp_path: Path,
) -> None:
    """The same from a local store without encryption, by newer clients; what exists is refused, with the way out."""
    shell = BareShell(tmp_path / "bare", [postgres_17.bin_dir / name for name in ("psql", "pg_restore")])
    site = make_site(POSTGRES)
    both_databases(site, awkward)
    script = back_up(site, POSTGRES, encrypted=False)
    fresh = start_postgres()
    env = {"DRD_WORK": str(tmp_path / "work"), "PG_JOBS": "2"} | libpq(fresh)
    shell.run(script, env | {"PGPASSWORD": "wrong"}).fails(
        "PostgreSQL cannot be asked", "PGPASSWORD", "Nothing was done"
    )
    with fresh.connect() as connection:
        connection.execute(f"CREATE DATABASE {POSTGRES_DATABASE}".encode())
    with fresh.connect(POSTGRES_DATABASE) as connection:
        connection.execute("CREATE TABLE precious AS SELECT 1 AS one")
    shell.run(script, env).fails("Nothing was restored", f'RENAME TO "{POSTGRES_DATABASE}_old"')
    with fresh.connect(POSTGRES_DATABASE) as connection:
        assert connection.execute("SELECT * FROM precious").fetchall() == [(1,)]
    fresh.drop_database(POSTGRES_DATABASE)
    shell.run(script, env).succeeds()
    demand_equal_postgres(platform.postgres, fresh, awkward)
    fresh.drop_database(awkward.database)
    (tmp_path / "work" / "db-1.restored").unlink()
    said = shell.run(script, env).succeeds()  # one database was done, the other was not: only that is made again
    assert "db-0 was restored by an earlier run" in said.text
    demand_equal_postgres(platform.postgres, fresh, awkward)


def test_postgres_all_of_a_server(
    make_site: MakeSite, start_postgres: StartPostgres, shell: BareShell, tmp_path: Path
) -> None:
    """Every database of a server, among them ``postgres`` itself, one without a schema public, and one in Latin 1."""
    source, fresh = start_postgres(name="all"), start_postgres(name="all-restored")
    odd = 'it\'s "odd" \\ = x $(touch oops)'
    quoted = '"' + odd.replace('"', '""') + '"'
    with source.connect() as connection:
        connection.execute("CREATE TABLE in_postgres AS SELECT 1 AS one")
        connection.execute('CREATE ROLE "o\'neil; ""x""" LOGIN PASSWORD \'p;\'\'"w\'')
        connection.execute('COMMENT ON ROLE "o\'neil; ""x""" IS E\'two\\nlines;\\nCREATE ROLE evil SUPERUSER;\'')
        create = f'CREATE DATABASE {quoted} TEMPLATE template0 ENCODING LATIN1 LOCALE \'C\' OWNER "o\'neil; ""x"""'
        connection.execute(create.encode())
    with source.connect(odd) as connection:
        connection.execute("DROP SCHEMA public")
        connection.execute('CREATE SCHEMA "größe"')
        connection.execute("CREATE TABLE \"größe\".t AS SELECT 'é' || n AS v FROM generate_series(1, 9) n")
    site = make_site(POSTGRES)
    site.sources[POSTGRES] |= {"url": source.url(), "databases": "all", "password": {"env": "PG_ALL"}}
    site.env["PG_ALL"] = source.password
    script = back_up(site, POSTGRES)
    shell.run(script, access_by_folder(site, tmp_path) | libpq(fresh)).succeeds()
    assert truth.of_postgres(fresh, "postgres") == truth.of_postgres(source, "postgres") != {}
    assert schema_of(fresh, odd) == schema_of(source, odd)
    with fresh.connect(odd) as connection:
        assert connection.execute('SELECT v FROM "größe".t ORDER BY 1').fetchall()[8] == ("é9",)
    assert globals_of(fresh, ("o'neil", "two", "lines", "evil")) == globals_of(
        source, ("o'neil", "two", "lines", "evil")
    )
    with fresh.connect() as connection:
        assert connection.execute("SELECT FROM pg_roles WHERE rolname = 'evil'").fetchall() == []
    assert list(tmp_path.rglob("oops")) == []


def test_postgres_that_fails_half_way(
    platform: Platform, make_site: MakeSite, start_postgres: StartPostgres, shell: BareShell, tmp_path: Path
) -> None:
    """A restore that breaks off says why and what to drop; run again as it says, it finishes, and rows are compared."""
    site = make_site(POSTGRES)
    script = back_up(site, POSTGRES)
    fresh = start_postgres()
    env = access(platform, site, tmp_path) | libpq(fresh)
    real = (shell.bin_dir / "pg_restore").readlink()
    (shell.bin_dir / "pg_restore").unlink()
    complain = 'case "$*" in *--list*|*--version*) ;; *) echo "pg_restore: error: no luck" >&2;; esac'
    broken = f'#!/bin/sh\n{complain}\nexec "{real}" "$@"\n'
    (shell.bin_dir / "pg_restore").write_text(broken)
    (shell.bin_dir / "pg_restore").chmod(0o755)
    shell.run(script, env).fails("no luck", f"dropdb {POSTGRES_DATABASE}", "run this script again")
    shell.run(script, env).fails("left unfinished", f"dropdb {POSTGRES_DATABASE}")
    (shell.bin_dir / "pg_restore").unlink()
    (shell.bin_dir / "pg_restore").symlink_to(real)
    fresh.drop_database(POSTGRES_DATABASE)
    shell.run(script, env).succeeds()
    assert truth.of_postgres(fresh) == truth.of_postgres(platform.postgres)
    with fresh.connect(POSTGRES_DATABASE) as connection:
        connection.execute("DELETE FROM orders WHERE ctid = (SELECT min(ctid) FROM orders)")
    (tmp_path / "work" / "db-0.restored").unlink()
    counted = script.replace("    check_databases\n    restore_roles\n", "    compare_rows db-0 trading_platform\n")
    shell.run(counted, env).fails("public.orders: expected", "1 table(s) of trading_platform do not have the rows")


@pytest.mark.parametrize("store", ["s3", "local"])
def test_redis(platform: Platform, make_site: MakeSite, shell: BareShell, tmp_path: Path, store: str) -> None:
    """Every key comes back, from an encrypted bucket and a plain folder; the new server asks for the password given."""
    site = make_site(REDIS, store=store)
    script = back_up(site, REDIS, encrypted=store == "s3")
    port, more = free_port(), tmp_path / "more.conf"
    more.write_text("enable-debug-command local\n")
    env = access(platform, site, tmp_path) | {
        "REDIS_DIR": str(tmp_path / 'a "folder" with\\marks'),
        "REDIS_PORT": str(port),
        "REDISCLI_AUTH": 'a "new" pass\\word',
        "REDIS_CONF": str(more),
    }
    client = redis.Redis(port=port, password=env["REDISCLI_AUTH"])
    try:
        ended = shell.run(script, env).succeeds()
        assert env["REDISCLI_AUTH"] not in ended.text
        keys, digest = platform.truth["redis"]
        assert sum(int(numbers["keys"]) for numbers in client.info("keyspace").values()) == keys
        assert client.execute_command("DEBUG", "DIGEST").decode().startswith(digest)
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        shell.run(script, env | {"DRD_WORK": str(tmp_path / "other")}).fails(
            "REDIS_DIR is not empty", f"port {port} is in use"
        )
    finally:
        with contextlib.suppress(redis.ConnectionError):
            client.shutdown(nosave=True)
        client.close()


def test_what_drd_has_decoded(backed_up: BackedUp, targets: Targets, platform: Platform, tmp_path: Path) -> None:
    """It starts from what ``drd restore --into DIR`` wrote as well, and then needs neither store nor identity."""
    site, target = backed_up.site, platform.clickhouse_target
    site(
        "restore", "--at", "now", "--source", CLICKHOUSE, "--into", str(tmp_path / "out"), write_config=False
    ).succeeds()
    script = site("runbook", backed_up.ids[CLICKHOUSE], write_config=False).succeeds().out
    env = {
        "DRD_WORK": str(tmp_path / "work"),
        "DRD_DECODED": str(tmp_path / "out" / CLICKHOUSE),
        "DRD_STORE_PATH": "/nowhere",
        "CLICKHOUSE_URL": f"http://{target.host}:{target.port}",
        "CLICKHOUSE_USER": target.user,
        "CLICKHOUSE_PASSWORD": target.password,
        "CLICKHOUSE_BACKUPS": str(target.backups_dir),
    }
    BareShell(tmp_path / "bare").run(script, env).succeeds()
    assert targets.found(CLICKHOUSE) == targets.expected(CLICKHOUSE)


@pytest.mark.parametrize("mode", ["gateway", "disk", "direct"])
def test_clickhouse(
    platform: Platform, make_site: MakeSite, targets: Targets, shell: BareShell, tmp_path: Path, mode: str
) -> None:
    """All ways out of the server: by File from an encrypted bucket, by Disk from a plain folder, by S3 directly."""
    target = platform.clickhouse_target
    site = make_site(CLICKHOUSE, store="local" if mode == "disk" else "s3")
    site.sources[CLICKHOUSE]["mode"] = mode
    if mode == "disk":
        site.sources[CLICKHOUSE]["disk"] = {"name": "backups", "path": str(platform.clickhouse.backups_dir)}
    script = back_up(site, CLICKHOUSE, encrypted=mode == "gateway")
    env = access(platform, site, tmp_path) | {
        "CLICKHOUSE_URL": f"http://{target.host}:{target.port}/",
        "CLICKHOUSE_USER": target.user,
        "CLICKHOUSE_PASSWORD": target.password,
        "CLICKHOUSE_BACKUPS": str(target.backups_dir),
    }
    if mode == "disk":
        env["CLICKHOUSE_DISK"] = "backups"
    before = sorted(target.backups_dir.iterdir())
    with site.watching_argv() as programs:
        ended = shell.run(script, env).succeeds()
    assert "curl" in programs
    for secret in site.secrets:
        assert secret not in script + ended.text
    assert targets.found(CLICKHOUSE) == targets.expected(CLICKHOUSE)
    assert sorted(target.backups_dir.iterdir()) == before
    again = env | {"DRD_WORK": str(tmp_path / "again")}
    shell.run(script, again).fails(f"the database {CLICKHOUSE_DATABASE} exists and holds tables", "put right")
    assert targets.found(CLICKHOUSE) == targets.expected(CLICKHOUSE)


def test_the_emergency_sheet(backed_up: BackedUp) -> None:
    """On paper: sources, store, where each secret is, who can decrypt, commands both ways, exit codes; no secret."""
    site = backed_up.site
    text = site("runbook", "--markdown", write_config=False).succeeds().out
    for source, backup_id in backed_up.ids.items():
        assert re.search(rf"(?m)^\| {source} \| .* \| `{backup_id}` \| 20.* UTC \|", text)
        assert f"drd runbook {backup_id} > restore-{source}.sh" in text
    assert f"| `sources.{REDIS}.password` | environment variable `REDIS_PASSWORD` |" in text
    assert f"| `encryption.identity` | file `{site.identity_file}` |" in text
    assert f"| `{site.config['encryption']['recipients'][0]}` | yes | {', '.join(backed_up.ids)} |" in text
    assert str(site.store_dir) in text
    assert f"export DRD_CONFIG={site.config_file}" in text
    codes = {int(code) for code in re.findall(r"(?m)^\| (\d+) \| ", text)}
    assert codes >= {
        kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DrdError)
    }
    for line in text.split("```")[1::2]:
        assert max(map(len, line.splitlines())) <= 160
    assert site("runbook", "--markdown", "--json", write_config=False).json["markdown"].startswith("# When the data")


def test_the_emergency_sheet_of_an_empty_store(make_site: MakeSite) -> None:
    """Before the first backup there is a sheet too, and it says that nothing can be restored."""
    site = make_site(store="s3")
    text = site("runbook", "--markdown").succeeds().out
    assert text.count("| **none** |") == len(site.sources)
    assert f"bucket: `{site.config['store']['bucket']}`, prefix: `trading`" in text
    assert "repository id: `none yet`" in text


def test_a_script_or_the_sheet(backed_up: BackedUp) -> None:
    """Neither, or both at once, is a mistake of the command line; an unknown backup is none that there is."""
    site = backed_up.site
    site("runbook", write_config=False).fails(2, "name one backup", hint="--markdown")
    site("runbook", "--markdown", backed_up.ids[REDIS], write_config=False).fails(2, "name one backup")
    site("runbook", "20200101T000000Z-aaaaaa", write_config=False).fails(10, "no backup has the id")
    document = site("runbook", backed_up.ids[REDIS], "--json", write_config=False).succeeds().json
    assert document["script"].startswith("#!/usr/bin/env bash\n")
    assert document["source"] == REDIS
