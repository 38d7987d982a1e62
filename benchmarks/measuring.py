"""Measure several ways of doing the same work in turns, on a machine that may have other work to do.

Used by the scripts of this folder. Ways take turns (A B C A B C …), so that what else runs disturbs all alike; medians
and bests are printed as multiples of the first way, with the processor seconds of each (those of the servers
included) and how much of the processors others took: seconds of work say more than of time where others took much.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MIB = 1 << 20
_SAMPLE_S = 0.02
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IMPORT_ALL = """
import importlib, pkgutil, boto3, drd, psycopg, pyrage, zstandard
for module in pkgutil.walk_packages(drd.__path__, "drd."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def nothing() -> None:
    """Prepare nothing."""


@dataclass
class Way:
    """One way to do the work: ``prepare`` is not timed; ``target`` is the multiple of the first way allowed."""

    name: str
    work: Callable[[], object]
    prepare: Callable[[], object] = nothing
    target: float | None = None
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def run(self, servers: Sequence[int] = ()) -> None:
        """Prepare, do the work and note what it took; ``servers`` are pids whose work belongs to us."""
        self.prepare()
        busy, ours = _busy_cpu_s(), _own_cpu_s(servers)
        started = time.perf_counter()
        self.work()
        took = time.perf_counter() - started
        self.seconds.append(took)
        self.cpu_s.append(_own_cpu_s(servers) - ours)
        foreign = _busy_cpu_s() - busy - self.cpu_s[-1]
        self.others.append(max(0.0, foreign) / took)


def take_turns(ways: Sequence[Way], rounds: int, servers: Sequence[int] = ()) -> None:
    """Run every way ``rounds`` times in turns and print a table; ``servers`` are pids whose work belongs to us."""
    for _ in range(rounds):
        for way in ways:
            way.run(servers)
    floor = ways[0]
    width = max(len(way.name) for way in ways)
    print(f"  {'':<{width}}   median s    best s   × median    × best   target     cpu s     × cpu   taken by others")
    for way in ways:
        median, best = statistics.median(way.seconds), min(way.seconds)
        ratios = median / statistics.median(floor.seconds), best / min(floor.seconds)
        cpu_s = min(way.cpu_s)
        target = f"≤ {way.target:.2f}" if way.target else ""
        print(
            f"  {way.name:<{width}} {median:10.2f}{best:10.2f}{ratios[0]:11.2f}{ratios[1]:10.2f}"
            f"{target:>9}{cpu_s:10.2f}{cpu_s / min(floor.cpu_s):10.2f}   "
            f"{statistics.median(way.others):.1f} of {os.cpu_count()}",
            flush=True,
        )


def headline(text: str) -> None:
    """Print a heading with the load of the machine now."""
    print(
        f"\n{text}   [load {' '.join(f'{load:.1f}' for load in os.getloadavg())}, {os.cpu_count()} cores]", flush=True
    )


def require_programs(*names: str, how: str = "make setup") -> None:
    """End with a message, and ``how`` to come by it, if a peer's program is missing."""
    if missing := [name for name in names if not shutil.which(name)]:
        raise SystemExit(f"this benchmark needs {', '.join(missing)} on PATH: {how}")


def shell(command: str, env: dict[str, str] | None = None) -> None:
    """Run a peer's command line as a script would; raises when it fails."""
    subprocess.run(["/bin/bash", "-o", "pipefail", "-c", command], env={**os.environ, **(env or {})}, check=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def as_installed(folder: Path) -> dict[str, str]:
    """Return an environment with compiled modules in ``folder``, as an installed drd has from its first run on."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", _IMPORT_ALL], env=env, check=True)
    return env


def blocks_of(folder: Path) -> int:
    """Return the bytes that the files below a folder occupy on disk: holes are not counted."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_blocks * 512
    return total


@dataclass(frozen=True)
class Run:
    """One run of the drd command: its JSON, and the most memory and spool it had at once."""

    document: dict[str, Any]
    wall_s: float
    peak_rss_bytes: int
    peak_spool_bytes: int


class Drd:
    """The drd command with a configuration of its own below ``folder``; ``runs`` keeps what was measured."""

    def __init__(self, folder: Path, config: dict[str, Any], env: dict[str, str]) -> None:
        folder.mkdir(parents=True)
        self.spool = folder / "spool"
        self.runs: list[Run] = []
        self._config = folder / "drd.yaml"
        self._config.touch(mode=0o600)
        self._config.write_text(yaml.safe_dump({**config, "spool": {"dir": str(self.spool)}}))
        self._env = as_installed(folder / "compiled") | env

    def __call__(self, *arguments: str) -> Run:
        """Run a verb in a process of its own; ends the benchmark with what drd said when it fails."""
        argv = [sys.executable, "-m", "drd", "--config", str(self._config), "--json", *arguments]
        started = time.perf_counter()
        process = subprocess.Popen(argv, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        peaks = _Peaks(process.pid, self.spool)
        with peaks:
            said, complained = process.communicate()
        run = Run(json.loads(said or b"{}"), time.perf_counter() - started, peaks.rss_bytes, peaks.spool_bytes)
        if process.returncode:
            raise SystemExit(f"drd {' '.join(arguments)} ended with {process.returncode}:\n{complained.decode()}")
        self.runs.append(run)
        return run

    def peaks(self) -> str:
        """Return the most memory and spool over all runs so far, in words."""
        rss, spool = max(r.peak_rss_bytes for r in self.runs), max(r.peak_spool_bytes for r in self.runs)
        return f"peak memory {rss / MIB:.0f} MiB, peak spool {spool / MIB:.0f} MiB"


class _Peaks:
    """Samples a process' peak resident memory (its own, not its children's) and the blocks of its spool."""

    def __init__(self, pid: int, spool: Path) -> None:
        self.rss_bytes = 0
        self.spool_bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._spool = spool
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            with suppress(OSError):
                for line in self._status.read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self.rss_bytes = int(line.split()[1]) << 10
            self.spool_bytes = max(self.spool_bytes, blocks_of(self._spool))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _busy_cpu_s() -> float:
    """Return the processor seconds that all processors were not idle since boot (proc(5), stat)."""
    values = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(values[:8]) - values[3] - values[4]) / _TICKS_PER_S


def cpu_of_tree(pid: int) -> float:
    """Return the processor seconds of a process, of all that live below it, and of those they have waited for."""
    return _cpu_of([pid])


def _own_cpu_s(servers: Sequence[int]) -> float:
    """Return the processor seconds of this process, what it has waited for, and the trees of the servers."""
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return used + _cpu_of(servers)


def _cpu_of(pids: Sequence[int]) -> float:
    used = 0.0
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
                ticks[int(entry.name)] = sum(int(word) for word in fields[11:15])
    todo = list(pids)
    while todo:
        pid = todo.pop()
        used += ticks.get(pid, 0) / _TICKS_PER_S
        todo += parents.get(pid, [])
    return used
