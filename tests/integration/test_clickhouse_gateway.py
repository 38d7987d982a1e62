"""ClickHouse through the gateway: real servers, both ways."""

from __future__ import annotations

import json
import socket
import subprocess
import tarfile
import time
from io import BytesIO

import pytest

from drd.engines.clickhouse.format import ClickHouseFormat
from drd.errors import IntegrityError, TargetNotEmpty
from drd.model import compare_fingerprints
from tests.support.artifacts import MemoryReader, work_context
from tests.support.clickhouse_world import add_big_file, dump, engine, fill, unfinished

pytestmark = pytest.mark.integration


@pytest.fixture
def world(clickhouse_source, clickhouse_database):
    """A filled database on the source."""
    fill(clickhouse_source, clickhouse_database)
    return clickhouse_database


def test_a_round_trip_brings_every_kind_of_table_back(clickhouse_source, clickhouse_target, world, tmp_path):
    """Tables, views, dictionaries, odd names, empty tables and rows past their TTL come back, equal by fingerprint."""
    result, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    target = engine(clickhouse_target)
    ctx = work_context(tmp_path)
    assert target.inspect(backup, artifacts).description == f"{world} (absent)"
    target.restore(backup, artifacts, ctx)
    found = target.fingerprint(result.fingerprint, ctx)
    assert compare_fingerprints(result.fingerprint, found) == []
    assert result.fingerprint.items[f"{world}.short_lived"]["rows"] == 1000
    assert result.fingerprint.items[f"{world}.log"]["rows"] == 1000
    assert result.fingerprint.items[f"{world}.counts"]["rows"] == 1
    odd = f'{world}.`we.ird "q" \\` é中 %2E`'
    assert result.fingerprint.items[odd]["rows"] == 5
    for query in (
        "SELECT sum(cityHash64(*)), count() FROM {}.ticks",
        "SELECT sum(cityHash64(timestamp, metric_name, metric_value, tags)) FROM {}.performance_metrics",
        "SELECT * FROM {}.by_symbol ORDER BY 1",
        "SELECT symbol, sum(c) FROM {}.counts GROUP BY symbol ORDER BY 1",
        "SELECT symbol, price FROM {}.latest FINAL ORDER BY 1",
        "SELECT name, engine FROM system.tables WHERE database = '{}' AND name NOT LIKE '.inner%' ORDER BY 1",
    ):
        assert clickhouse_target.query(query.format(world)) == clickhouse_source.query(query.format(world))
    clickhouse_target.query(f"INSERT INTO {world}.ticks SELECT * FROM {world}.ticks LIMIT 1")  # the view still fires


def test_merges_run_again_after_a_restore(clickhouse_source, clickhouse_target, world, tmp_path):
    """Nothing stays stopped on the restored tables: OPTIMIZE merges them."""
    _, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    engine(clickhouse_target).restore(backup, artifacts, work_context(tmp_path))
    clickhouse_target.query(f"OPTIMIZE TABLE {world}.latest FINAL")
    assert clickhouse_target.query(f"SELECT count() FROM {world}.latest").strip() == "2"


def test_a_large_file_arrives_in_parts_and_comes_back_whole(clickhouse_source, clickhouse_target, world, tmp_path):
    """A column file of 40 MB is uploaded in parts, verified offline, and restored."""
    add_big_file(clickhouse_source, world)
    result, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    with tarfile.open(fileobj=BytesIO(artifacts.artifacts["clickhouse/backup.tar"])) as tar:
        assert any(name.endswith("s.bin.part-00002") for name in tar.getnames())
    assert ClickHouseFormat().verify(backup, artifacts, work_context(tmp_path)) == []
    target = engine(clickhouse_target)
    target.restore(backup, artifacts, work_context(tmp_path))
    found = target.fingerprint(result.fingerprint, work_context(tmp_path))
    assert compare_fingerprints(result.fingerprint, found) == []
    query = f"SELECT sum(cityHash64(s)) FROM {world}.big"
    assert clickhouse_target.query(query) == clickhouse_source.query(query)


def test_a_backup_of_one_database_restores_under_another_name(clickhouse_source, clickhouse_target, world, tmp_path):
    """A database in the URL is the new name; views and dictionaries point into it."""
    result, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    other = f"{world}_copy"
    target = engine(clickhouse_target, path=f"/{other}")
    assert target.inspect(backup, artifacts).description == f"{other} (absent)"
    try:
        target.restore(backup, artifacts, work_context(tmp_path))
        found = target.fingerprint(result.fingerprint, work_context(tmp_path))
        assert compare_fingerprints(result.fingerprint, found) == []
        assert clickhouse_target.query(f"SELECT count() FROM {other}.by_symbol").strip() == "2"
    finally:
        clickhouse_target.query(f"DROP DATABASE IF EXISTS {other} SYNC")


def test_a_target_that_holds_tables_is_refused_untouched(clickhouse_source, clickhouse_target, world, tmp_path):
    """Exit 14 and nothing changed."""
    _, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    clickhouse_target.query(f"CREATE DATABASE {world}")
    target = engine(clickhouse_target)
    assert target.inspect(backup, artifacts).empty
    clickhouse_target.query(f"CREATE TABLE {world}.mine (v UInt8) ENGINE = MergeTree ORDER BY v")
    clickhouse_target.query(f"INSERT INTO {world}.mine SELECT 1 FROM numbers(20000)")
    state = target.inspect(backup, artifacts)
    assert not state.empty
    assert state.detail == f"the database {world} already holds 1 table (20,000 rows in the largest)"
    with pytest.raises(TargetNotEmpty, match="already holds 1 table") as caught:
        target.restore(backup, artifacts, work_context(tmp_path))
    assert caught.value.exit_code == 14
    assert clickhouse_target.query(f"SELECT name, total_rows FROM system.tables WHERE database = '{world}'") == (
        "mine\t20000\n"
    )


def test_a_flipped_byte_is_found_offline_and_by_the_restore(clickhouse_source, clickhouse_target, world, tmp_path):
    """Verify names the file; the restore fails by CHECK TABLE and leaves nothing behind."""
    _, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    index = json.loads(artifacts.artifacts["clickhouse/index.json"])
    key, (size, segments) = next(
        (k, v) for k, v in index["objects"].items() if "/ticks/" in k and k.endswith("/data.bin")
    )
    damaged = bytearray(artifacts.artifacts["clickhouse/backup.tar"])
    damaged[segments[0][1] + size // 2] ^= 1
    reader = MemoryReader(artifacts.artifacts | {"clickhouse/backup.tar": bytes(damaged)})
    problems = ClickHouseFormat().verify(backup, reader, work_context(tmp_path))
    assert [problem.subject for problem in problems] == [key]
    with pytest.raises(IntegrityError, match="ticks"):
        engine(clickhouse_target).restore(backup, reader, work_context(tmp_path))
    assert clickhouse_target.query(f"SELECT count() FROM system.databases WHERE name = '{world}'").strip() == "0"


def test_the_stock_tools_path_restores_without_drd(clickhouse_source, clickhouse_target, world, tmp_path):
    """Untar, cat the parts, RESTORE FROM File: what the runbook says works on a real server."""
    add_big_file(clickhouse_source, world)
    _, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    place = clickhouse_target.backups_dir / backup.id
    try:
        place.mkdir()
        subprocess.run(["tar", "-xf", "-"], input=artifacts.artifacts["clickhouse/backup.tar"], cwd=place, check=True)
        for first in sorted(place.rglob("*.part-00001")):
            whole = first.with_name(first.name.removesuffix(".part-00001"))
            parts = sorted(whole.parent.glob(whole.name + ".part-*"))
            whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        clickhouse_target.query(f"RESTORE DATABASE {world} FROM File('{place}')")
        query = f"SELECT sum(cityHash64(s)) FROM {world}.big"
        assert clickhouse_target.query(query) == clickhouse_source.query(query)
    finally:
        import shutil

        shutil.rmtree(place, ignore_errors=True)


def test_what_a_manifest_may_show_holds_no_name(clickhouse_source, world, tmp_path):
    """Facts, tools and warnings name no database, table or secret; what was not saved is a notice."""
    result, backup, _ = dump(engine(clickhouse_source, world), tmp_path)
    shown = json.dumps([backup.facts, backup.tools, backup.warnings])
    assert world not in shown
    assert "ticks" not in shown
    assert "access-not-saved" in backup.warnings
    assert "users" in next(n.message for n in result.notices if n.code == "access-not-saved")


def test_the_recovery_point_is_not_before_the_newest_row(clickhouse_source, world, tmp_path):
    """A row written just before BACKUP is inside and not newer than the recovery point."""
    clickhouse_source.query(f"CREATE TABLE {world}.clock (at DateTime64(6, 'UTC')) ENGINE = MergeTree ORDER BY at")
    clickhouse_source.query(f"INSERT INTO {world}.clock SELECT now64(6)")
    result, _, _ = dump(engine(clickhouse_source, world), tmp_path)
    newest = float(clickhouse_source.query(f"SELECT toUnixTimestamp64Micro(max(at)) / 1e6 FROM {world}.clock"))
    assert newest <= result.recovery_point.timestamp()


def test_credentials_of_the_gateway_are_in_no_log_of_the_server(clickhouse_source, world, tmp_path, monkeypatch):
    """Neither system.backups nor the query log shows the key pair of a run."""
    from drd.engines.clickhouse import gateway as module

    made = []
    original = module.Gateway.start
    monkeypatch.setattr(module.Gateway, "start", lambda self: (made.append(self), original(self))[1])
    dump(engine(clickhouse_source, world), tmp_path)
    clickhouse_source.query("SYSTEM FLUSH LOGS")
    (used,) = made
    for secret in (used.secret_access_key,):
        for table, column in (("system.backups", "name"), ("system.query_log", "query")):
            found = clickhouse_source.query(
                f"SELECT count() FROM {table} WHERE position({column}, '{secret}') > 0 "
                f"AND {column} NOT LIKE '%position%'"
            )
            assert found.strip() == "0"
    assert unfinished(clickhouse_source) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((used._bound[0], used._bound[1]), timeout=5)


def test_a_refreshable_view_is_refreshed_from_restored_data(
    clickhouse_source, clickhouse_target, clickhouse_database, tmp_path
):
    """BACKUP leaves its data out; after a restore it is computed from the restored tables, not from empty ones."""
    db = clickhouse_database
    for statement in (
        f"CREATE DATABASE {db}",
        f"CREATE TABLE {db}.t (v UInt32) ENGINE = MergeTree ORDER BY v",
        f"INSERT INTO {db}.t SELECT number FROM numbers(10)",
        f"CREATE MATERIALIZED VIEW {db}.fresh REFRESH EVERY 1 YEAR ENGINE = Memory AS SELECT count() AS c FROM {db}.t",
    ):
        clickhouse_source.query(statement)
    result, backup, artifacts = dump(engine(clickhouse_source, db), tmp_path)
    target = engine(clickhouse_target)
    target.restore(backup, artifacts, work_context(tmp_path))
    found = target.fingerprint(result.fingerprint, work_context(tmp_path))
    assert compare_fingerprints(result.fingerprint, found) == []
    until = time.monotonic() + 15
    while (seen := clickhouse_target.query(f"SELECT c FROM {db}.fresh").split()) != ["10"]:
        assert time.monotonic() < until, seen
        time.sleep(0.1)
