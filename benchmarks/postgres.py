"""Measure PostgreSQL backup and restore beside pg_dump and pg_restore on the same database, in one run.

``python benchmarks/postgres.py [--scale 6] [--rounds 3] [--restores 3] [--skip-double]``

The database is the trading platform's (uuids, decimals, JSON, times); scale 24 is about 1 GB, the least for which the
targets are meant: at less, the start of the command line weighs more. drd compresses (zstd 1), encrypts (age), digests
(SHA-256 of plain and stored bytes) and counts rows; its peers do none of that, or only gzip. drd's figures are whole
processes, from the start of the interpreter to its end, on the processors that it shares with its peer's servers.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import MIB, Drd, Run, Way, headline, require_programs, shell, size_of, take_turns

from devstack.load import load_postgres
from devstack.postgres import Postgres
from devstack.s3 import SeaweedS3
from devstack.workspace import Workspace
from drd.repository.codec import generate_identity

SOURCE = "trading"
MEMORY_LIMIT_MIB, SPOOL_LIMIT_MIB = 350, 256


@dataclass
class Bench:
    """The servers, a folder for what is written, and the database to be measured."""

    postgres: Postgres
    s3: SeaweedS3
    folder: Path
    database: str
    jobs: int

    def __post_init__(self) -> None:
        identity, self.recipient = generate_identity()
        self.env = {
            "PGPASSWORD": self.postgres.password,
            "BENCH_IDENTITY": identity.reveal(),
            "BENCH_KEY": self.s3.admin.access_key_id,
            "BENCH_SECRET": self.s3.admin.secret_access_key,
        }

    def drd(self, store: dict[str, Any], database: str | None = None) -> Drd:
        """Return drd configured for a store."""
        config = {
            "store": store,
            "encryption": {"recipients": [self.recipient], "identity": {"env": "BENCH_IDENTITY"}},
            "sources": {
                SOURCE: {
                    "type": "postgres",
                    "url": self.postgres.url(database or self.database),
                    "password": {"env": "PGPASSWORD"},
                }
            },
        }
        return Drd(Path(tempfile.mkdtemp(dir=self.folder)) / "drd", config, self.env)

    def local(self) -> dict[str, Any]:
        """Return a store in a fresh folder."""
        return {"type": "local", "path": tempfile.mkdtemp(prefix="store-", dir=self.folder)}

    def bucket(self) -> dict[str, Any]:
        """Return a store in a fresh bucket."""
        return {
            "type": "s3",
            "bucket": self.s3.fresh_bucket("bench"),
            "endpoint_url": self.s3.url,
            "access_key_id": {"env": "BENCH_KEY"},
            "secret_access_key": {"env": "BENCH_SECRET"},
        }

    def tool(self, name: str, arguments: str) -> None:
        """Run one of PostgreSQL's programs of the server's own version, as a script would."""
        shell(f"{self.postgres.bin_dir / name} {arguments}", self.env)

    @property
    def pids(self) -> list[int]:
        """The servers' processes."""
        return [self.postgres.pid, self.s3.pid]


def main() -> None:
    """Load, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--restores", type=int, default=3, help="rounds of restores, which take longest; 0 for none")
    parser.add_argument("--jobs-of-peer", type=int, default=2)
    parser.add_argument("--skip-double", action="store_true", help="do not see what more data does to memory and spool")
    args = parser.parse_args()
    require_programs("gzip")
    with Workspace.create() as workspace, tempfile.TemporaryDirectory(prefix="drd-bench-") as folder:
        postgres, s3 = Postgres(workspace).start(), SeaweedS3(workspace).start()
        bench = Bench(postgres, s3, Path(folder), postgres.fresh_database("bench"), args.jobs_of_peer)
        with postgres.connect(bench.database) as connection:
            rows = load_postgres(connection, scale=args.scale)
        measure(bench, args, sum(rows.values()))


def measure(bench: Bench, args: argparse.Namespace, rows: int) -> None:
    """Measure backups, then restores, then what several times the data takes of memory and spool."""
    rounds = args.rounds
    headline(f"PostgreSQL: {database_mib(bench):.0f} MiB in the server, {rows:,} rows; best and median of {rounds}")
    directory = bench.folder / "directory"
    local, remote = backups(bench, rounds, directory)
    print(f"  drd: to a folder {local.peaks()}; to S3 {remote.peaks()}", end="")
    print(f" (limits {MEMORY_LIMIT_MIB} and {SPOOL_LIMIT_MIB} MiB)")
    if args.restores:
        restores(bench, args.restores, directory, local, remote)
    if not args.skip_double:
        more_data(bench, local, remote)


def database_mib(bench: Bench) -> float:
    """Return the size of the database in the server."""
    with bench.postgres.connect(bench.database) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return float(row[0]) / MIB if row else 0.0


def backups(bench: Bench, rounds: int, directory: Path) -> tuple[Drd, Drd]:
    """Measure all ways of making a backup; leave the peer's directory and drd's last backups for the restores."""
    piped = bench.folder / "piped.gz"
    local_store = bench.local()
    local, remote = bench.drd(local_store), bench.drd(bench.bucket())
    what = f"--dbname={bench.postgres.url(bench.database)}"
    pg_dump = bench.postgres.bin_dir / "pg_dump"
    floor = f"-Fd -j{bench.jobs} -Z0 --file={directory} {what}"
    ways = [
        Way(f"pg_dump -Fd -j{bench.jobs} -Z0 (floor)", lambda: bench.tool("pg_dump", floor), lambda: gone(directory)),
        Way("the same, --no-sync", lambda: bench.tool("pg_dump", f"--no-sync {floor}"), lambda: gone(directory)),
        Way("pg_dump | gzip", lambda: shell(f"{pg_dump} {what} | gzip > {piped}", bench.env)),
        Way("drd backup now, to a folder", lambda: local("backup", "now", "--kind", "full"), target=1.15),
        Way("drd backup now, to SeaweedFS", lambda: remote("backup", "now", "--kind", "full"), target=1.3),
    ]
    take_turns(ways, rounds, bench.pids)
    guide, ours = ways[2].seconds, ways[3].seconds
    print(f"  drd to a folder / pg_dump | gzip: {min(ours) / min(guide):.2f} in time (target ≤ 0.25)", end="")
    stored = [backup(run)["stored_bytes"] for run in local.runs][-1]
    print(f", {stored / size_of(piped):.2f} in space ({stored / MIB:.0f} of {size_of(piped) / MIB:.0f} MiB; ≤ 1.00)")
    inside = [backup(run)["duration_s"] for run in local.runs], [backup(run)["duration_s"] for run in remote.runs]
    print(f"  of which the backup itself, without start and end: {min(inside[0]):.2f} s and {min(inside[1]):.2f} s")
    return local, remote


def backup(run: Run) -> dict[str, Any]:
    """Return what drd said of the one source."""
    found: dict[str, Any] = run.document["backups"][0]
    return found


def restores(bench: Bench, rounds: int, directory: Path, local: Drd, remote: Drd) -> None:
    """Measure all ways of restoring into a database that the restore makes, or finds empty."""
    made: list[str] = []

    def fresh() -> None:
        for name in made:
            bench.postgres.drop_database(name)
        made[:] = [bench.postgres.fresh_database("back")]

    def into(drd: Drd, *options: str) -> Callable[[], object]:
        def work() -> None:
            drd("restore", "--at", "now", "--into", bench.postgres.url(made[0]), *options)

        return work

    def pg_restore() -> None:
        options = f"-Fd -j{bench.jobs} --exit-on-error --dbname={bench.postgres.url(made[0])}"
        bench.tool("pg_restore", f"{options} {directory}")

    headline("Restore into an empty database (drd also gathers statistics with ANALYZE; pg_restore does not)")
    ways = [
        Way(f"pg_restore -Fd -j{bench.jobs} from local disk", pg_restore, fresh),
        Way("drd restore --no-compare, folder", into(local, "--no-compare"), fresh, target=1.15),
        Way("drd restore --no-compare, S3", into(remote, "--no-compare"), fresh),
        Way("drd restore, read back and compared", into(local), fresh),
    ]
    before = len(local.runs)
    take_turns(ways, rounds, bench.pids)
    print(f"  drd: peak memory {max(r.peak_rss_bytes for r in local.runs[before:]) / MIB:.0f} MiB")
    for name in made:
        bench.postgres.drop_database(name)


def more_data(bench: Bench, *before: Drd) -> None:
    """Add a table of twice the largest, and see that memory and spool stay as they were."""
    held = database_mib(bench)
    with bench.postgres.connect(bench.database) as connection:
        connection.execute("CREATE TABLE orders_twice AS SELECT * FROM orders UNION ALL SELECT * FROM orders")
    headline(f"The same with {database_mib(bench) / held:.1f} times the data")
    for drd, store, name in ((before[0], bench.local(), "folder"), (before[1], bench.bucket(), "S3")):
        again = bench.drd(store)
        run = again("backup", "now", "--kind", "full")
        print(f"  to {name:<6} {again.peaks()} in {run.wall_s:.1f} s; before: {drd.peaks()}", flush=True)
        into = f"back_{uuid.uuid4().hex[:8]}"
        back = again("restore", "--at", "now", "--into", bench.postgres.url(into), "--no-compare")
        bench.postgres.drop_database(into)
        print(f"  from {name:<4} peak memory {back.peak_rss_bytes / MIB:.0f} MiB in {back.wall_s:.1f} s", flush=True)


def gone(path: Path) -> None:
    """Remove a folder if it is there."""
    shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
