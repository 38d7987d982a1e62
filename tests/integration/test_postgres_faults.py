"""What goes wrong around a PostgreSQL dump or restore, on real servers: one clear error, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devstack.postgres import Postgres
from drd.cancel import CancelToken
from drd.engines.children import Child
from drd.engines.postgres import place
from drd.engines.postgres.engine import PostgresEngine
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.spool import SpoolShipper
from drd.errors import (
    Cancelled,
    DrdError,
    IntegrityError,
    SourceError,
    SourceRefused,
    SourceUnreachable,
    TargetError,
    TargetNotEmpty,
    ToolError,
)
from drd.model import Secret
from drd.protocols import Cut
from tests.conftest import StartPostgres
from tests.support.artifacts import MemorySink, MemoryWriter
from tests.support.postgres_engine import Dumped, differences, dump_of, engine_for, in_spool, restore_of

pytestmark = pytest.mark.integration

BIG_ROWS = 150_000


@pytest.fixture(scope="module")
def big(postgres: Postgres) -> Iterator[str]:
    """Give a database with a table of some 50 MB, large enough to be interrupted."""
    name = postgres.fresh_database("big")
    with postgres.connect(name) as session:
        session.execute(
            f"""CREATE TABLE big AS SELECT n AS id, repeat(md5(n::text), 10) AS filler
                  FROM generate_series(1, {BIG_ROWS}) n"""
        )
        session.execute("CREATE TABLE small AS SELECT n AS id FROM generate_series(1, 100) n")
        session.execute("ANALYZE")
    yield name
    postgres.drop_database(name)


@pytest.fixture
def restored(postgres: Postgres) -> Iterator[str]:
    """Give the name of a database to restore into, absent before and after."""
    name = "restored_here"
    postgres.drop_database(name)
    yield name
    postgres.drop_database(name)


class SlowSink(MemorySink):
    """Takes its time with every write, as a slow store would, and tells when the first bytes came."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.begun = threading.Event()
        self._seconds = seconds

    def before_write(self, name: str, size: int) -> None:
        if name.endswith(".dat"):
            self.begun.set()
            time.sleep(self._seconds)
        super().before_write(name, size)


def after_begun(sink: SlowSink, act: Callable[[], None]) -> None:
    """Do something in another thread once the sink got its first bytes of a table."""

    def run() -> None:
        sink.begun.wait(30)
        act()

    threading.Thread(target=run).start()


def sessions_of_drd(server: Postgres) -> int:
    """Count the sessions that drd or its tools hold."""
    with server.connect() as session:
        row = session.execute(
            """SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('drd', 'pg_dump', 'pg_restore')
                  AND pid <> pg_backend_pid()"""
        ).fetchone()
    assert row is not None
    return int(row[0])


def tools_running_in(folder: Path) -> list[str]:
    """List processes whose command line names ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def drd_databases(server: Postgres) -> list[str]:
    """List databases of drd's temporary naming."""
    with server.connect() as session:
        return [r[0] for r in session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'drd_restore_%'")]


def test_wrong_password(postgres: Postgres, tmp_path: Path) -> None:
    """A wrong password is refused in words, with what to check, and is not shown."""
    engine = engine_for(postgres, password=Secret("not-the-password"))
    with pytest.raises(SourceRefused, match="password authentication failed") as caught:
        dump_of(engine, tmp_path)
    assert "password" in caught.value.hint
    assert "not-the-password" not in str(caught.value) + caught.value.hint + repr(engine)
    assert engine.check()[0].outcome == "failed"


def test_server_down(tmp_path: Path) -> None:
    """A server that is not there is unreachable, which may be tried again."""
    engine = PostgresEngine(PostgresSettings("postgresql://admin@127.0.0.1:1/x", connect_timeout_s=2))
    with pytest.raises(SourceUnreachable, match=r"cannot reach 127\.0\.0\.1:1"):
        dump_of(engine, tmp_path)


def test_missing_database(postgres: Postgres, tmp_path: Path) -> None:
    """A database that does not exist is named."""
    with pytest.raises(SourceRefused, match="no_such_db"):
        dump_of(engine_for(postgres, "no_such_db"), tmp_path)
    with pytest.raises(SourceError, match="no_such_db"):
        dump_of(engine_for(postgres, databases=("no_such_db",)), tmp_path)


def test_tools_missing_or_too_old(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Client tools that are absent, or older than the server, are refused before anything is read."""
    monkeypatch.setattr("drd.engines.postgres.tools._SYSTEM_FOLDERS", ())
    monkeypatch.setattr("shutil.which", lambda _name: None)
    settings: dict[str, Any] = {"url": postgres.url(), "password": Secret(postgres.password)}
    with pytest.raises(ToolError, match="pg_dump was not found") as caught:
        dump_of(PostgresEngine(PostgresSettings(**settings, tools_dir=tmp_path / "nowhere")), tmp_path)
    assert "postgresql-client-15" in caught.value.hint
    old = tmp_path / "old"
    old.mkdir()
    (old / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 13.4'\n")
    (old / "pg_dump").chmod(0o755)
    engine = PostgresEngine(PostgresSettings(**settings, tools_dir=old))
    with pytest.raises(ToolError, match=r"version 13\.4, older than the server's 15"):
        dump_of(engine, tmp_path)
    assert {item.name: item.outcome for item in engine.check()}["pg_dump"] == "failed"


def test_the_spool_stays_small(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """With a slow sink and a limit of 8 MiB, pg_dump is paused: a table of 50 MB never fills the spool.

    Between two looks pg_dump goes on writing, the more the busier the machine: the limit may be passed by as much, and
    was by 11 MiB; not paused at all, it would write 50.
    """
    dumped = dump_of(engine_for(postgres, big), tmp_path, SlowSink(0.01), spool_limit_bytes=8 << 20)
    peak = dumped.result.facts["spool_peak_bytes"]
    assert isinstance(peak, int)
    assert peak <= 3 * (8 << 20)
    assert dumped.result.fingerprint.items[f"{big}.public.big"]["rows"] == BIG_ROWS
    assert sum(map(len, dumped.artifacts.values())) > 45 << 20


def test_a_look_at_the_spool_that_is_old_when_it_is_judged(
    postgres: Postgres, big: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine all that a look saw may be shipped before pg_dump is paused for it: that is no full spool."""
    look = SpoolShipper._look

    def slowly(shipper: SpoolShipper, child: Child | None) -> int:
        usage = look(shipper, child)
        time.sleep(0.03)
        return usage

    monkeypatch.setattr(SpoolShipper, "_look", slowly)
    dumped = dump_of(engine_for(postgres, big), tmp_path, spool_limit_bytes=8 << 20)
    assert dumped.result.fingerprint.items[f"{big}.public.big"]["rows"] == BIG_ROWS


def test_a_spool_that_cannot_free_blocks(
    postgres: Postgres, big: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hole punching a table larger than the spool is refused by name; smaller ones go, with a notice."""
    monkeypatch.setattr("drd.engines.postgres.spool.punch_hole", lambda *_a: False)
    with pytest.raises(SourceError, match=r"cannot free .*public\.big"):
        dump_of(engine_for(postgres, big), tmp_path, spool_limit_bytes=8 << 20)
    dumped = dump_of(engine_for(postgres, big), tmp_path, spool_limit_bytes=512 << 20)
    assert [notice.code for notice in dumped.result.notices] == ["spool-cannot-free"]


def test_cancelled_while_dumping(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """A cancelled dump raises Cancelled at once and leaves no process and no session."""
    cancel, sink = CancelToken(), SlowSink(0.05)
    after_begun(sink, cancel.cancel)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        dump_of(engine_for(postgres, big), tmp_path, sink, cancel=cancel, spool_limit_bytes=8 << 20)
    assert time.monotonic() - began < 15
    assert eventually(lambda: tools_running_in(tmp_path) == [])  # a worker that was killed goes a moment later
    assert eventually(lambda: sessions_of_drd(postgres) == 0)


def test_the_sink_fails_while_dumping(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """The sink's own error comes out, and pg_dump is gone."""
    with pytest.raises(IntegrityError, match="planted failure"):
        dump_of(engine_for(postgres, big), tmp_path, MemorySink(fail_after_bytes=5 << 20))
    assert eventually(lambda: tools_running_in(tmp_path) == [])  # a worker that was killed goes a moment later
    assert eventually(lambda: sessions_of_drd(postgres) == 0)


def test_the_server_dies_while_dumping(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """A server that is killed in the middle of a dump makes it fail as unreachable, without anything left."""
    server = start_postgres()
    with server.connect() as session:
        session.execute("CREATE TABLE big AS SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 200000) n")
    sink = SlowSink(0.05)
    pid = int((server.data_dir / "postmaster.pid").read_text().split()[0])
    after_begun(sink, lambda: os.kill(pid, signal.SIGQUIT))
    with pytest.raises(SourceUnreachable):
        dump_of(engine_for(server), tmp_path, sink, spool_limit_bytes=8 << 20)
    assert eventually(lambda: tools_running_in(tmp_path) == [])  # a worker that was killed goes a moment later


def test_a_locked_table_is_named(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """When somebody holds a table against readers, the dump gives up after its lock timeout and names the table."""
    with postgres.connect(big) as holder, holder.transaction():
        holder.execute("LOCK TABLE small IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceError, match=r"lock on .*small"):
            dump_of(engine_for(postgres, big, lock_timeout_s=0.5), tmp_path)


def test_a_role_that_may_not_read(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """A role without rights is refused by pg_dump's own words; check says which table, and how to grant it."""
    with postgres.connect() as session:
        session.execute("CREATE ROLE weak LOGIN PASSWORD 'weak'")
    try:
        engine = engine_for(postgres, big, user="weak", password=Secret("weak"))
        with pytest.raises(SourceError, match="permission denied for table"):
            dump_of(engine, tmp_path)
        failed = [item for item in engine.check() if item.outcome == "failed"]
        assert "public." in failed[0].detail
        assert "GRANT pg_read_all_data TO weak" in failed[0].hint
        with postgres.connect() as session:
            session.execute("GRANT pg_read_all_data TO weak")
        assert not [item for item in engine.check() if item.outcome == "failed"]
        with postgres.connect(big) as session:
            session.execute("REVOKE pg_read_all_data FROM weak")
            session.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak")
        dumped = dump_of(engine, tmp_path)
        assert "roles-without-passwords" in {notice.code for notice in dumped.result.notices}
        assert b"CREATE ROLE weak" in dumped.artifacts["globals.sql"]
    finally:
        with postgres.connect(big) as session:
            session.execute("DROP OWNED BY weak")
            session.execute("DROP ROLE weak")


def test_all_checks_of_a_healthy_server(postgres: Postgres, big: str) -> None:
    """On a healthy server every check is ok and says what it saw."""
    items = engine_for(postgres, big).check()
    assert {item.outcome for item in items} == {"ok"}
    assert [item.name for item in items] == [
        "server",
        "pg_dump",
        "pg_dumpall",
        "pg_restore",
        "roles",
        f"database {big}",
    ]
    probe = engine_for(postgres, big).probe()
    assert probe.size_bytes is not None
    assert probe.size_bytes > 40 << 20


@pytest.fixture(scope="module")
def dumped(postgres: Postgres, big: str, tmp_path_factory: pytest.TempPathFactory) -> Dumped:
    """Give a dump of the big database."""
    return dump_of(engine_for(postgres, big), tmp_path_factory.mktemp("dumped"))


def test_a_target_that_holds_data_is_left_alone(
    postgres: Postgres, pg_database: str, dumped: Dumped, tmp_path: Path
) -> None:
    """A database with anything in it is refused, in words that say what is there, and nothing is touched."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE precious AS SELECT n FROM generate_series(1, 20000) n")
    target = engine_for(postgres, pg_database)
    state = target.inspect(dumped.backup, dumped.reader)
    assert not state.empty
    with pytest.raises(TargetNotEmpty, match=r"already holds 1 table \(20,000 rows in the largest\)"):
        restore_of(target, dumped, tmp_path)
    with postgres.connect(pg_database) as session:
        assert session.execute("SELECT count(*) FROM precious").fetchone() == (20000,)
    assert drd_databases(postgres) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE VIEW v AS SELECT 1", "1 views, sequences or foreign tables"),
        ("CREATE SCHEMA mine", "1 schemas"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "1 functions"),
        ("CREATE TYPE mood AS ENUM ('calm')", "types"),
        ("SELECT lo_from_bytea(0, 'x')", "1 large objects"),
    ],
)
def test_anything_of_people_makes_a_target_not_empty(
    postgres: Postgres, pg_database: str, dumped: Dumped, statement: str, words: str
) -> None:
    """A view, a schema, a function, a type or a large object alone is enough."""
    with postgres.connect(pg_database) as session:
        session.execute(statement.encode())
    state = engine_for(postgres, pg_database).inspect(dumped.backup, dumped.reader)
    assert not state.empty
    assert words in state.detail


def test_an_empty_target_is_replaced(postgres: Postgres, pg_database: str, dumped: Dumped, tmp_path: Path) -> None:
    """A database that exists and is empty, even with an extension, becomes the restored one."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE EXTENSION hstore")
    target = engine_for(postgres, pg_database)
    assert target.inspect(dumped.backup, dumped.reader).empty
    restore_of(target, dumped, tmp_path)
    assert differences(target, dumped, tmp_path) == []
    assert drd_databases(postgres) == []


def test_an_empty_target_in_use_is_filled(postgres: Postgres, pg_database: str, dumped: Dumped, tmp_path: Path) -> None:
    """An empty database that somebody is connected to cannot be swapped; it is filled where it is."""
    target = engine_for(postgres, pg_database)
    with postgres.connect(pg_database):
        restore_of(target, dumped, tmp_path)
        assert differences(target, dumped, tmp_path) == []


def test_a_damaged_backup_is_not_published(postgres: Postgres, restored: str, dumped: Dumped, tmp_path: Path) -> None:
    """When a part fails its check in the middle of a table, no database appears and none of drd's stays."""
    name = next(name for name in dumped.artifacts if name.endswith(".dat") and "toc" not in name)
    cut = Dumped(dumped.result, {**dumped.artifacts, name: dumped.artifacts[name][:-7]}, dumped.backup)
    with pytest.raises(IntegrityError, match="cut short"):
        restore_of(engine_for(postgres, restored), cut, tmp_path)
    assert drd_databases(postgres) == []
    assert engine_for(postgres, restored).inspect(dumped.backup, dumped.reader).description.endswith("(absent)")


def test_a_failed_restore_in_place_is_taken_out(
    postgres: Postgres, pg_database: str, dumped: Dumped, tmp_path: Path
) -> None:
    """A restore into a database that cannot be swapped leaves it empty when it fails."""
    name = next(name for name in dumped.artifacts if name.endswith(".dat") and "toc" not in name)
    cut = Dumped(dumped.result, {**dumped.artifacts, name: dumped.artifacts[name][:-7]}, dumped.backup)
    target = engine_for(postgres, pg_database)
    with postgres.connect(pg_database), pytest.raises(IntegrityError):
        restore_of(target, cut, tmp_path)
    assert target.inspect(dumped.backup, dumped.reader).empty


def test_cancelled_while_restoring(postgres: Postgres, restored: str, dumped: Dumped, tmp_path: Path) -> None:
    """A cancelled restore leaves no database, no process and no session."""
    cancel = CancelToken()

    def watch() -> None:
        with postgres.connect() as session:
            eventually(
                lambda: bool(
                    session.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY public.%'").fetchone()
                )
            )
        cancel.cancel()

    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(Cancelled):
        restore_of(engine_for(postgres, restored), dumped, tmp_path, cancel=cancel)
    thread.join()
    assert drd_databases(postgres) == []
    assert eventually(lambda: tools_running_in(tmp_path) == [])  # a worker that was killed goes a moment later
    assert eventually(lambda: sessions_of_drd(postgres) == 0)


def test_a_missing_extension_is_named_first(
    postgres: Postgres, pg_database: str, restored: str, tmp_path: Path
) -> None:
    """An extension that the target cannot have is named before anything is created."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE EXTENSION hstore")
    dumped = dump_of(engine_for(postgres, pg_database), tmp_path)
    text = dumped.artifacts["databases.json"].replace(b'"hstore"', b'"postgis"')
    changed = Dumped(dumped.result, {**dumped.artifacts, "databases.json": text}, dumped.backup)
    with pytest.raises(TargetError, match=r"lacks extensions .*postgis"):
        restore_of(engine_for(postgres, restored), changed, tmp_path)
    assert drd_databases(postgres) == []


def test_leftovers_of_a_killed_restore_are_swept(
    postgres: Postgres, restored: str, dumped: Dumped, tmp_path: Path
) -> None:
    """A database that a killed restore left is recognised by its name and mark and dropped by the next one."""
    with postgres.connect() as session:
        session.execute("CREATE DATABASE drd_restore_abcdef_orders")
        session.execute(f"COMMENT ON DATABASE drd_restore_abcdef_orders IS '{place.UNFINISHED}'")
    result = restore_of(engine_for(postgres, restored), dumped, tmp_path)
    assert "leftover-removed" in {notice.code for notice in result.notices}
    assert drd_databases(postgres) == []


def test_a_restore_that_died_in_its_first_moment_is_swept(
    postgres: Postgres, restored: str, dumped: Dumped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended between the statement that makes the database and the one that comments on it: it is known all the same."""
    with monkeypatch.context() as patch:
        patch.setattr(place, "UNFINISHED", object())  # which the second statement cannot spell
        with pytest.raises(TargetError, match="cannot adapt"):
            restore_of(engine_for(postgres, restored), dumped, tmp_path)
    (left,) = drd_databases(postgres)
    with postgres.connect() as session:
        session.execute("CREATE DATABASE drd_restore_of_a_person")
    result = restore_of(engine_for(postgres, restored), dumped, tmp_path)
    assert [n.message for n in result.notices if n.code == "leftover-removed"] == [
        f"dropped {left}, left by a restore that was interrupted"
    ]
    assert drd_databases(postgres) == ["drd_restore_of_a_person"]
    postgres.drop_database("drd_restore_of_a_person")


def test_a_plain_role_restores_without_owners(
    postgres: Postgres, restored: str, dumped: Dumped, tmp_path: Path
) -> None:
    """A role that may only create databases restores the content and says that owners are left out."""
    with postgres.connect() as session:
        session.execute("CREATE ROLE builder LOGIN CREATEDB PASSWORD 'builder'")
    try:
        target = engine_for(postgres, restored, user="builder", password=Secret("builder"))
        result = restore_of(target, dumped, tmp_path)
        assert differences(target, dumped, tmp_path) == []
        assert "owners-not-restored" in {notice.code for notice in result.notices}
    finally:
        postgres.drop_database(restored)
        with postgres.connect() as session:
            session.execute("DROP ROLE builder")


def test_killed_with_nine_while_dumping(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """After kill -9 of drd its pg_dump and all workers are gone, also when they were paused."""
    code = f"""
import sys
from pathlib import Path
from typing import Any
from drd.model import Secret
from drd.engines.children import Child
from drd.engines.postgres import place
from drd.engines.postgres.engine import PostgresEngine
from drd.engines.postgres.settings import PostgresSettings
from drd.engines.postgres.spool import SpoolShipper
from tests.support.artifacts import MemorySink, work_context
import time
class Stuck(MemorySink):
    def before_write(self, name, size):
        if name.endswith(".dat") and "toc" not in name:
            print("writing", flush=True)
            time.sleep(600)
engine = PostgresEngine(PostgresSettings({postgres.url(big)!r}, Secret(sys.stdin.readline().strip())))
engine.dump(Stuck(), work_context(Path({str(tmp_path)!r}), spool_limit_bytes=8 << 20))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(postgres.password.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"writing\n"
        time.sleep(1)  # long enough for the spool to fill and pg_dump to be paused
        running = tools_running_in(tmp_path)
        process.kill()
    assert any("pg_dump" in line for line in running)
    assert not any(postgres.password in line for line in running)
    assert eventually(lambda: tools_running_in(tmp_path) == [])
    assert eventually(lambda: sessions_of_drd(postgres) == 0)


def test_no_secret_in_any_error(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """Errors, their causes' text included, never hold the password."""
    with postgres.connect(big) as holder, holder.transaction():
        holder.execute("LOCK TABLE small IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DrdError) as caught:
            dump_of(engine_for(postgres, big, lock_timeout_s=0.2), tmp_path)
    assert postgres.password not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_full_spool(postgres: Postgres, big: str, tmp_path: Path) -> None:
    """A spool whose disk is full is named as such."""
    disk = tmp_path / "tiny"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(DrdError, match=r"spool .* is full") as caught:
            dump_of(engine_for(postgres, big), disk, SlowSink(0.05))
        assert "free space" in caught.value.hint
    finally:
        subprocess.run(["umount", disk], check=True)


def test_databases_that_change_while_dumping(postgres: Postgres, pg_database: str, tmp_path: Path) -> None:
    """Rows written after the snapshot are not in the backup, and the recovery point is not later than they are."""
    with postgres.connect(pg_database) as session:
        session.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 10) n")

        class Writing(MemorySink):
            def open(self, name: str, *, cut: Cut = "size") -> MemoryWriter:
                with contextlib.suppress(psycopg.Error):
                    session.execute("INSERT INTO t VALUES (999)")
                return super().open(name, cut=cut)

        dumped = dump_of(engine_for(postgres, pg_database), tmp_path, Writing())
        after = session.execute("SELECT clock_timestamp()").fetchone()
    assert after is not None
    assert dumped.result.recovery_point < after[0]
    assert dumped.result.fingerprint.items[f"{pg_database}.public.t"]["rows"] == 10
    assert in_spool(tmp_path).spool_dir.is_dir()
