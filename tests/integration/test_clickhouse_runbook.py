"""ClickHouse's half of the runbook on real servers: odd names, files that came in parts, damage, half-made restores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.clickhouse import ClickHouse
from drd.engines.clickhouse.format import ClickHouseFormat
from tests.support.bare_shell import BareShell, decoded
from tests.support.clickhouse_world import add_big_file, dump, engine, fill

pytestmark = pytest.mark.integration
READ = ("ticks", "performance_metrics", "log", "memory", "big", '`we.ird "q" \\` é中 %2E`')


@pytest.fixture
def odd_database(clickhouse_source: ClickHouse, clickhouse_target: ClickHouse) -> Iterator[str]:
    """Give a second database, whose name needs quotes everywhere."""
    name = clickhouse_source.fresh_database() + " o'd\"d \\ é %2E $(touch oops)"
    quoted = "`" + name.replace("\\", "\\\\") + "`"
    clickhouse_source.query(f"CREATE DATABASE {quoted}")
    clickhouse_source.query(f"CREATE TABLE {quoted}.t (v UInt32) ENGINE = MergeTree ORDER BY v")
    clickhouse_source.query(f"INSERT INTO {quoted}.t SELECT number FROM numbers(123)")
    yield name
    for server in (clickhouse_source, clickhouse_target):
        server.query(f"DROP DATABASE IF EXISTS {quoted} SYNC")


@pytest.fixture(autouse=True)
def _nothing_left(clickhouse_target: ClickHouse) -> Iterator[None]:
    """Remove what a script that failed left unpacked for the next run."""
    before = set(clickhouse_target.backups_dir.iterdir())
    yield
    for left in set(clickhouse_target.backups_dir.iterdir()) - before:
        shutil.rmtree(left)


def environment(target: ClickHouse) -> dict[str, str]:
    return {
        "CLICKHOUSE_URL": f"http://{target.host}:{target.port}",
        "CLICKHOUSE_USER": target.user,
        "CLICKHOUSE_PASSWORD": target.password,
        "CLICKHOUSE_BACKUPS": str(target.backups_dir),
    }


def held(server: ClickHouse, database: str) -> tuple[dict[str, str], list[str]]:
    """Return every table with its engine, and a digest of those that a live server does not change by itself."""
    tables = server.rows(f"SELECT name, engine FROM system.tables WHERE database = '{database}'")
    digests = [server.query(f"SELECT count(), sum(cityHash64(*)) FROM {database}.{name}").strip() for name in READ]
    return {row["name"]: row["engine"] for row in tables if not row["name"].startswith(".inner")}, digests


def test_every_kind_of_table(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, clickhouse_database: str, odd_database: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Two databases, odd names, a file that the server sent in several parts: all of it comes back, by File."""
    fill(clickhouse_source, clickhouse_database)
    add_big_file(clickhouse_source, clickhouse_database)
    _, backup, artifacts = dump(engine(clickhouse_source, clickhouse_database, odd_database), tmp_path)
    assert b".part-00002" in artifacts.artifacts["clickhouse/backup.tar"]
    script, env = decoded(backup, artifacts.artifacts, ClickHouseFormat(), tmp_path)
    BareShell(tmp_path / "bare").run(script, env | environment(clickhouse_target)).succeeds()
    assert held(clickhouse_target, clickhouse_database) == held(clickhouse_source, clickhouse_database)
    count = "SELECT total_rows FROM system.tables WHERE name = 't' AND startsWith(database, '{}')"
    assert clickhouse_target.query(count.format(odd_database.partition(" ")[0])).strip() == "123"
    assert list(tmp_path.rglob("oops")) == []
    assert not (clickhouse_target.backups_dir / backup.id).exists()


def test_damage_is_found_after_the_restore(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, clickhouse_database: str, tmp_path: Path
) -> None:
    """RESTORE accepts a flipped byte; the script's CHECK TABLE does not, and names the table."""
    clickhouse_source.query(f"CREATE DATABASE {clickhouse_database}")
    add_big_file(clickhouse_source, clickhouse_database, megabytes=2)
    _, backup, artifacts = dump(engine(clickhouse_source, clickhouse_database), tmp_path)
    tar = bytearray(artifacts.artifacts["clickhouse/backup.tar"])
    tar[len(tar) // 2] ^= 1
    contents = artifacts.artifacts | {"clickhouse/backup.tar": bytes(tar)}
    script, env = decoded(backup, contents, ClickHouseFormat(), tmp_path)
    shell, env = BareShell(tmp_path / "bare"), env | environment(clickhouse_target)
    shell.run(script, env).fails(f"the server finds `{clickhouse_database}`.`big` damaged", "try an earlier backup")
    shell.run(script, env).fails(f"DROP DATABASE `{clickhouse_database}` SYNC", "Nothing was restored")


def test_what_is_wrong_is_said_before_anything_is_done(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, clickhouse_database: str, tmp_path: Path
) -> None:
    """No folder, a folder that the server may not read, a wrong password, no server: each with what to do."""
    clickhouse_source.query(f"CREATE DATABASE {clickhouse_database}")
    clickhouse_source.query(f"CREATE TABLE {clickhouse_database}.t (v UInt32) ENGINE = MergeTree ORDER BY v")
    _, backup, artifacts = dump(engine(clickhouse_source, clickhouse_database), tmp_path)
    script, env = decoded(backup, artifacts.artifacts, ClickHouseFormat(), tmp_path)
    shell, env = BareShell(tmp_path / "bare"), env | environment(clickhouse_target)
    shell.run(script, env | {"CLICKHOUSE_BACKUPS": "/nowhere"}).fails("allowed_path", "Nothing was done")
    said = shell.run(script, env | {"CLICKHOUSE_PASSWORD": 'Wr"ng\\pass'}).fails(
        "CLICKHOUSE_PASSWORD", "Nothing was done"
    )
    assert 'Wr"ng' not in said.text
    shell.run(script, env | {"CLICKHOUSE_URL": "http://127.0.0.1:9"}).fails("cannot be asked", "Nothing was done")
    elsewhere = tmp_path / "not-allowed"
    elsewhere.mkdir()
    shell.run(script, env | {"CLICKHOUSE_BACKUPS": str(elsewhere)}).fails(
        "ClickHouse did not restore it", "not allowed"
    )
    shell.run(script, env).succeeds()
