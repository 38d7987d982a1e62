"""Dump and restore on a real PostgreSQL: what was there is there again, in content and in shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.awkward import Awkward, make_awkward
from devstack.postgres import Postgres
from drd.engines.postgres.engine import PostgresEngine
from drd.engines.postgres.format import PostgresFormat
from drd.engines.postgres.settings import PostgresSettings
from drd.errors import TargetError
from drd.model import Secret
from tests.conftest import StartPostgres
from tests.support.bare_shell import BareShell, decoded
from tests.support.postgres_engine import (
    Dumped,
    differences,
    dump_of,
    engine_for,
    in_spool,
    restore_of,
    schema_text,
    url_of,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def elsewhere(postgres: Postgres) -> Iterator[str]:
    """Give the name of a database that does not exist yet, dropped after the test."""
    name = "Restored é db"
    postgres.drop_database(name)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def dumped(postgres: Postgres, awkward: Awkward, tmp_path: Path) -> Dumped:
    """Give a dump of the awkward database."""
    return dump_of(engine_for(postgres, awkward.database), tmp_path)


def test_awkward_content_comes_back(postgres: Postgres, dumped: Dumped, elsewhere: str, tmp_path: Path) -> None:
    """Every table, sequence and large object of a restored awkward database equals the backup's fingerprint."""
    target = engine_for(postgres, elsewhere)
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []
    kinds = {item["kind"] for item in dumped.result.fingerprint.items.values()}
    assert kinds >= {"table", "sequence", "materialized view", "large objects"}


def test_awkward_shape_comes_back(
    postgres: Postgres, awkward: Awkward, dumped: Dumped, elsewhere: str, tmp_path: Path
) -> None:
    """The schema of a restored awkward database reads as the original's, word for word."""
    restore_of(engine_for(postgres, elsewhere), dumped, tmp_path)
    assert schema_text(postgres, elsewhere) == schema_text(postgres, awkward.database)


def test_format_is_well(dumped: Dumped, tmp_path: Path) -> None:
    """A fresh dump has no problem at rest, and its artifact names give no table away."""
    assert PostgresFormat().verify(dumped.backup, dumped.reader, in_spool(tmp_path)) == []
    assert all(
        name.split("/")[0] in {"db-0", "globals.sql", "databases.json", "fingerprint.json"} for name in dumped.artifacts
    )


def test_the_databases_own_properties_come_back(
    postgres: Postgres, awkward: Awkward, dumped: Dumped, elsewhere: str, tmp_path: Path
) -> None:
    """Owner, comment, settings (of the database and of roles in it) and grants of the database itself are restored."""
    restore_of(engine_for(postgres, elsewhere), dumped, tmp_path)
    with postgres.connect() as session:
        rows = session.execute(
            """SELECT datname, pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'), datcollate,
                      (SELECT array_agg(setrole::regrole::text || setconfig::text ORDER BY setrole)
                         FROM pg_db_role_setting WHERE setdatabase = d.oid)
                 FROM pg_database d WHERE datname = ANY (%s)""",
            ([awkward.database, elsewhere],),
        ).fetchall()
    assert len(rows) == 2
    assert rows[0][1:] == rows[1][1:]
    assert rows[0][1:3] == (awkward.owner, "awkward on purpose")


def test_onto_a_server_that_knows_no_role(
    start_postgres: StartPostgres, postgres: Postgres, awkward: Awkward, dumped: Dumped, tmp_path: Path
) -> None:
    """On a bare server roles, memberships, passwords and role settings come back too, under the database's own name."""
    bare = start_postgres()
    target = engine_for(bare, databases=("*",))
    result = restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []
    assert schema_text(bare, awkward.database) == schema_text(postgres, awkward.database)
    query = """SELECT rolname, rolcanlogin, rolcreatedb, rolconnlimit, rolvaliduntil, rolpassword,
                      (SELECT array_agg(roleid::regrole::text || admin_option ORDER BY 1) FROM pg_auth_members
                        WHERE member = a.oid),
                      (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0)
                 FROM pg_authid a WHERE rolname = ANY (%s) ORDER BY 1"""
    with postgres.connect() as here, bare.connect() as there:
        assert (
            here.execute(query, (list(awkward.roles),)).fetchall()
            == there.execute(query, (list(awkward.roles),)).fetchall()
        )
    assert [notice.code for notice in result.notices] == ["roles-kept"]


def test_every_database_of_a_server(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """With "*" all databases but templates are saved and come back under their names, the empty one too."""
    source, target = start_postgres(), start_postgres()
    for name, rows in (("alpha", 3), ("béta", 40_000)):
        with source.connect() as session:
            session.execute(f'CREATE DATABASE "{name}"'.encode())
        with source.connect(name) as session:
            session.execute(f"CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, {rows}) n".encode())
    dumped = dump_of(engine_for(source, databases=("*",)), tmp_path)
    engine = engine_for(target, databases=("*",))
    assert engine.inspect(dumped.backup, dumped.reader).empty
    restore_of(engine, dumped, tmp_path)
    assert differences(engine, dumped, tmp_path) == []
    assert set(dumped.result.fingerprint.items) == {"alpha.public.t", '"béta".public.t'}
    assert [item["name"] for item in json.loads(dumped.artifacts["databases.json"])["databases"]] == [
        "alpha",
        "béta",
        "postgres",
    ]
    assert not engine.inspect(dumped.backup, dumped.reader).empty


def test_a_difference_is_seen(postgres: Postgres, dumped: Dumped, elsewhere: str, tmp_path: Path) -> None:
    """A changed value, a lost row, a moved sequence, a new table and a lost large object are each told apart."""
    target = engine_for(postgres, elsewhere)
    restore_of(target, dumped, tmp_path)
    with postgres.connect(elsewhere) as session:
        session.execute("UPDATE app.wide_values SET big = 'changed' WHERE id = 3")
        session.execute("DELETE FROM app.events_2026 WHERE id = (SELECT min(id) FROM app.events_2026)")
        session.execute("SELECT setval('app.lonely_seq', 1)")
        session.execute("CREATE TABLE app.unexpected (id int)")
        session.execute("SELECT lo_unlink(min(oid)) FROM pg_largeobject_metadata")
    seen = {(one.name.split(".", 1)[-1], one.fact) for one in differences(target, dumped, tmp_path)}
    assert ("app.wide_values", "sha256") in seen
    assert ("app.events_2026", "rows") in seen
    assert ("app.lonely_seq", "last_value") in seen
    assert ("app.unexpected", "exists") in seen
    assert any(fact == "objects" for _name, fact in seen)


@pytest.mark.parametrize("major", [17, 18])
def test_newer_servers(start_postgres: StartPostgres, tmp_path: Path, major: int) -> None:
    """PostgreSQL 17 and 18 with their own tools: another archive version, several lists of large objects."""
    server = start_postgres(major=major)
    made = make_awkward(server)
    with server.connect(made.database) as session:
        session.execute("SELECT lo_from_bytea(0, ('object ' || n)::bytea) FROM generate_series(1, 2500) n")
    dumped = dump_of(engine_for(server, made.database), tmp_path)
    target = engine_for(server, "again")
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []
    assert schema_text(server, "again") == schema_text(server, made.database)
    assert PostgresFormat().verify(dumped.backup, dumped.reader, in_spool(tmp_path)) == []
    assert dumped.result.engine_version.startswith(str(major))


def test_an_older_server_with_newer_tools(
    start_postgres: StartPostgres, postgres: Postgres, awkward: Awkward, elsewhere: str, tmp_path: Path
) -> None:
    """PostgreSQL 15 is dumped and restored by the tools of 18, whose settings an older server does not know."""
    newer = start_postgres(major=18)
    settings: dict[str, Any] = {"url": url_of(postgres, awkward.database), "password": Secret(postgres.password)}
    only_newer = _only(newer.bin_dir, tmp_path)
    dumped = dump_of(PostgresEngine(PostgresSettings(**settings, tools_dir=only_newer)), tmp_path)
    target = PostgresEngine(PostgresSettings(**{**settings, "url": url_of(postgres, elsewhere)}, tools_dir=only_newer))
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []


def test_from_a_standby(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """A URL that prefers a standby is dumped there, by one snapshot, and restored on the primary.

    Unlogged tables are said to be empty; a standby alone takes no restore.
    """
    primary = start_postgres()
    with primary.connect() as session:
        session.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) n")
        session.execute("CREATE UNLOGGED TABLE lost AS SELECT n FROM generate_series(1, 1000) n")
    standby = primary.standby().start()
    try:
        url = (
            f"postgresql://admin@{primary.host}:{primary.port},{standby.host}:{standby.port}/postgres"
            "?target_session_attrs=prefer-standby"
        )
        engine = engine_for(primary, url=url)
        assert engine.probe().detail.startswith("standby")
        dumped = dump_of(engine, tmp_path)
        target = engine_for(primary, url=url.replace("/postgres?", "/back?"))
        told = restore_of(target, dumped, tmp_path).notices
        assert any("unlogged tables come back empty" in notice.message for notice in told)
        assert differences(target, dumped, tmp_path) == []
        with primary.connect("back") as session:
            session.execute("INSERT INTO lost VALUES (1)")
        assert [found.name for found in differences(target, dumped, tmp_path)] == ["postgres.public.lost"]
        with pytest.raises(TargetError, match=rf"{standby.port} is a standby, which takes no restore"):
            engine_for(primary, url=standby.url("other")).inspect(dumped.backup, dumped.reader)
    finally:
        standby.remove()
    items = dumped.result.fingerprint.items
    assert items["postgres.public.kept"]["rows"] == 1000
    assert "postgres.public.lost" not in items
    assert "unlogged-tables-empty" in {notice.code for notice in dumped.result.notices}


@pytest.mark.parametrize(
    ("encoding", "client", "text"),
    [("LATIN1", "LATIN1", "Größe"), ("SQL_ASCII", "UTF8", "Größe"), ("EUC_JP", "UTF8", "漢字")],
)
def test_other_encodings(
    postgres: Postgres, tmp_path: Path, elsewhere: str, encoding: str, client: str, text: str
) -> None:
    """Names and contents come back byte for byte in a database that is not UTF-8."""
    with postgres.connect() as session:
        session.execute(f"CREATE DATABASE encoded TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'".encode())
    try:
        with postgres.connect("encoded") as session:
            session.execute(f"SET client_encoding TO '{client}'".encode())
            codec = {"LATIN1": "latin-1", "UTF8": "utf-8"}[client]
            session.execute(
                f"""CREATE TABLE "{text}" AS SELECT '{text}'::text AS "{text}", 1 AS "select" """.encode(codec)
            )
        dumped = dump_of(engine_for(postgres, "encoded"), tmp_path)
        target = engine_for(postgres, elsewhere)
        restore_of(target, dumped, tmp_path)
        assert differences(target, dumped, tmp_path) == []
        assert dumped.result.fingerprint.rows == 1
        assert list(dumped.result.fingerprint.items) == [f'encoded.public."{text}"']
    finally:
        postgres.drop_database("encoded")


def test_settings_that_change_the_text_of_values(
    postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path
) -> None:
    """Zone, date style, bytea form and money of a database do not change what is saved or compared."""
    with postgres.connect(pg_database) as session:
        session.execute(
            """CREATE TABLE t AS SELECT now() AS at, '\\x0102'::bytea AS raw, 1234.5::money AS price, 1.1::float4 AS f,
                      interval '1 day 2 hours' AS span, '<a/>'::xml AS doc"""
        )
        for setting in (
            "timezone TO 'Asia/Tokyo'",
            "bytea_output TO 'escape'",
            "datestyle TO 'German'",
            "intervalstyle TO 'iso_8601'",
            "extra_float_digits TO -3",
            "xmloption TO 'document'",
            "default_transaction_read_only TO on",
        ):
            session.execute(f"ALTER DATABASE {pg_database} SET {setting}".encode())
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    target = engine_for(postgres, elsewhere)
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []
    assert differences(engine_for(postgres, pg_database), dumped, tmp_path) == []


def test_partitions_by_the_hash_of_an_enum(
    postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path
) -> None:
    """Rows that may land in another partition after a restore are counted at their root."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TYPE mood AS ENUM ('calm', 'odd', 'glad')")
        session.execute("CREATE TABLE diary (m mood, n int) PARTITION BY HASH (m)")
        for part in range(3):
            session.execute(
                f"CREATE TABLE diary_{part} PARTITION OF diary FOR VALUES WITH (MODULUS 3, REMAINDER {part})".encode()
            )
        session.execute("INSERT INTO diary SELECT (enum_range(NULL::mood))[1 + n % 3], n FROM generate_series(1, 90) n")
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    target = engine_for(postgres, elsewhere)
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []
    assert dumped.result.fingerprint.items[f"{pg_database}.public.diary"]["rows"] == 90


def test_many_small_things(postgres: Postgres, pg_database: str, elsewhere: str, tmp_path: Path) -> None:
    """Hundreds of tables and thousands of large objects become a handful of artifacts."""
    with postgres.connect(pg_database) as session:
        session.execute(
            """DO $$ BEGIN FOR i IN 1..300 LOOP
                 EXECUTE format('CREATE TABLE t%s AS SELECT n FROM generate_series(1, %s) n', i, i); END LOOP; END $$"""
        )
        session.execute("SELECT lo_from_bytea(0, convert_to(repeat('x', n), 'UTF8')) FROM generate_series(1, 3000) n")
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    assert len(dumped.artifacts) == 6
    target = engine_for(postgres, elsewhere)
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []
    assert dumped.result.fingerprint.rows == 300 * 301 // 2


def test_the_runbook_restores_without_drd(
    start_postgres: StartPostgres, awkward: Awkward, dumped: Dumped, tmp_path: Path
) -> None:
    """The printed shell lines, run as they are on a bare server, bring back the same content."""
    bare = start_postgres()
    script, env = decoded(dumped.backup, dumped.artifacts, PostgresFormat(), tmp_path)
    env |= {"PGHOST": bare.host, "PGPORT": str(bare.port), "PGUSER": bare.user, "PGPASSWORD": bare.password}
    shell = BareShell(tmp_path / "bare", [bare.bin_dir / "psql", bare.bin_dir / "pg_restore"])
    shell.run(script, env).succeeds()
    assert differences(engine_for(bare, awkward.database), dumped, tmp_path) == []


def _only(bin_dir: Path, scratch: Path) -> Path:
    """Make a folder with pg_dump and its kin of one version alone."""
    folder = scratch / "only-these-tools"
    folder.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{bin_dir / name}" "$@"\n')
        (folder / name).chmod(0o755)
    return folder
