"""Measure what drd adds to a restore: the restore in a drill, and ``drd restore``, beside the engines' own tools.

``python benchmarks/restores.py [--engine postgres …] [--scale 8] [--rounds 3] [--folder FOLDER]``

The trading platform at a scale is backed up once, encrypted, into a local folder, and laid down in the form that the
engine's own tool restores from. Then, in turns, each into a scratch server of its own that is set up the same:

- **bare**: the engine's tool from plain data on the local disk: ``pg_restore -Fd -j2`` of an uncompressed dump; a
  redis-server that starts on the RDB file; ClickHouse's ``RESTORE FROM Disk``, and CHECK TABLE, which drd always adds.
- **stock**: the same from what drd stored: each part through ``age -d | zstd -d`` first, two at a time (``drd runbook``
  does this one after the other, and compares digests).
- **drill**: the phases fetch and restore of a whole drill in a process of its own. All of drd's work is in it: fetch,
  digests, decryption, decompression, roles, statistics (ANALYZE), CHECK TABLE; not the checks after it.
- **drd restore**: the command as a whole, ``--no-compare``, from the start of its process to its end.

Processor seconds are those of drd or the tool and of the server together. With ``--folder`` what was prepared stays
there, and another run with it measures again at once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from measuring import MIB, as_installed, cpu_of_tree, headline, require_programs
from stock_tools import LAY_DOWN, Clock, load_rdb, restore_clickhouse, timed

from devstack import standins
from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.stack import Stack
from devstack.trading import CLICKHOUSE_DATABASE, POSTGRES_DATABASE
from devstack.workspace import Workspace
from drd import config, wiring_drills
from drd.cancel import CancelToken
from drd.errors import Cancelled
from drd.model import EngineKind, ScratchSpec
from drd.ops.drill import Request, Tick, drill
from drd.protocols import ScratchServer
from drd.repository.codec import generate_identity
from drd.scratch.process import ProcessRuntime
from drd.wiring import Services

ENGINES: tuple[EngineKind, ...] = ("postgres", "redis", "clickhouse")
SOURCE = "trading"
TARGET = 1.15
_LIMITS: dict[str, Any] = {
    "memory_bytes": 4 << 30,
    "cpus": 2.0,
    "pids": 1024,
    "disk_bytes": 100 << 30,
    "expires_s": 3600.0,
}


def main() -> None:
    """Prepare each engine's data, measure and print."""
    if sys.argv[1:2] == ["--one-drill"]:
        one_drill(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="*", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--scale", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    require_programs("age", "zstd", "redis-server", "redis-cli")
    with kept_or_temporary(args.folder) as folder:
        for engine in args.engine:
            bench = Bench(engine, folder / engine, args.scale)
            bench.measure(args.rounds, args.ways)


@contextmanager
def kept_or_temporary(folder: Path | None) -> Iterator[Path]:
    """Lend the folder that was named, or one that goes away."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="drd-bench-") as made:
            Path(made).chmod(0o711)
            yield Path(made)
    else:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        yield folder.resolve()


class Bench:
    """One engine's data: backed up by drd, and in the form that the engine's own tool restores from."""

    def __init__(self, engine: EngineKind, folder: Path, scale: float) -> None:
        self.engine = engine
        self.folder = folder
        self.stock = folder / "stock"
        self.config = folder / "drd.yaml"
        self.env = as_installed(folder / "compiled")
        self.facts_file = folder / "facts.json"
        if not self.facts_file.exists():
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.prepare(scale)
        self.facts: dict[str, Any] = json.loads(self.facts_file.read_text())
        self.measured: dict[str, list[dict[str, Any]]] = {}

    # ---- once

    def prepare(self, scale: float) -> None:
        """Fill a source, back it up, and lay its data down for the engine's own tool; the source ends with it."""
        identity, recipient = generate_identity()
        (self.folder / "identity").touch(mode=0o600)
        (self.folder / "identity").write_text(identity.reveal() + "\n")
        with Workspace.create() as workspace:
            stack = Stack.start(workspace, [self.engine])
            rows = stack.load(scale)
            server = next(item for item in (stack.postgres, stack.redis, stack.clickhouse) if item is not None)
            source: dict[str, Any] = {"type": self.engine, "password": {"env": "BENCH_PASSWORD"}}
            if isinstance(server, Postgres):
                source["url"] = server.url(POSTGRES_DATABASE)
            else:
                source["url"] = server.url
            if isinstance(server, ClickHouse):
                source |= {"databases": [CLICKHOUSE_DATABASE], "mode": "gateway"}
            document = {
                "store": {"type": "local", "path": str(self.folder / "store")},
                "encryption": {"recipients": [recipient], "identity": {"file": str(self.folder / "identity")}},
                "sources": {SOURCE: source},
                "drills": {"bench": {"runtime": "process"}},
                "scratch": {
                    "dir": str(self.folder / "scratch"),
                    "programs": {"clickhouse": str(standins.clickhouse_programs())},
                },
                "spool": {"dir": str(self.folder / "spool")},
            }
            self.config.touch(mode=0o600)
            self.config.write_text(yaml.safe_dump(document))
            password: str = server.password
            backup = self.drd("backup", "now", password=password)["backups"][0]
            LAY_DOWN[self.engine](server, self.stock)
        facts = {
            "rows": sum(rows.values()),
            "plain_bytes": backup["plain_bytes"],
            "stored_bytes": backup["stored_bytes"],
            "version": self.drd("show", backup["id"])["engine_version"],
            "backup": backup["id"],
        }
        self.facts_file.write_text(json.dumps(facts))

    def drd(self, *arguments: str, password: str = "") -> dict[str, Any]:
        """Run a verb of drd and return its document."""
        argv = [sys.executable, "-m", "drd", "--config", str(self.config), "--json", *arguments]
        run = subprocess.run(argv, env=self.env | {"BENCH_PASSWORD": password}, capture_output=True, check=False)
        if run.returncode:
            raise SystemExit(f"drd {' '.join(arguments)} ended with {run.returncode}:\n{run.stderr.decode()}")
        document: dict[str, Any] = json.loads(run.stdout)
        return document

    # ---- each round

    def measure(self, rounds: int, ways: list[str]) -> None:
        """Take turns, and print."""
        size = f"{self.facts['plain_bytes'] / MIB:.0f} MiB, stored {self.facts['stored_bytes'] / MIB:.0f} MiB"
        headline(f"{self.engine}: {self.facts['rows']:,} rows or keys, {size}; {rounds} rounds")
        for _ in range(rounds):
            for way in ways:
                self.measured.setdefault(way, []).append(WAYS[way](self))
        self.show()

    def show(self) -> None:
        """Print the table."""
        print(f"  {'':<12} median s    best s   × best    cpu s    × cpu")
        floor = next(iter(self.measured.values()))
        for way, found in self.measured.items():
            walls, cpus = sorted(item["wall_s"] for item in found), [item["cpu_s"] for item in found]
            ratio = walls[0] / min(item["wall_s"] for item in floor)
            cpu_ratio = min(cpus) / min(item["cpu_s"] for item in floor)
            said = found[-1].get("said", "")
            median = walls[len(walls) // 2]
            print(f"  {way:<12} {median:8.2f}  {walls[0]:8.2f} {ratio:8.2f} {min(cpus):8.2f} {cpu_ratio:8.2f}   {said}")

    @contextmanager
    def scratch(self) -> Iterator[ScratchServer]:
        """Start a scratch server as a drill would."""
        programs = {"clickhouse": standins.clickhouse_programs()}
        runtime = ProcessRuntime(self.folder / "bare", now=lambda: datetime.now(UTC), programs=programs)  # type: ignore[arg-type]
        spec = ScratchSpec(self.engine, self.facts["version"], self.facts["plain_bytes"], **_LIMITS)
        with runtime.start(spec, CancelToken()) as server:
            yield server

    def bare(self) -> dict[str, Any]:
        """Restore plain data with the engine's tool."""
        return self.stock_restore(self.stock, timed())

    def decoded(self) -> dict[str, Any]:
        """Decrypt and decompress what drd stored, and restore that with the engine's tool."""
        place = self.folder / "decoded"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o711)
        with timed() as clock:
            self.decode(place)
        return self.stock_restore(place, clock)

    def decode(self, place: Path) -> None:
        """Bring the artifacts back from the store by age and zstd."""
        manifest = next((self.folder / "store").rglob("manifest.json"))
        artifacts = json.loads(manifest.read_text())["artifacts"]

        def one(artifact: dict[str, Any]) -> None:
            path = place / artifact["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            for part in artifact["parts"]:
                stored = self.folder / "store" / part["key"]
                command = 'age -d -i "$1" "$2" | zstd -dcq >>"$3"'
                argv = ["bash", "-o", "pipefail", "-c", command, "decode", str(self.folder / "identity")]
                subprocess.run([*argv, str(stored), str(path)], check=True)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, artifacts))

    def stock_restore(self, source: Path, clock: Clock) -> dict[str, Any]:
        """Restore a folder of plain data, adding to the clock."""
        if self.engine == "postgres":
            folder = source / "db-0" if (source / "db-0").exists() else source
            with self.scratch() as server:
                env = {**os.environ, "PGPASSWORD": server.endpoint.password.reveal()}
                url = server.endpoint.url
                subprocess.run(["psql", "-qd", url, "-c", "CREATE DATABASE back"], env=env, check=True)
                into = url.replace("/postgres?", "/back?")
                with clock:
                    if (folder / "small.tar").exists():
                        subprocess.run(["tar", "-xf", folder / "small.tar", "-C", folder], check=True)
                    argv = [
                        "pg_restore",
                        "-Fd",
                        "-j2",
                        "--no-owner",
                        "--no-privileges",
                        f"--dbname={into}",
                        str(folder),
                    ]
                    subprocess.run(argv, env=env, check=True)
        elif self.engine == "redis":
            load_rdb(source, self.folder, clock)
        else:
            restore_clickhouse(source, clock)
        return {"wall_s": clock.wall_s, "cpu_s": clock.cpu_s}

    def drill(self) -> dict[str, Any]:
        """Drill it in a process of its own, and take the phases of the restore."""
        argv = [sys.executable, __file__, "--one-drill", str(self.config)]
        run = subprocess.run(argv, env=self.env | {"BENCH_PASSWORD": ""}, capture_output=True, check=False)
        if run.returncode:
            raise SystemExit(f"the drill ended with {run.returncode}:\n{run.stderr.decode()}")
        document: dict[str, Any] = json.loads(run.stdout)
        return document

    def restore(self) -> dict[str, Any]:
        """Run ``drd restore --no-compare`` into a scratch server, as a whole command."""
        with self.scratch() as server, timed() as clock:
            url = server.endpoint.url
            if self.engine == "postgres":
                url = url.replace("/postgres?", f"/{POSTGRES_DATABASE}?")
            arguments = ("--at", "now", "--source", SOURCE, "--into", url, "--password-env", "BENCH_PASSWORD")
            done = self.drd("restore", *arguments, "--no-compare", password=server.endpoint.password.reveal())
        inside = done["restores"][0]["duration_s"]
        return {"wall_s": clock.wall_s, "cpu_s": clock.cpu_s, "said": f"{inside:.2f} s without start and end"}


WAYS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "bare": Bench.bare,
    "stock": Bench.decoded,
    "drill": Bench.drill,
    "drd restore": Bench.restore,
}


# ---- a drill, with the processor time of its phases


def one_drill(config_file: str) -> None:
    """Drill the newest backup as ``drd drill now`` does, end it when all is restored, and print what that took."""
    loaded = config.load(Path(config_file))
    cancel = CancelToken()
    services = Services(loaded, cancel=cancel, progress=lambda _step: None)
    plan, runtime = wiring_drills.plans(loaded, [], [])[0]
    marks: dict[str, tuple[float, float]] = {}

    def tell(tick: Tick) -> None:
        if tick.kind == "phase":
            marks[tick.phase] = (time.perf_counter(), cpu_of_tree(os.getpid()))
            if tick.phase == "check":
                cancel.cancel()

    scratch = wiring_drills.scratch_runtime(loaded, runtime)
    with suppress(Cancelled):
        report = drill(services.ports, plan, scratch, wiring_drills.binder(loaded), Request(), tell)
        raise SystemExit(str(report.error or report.runs[0].error))
    (began, cpu_began), (ended, cpu_ended) = marks["fetch"], marks["check"]
    print(json.dumps({"wall_s": ended - began, "cpu_s": cpu_ended - cpu_began}))


if __name__ == "__main__":
    main()
