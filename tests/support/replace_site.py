"""Restores in place in tests: a site with one source, a hurt drd, and a client that reads the live data throughout."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage

from devstack.server import private_file
from tests.support.drd_site import ROOT, Site

HURT_DRD = ROOT / "tests" / "faults" / "hurt_drd.py"
DIED = 9


def replace_site(folder: Path, name: str, source: dict[str, Any], password: str) -> Site:
    """Make a site with an age key, an empty local store and one source, whose password is in ``SECRET``."""
    folder.mkdir(parents=True, exist_ok=True)
    key = pyrage.x25519.Identity.generate()
    private_file(folder / "identity.txt", f"{key}\n")
    config = {
        "store": {"type": "local", "path": str(folder / "store")},
        "encryption": {"recipients": [str(key.to_public())], "identity": {"file": str(folder / "identity.txt")}},
        "spool": {"dir": str(folder / "spool")},
        "sources": {name: {**source, "password": {"env": "SECRET"}}},
    }
    return Site(folder, config, env={"SECRET": password}, secrets=[password, str(key)])


def hurt(site: Site, how: str, where: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run drd hurt at one step; see :mod:`tests.faults.hurt_drd`."""
    return subprocess.run(
        [sys.executable, str(HURT_DRD), how, where, *args],
        env={**site.env, "DRD_CONFIG": str(site.config_file), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=site.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Reader:
    """What a client that reads again and again saw: values in the order they came, and what failed."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.failed: list[Exception] = []


@contextmanager
def reading(read: Callable[[], Any]) -> Iterator[Reader]:
    """Read every few milliseconds while the block runs; ``read`` connects anew where its connection was ended."""
    found, done = Reader(), threading.Event()

    def run() -> None:
        while not done.wait(0.005):
            try:
                value = read()
            except Exception as error:  # noqa: BLE001 - what a client may see is what the test is about
                found.failed.append(error)
            else:
                if not found.seen or found.seen[-1] != value:
                    found.seen.append(value)

    thread = threading.Thread(target=run, name="reader")
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
