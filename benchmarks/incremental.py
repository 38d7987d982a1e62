"""Measure a week of daily PostgreSQL backups beside restic and a plain daily dump, in one run.

``python benchmarks/incremental.py [--scale 5] [--days 7]``; restic: ``apt-get install restic`` (0.14 or newer).

The database is the trading platform's. Day 1 backs it up whole. Each next day 0.1 % of the orders change their state,
then 2 % new orders come, with 0.2 % new users, strategies and keys. Two weeks are measured, each from the same start:
``recent`` changes orders of the day before, as trading does; ``scattered`` changes orders of any age.

All write to folders on the same disk. drd: one ``drd backup now`` to a local store, encrypted with age, zstd 1, with
``read: changed`` and with ``read: all``. restic
encrypts as well, and compresses as it does by itself (repository version 2, ``auto``), either a directory that
``pg_dump -Fd -Z0 -j2 --no-sync`` made (which is part of its time, as it is of drd's) or what ``pg_dump`` writes to a
pipe. ``pg_dump -Fc`` is compressed and not encrypted. Bytes are those by which the files grew, everything counted.
The floor is ``pg_dump -Fd -Z0 -j2 --no-sync`` to a folder alone; all but ``read: changed`` contain one. Only ratios of
bytes say something on a busy machine; of the times, processor seconds (servers included) say most.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measuring import MIB, Drd, Way, headline, require_programs, shell, size_of

from devstack.load import grow_postgres, load_postgres
from devstack.postgres import Postgres
from devstack.workspace import Workspace
from drd.repository.codec import generate_identity

RESTIC = "apt-get install restic (0.14 or newer)"
NEW_ORDERS, NEW_OTHERS, CHANGED = 0.02, 0.002, 0.001
FLOOR = "pg_dump -Fd alone (floor)"
BYTES_TARGET, TIME_TARGET = 1.3, 0.5
DAY = timedelta(days=1)
FIRST_DAY = datetime(2026, 11, 1, tzinfo=UTC)  # always the same rows, so the same bytes

CHANGES = {
    "recent": "(SELECT id FROM orders ORDER BY created_at DESC LIMIT %(day)s) AS those",
    "scattered": "orders AS those",
}
UPDATE = """
UPDATE orders SET status = 'filled', filled_quantity = quantity, avg_fill_price = price
WHERE id IN (SELECT id FROM {those} ORDER BY md5(id::text || %(seed)s::text) LIMIT %(count)s)
"""


@dataclass
class Keeper:
    """One way to keep a backup of every day in ``folder``, with the bytes that each day added."""

    way: Way
    folder: Path
    added_bytes: list[int] = field(default_factory=list)

    def keep(self, server: int) -> None:
        """Keep today's state; ``server`` is the pid whose work belongs to it."""
        before = size_of(self.folder)
        self.way.run([server])
        self.added_bytes.append(size_of(self.folder) - before)

    def later_bytes(self) -> int:
        """Return the bytes of all days but the first."""
        return sum(self.added_bytes[1:])


def main() -> None:
    """Load, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=5.0)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--changes", choices=CHANGES, action="append", help="one kind of week only")
    args = parser.parse_args()
    require_programs("restic", how=RESTIC)
    if args.days < 2:
        parser.error("--days must be at least 2: the first is a full backup for all")
    with Workspace.create() as workspace, tempfile.TemporaryDirectory(prefix="drd-bench-") as folder:
        postgres = Postgres(workspace).start()
        start = postgres.fresh_database("start")
        with postgres.connect(start) as connection:
            load_postgres(connection, scale=args.scale, end_at=FIRST_DAY)
            connection.execute("CLUSTER orders USING idx_orders_created_at")  # as they came, not by chance
            connection.execute("VACUUM ANALYZE")
        for changes in args.changes or CHANGES:
            week(postgres, start, Path(folder) / changes, changes, args.days)


def week(postgres: Postgres, start: str, folder: Path, changes: str, days: int) -> None:
    """Live through the days with a copy of the database, keep each in every way, and print."""
    folder.mkdir()
    database = f"{start}_{changes}"
    with postgres.connect() as connection:
        connection.execute(f'CREATE DATABASE "{database}" TEMPLATE "{start}"'.encode())
    kept = keepers(postgres, database, folder)
    for day in range(days):
        if day:
            live(postgres, database, changes, day)
        for keeper in kept:
            keeper.keep(postgres.pid)
    with postgres.connect(database) as connection:
        row = connection.execute("SELECT pg_database_size(current_database()), count(*) FROM orders").fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has a row
    headline(f"{changes} orders change: {row[0] / MIB:.0f} MiB in the server, {row[1]:,} orders on the last day")
    print_days(kept)
    print_totals(kept)
    postgres.drop_database(database)


def live(postgres: Postgres, database: str, changes: str, day: int) -> None:
    """Let a day pass: some orders change their state, new ones come."""
    with postgres.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM orders").fetchone()
        orders = int(row[0]) if row else 0
        values = {"day": round(orders * NEW_ORDERS), "seed": day, "count": round(orders * CHANGED)}
        sql = UPDATE.format(those=CHANGES[changes])
        connection.execute(sql.encode(), {key: value for key, value in values.items() if f"%({key})s" in sql})
        end_at = FIRST_DAY + day * DAY
        grow_postgres(connection, orders=NEW_ORDERS, others=NEW_OTHERS, end_at=end_at, span=DAY)


def keepers(postgres: Postgres, database: str, folder: Path) -> list[Keeper]:
    """Return the ways, drd's first, each with an empty repository."""
    env = {"PGPASSWORD": postgres.password, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(folder / "cache")}
    url, pg_dump = postgres.url(database), postgres.bin_dir / "pg_dump"
    names = ("changed", "all", "restic", "stdin", "pg_dump", "floor")
    changed, everything, directory, piped, plain, floor = (folder / name for name in names)
    plain.mkdir()
    floor.mkdir()
    for repository in (directory, piped):
        shell(f"restic init -q --repository-version 2 --repo {repository}", env)
    dumped = folder / "dumped"
    alone = f"{pg_dump} -Fd -Z0 -j2 --no-sync --file={floor}/today {url}"
    directly = f"{pg_dump} -Fd -Z0 -j2 --no-sync --file={dumped} {url} && restic backup -q --repo {directory} {dumped}"
    by_pipe = f"{pg_dump} {url} | restic backup -q --repo {piped} --stdin --stdin-filename dump.sql"

    def run(command: str) -> Callable[[], None]:
        return lambda: shell(command, env)

    return [
        Keeper(Way("drd backup now, read: changed", daily(postgres, database, changed, "changed")), changed),
        Keeper(Way("drd backup now, read: all", daily(postgres, database, everything, "all")), everything),
        Keeper(Way("pg_dump -Fd, restic backup", run(directly), run(f"rm -rf {dumped}")), directory),
        Keeper(Way("pg_dump | restic --stdin", run(by_pipe)), piped),
        Keeper(Way("pg_dump -Fc", run(f'{pg_dump} -Fc --no-sync --file="$(mktemp -p {plain})" {url}')), plain),
        Keeper(Way(FLOOR, run(alone), run(f"rm -rf {floor}/today")), floor),
    ]


def daily(postgres: Postgres, database: str, store: Path, read: str) -> Callable[[], None]:
    """Return drd's run of a day: the first full, the others incremental, or the benchmark ends."""
    store.mkdir()
    _, recipient = generate_identity()
    source = {"type": "postgres", "url": postgres.url(database), "password": {"env": "PGPASSWORD"}, "read": read}
    config = {
        "store": {"type": "local", "path": str(store)},
        "encryption": {"recipients": [recipient]},
        "sources": {"trading": source},
    }
    drd = Drd(store.with_name(f"{store.name}-config"), config, {"PGPASSWORD": postgres.password})

    def run() -> None:
        kind = drd("backup", "now").document["backups"][0]["kind"]
        expected = "full" if len(drd.runs) == 1 else "incremental"
        if kind != expected:
            raise SystemExit(f"day {len(drd.runs)} was backed up as {kind}, not {expected}")

    return run


def print_days(kept: list[Keeper]) -> None:
    """Print what every day added and took in every way."""
    names = [keeper.way.name for keeper in kept]
    print("  day  " + "".join(f"{name:>34}" for name in names))
    print("       " + f"{'MiB':>14}{'wall s':>10}{'cpu s':>10}" * len(names))
    for day in range(len(kept[0].added_bytes)):
        cells = (
            f"{keeper.added_bytes[day] / MIB:14.2f}{keeper.way.seconds[day]:10.2f}{keeper.way.cpu_s[day]:10.2f}"
            for keeper in kept
        )
        print(f"  {day + 1:>3}  " + "".join(cells), flush=True)


def print_totals(kept: list[Keeper]) -> None:
    """Print the days after the first together, and both of drd's as multiples of every way's."""
    ours = kept[:2]
    print(f"  all but day 1 (targets of drd / restic: bytes ≤ {BYTES_TARGET}, time < {TIME_TARGET})")
    print(f"  {'':<30}{'MiB':>10}{'wall s':>9}{'cpu s':>9}   drd, read: changed / it; read: all / it   taken by others")
    for keeper in kept:
        others = sum(keeper.way.others[1:]) / (len(keeper.way.others) - 1)
        ratios = ";".join(
            f"  bytes {one.later_bytes() / keeper.later_bytes():.2f}, wall {_later(one, 'seconds', keeper):.2f}, "
            f"cpu {_later(one, 'cpu_s', keeper):.2f}"
            for one in ours
        )
        wall_s, cpu_s = sum(keeper.way.seconds[1:]), sum(keeper.way.cpu_s[1:])
        line = f"{keeper.later_bytes() / MIB:10.2f}{wall_s:9.2f}{cpu_s:9.2f} {ratios}"
        print(f"  {keeper.way.name:<30}{line}   {others:.1f} of {os.cpu_count()}", flush=True)


def _later(one: Keeper, what: str, other: Keeper) -> float:
    return sum(getattr(one.way, what)[1:]) / sum(getattr(other.way, what)[1:])


if __name__ == "__main__":
    main()
