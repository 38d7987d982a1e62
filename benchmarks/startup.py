"""Measure how long the command line takes to start, beside the interpreter alone.

``python benchmarks/startup.py [--rounds 15]``. Target: ``drd --help`` in less than 0.25 s. What is imported on the way,
slowest first, is listed with its own time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import Way, as_installed, headline, take_turns

SLOWEST = 8


def python(env: dict[str, str], *arguments: str) -> Callable[[], object]:
    """Return a run of the interpreter that this script uses."""
    return lambda: subprocess.run([sys.executable, *arguments], env=env, stdout=subprocess.DEVNULL, check=True)


def slowest_imports(env: dict[str, str], code: str) -> list[tuple[float, str]]:
    """Return the modules whose own import took longest, in milliseconds, those of the bare interpreter left out."""

    def imports(what: str) -> dict[str, float]:
        argv = [sys.executable, "-X", "importtime", "-c", what]
        said = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stderr
        rows = [line.removeprefix("import time:").split("|") for line in said.splitlines() if "|" in line]
        return {row[2].strip(): float(row[0]) / 1000 for row in rows if row[0].strip().isdigit()}

    bare = imports("pass")
    return sorted(((ms, name) for name, ms in imports(code).items() if name not in bare), reverse=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drd-bench-") as folder:
        measure(as_installed(Path(folder)), args.rounds)


def measure(env: dict[str, str], rounds: int) -> None:
    """Run everything in turns, then list what is slow to import."""
    headline("start of the command line (target for drd --help: 0.25 s)")
    adapters = "import drd.wiring, drd.engines.postgres.engine, drd.stores.s3_client, pyrage, zstandard"
    ways = [
        Way("python -c pass", python(env, "-c", "pass")),
        Way("drd --help", python(env, "-m", "drd", "--help")),
        Way("what every working verb imports", python(env, "-c", "import drd.wiring, drd.config")),
        Way("PostgreSQL to S3 imports", python(env, "-c", adapters)),
    ]
    take_turns(ways, rounds)
    for what, code in (("drd --help", "import drd.cli.main"), ("PostgreSQL to S3", adapters)):
        found = slowest_imports(env, code)
        print(f"\n  slowest imports of {what} ({sum(ms for ms, _ in found):.0f} ms in all):")
        for ms, name in found[:SLOWEST]:
            print(f"  {ms:8.1f} ms  {name}")


if __name__ == "__main__":
    main()
