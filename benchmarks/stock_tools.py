"""The engines' own tools as ``restores.py`` uses them: lay data down for them once, restore it, and take the time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from measuring import cpu_of_tree

from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.trading import CLICKHOUSE_DATABASE, POSTGRES_DATABASE
from devstack.workspace import Workspace


class Clock:
    """Adds up the wall time, and the processor time of this process and all below it, of blocks."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._began = (0.0, 0.0)

    def __enter__(self) -> Self:
        self._began = (time.perf_counter(), cpu_of_tree(os.getpid()))
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter() - self._began[0]
        self.cpu_s += cpu_of_tree(os.getpid()) - self._began[1]


def timed() -> Clock:
    """Return a clock at zero."""
    return Clock()


def lay_down_postgres(server: Postgres, place: Path) -> None:
    """Dump uncompressed, as drd does."""
    argv = [str(server.bin_dir / "pg_dump"), "-Fd", "-j2", "-Z0", f"--file={place}"]
    env = {**os.environ, "PGPASSWORD": server.password}
    subprocess.run([*argv, f"--dbname={server.url(POSTGRES_DATABASE)}"], env=env, check=True)


def lay_down_redis(server: Redis, place: Path) -> None:
    """Fetch a snapshot."""
    place.mkdir()
    env = {**os.environ, "REDISCLI_AUTH": server.password}
    argv = ["redis-cli", "-h", server.host, "-p", str(server.port), "--rdb", str(place / "dump.rdb")]
    subprocess.run(argv, env=env, check=True, capture_output=True)


def lay_down_clickhouse(server: ClickHouse, place: Path) -> None:
    """Back up to the server's disk, and take it from there."""
    server.query(f"BACKUP DATABASE {CLICKHOUSE_DATABASE} TO Disk('backups', 'bench')")
    place.mkdir()
    subprocess.run(["tar", "-cf", place / "backup.tar", "-C", server.backups_dir / "bench", "."], check=True)


LAY_DOWN: dict[str, Callable[[Any, Path], None]] = {
    "postgres": lay_down_postgres,
    "redis": lay_down_redis,
    "clickhouse": lay_down_clickhouse,
}


def load_rdb(source: Path, folder: Path, clock: Clock) -> None:
    """Start a redis-server on the snapshot, until it answers."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        found = next(path for name in ("dump.rdb", "redis.rdb") if (path := source / name).exists())
        shutil.copy(found, Path(made) / "dump.rdb")
        socket = Path(made) / "s"
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", made, "--save", "", "--appendonly", "no"]
        with clock:
            process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
            ping = ["redis-cli", "-s", str(socket), "ping"]
            while b"PONG" not in subprocess.run(ping, capture_output=True, check=False).stdout:
                time.sleep(0.01)
        process.kill()
        process.wait()


def restore_clickhouse(source: Path, clock: Clock) -> None:
    """RESTORE from the local disk, and CHECK TABLE of every table."""
    with Workspace.create() as workspace:
        server = ClickHouse(workspace, name="clickhouse-bare").start()
        place = server.backups_dir / "bench"
        plain = source / "backup.tar"
        if plain.exists():
            place.mkdir()
            subprocess.run(["tar", "-xf", plain, "-C", place], check=True)
        with clock:
            if not plain.exists():
                place.mkdir()
                subprocess.run(["tar", "-xf", source / "clickhouse" / "backup.tar", "-C", place], check=True)
                join_parts(place)
            server.query(f"RESTORE DATABASE {CLICKHOUSE_DATABASE} FROM Disk('backups', 'bench')")
            engines = "engine LIKE '%MergeTree'"
            rows = server.rows(f"SELECT name FROM system.tables WHERE database = '{CLICKHOUSE_DATABASE}' AND {engines}")
            for row in rows:
                server.query(f"CHECK TABLE {CLICKHOUSE_DATABASE}.`{row['name']}`")


def join_parts(place: Path) -> None:
    """Put together what the server had sent in parts."""
    for first in place.rglob("*.part-00001"):
        whole = first.with_name(first.name.removesuffix(".part-00001"))
        with whole.open("wb") as out:
            for part in sorted(whole.parent.glob(f"{whole.name}.part-*")):
                out.write(part.read_bytes())
                part.unlink()
