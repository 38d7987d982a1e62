"""Measure what a drill costs: the demo's three databases drilled in containers, and drd beside the bare restore.

``python benchmarks/drills.py [--scale 1] [--rounds 3] [--runtime docker|process]``

Whole drills of the trading platform in the demo's size, from SeaweedFS, encrypted, with the shipped suite: target 60 s
on two cores. Then the restore inside each drill (the phases fetch and restore) beside what the engine's own tool takes
for the same data from local disk into a server that is set up the same: pg_restore -j into a scratch PostgreSQL, a
redis-server that loads the snapshot as a file, RESTORE from a local disk of ClickHouse. drd also fetches, decrypts,
decompresses and digests, gathers statistics (ANALYZE) and, for ClickHouse, reads every part back (CHECK TABLE): the
second line of ClickHouse has that on both sides. Target: 1.15 times the bare restore. Rounds are taken in turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from measuring import Drd, headline, require_programs

from devstack import docker, images, state
from devstack.clickhouse import ClickHouse
from devstack.stack import Stack
from devstack.trading import CLICKHOUSE_DATABASE, POSTGRES_DATABASE
from devstack.workspace import Workspace
from drd.cancel import CancelToken
from drd.model import EngineKind, ScratchSpec
from drd.scratch.process import ProcessRuntime

WHOLE_S, OVERHEAD = 60.0, 1.15
ENGINES: tuple[EngineKind, ...] = ("postgres", "redis", "clickhouse")
SOURCES = {"trading-postgres": "postgres", "trading-redis": "redis", "market-data": "clickhouse"}
RDB = "bench.rdb"


def main() -> None:
    """Load, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", choices=("docker", "process"), default="docker")
    args = parser.parse_args()
    require_programs("redis-server", "redis-cli")
    with ExitStack() as stack:
        workspace = stack.enter_context(Workspace.create())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drd-bench-")))
        folder.chmod(0o711)
        host = stack.enter_context(docker.engine()) if args.runtime == "docker" else ""
        servers = Stack.start(workspace)
        rows = servers.load(args.scale)
        headline(f"The trading platform, {sum(rows.values()):,} rows and keys; {args.rounds} rounds")
        Bench(servers, folder, host).measure(args.rounds)


class Bench:
    """The platform, backed up, and the same data in the forms that the engines' own tools restore from."""

    def __init__(self, servers: Stack, folder: Path, host: str) -> None:
        if not (servers.postgres and servers.redis and servers.clickhouse and servers.clickhouse_target):
            raise SystemExit("this benchmark needs every server of the stack")
        self.postgres, self.redis = servers.postgres, servers.redis
        self.clickhouse, self.clickhouse_target = servers.clickhouse, servers.clickhouse_target
        self.folder = folder
        (folder / "stack").mkdir(mode=0o700)
        config: dict[str, Any] = yaml.safe_load(state.write(servers, folder / "stack").read_text())
        self.runtime = "docker" if host else "process"
        config["drills"]["trading"]["runtime"] = self.runtime
        scratch: dict[str, Any] = {"dir": str(folder / "scratch"), **config["scratch"]}
        if host:
            scratch["docker"] = {"host": host, "images": {e: images.image(host, e) for e in ENGINES}, "pull": False}
        drd_folder = folder / "drd"
        self.drd = Drd(drd_folder, config | {"scratch": scratch}, {})
        shutil.copytree(folder / "stack" / state.SECRETS, drd_folder / state.SECRETS)
        self.bare: dict[str, list[float]] = {engine: [] for engine in (*ENGINES, "clickhouse, CHECK TABLE on both")}
        self.drilled: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        self.walls: list[float] = []
        self.runs: list[dict[str, Any]] = []

    def measure(self, rounds: int) -> None:
        """Take turns, and print."""
        self.drd("backup", "now")
        self.prepare()
        for _ in range(rounds):
            self.drill()
            for engine, restore in self.restores().items():
                restore(engine)
        self.show()

    def prepare(self) -> None:
        """Make what the engines' own tools restore from."""
        self.dump = self.folder / "dump"
        what = f"--dbname={self.postgres.url(POSTGRES_DATABASE)}"
        self.tool("pg_dump", "-Fd", "-j2", "-Z0", f"--file={self.dump}", what, password=self.postgres.password)
        env = {**os.environ, "REDISCLI_AUTH": self.redis.password}
        command = ["redis-cli", "-h", self.redis.host, "-p", str(self.redis.port), "--rdb", str(self.folder / RDB)]
        subprocess.run(command, env=env, check=True, capture_output=True)
        self.clickhouse.query(f"BACKUP DATABASE {CLICKHOUSE_DATABASE} TO Disk('backups', 'bench')")

    def drill(self) -> None:
        """Drill all three, as a process of its own."""
        run = self.drd("drill", "now")
        self.walls.append(run.wall_s)
        self.runs = run.document["runs"]
        for found in self.runs:
            self.drilled[SOURCES[found["source"]]].append(found["phases"]["fetch"] + found["phases"]["restore"])

    def restores(self) -> dict[str, Callable[[str], None]]:
        """Return how each engine restores by itself."""
        return {"postgres": self.pg_restore, "redis": self.load_rdb, "clickhouse": self.restore_database}

    def tool(self, name: str, *options: str, password: str) -> None:
        """Run a client tool of PostgreSQL's."""
        argv = [str(self.postgres.bin_dir / name), *options]
        subprocess.run(argv, env={**os.environ, "PGPASSWORD": password}, check=True)

    def pg_restore(self, engine: str) -> None:
        """Time pg_restore into a scratch server, which is there before."""
        runtime = ProcessRuntime(self.folder / "bare", now=lambda: datetime.now(UTC))
        version = next(run["environment"]["server version"] for run in self.runs if SOURCES[run["source"]] == engine)
        limits = {"memory_bytes": 2 << 30, "cpus": 2.0, "pids": 1024, "disk_bytes": 100 << 30, "expires_s": 3600.0}
        with runtime.start(ScratchSpec("postgres", version, 1, **limits), CancelToken()) as server:  # type: ignore[arg-type]
            password, url = server.endpoint.password.reveal(), server.endpoint.url
            self.tool("psql", "--quiet", f"--dbname={url}", "--command=CREATE DATABASE back", password=password)
            into = f"--dbname={url.rpartition('/')[0]}/back"
            started = time.perf_counter()
            self.tool("pg_restore", "-Fd", "-j2", "--no-owner", into, str(self.dump), password=password)
            self.bare[engine].append(time.perf_counter() - started)

    def load_rdb(self, engine: str) -> None:
        """Time a redis-server from its start until it has loaded the snapshot."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copy(self.folder / RDB, folder / "dump.rdb")
        socket = folder / "s"
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "", "--appendonly", "no"]
        started = time.perf_counter()
        with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as process:
            while (
                b"PONG"
                not in subprocess.run(["redis-cli", "-s", str(socket), "ping"], capture_output=True, check=False).stdout
            ):
                time.sleep(0.01)
            self.bare[engine].append(time.perf_counter() - started)
            process.kill()

    def restore_database(self, engine: str) -> None:
        """Time RESTORE from a local disk, and with a CHECK TABLE of every table."""
        target = self.clickhouse_target
        started = time.perf_counter()
        target.query(f"RESTORE DATABASE {CLICKHOUSE_DATABASE} FROM Disk('backups', 'bench')")
        self.bare[engine].append(time.perf_counter() - started)
        for name in _merge_trees(target):
            target.query(f"CHECK TABLE {CLICKHOUSE_DATABASE}.`{name}`")
        self.bare["clickhouse, CHECK TABLE on both"].append(time.perf_counter() - started)
        target.query(f"DROP DATABASE {CLICKHOUSE_DATABASE} SYNC")

    def show(self) -> None:
        """Print both tables."""
        median, best = statistics.median(self.walls), min(self.walls)
        word = "met" if best <= WHOLE_S else "MISSED"
        print(
            f"  drd drill now, all three, {self.runtime}: median {median:.1f} s, best {best:.1f} s"
            f" (target ≤ {WHOLE_S:.0f} s: {word})"
        )
        for run in self.runs:
            phases = "  ".join(f"{name} {seconds:.2f}" for name, seconds in run["phases"].items())
            print(f"    {run['source']:<18} {run['verdict']}  {phases}  ({run['plain_bytes'] >> 20} MiB)")
            slow = sorted(run["checks"], key=lambda check: -check["duration_s"])[:5]
            print("      " + "  ".join(f"{check['name']} {check['duration_s']:.2f}" for check in slow))
        print(f"  {'restore in the drill / bare':<34} bare s   drill s   × median   × best   target")
        for engine, bare in self.bare.items():
            drilled = self.drilled[engine.partition(",")[0]]
            ratios = statistics.median(drilled) / statistics.median(bare), min(drilled) / min(bare)
            print(
                f"  {engine:<34} {min(bare):6.2f}   {min(drilled):7.2f}   {ratios[0]:8.2f}   {ratios[1]:6.2f}"
                f"   ≤ {OVERHEAD}"
            )


def _merge_trees(server: ClickHouse) -> list[str]:
    rows = server.rows(
        f"SELECT name FROM system.tables WHERE database = '{CLICKHOUSE_DATABASE}' AND engine LIKE '%MergeTree'"
    )
    return [str(row["name"]) for row in rows]


if __name__ == "__main__":
    main()
