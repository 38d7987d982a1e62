"""What a killed drd leaves on a ClickHouse server: ended and taken back by the next; nothing else is touched."""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.clickhouse import ClickHouse
from drd.engines.clickhouse import alive, unfinished
from drd.engines.clickhouse.client import TARGET, Server, ServerRefusal
from drd.errors import TargetError, TargetNotEmpty
from tests.support.artifacts import work_context
from tests.support.clickhouse_world import dump, engine, settings_of

pytestmark = [pytest.mark.integration, pytest.mark.faults]

SLOW = 1 << 20
BACKUP_ID = "20261122T181455Z-k3f9qa"


@pytest.fixture
def small(clickhouse_source: ClickHouse, clickhouse_database: str) -> str:
    """A database with one small table and a comment of its own on the source."""
    clickhouse_source.query(f"CREATE DATABASE {clickhouse_database} COMMENT 'it''s \\\\ ours ENGINE = Atomic'")
    clickhouse_source.query(f"CREATE TABLE {clickhouse_database}.t (v UInt32) ENGINE = MergeTree ORDER BY v")
    clickhouse_source.query(f"INSERT INTO {clickhouse_database}.t SELECT number FROM numbers(1000)")
    return clickhouse_database


@pytest.fixture
def big(clickhouse_source: ClickHouse) -> Iterator[str]:
    """A database of 200 parts on the source, for jobs that take a while; what still backs it up is ended afterwards."""
    name = clickhouse_source.fresh_database()
    clickhouse_source.query(f"CREATE DATABASE {name}")
    clickhouse_source.query(
        f"CREATE TABLE {name}.t (n UInt32, s String CODEC(NONE)) ENGINE = MergeTree PARTITION BY n % 200 ORDER BY n"
    )
    clickhouse_source.query(
        f"INSERT INTO {name}.t SELECT number, randomPrintableASCII(1000) FROM numbers(20000)",
        settings={"max_partitions_per_insert_block": 0},
    )
    yield name
    for row in clickhouse_source.rows("SELECT query_id FROM system.backups WHERE status = 'CREATING_BACKUP'"):
        clickhouse_source.query(f"KILL QUERY WHERE query_id = '{row['query_id']}' SYNC")
    clickhouse_source.query(f"DROP DATABASE {name} SYNC")


def job(server: ClickHouse, database: str, job_id: str) -> None:
    """Start a backup to the server's disk that takes some twenty seconds."""
    place = f"Disk('backups', 'leftovers-{uuid.uuid4()}')"
    options = f"id = '{job_id}'"
    server.query(
        f"BACKUP DATABASE {database} TO {place} SETTINGS {options} ASYNC", settings={"max_backup_bandwidth": SLOW}
    )


def running(server: ClickHouse) -> set[str]:
    """Give the ids of the jobs that a server runs."""
    return {
        r["id"] for r in server.rows("SELECT id FROM system.backups WHERE status IN ('CREATING_BACKUP','RESTORING')")
    }


def comment_of(server: ClickHouse, database: str) -> str | None:
    """Give the comment of a database, None when it is absent."""
    rows = server.rows(f"SELECT comment FROM system.databases WHERE name = '{database}'")
    return rows[0]["comment"] if rows else None


def test_only_jobs_of_drds_that_are_gone_are_ended(
    clickhouse_source: ClickHouse, small: str, big: str, tmp_path: Path
) -> None:
    """A backup ends the job of an owner without a sign of life; one with a sign, an unclear and a foreign one go on."""
    server = Server(settings_of(clickhouse_source), TARGET)
    with alive.sign(server) as owner:
        assert owner
        living = f"drd-{BACKUP_ID}-of-{owner}-00000001"
        dead = f"drd-{BACKUP_ID}-of-{secrets.token_hex(8)}-{secrets.token_hex(4)}"
        unclear = f"drd-{BACKUP_ID}-{secrets.token_hex(4)}"
        foreign = f"nightly-{uuid.uuid4()}"
        for job_id in (living, dead, unclear, foreign):
            job(clickhouse_source, big, job_id)
        result, _, _ = dump(engine(clickhouse_source, small), tmp_path)
        assert running(clickhouse_source) == {living, unclear, foreign}
        said = {notice.code: notice.message for notice in result.notices if notice.code.startswith("orphan")}
        assert set(said) == {"orphan-ended", "orphan-unclear"}
        assert dead in said["orphan-ended"]
        assert unclear in said["orphan-unclear"]
        assert "KILL QUERY WHERE query_id" in said["orphan-unclear"]
    server.close()


def test_a_backup_under_way_outlives_another(
    clickhouse_source: ClickHouse, small: str, big: str, tmp_path: Path
) -> None:
    """While one drd backs up slowly, the backup of another leaves it alone; both succeed, and no sign stays."""
    rows: list[int | None] = []
    for folder in ("slow", "quick"):
        (tmp_path / folder).mkdir()
    slow = engine(clickhouse_source, big, bandwidth_bytes_per_s=5 << 20)
    thread = threading.Thread(target=lambda: rows.append(dump(slow, tmp_path / "slow")[0].rows))
    thread.start()
    until = time.monotonic() + 10
    while not running(clickhouse_source) and time.monotonic() < until:
        time.sleep(0.02)
    quick, _, _ = dump(engine(clickhouse_source, small), tmp_path / "quick")
    assert len(running(clickhouse_source)) == 1
    thread.join()
    assert rows == [20_000]
    assert [notice.code for notice in quick.notices if notice.code.startswith("orphan")] == []
    assert clickhouse_source.rows("SELECT query_id FROM system.processes WHERE query_id LIKE 'drd-alive-%'") == []


def test_what_a_killed_restore_made_is_replaced(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, small: str, tmp_path: Path
) -> None:
    """A database with the mark of an owner without a sign is dropped and restored, and has its own comment then."""
    result, backup, artifacts = dump(engine(clickhouse_source, small), tmp_path)
    server = Server(settings_of(clickhouse_target), TARGET)
    assert unfinished.create(server, small, BACKUP_ID, secrets.token_hex(8)) is None
    clickhouse_target.query(f"CREATE TABLE {small}.half (v UInt32) ENGINE = MergeTree ORDER BY v")
    target = engine(clickhouse_target)
    state = target.inspect(backup, artifacts)
    assert state.empty
    assert "left by a restore that was killed" in state.description
    done = target.restore(backup, artifacts, work_context(tmp_path))
    assert [n.message for n in done.notices if n.code == "leftover-removed"] == [
        f"dropped the database {small}, left by a restore that was killed ({BACKUP_ID})"
    ]
    assert clickhouse_target.query(f"SELECT name FROM system.tables WHERE database = '{small}'").split() == ["t"]
    assert (
        comment_of(clickhouse_target, small) == comment_of(clickhouse_source, small) == "it's \\ ours ENGINE = Atomic"
    )
    assert target.fingerprint(result.fingerprint, work_context(tmp_path)) == result.fingerprint
    server.close()


def test_a_restore_under_way_is_left_alone(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, small: str, tmp_path: Path
) -> None:
    """A marked database whose owner shows a sign is refused, when it is planned and when it is done, and stays."""
    _, backup, artifacts = dump(engine(clickhouse_source, small), tmp_path)
    server = Server(settings_of(clickhouse_target), TARGET)
    with alive.sign(server) as owner:
        assert owner
        assert unfinished.create(server, small, BACKUP_ID, owner) is None
        before = comment_of(clickhouse_target, small)
        with pytest.raises(TargetError, match=f"another drd restores into {small} right now"):
            engine(clickhouse_target).inspect(backup, artifacts)
        with pytest.raises(TargetError, match=f"another drd restores into {small} right now"):
            engine(clickhouse_target).restore(backup, artifacts, work_context(tmp_path))
        assert comment_of(clickhouse_target, small) == before
    result, _, _ = dump(engine(clickhouse_target, small), tmp_path)
    assert "half-made" in {notice.code for notice in result.notices}
    server.close()


def test_a_database_without_its_own_mark_is_never_touched(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, small: str, tmp_path: Path
) -> None:
    """No comment, one like a mark, the mark of another UUID or of another user: exit 14, and all is untouched."""
    _, backup, artifacts = dump(engine(clickhouse_source, small), tmp_path)
    own = uuid.uuid4()
    mark = unfinished.Mark(BACKUP_ID, secrets.token_hex(8), "admin", small, str(own))
    someone = unfinished.Mark(BACKUP_ID, mark.owner, "someone", small, str(own))
    prefix = mark.comment().split("{")[0]
    copied = unfinished.Mark(BACKUP_ID, mark.owner, "admin", small, str(uuid.uuid4()))
    malformed = prefix + json.dumps({"owner": mark.owner})
    for comment in ("", "mine", prefix, malformed, copied.comment(), someone.comment()):
        quoted = comment.replace("\\", "\\\\").replace("'", "\\'")
        clickhouse_target.query(f"CREATE DATABASE {small} UUID '{own}' COMMENT '{quoted}'")
        clickhouse_target.query(f"CREATE TABLE {small}.precious ENGINE = MergeTree ORDER BY v AS SELECT 7 AS v")
        target = engine(clickhouse_target)
        assert not target.inspect(backup, artifacts).empty
        with pytest.raises(TargetNotEmpty) as caught:
            target.restore(backup, artifacts, work_context(tmp_path))
        assert caught.value.exit_code == 14
        assert clickhouse_target.query(f"SELECT v FROM {small}.precious").strip() == "7"
        assert comment_of(clickhouse_target, small) == comment
        clickhouse_target.query(f"DROP DATABASE {small} SYNC")


def test_a_copy_of_a_half_made_database_is_somebody_s_own(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, small: str, tmp_path: Path
) -> None:
    """A backup taken of a marked database comes back without the mark, by drd and by the server's own RESTORE."""
    server = Server(settings_of(clickhouse_target), TARGET)
    assert unfinished.create(server, small, BACKUP_ID, secrets.token_hex(8)) is None
    clickhouse_target.query(f"CREATE TABLE {small}.t ENGINE = MergeTree ORDER BY v AS SELECT 7 AS v")
    place = f"Disk('backups', 'leftovers-{uuid.uuid4()}')"
    clickhouse_target.query(f"BACKUP DATABASE {small} TO {place}")
    _, backup, artifacts = dump(engine(clickhouse_target, small), tmp_path)
    clickhouse_target.query(f"DROP DATABASE {small} SYNC")
    clickhouse_target.query(f"RESTORE DATABASE {small} FROM {place}")
    assert unfinished.marked(server, [small]) == {}
    clickhouse_target.query(f"DROP DATABASE {small} SYNC")
    engine(clickhouse_target).restore(backup, artifacts, work_context(tmp_path))
    assert comment_of(clickhouse_target, small) == ""
    server.close()


@pytest.mark.parametrize("lacking", ["sign", "comment"])
def test_a_server_that_cannot_mark(
    clickhouse_source: ClickHouse,
    clickhouse_target: ClickHouse,
    small: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: str,
) -> None:
    """Where the server refuses the sleeping query, or to change a comment, it is restored as ever, and that is said."""
    result, backup, artifacts = dump(engine(clickhouse_source, small), tmp_path)
    if lacking == "sign":
        monkeypatch.setitem(alive._SETTINGS, "max_threads", "refused")
    else:

        def refuse(server: Server, name: str, comment: str) -> None:
            raise ServerRefusal(62, f"Syntax error: MODIFY COMMENT of {name} at {server.address.netloc}: {comment}")

        monkeypatch.setattr(unfinished, "set_comment", refuse)
    target = engine(clickhouse_target)
    done = target.restore(backup, artifacts, work_context(tmp_path))
    assert [notice.code for notice in done.notices if notice.code == "restore-unmarked"] == ["restore-unmarked"]
    assert target.fingerprint(result.fingerprint, work_context(tmp_path)) == result.fingerprint
    assert comment_of(clickhouse_target, small) == comment_of(clickhouse_source, small)
