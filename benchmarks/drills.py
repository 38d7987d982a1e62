"""Measure what a drill takes: the demo's three databases drilled in containers, or in plain processes.

``python benchmarks/drills.py [--scale 1] [--rounds 3] [--runtime docker|process]``

Whole drills of the trading platform in the demo's size, from SeaweedFS, encrypted, with the shipped suite: target 60 s
on two cores. What the restore in a drill takes beside the engines' own tools is in ``restores.py``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from measuring import Drd, headline

from devstack import docker, images, state
from devstack.stack import Stack
from devstack.workspace import Workspace
from drd.model import EngineKind

WHOLE_S = 60.0
ENGINES: tuple[EngineKind, ...] = ("postgres", "redis", "clickhouse")


def main() -> None:
    """Load, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", choices=("docker", "process"), default="docker")
    args = parser.parse_args()
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
    """The platform, backed up."""

    def __init__(self, servers: Stack, folder: Path, host: str) -> None:
        if not (servers.postgres and servers.redis and servers.clickhouse):
            raise SystemExit("this benchmark needs every server of the stack")
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
        self.walls: list[float] = []
        self.runs: list[dict[str, Any]] = []

    def measure(self, rounds: int) -> None:
        """Back up once, drill again and again, and print."""
        self.drd("backup", "now")
        for _ in range(rounds):
            run = self.drd("drill", "now")
            self.walls.append(run.wall_s)
            self.runs = run.document["runs"]
        self.show()

    def show(self) -> None:
        """Print how long all took, and of the last the phases and the slowest checks."""
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


if __name__ == "__main__":
    main()
