"""Incremental backups that leave page ranges unread: whatever happens between two of them, each says what was there."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from devstack.postgres import Postgres
from drd.engines.postgres import ranges, unchanged
from drd.errors import SourceRefused
from drd.model import Json, Secret
from drd.ops.verify import verify
from tests.conftest import StartPostgres
from tests.support.artifacts import MemorySink
from tests.support.changed_shop import ROWS, ChangedShop, ranges_of
from tests.support.postgres_engine import dump_of, engine_for

pytestmark = pytest.mark.integration

MAJORS = (15, 18)
SEEDS = tuple(int(seed) for seed in os.environ.get("DRD_CHANGED_SEEDS", "1").split())
STEPS = int(os.environ.get("DRD_CHANGED_STEPS", "12"))


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a table of some 600 pages one of many ranges, as a table of gigabytes is."""
    monkeypatch.setattr(ranges, "LEAST_PAGES", 32)
    monkeypatch.setattr(unchanged, "LEAST_PAGES", 32)


@pytest.fixture(params=MAJORS)
def server(request: pytest.FixtureRequest, postgres: Postgres, start_postgres: StartPostgres) -> Postgres:
    return postgres if request.param == postgres.major else start_postgres(major=request.param)


@pytest.fixture
def shop(server: Postgres, tmp_path: Path) -> Iterator[ChangedShop]:
    database = server.fresh_database()
    yield ChangedShop.open(server, database, tmp_path)
    server.drop_database(database)


def demand_read(shop: ChangedShop, *, all_of_it: bool) -> None:
    """Demand that the next backup reads everything, or hardly anything, and is right."""
    backup = shop.backup()
    total, read = ranges_of(backup)
    assert total > 10
    assert read == total if all_of_it else read < total // 2, (total, read)
    assert shop.differences(backup) == []


def test_what_did_not_change_is_not_read(shop: ChangedShop, tmp_path: Path) -> None:
    """A row added, changed and deleted: few ranges are read and stored; the chain verifies, restores and is right."""
    full = shop.backup()
    total, read = ranges_of(full)
    assert total == read > 15
    shop.run(
        f"INSERT INTO book (id) VALUES ({ROWS + 1})",
        "UPDATE book SET side = 'sell' WHERE id = 70",
        "DELETE FROM book WHERE id = 2000",
    )
    changed = shop.backup()
    total, read = ranges_of(changed)
    assert 2 <= read <= 5 < total
    assert changed.parent == full.id
    assert changed.stored_bytes < full.stored_bytes / 3
    assert changed.rows == ROWS
    assert shop.differences(changed) == []
    assert [one.fact for one in shop.differences(full)] == ["sha256"]  # the comparison can fail
    same = shop.backup()
    assert ranges_of(same)[1] <= 2  # ranges of a few pages make parts too small to be shared
    assert verify(shop.ports, [], deep=True).outcome == "ok"
    into = f"{shop.database}_back"
    try:
        shop.restored(same, into)
    finally:
        shop.server.drop_database(into)
    del tmp_path


def test_a_url_that_names_another_encoding(postgres: Postgres, tmp_path: Path) -> None:
    """Rows are read in the encoding of the archive, whatever the URL says of the client's."""
    database = postgres.fresh_database()
    url = f"{postgres.url(database)}?client_encoding=latin1"
    shop = ChangedShop.open(postgres, database, tmp_path, url=url)
    shop.run("UPDATE book SET pad = 'größe' WHERE id = 7", 'ALTER TABLE book RENAME TO "Büch"')
    backup = shop.backup()
    assert ranges_of(backup)[0] > 10
    assert shop.differences(backup) == []
    postgres.drop_database(database)


def _vacuum(shop: ChangedShop) -> None:
    shop.run("VACUUM book")


CHANGES: dict[str, Callable[[ChangedShop, random.Random], None]] = {
    "insert": lambda shop, _: shop.run(
        "INSERT INTO book (id) SELECT max(id) + n FROM book, generate_series(1, 40) n GROUP BY n"
    ),
    "update": lambda shop, r: shop.run(
        f"UPDATE book SET side = 'buy' WHERE id BETWEEN {(a := r.randrange(ROWS))} AND {a + 30}"
    ),
    "widen": lambda shop, r: shop.run(f"UPDATE book SET pad = pad || 'y' WHERE id % 997 = {r.randrange(997)}"),
    "delete": lambda shop, r: shop.run(f"DELETE FROM book WHERE id % 499 = {r.randrange(499)}"),
    "swap rows": lambda shop, r: shop.run(  # as many rows as before, others
        f"WITH gone AS (DELETE FROM book WHERE id % 499 = {r.randrange(499)} RETURNING id)"
        " INSERT INTO book (id) SELECT id + 1000000 FROM gone ON CONFLICT DO NOTHING",
    ),
    "rolled back": lambda shop, _: _rolled_back(shop),
    "savepoint": lambda shop, r: shop.run(
        "DO $$ BEGIN BEGIN UPDATE book SET side = 'sell' WHERE id < 50; RAISE 'no'; EXCEPTION WHEN OTHERS THEN"
        f" UPDATE book SET side = 'buy' WHERE id = {r.randrange(ROWS)}; END; END $$"
    ),
    "row locks": lambda shop, _: shop.run("BEGIN; SELECT FROM book WHERE id < 300 FOR UPDATE; COMMIT"),
    "vacuum": lambda shop, _: _vacuum(shop),
    "freeze": lambda shop, _: shop.run("VACUUM (FREEZE) book"),
    "vacuum full": lambda shop, _: shop.run("VACUUM FULL book"),
    "cluster": lambda shop, _: shop.run("CLUSTER book USING book_pkey"),
    "truncate and load": lambda shop, _: shop.run(
        "BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM book; TRUNCATE book;"
        " INSERT INTO book SELECT * FROM kept ORDER BY id; DROP TABLE kept; COMMIT"
    ),
    "column with a default": lambda shop, r: shop.run(
        f"ALTER TABLE book ADD COLUMN c{r.randrange(10**9)} int NOT NULL DEFAULT 7"
    ),
    "label": lambda shop, r: shop.run(f"ALTER TYPE side ADD VALUE 'l{r.randrange(10**9)}'"),
    "delete and move": lambda shop, r: shop.run(
        f"DELETE FROM book WHERE id BETWEEN {(a := r.randrange(ROWS))} AND {a + 300}", "VACUUM FULL book"
    ),
    "same name": lambda shop, _: shop.run(
        "BEGIN; CREATE TABLE other (LIKE book INCLUDING ALL); INSERT INTO other SELECT * FROM book ORDER BY id DESC;"
        " DROP TABLE book; ALTER TABLE other RENAME TO book;"
        " ALTER INDEX other_pkey RENAME TO book_pkey; COMMIT",
        "ANALYZE book",
    ),
}


def _rolled_back(shop: ChangedShop) -> None:
    with shop.server.connect(shop.database) as session:
        session.execute("BEGIN")
        session.execute("DELETE FROM book WHERE id % 7 = 0")
        session.execute("INSERT INTO book (id) SELECT 5000000 + n FROM generate_series(1, 200) n")
        session.execute("ROLLBACK")


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_in_between(shop: ChangedShop, seed: int) -> None:
    """A chain over changes of any kind, in any order, with transactions that stay open: each backup is of that moment.

    More seeds and steps: DRD_CHANGED_SEEDS="2 3 4", DRD_CHANGED_STEPS.
    """
    dice = random.Random(seed)
    shop.backup()
    with ExitStack() as still_open:
        for step in range(STEPS):
            told = [dice.choice(list(CHANGES)) for _ in range(dice.choice((0, 1, 1, 2, 3)))]
            if dice.random() < 0.3:  # commits some backups later; until then it is in the way of none of the changes
                still_open.enter_context(_undecided(shop, -step))
            if dice.random() < 0.4:
                still_open.close()
            for name in told:
                _tried(shop, name, dice)
            backup = shop.backup()
            assert shop.differences(backup) == [], (seed, step, told)


def _tried(shop: ChangedShop, name: str, dice: random.Random) -> None:
    """Make a change, without waiting for a transaction that holds the table."""
    try:
        with shop.server.connect(shop.database) as session:
            session.execute(f"ALTER DATABASE \"{shop.database}\" SET lock_timeout = '50ms'".encode())
        CHANGES[name](shop, dice)
    except psycopg.errors.LockNotAvailable:
        return


@contextmanager
def _undecided(shop: ChangedShop, number: int) -> Iterator[None]:
    """Hold a transaction open that wrote before the next backup, and commit it at the end."""
    with shop.server.connect(shop.database) as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO book (id) VALUES (%s)", (number,))
        session.execute("SAVEPOINT inner_one")
        session.execute("UPDATE book SET pad = 'z' WHERE id = %s", (500 - number,))
        yield
        session.execute("COMMIT")


def test_a_transaction_that_ends_between_two_backups(shop: ChangedShop) -> None:
    """What was written before a backup and committed after it is in the next one, though no page changed since."""
    with shop.server.connect(shop.database) as session:
        session.execute("BEGIN")
        session.execute("UPDATE book SET pad = 'z' WHERE id BETWEEN 1000 AND 1900 AND id % 7 = 0")  # on their pages
        session.execute("DELETE FROM book WHERE id BETWEEN 3000 AND 3100")
        shop.run("INSERT INTO book (id) VALUES (-1)", "DELETE FROM book WHERE id = -1")  # younger, and ended before
        shop.backup()
        session.execute("COMMIT")
    backup = shop.backup()
    assert backup.rows == ROWS - 101
    assert shop.differences(backup) == []


def test_a_copy_that_takes_the_place_of_the_database(postgres: Postgres, tmp_path: Path) -> None:
    """A copy of days ago under the name and the number of the database it was made from is read whole."""
    name = postgres.fresh_database()
    shop = ChangedShop.open(postgres, name, tmp_path)
    with postgres.connect() as session:
        session.execute(f'CREATE DATABASE "{name}_old" TEMPLATE "{name}"'.encode())
        (oid,) = session.execute("SELECT oid FROM pg_database WHERE datname = %s", (name,)).fetchone() or (0,)
    shop.run("UPDATE book SET pad = 'z' WHERE id < 100", "SELECT pg_current_xact_id()")
    shop.backup()
    postgres.drop_database(name)
    with postgres.connect() as session:
        session.execute(f'CREATE DATABASE "{name}" OID {oid} TEMPLATE "{name}_old"'.encode())
    demand_read(shop, all_of_it=True)
    postgres.drop_database(name)
    postgres.drop_database(f"{name}_old")


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("ALTER TABLE book ENABLE ROW LEVEL SECURITY", "BYPASSRLS"),
        ("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM public", "EXECUTE on the function"),
        ("REVOKE pg_read_all_data FROM {role}", "pg_read_all_data"),
    ],
)
def test_what_the_user_lacks(
    statement: str, wanted: str, postgres: Postgres, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A user who may not read all of a table, or not ask which server it is, learns what to grant."""
    database = postgres.fresh_database()
    shop = ChangedShop.open(postgres, database, tmp_path)
    request.addfinalizer(lambda: postgres.drop_database(database))
    role = f"reads_{database}"
    shop.run(f"CREATE ROLE {role} LOGIN PASSWORD 'read' IN ROLE pg_read_all_data", statement.format(role=role))
    try:
        engine = engine_for(postgres, database, read_changed=True, user=role, password=Secret("read"))
        with pytest.raises(SourceRefused) as refused:
            dump_of(engine, tmp_path / "spools")
        assert wanted in refused.value.hint
    finally:
        shop.run(f"DROP ROLE {role}")


class HeldSink(MemorySink):
    """Takes rows only after ``act`` was called, and of the table that came first only when all others are there."""

    def __init__(self, tables: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._left = tables
        self._act = act
        self._first = ""
        self._turn = threading.Lock()
        self._others_taken = threading.Event()

    def before_write(self, name: str, size: int) -> None:
        super().before_write(name, size)
        if name.endswith(".dat"):
            with self._turn:
                if not self._first:
                    self._first = name
                    self._act()
            if name == self._first:
                self._others_taken.wait(20)

    def finish(self, name: str, data: bytes, parts: list[bytes], facts: dict[str, Json]) -> None:
        super().finish(name, data, parts, facts)
        if name.endswith(".dat"):
            self._left -= 1
            if self._left == 1:
                self._others_taken.set()


def test_somebody_who_waits_to_alter_a_table(shop: ChangedShop, tmp_path: Path) -> None:
    """Sessions that begin a table late do not wait behind an ALTER TABLE that waits for the backup."""
    names = [f"shelf_{number}" for number in range(4)]
    for name in names:
        shop.run(f"CREATE TABLE {name} AS TABLE book", f"ANALYZE {name}")
    engine = engine_for(shop.server, shop.database, read_changed=True, lock_timeout_s=3.0)
    with ExitStack() as stack, ThreadPoolExecutor(len(names)) as pool:
        waiting = [stack.enter_context(shop.server.connect(shop.database)) for _ in names]
        altered: list[Future[object]] = []

        def alter() -> None:
            _wait_for_locks(shop, "shelf_3", "AccessShareLock", 4)  # the dump's, two readers', pg_dump's
            for session, name in zip(waiting, names, strict=True):
                altered.append(pool.submit(session.execute, f"ALTER TABLE {name} ADD COLUMN more int".encode()))
            for name in names:
                _wait_for_locks(shop, name, "AccessExclusiveLock", 1)

        dumped = dump_of(engine, tmp_path / "spools", HeldSink(len(names) + 1, alter), jobs=2)
        for future in altered:
            future.result(10)
    assert dumped.result.rows == ROWS * (len(names) + 1)


def _wait_for_locks(shop: ChangedShop, table: str, mode: str, wanted: int) -> None:
    """Wait until so many sessions hold such a lock of a table, or wait for it."""
    counted = "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND mode = %s"
    with shop.server.connect(shop.database) as session:
        for _ in range(500):
            row = session.execute(counted, (table, mode)).fetchone()
            if row is not None and row[0] >= wanted:
                return
            time.sleep(0.02)
    raise AssertionError(f"{mode} of {table}: {row}, not {wanted}")


MOVED = (
    # as many rows to a page and a range as before, none of them young, and all of them elsewhere
    ("DELETE FROM book WHERE id <= 300", "VACUUM FULL book"),
    ("DELETE FROM book WHERE id <= 600", "CLUSTER book USING book_pkey"),
    ("ALTER TYPE side RENAME VALUE 'sell' TO 'sold'",),
    ("ALTER TABLE book ADD COLUMN fee numeric NOT NULL DEFAULT 0.5",),
    ("ALTER TABLE book DROP COLUMN fee",),
    ("ALTER TABLE book RENAME COLUMN pad TO stuffing",),
    ("CREATE TABLE other AS TABLE book", "DROP TABLE book", "ALTER TABLE other RENAME TO book", "ANALYZE book"),
)


def test_rows_whose_place_or_text_changed_are_read(shop: ChangedShop) -> None:
    """What changes where rows lie or how they read, though no row is new, makes the whole table be read."""
    shop.backup()
    for statements in MOVED:
        shop.run(*statements)
        demand_read(shop, all_of_it=True)
    demand_read(shop, all_of_it=False)


def test_a_prepared_transaction(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """A transaction that is prepared during a backup and committed after it is in the next one."""
    server = start_postgres(settings={"max_prepared_transactions": "2"})
    shop = ChangedShop.open(server, server.fresh_database(), tmp_path)
    shop.run("BEGIN; DELETE FROM book WHERE id BETWEEN 100 AND 300; PREPARE TRANSACTION 'later'")
    shop.backup()
    shop.run("COMMIT PREPARED 'later'")
    backup = shop.backup()
    assert backup.rows == ROWS - 201
    assert shop.differences(backup) == []


def test_rows_that_are_older_than_half_of_all_numbers(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """Rows frozen more than 2^31 transactions ago count as old, though their numbers lie ahead of today's."""
    server = start_postgres(settings={"autovacuum": "off"})
    shop = ChangedShop.open(server, server.fresh_database(), tmp_path)
    for database in (shop.database, "postgres"):
        with server.connect(database) as session:
            session.execute("VACUUM FREEZE")
    server.stop()
    number = 3000 << 20  # the first in a segment of the commit log, which is 256 KiB of zeros before
    log = server.data_dir / "pg_xact" / f"{3000:04X}"
    log.write_bytes(bytes(256 << 10))
    owner = server.data_dir.stat()
    os.chown(log, owner.st_uid, owner.st_gid)
    server.tool("pg_resetwal", "-f", "-x", str(number + 100), "-D", str(server.data_dir))
    server.start()
    shop.backup()
    shop.run("UPDATE book SET side = 'sell' WHERE id = 71")
    demand_read(shop, all_of_it=False)


def test_after_a_restart_everything_is_read(start_postgres: StartPostgres, tmp_path: Path) -> None:
    """A server that was restarted may have been anything in between (a restored or rolled back one): all is read."""
    server = start_postgres()
    shop = ChangedShop.open(server, server.fresh_database(), tmp_path)
    shop.backup()
    demand_read(shop, all_of_it=False)
    server.stop()
    server.start()
    demand_read(shop, all_of_it=True)
    demand_read(shop, all_of_it=False)


@pytest.mark.parametrize("major", MAJORS)
def test_after_a_crash_within_the_server(major: int, start_postgres: StartPostgres, tmp_path: Path) -> None:
    """Commits that a crash lost are not in the chain, though their numbers are given out again and nobody restarted."""
    settings = {"autovacuum": "off", "wal_buffers": "16MB", "wal_writer_delay": "10s", "wal_writer_flush_after": "2GB"}
    server = start_postgres(major=major, settings=settings)
    shop = ChangedShop.open(server, server.fresh_database(), tmp_path)
    started = started_at(shop)
    shop.run("CHECKPOINT")
    with stopped_wal_writer(shop):
        shop.run("SET synchronous_commit = off; SELECT pg_current_xact_id()")  # the number that VACUUM will take
        lost_number = insert_unflushed(shop, 7_000_000)
        lost = shop.backup()
        assert lost.rows == ROWS + 600
        crash_a_backend(shop)
    wait_until_recovered(shop)
    assert started_at(shop) == started
    shop.run("VACUUM book")  # the same pages are given out again, too
    assert insert_unflushed(shop, 8_000_000) == lost_number
    backup = shop.backup()
    assert backup.rows == ROWS + 600
    assert shop.differences(backup) == []
    assert [one.fact for one in shop.differences(lost)] == ["sha256"]  # the crash did lose what that one saw


@contextmanager
def stopped_wal_writer(shop: ChangedShop) -> Iterator[None]:
    """Keep the server's WAL writer from bringing anything to the disk; go on while it is about to be killed."""
    with shop.server.connect(shop.database) as session:
        row = session.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'").fetchone()
    assert row is not None
    os.kill(row[0], signal.SIGSTOP)
    try:
        yield
        time.sleep(0.5)  # until the server has told it to quit
    finally:
        os.kill(row[0], signal.SIGCONT)


def insert_unflushed(shop: ChangedShop, start: int) -> int:
    """Insert 600 rows in a transaction that does not wait for the disk; return its number."""
    with shop.server.connect(shop.database) as session, session.transaction():
        session.execute("SET LOCAL synchronous_commit = off")
        session.execute("INSERT INTO book (id) SELECT %s + n FROM generate_series(1, 600) n", (start,))
        row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


def started_at(shop: ChangedShop) -> object:
    """Return when the server was started, as it says."""
    with shop.server.connect(shop.database) as session:
        return session.execute("SELECT pg_postmaster_start_time()").fetchone()


def crash_a_backend(shop: ChangedShop) -> None:
    """Kill a backend of our own server, so that the server throws its memory away and recovers."""
    with shop.server.connect(shop.database) as session:
        os.kill(session.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT pg_sleep(10)")


def wait_until_recovered(shop: ChangedShop) -> None:
    """Wait until the server takes connections again."""
    for _ in range(200):
        try:
            shop.run("SELECT 1")
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the server did not come back")
