"""What a stranger found while trying to break the ClickHouse engine on real servers; each was a defect once."""

from __future__ import annotations

import time
from pathlib import Path

from devstack.clickhouse import ClickHouse
from tests.support.artifacts import work_context
from tests.support.clickhouse_world import dump, engine

_UPDATES = {"enable_lightweight_update": 1, "allow_experimental_lightweight_update": 1}


def test_what_the_server_leaves_out_is_said(
    clickhouse_source: ClickHouse, clickhouse_database: str, tmp_path: Path
) -> None:
    """ClickHouse's BACKUP drops rows of some engines and unmerged updates without a word; drd names the tables."""
    db, run = clickhouse_database, clickhouse_source.query
    run(f"CREATE DATABASE {db}")
    run(
        f"CREATE TABLE {db}.updated (k UInt32, v String) ENGINE = MergeTree ORDER BY k "
        "SETTINGS enable_block_number_column = 1, enable_block_offset_column = 1"
    )
    run(f"CREATE TABLE {db}.plain (k UInt32) ENGINE = MergeTree ORDER BY k")
    run(f"CREATE TABLE {db}.joined (k UInt32, v String) ENGINE = Join(ANY, LEFT, k)")
    for name in ("updated", "joined"):
        run(f"INSERT INTO {db}.{name} SELECT number, 'old' FROM numbers(10)")
    source = engine(clickhouse_source, db)
    before = {notice.code: notice.message for notice in dump(source, tmp_path)[0].notices}
    run(f"UPDATE {db}.updated SET v = 'new' WHERE k < 5", settings=_UPDATES)
    pending = {notice.code: notice.message for notice in dump(source, tmp_path)[0].notices}
    run(f"ALTER TABLE {db}.updated APPLY PATCHES SETTINGS mutations_sync = 2")
    applied = {notice.code for notice in dump(source, tmp_path)[0].notices}
    assert f"{db}.joined (Join)" in before["rows-not-saved"]
    assert "plain" not in before["rows-not-saved"]
    assert "updates-not-saved" not in before
    assert f"{db}.updated" in pending["updates-not-saved"]
    assert "updates-not-saved" not in applied


def test_appended_rows_come_back_once(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, clickhouse_database: str, tmp_path: Path
) -> None:
    """A refreshable view that appends is not refreshed by a restore; one that replaces is."""
    db, run = clickhouse_database, clickhouse_source.query
    run(f"CREATE DATABASE {db}")
    run(f"CREATE TABLE {db}.base (k UInt32) ENGINE = MergeTree ORDER BY k")
    run(f"INSERT INTO {db}.base SELECT number FROM numbers(10)")
    for name in ("history", "newest"):
        run(f"CREATE TABLE {db}.{name} (k UInt32) ENGINE = MergeTree ORDER BY k")
    run(f"CREATE MATERIALIZED VIEW {db}.a REFRESH EVERY 1 YEAR APPEND TO {db}.history AS SELECT k FROM {db}.base")
    run(f"CREATE MATERIALIZED VIEW {db}.n REFRESH EVERY 1 YEAR TO {db}.newest AS SELECT k FROM {db}.base")
    for name in ("a", "n"):
        run(f"SYSTEM WAIT VIEW {db}.{name}")
    _result, backup, reader = dump(engine(clickhouse_source, db), tmp_path)
    engine(clickhouse_target).restore(backup, reader, work_context(tmp_path))
    deadline = time.monotonic() + 20
    while clickhouse_target.query(f"SELECT count() FROM {db}.newest").strip() != "10" and time.monotonic() < deadline:
        time.sleep(0.1)
    clickhouse_target.query(f"SYSTEM WAIT VIEW {db}.a")
    assert clickhouse_target.query(f"SELECT count() FROM {db}.newest").strip() == "10"
    assert clickhouse_target.query(f"SELECT count() FROM {db}.history").strip() == "10"
