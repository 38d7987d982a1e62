"""Where the contract suite of scratch runtimes plays: one site a runtime, which knows its leftovers from outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devstack import standins
from drd.model import EngineKind, ScratchSpec
from drd.protocols import ScratchRuntime
from drd.scratch.process import ProcessRuntime
from drd.scratch.recipes.recipe import numbers

ENGINES: tuple[EngineKind, ...] = ("postgres", "redis", "clickhouse")
VERSIONS: dict[EngineKind, str] = {"postgres": "15.3", "redis": "7.0.1", "clickhouse": standins.CLICKHOUSE_VERSION}
_BROKEN = """#!/bin/sh
if [ "$1" = --version ]; then echo "Redis server v=7.0.15"; exit 0; fi
echo "1:C 22 Nov 2026 # the disk of this house is on fire" >&2
exit 3
"""


def spec(engine: EngineKind, **changes: Any) -> ScratchSpec:
    """Return a small server of the engine that this machine has."""
    values: dict[str, Any] = {
        "engine": engine,
        "version": VERSIONS[engine],
        "size_bytes": 1 << 20,
        "memory_bytes": 1 << 30,
        "cpus": 2.0,
        "pids": 4000,
        "disk_bytes": 2 << 30,
        "expires_s": 600.0,
        "labels": {"drill": "contract", "run": "r1"},
    }
    return ScratchSpec(**{**values, **changes})


class ProcessSite:
    """Processes below a folder."""

    name = "process"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs: dict[EngineKind, Path] = {"clickhouse": standins.clickhouse_programs()}

    def runtime(self, *, later_s: float = 0.0, **options: Any) -> ScratchRuntime:
        """Return the runtime, its clock set forward by ``later_s`` seconds."""
        return ProcessRuntime(
            self.root, now=lambda: datetime.now(UTC) + timedelta(seconds=later_s), programs=self.programs, **options
        )

    def leftovers(self) -> list[str]:
        """Return folders, and processes that run in or from them."""
        found = [str(path) for path in self.root.glob("*")]
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and str(self.root) in f"{(entry / 'cmdline').read_text()} {(entry / 'cwd').readlink()}"
                ):
                    found.append(f"process {entry.name}: {(entry / 'cmdline').read_text()[:200]!r}")
            except OSError:
                continue
        return found

    def broken(self) -> str:
        """Return an ``image`` whose Redis says why it cannot start."""
        folder = self.root.parent / "broken"
        folder.mkdir(exist_ok=True)
        program = folder / "redis-server"
        program.write_text(_BROKEN)
        program.chmod(0o755)
        return str(folder)

    def owner(self) -> list[str]:
        """Return the command of a process that starts a server of every engine and waits; see :func:`own`."""
        programs = {engine: str(path) for engine, path in self.programs.items()}
        return [sys.executable, __file__, json.dumps({"site": "process", "root": str(self.root), "programs": programs})]


def own(order: Mapping[str, Any]) -> None:
    """Start a server of every engine, say so, and wait to be killed; or keep one and leave, for the word ``keep``."""
    from contextlib import ExitStack

    from drd.cancel import CancelToken

    runtime: ScratchRuntime
    if order["site"] == "process":
        programs = {engine: Path(path) for engine, path in order["programs"].items()}
        runtime = ProcessRuntime(Path(order["root"]), now=lambda: datetime.now(UTC), programs=programs)
    engines = [engine for engine in ENGINES if engine in sys.argv[2:]]
    with ExitStack() as stack:
        servers = [stack.enter_context(runtime.start(spec(engine), CancelToken())) for engine in engines]
        if "keep" in sys.argv:
            servers[0].keep()
        found = [(s.endpoint.url, s.endpoint.password.reveal(), s.endpoint.name) for s in servers]
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        if "keep" not in sys.argv:
            sys.stdin.read()


def same_release(engine: EngineKind, version: str) -> bool:
    """Whether a version is of the release that the suite asks for."""
    from drd.scratch.recipes import RECIPES

    return RECIPES[engine].fits(numbers(version), numbers(VERSIONS[engine]))


if __name__ == "__main__":
    own(json.loads(sys.argv[1]))
