"""ClickHouse backups and restores that go wrong: clear errors, nothing left running, nothing left behind."""

from __future__ import annotations

import socket
import threading
import time
import uuid

import pytest

from drd.cancel import CancelToken
from drd.engines.clickhouse.client import TARGET, Server
from drd.engines.clickhouse.engine import ClickHouseEngine
from drd.engines.clickhouse.longquery import LongQuery
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.errors import (
    Cancelled,
    IntegrityError,
    SourceError,
    SourceRefused,
    SourceUnreachable,
    StoreUnavailable,
    TargetError,
)
from drd.model import Secret
from tests.support.artifacts import MemoryReader, MemorySink, work_context
from tests.support.clickhouse_world import add_big_file, dump, engine, fill, settings_of, unfinished

pytestmark = [pytest.mark.integration, pytest.mark.faults]

SLOW = 4 << 20


@pytest.fixture
def world(clickhouse_source, clickhouse_database):
    """A database of 40 MB on the source."""
    clickhouse_source.query(f"CREATE DATABASE {clickhouse_database}")
    add_big_file(clickhouse_source, clickhouse_database)
    return clickhouse_database


def gone(server) -> bool:
    """Whether the server runs no job, now or within two seconds."""
    until = time.monotonic() + 2
    while unfinished(server) and time.monotonic() < until:
        time.sleep(0.1)
    return not unfinished(server)


def test_wrong_password(clickhouse_source, world, tmp_path):
    """Exit 13, one line, a hint, no password."""
    with pytest.raises(SourceRefused, match="wrong user or password") as caught:
        dump(engine(clickhouse_source, world, password=Secret("not-the-password")), tmp_path)
    assert caught.value.exit_code == 13
    assert "not-the-password" not in f"{caught.value} {caught.value.hint}"


def test_server_down(start_clickhouse, tmp_path):
    """An error that may be tried again, naming the address."""
    server = start_clickhouse()
    server.stop()
    with pytest.raises(
        SourceUnreachable, match=f"cannot reach ClickHouse at http://127.0.0.1:{server.port}: Connection refused"
    ):
        dump(engine(server), tmp_path)


@pytest.fixture
def mute():
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_never_answers(mute, clickhouse_source, world, tmp_path):
    """Probe, check, backup, plan and restore give up within three times connect_timeout, and say what they found."""
    settings = ClickHouseSettings(f"http://admin@127.0.0.1:{mute}", connect_timeout_s=0.5)
    silent = ClickHouseEngine(settings)
    _, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    ctx = work_context(tmp_path)
    for kind, ask in (
        (SourceUnreachable, silent.probe),
        (SourceUnreachable, lambda: dump(silent, tmp_path)),
        (TargetError, lambda: silent.inspect(backup, artifacts)),
        (TargetError, lambda: silent.restore(backup, artifacts, ctx)),
    ):
        started = time.monotonic()
        with pytest.raises(kind, match=r"accepts connections, but does not answer") as caught:
            ask()
        assert time.monotonic() - started < 10
        assert "drd check" in caught.value.hint
    assert [(item.name, item.outcome) for item in silent.check()] == [("server", "failed")]


def test_a_server_that_stands_still_after_it_answered(start_clickhouse, tmp_path):
    """An engine that was connected gives up as soon; a long statement of a backup or restore is not cut that short."""
    server = start_clickhouse()
    server.query("CREATE DATABASE d")
    settings = settings_of(server, "d", connect_timeout_s=0.5)
    asked, working = ClickHouseEngine(settings), Server(settings, TARGET)
    assert asked.probe().version
    assert working.rows("SELECT sleep(2.5) AS slept") == [{"slept": 0}]
    server.pause()
    try:
        with pytest.raises(SourceUnreachable, match="does not answer"):
            asked.probe()
    finally:
        server.resume()
    assert asked.probe().version
    working.close()


def test_unknown_database(clickhouse_source, tmp_path):
    """The missing one is named, and what is there is the hint."""
    with pytest.raises(SourceError, match="ClickHouse has no database nowhere"):
        dump(engine(clickhouse_source, "nowhere"), tmp_path)


def test_a_user_without_the_right_to_back_up(clickhouse_source, world, tmp_path):
    """The right is named, with the GRANT as hint, and nothing runs."""
    reader = engine(clickhouse_source, world)
    settings = reader._settings
    from dataclasses import replace

    poor = ClickHouseEngine(replace(settings, url=settings.url.replace("admin@", "reader@")))
    with pytest.raises(SourceRefused, match="lacks a right") as caught:
        dump(poor, tmp_path)
    assert "GRANT BACKUP" in caught.value.hint
    assert {i.name: i.outcome for i in poor.check()}["right to back up"] == "failed"


def test_a_gateway_the_server_cannot_reach(clickhouse_source, world, tmp_path):
    """A dead advertised address fails within seconds, names the URL, and nothing goes on."""
    dead = engine(clickhouse_source, world, gateway_advertise="http://127.0.0.1:9", connect_timeout_s=2)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"ClickHouse cannot reach http://127.0.0.1:9 \(gateway\)") as caught:
        dump(dead, tmp_path)
    assert time.monotonic() - started < 15
    assert "drd check" in caught.value.hint
    assert gone(clickhouse_source)
    items = {item.name: item for item in dead.check()}
    assert items["way to the gateway"].outcome == "failed"
    assert "http://127.0.0.1:9" in items["way to the gateway"].detail


def test_a_gateway_that_a_restore_cannot_reach(clickhouse_source, clickhouse_target, world, tmp_path):
    """The same for a restore: an error of the target, and no database is left."""
    _, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)
    dead = engine(clickhouse_target, gateway_advertise="http://127.0.0.1:9", connect_timeout_s=2, s3_retry_attempts=1)
    with pytest.raises(TargetError, match=r"cannot reach http://127.0.0.1:9 \(gateway\)"):
        dead.restore(backup, artifacts, work_context(tmp_path))
    assert clickhouse_target.query(f"SELECT count() FROM system.databases WHERE name = '{world}'").strip() == "0"
    assert gone(clickhouse_target)


def test_cancelled_in_the_middle(clickhouse_source, world, tmp_path):
    """Ctrl-C while data flows: the error is the interruption, the server's job is gone."""
    cancel = CancelToken()
    sink = MemorySink()
    threading.Timer(1.0, cancel.cancel).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        dump(engine(clickhouse_source, world, bandwidth_bytes_per_s=SLOW), tmp_path, sink, cancel)
    assert time.monotonic() - started < 25
    assert sink.artifacts == {}
    assert gone(clickhouse_source)
    last = clickhouse_source.query("SELECT status FROM system.backups ORDER BY start_time DESC LIMIT 1").strip()
    assert last in {"BACKUP_CANCELLED", "BACKUP_FAILED"}


def test_the_sink_fails_in_the_middle(clickhouse_source, world, tmp_path):
    """A lost store is the error that is told, not what ClickHouse made of it; nothing runs on."""
    lost = StoreUnavailable("the store went away")
    with pytest.raises(StoreUnavailable, match="the store went away"):
        dump(engine(clickhouse_source, world), tmp_path, MemorySink(fail_after_bytes=5 << 20, error=lost))
    assert gone(clickhouse_source)


def test_the_server_is_killed_in_the_middle(start_clickhouse, tmp_path):
    """After kill -9 of ClickHouse: an error of the source, within the patience for a restart; the next run succeeds."""
    server = start_clickhouse()
    server.query("CREATE DATABASE d")
    add_big_file(server, "d")
    threading.Timer(1.5, server.kill).start()
    with pytest.raises(SourceError):
        dump(engine(server, "d", bandwidth_bytes_per_s=SLOW), tmp_path)
    server.start()
    result, _, _ = dump(engine(server, "d"), tmp_path)
    assert result.rows == 40_000


def test_a_restarted_server_has_lost_the_job(start_clickhouse, tmp_path):
    """A server that comes back while drd polls no longer knows the id: failed, and said so."""
    server = start_clickhouse()
    server.query("CREATE DATABASE d")
    add_big_file(server, "d")

    def bounce() -> None:
        server.kill()
        server.start()

    threading.Timer(1.0, bounce).start()
    with pytest.raises(SourceError, match="restarted"):
        dump(engine(server, "d", bandwidth_bytes_per_s=SLOW), tmp_path)


def test_a_server_that_stops_making_progress(start_clickhouse, tmp_path):
    """The deadline of drd ends a run without progress, though the server would go on for an hour."""
    server = start_clickhouse()
    server.query("CREATE DATABASE d")
    add_big_file(server, "d")
    stuck = threading.Event()

    class StuckSink(MemorySink):
        def before_write(self, name: str, size: int) -> None:
            super().before_write(name, size)
            if size > 1 << 20:
                stuck.wait(30)

    threading.Timer(12.0, stuck.set).start()
    with pytest.raises(SourceError, match="made no progress for 2 s"):
        dump(engine(server, "d", stall_timeout_s=2.0), tmp_path, StuckSink())
    assert gone(server)


def test_a_restore_of_damaged_parts_fails_with_their_error(clickhouse_source, clickhouse_target, world, tmp_path):
    """When an artifact cannot be read, that is the error, and no database is left."""
    _, backup, artifacts = dump(engine(clickhouse_source, world), tmp_path)

    class Damaged(MemoryReader):
        def open(self, name, *, start=0, length=None):
            if name.endswith(".tar") and (length or 0) > 1 << 20:
                raise IntegrityError("part 000003 is not what the manifest says")
            return super().open(name, start=start, length=length)

    with pytest.raises(IntegrityError, match="part 000003"):
        engine(clickhouse_target).restore(backup, Damaged(artifacts.artifacts), work_context(tmp_path))
    assert clickhouse_target.query(f"SELECT count() FROM system.databases WHERE name = '{world}'").strip() == "0"
    assert gone(clickhouse_target)


def test_a_cancelled_restore_leaves_nothing(clickhouse_source, clickhouse_target, world, tmp_path):
    """Ctrl-C in a restore: the job is gone and the database with it; an empty one that was there stays."""
    fill(clickhouse_source, f"{world}_2", rows=1000)
    try:
        _, backup, artifacts = dump(engine(clickhouse_source, world, f"{world}_2"), tmp_path)
        clickhouse_target.query(f"CREATE DATABASE {world}_2")
        cancel = CancelToken()

        class Cancelling(MemoryReader):
            def open(self, name, *, start=0, length=None):
                if (length or 0) > 1 << 20:
                    cancel.cancel()
                return super().open(name, start=start, length=length)

        with pytest.raises(Cancelled):
            engine(clickhouse_target).restore(
                backup, Cancelling(artifacts.artifacts), work_context(tmp_path, cancel=cancel)
            )
        assert gone(clickhouse_target)
        left = clickhouse_target.query(f"SELECT name FROM system.databases WHERE name LIKE '{world}%'").split()
        assert left == [f"{world}_2"]
        assert clickhouse_target.query(f"SELECT count() FROM system.tables WHERE database = '{world}_2'").strip() == "0"
    finally:
        for server in (clickhouse_source, clickhouse_target):
            server.query(f"DROP DATABASE IF EXISTS {world}_2 SYNC")


@pytest.mark.parametrize("why", ["cancelled", "stalled"])
def test_a_long_check_ends_when_it_must(clickhouse_target, why):
    """A CHECK TABLE that takes long is interrupted at once, and one that reads nothing is ended; neither goes on."""
    cancel = CancelToken()
    server = Server(settings_of(clickhouse_target), TARGET)
    query = LongQuery(server, cancel, 600.0 if why == "cancelled" else 1.5)
    if why == "cancelled":
        threading.Timer(1.0, cancel.cancel).start()
    marker = f"/* {uuid.uuid4()} */"
    started = time.monotonic()
    try:
        with pytest.raises(Cancelled if why == "cancelled" else TargetError):
            query.lines(f"SELECT sleepEachRow(1) FROM numbers(60) {marker}", {"max_block_size": 1})
        assert time.monotonic() - started < 20
        running = f"SELECT count() FROM system.processes WHERE query LIKE '%{marker}%' AND query NOT LIKE '%processes%'"
        assert clickhouse_target.query(running).strip() == "0"
    finally:
        query.close()
        server.close()
