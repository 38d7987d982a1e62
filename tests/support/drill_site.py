"""Sites whose drills run in scratch servers, the two runtimes as their tests see them, and what each leaves behind."""

from __future__ import annotations

import copy
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack import standins
from tests.support.drd_site import ROOT, Run, Running, Site
from tests.support.services import present

SESSION = os.environ.setdefault("TEST_SESSION", f"s{os.getpid()}")
"""Tells the scratch servers of this test run from those of another one on the same Docker Engine."""
ONE = f"one-{SESSION}"
"""The name of a site's only drill."""
TRADING_SUITE = ROOT / "restore_drills" / "trading.yaml"
CLOSED = {
    "postgres": "postgresql://admin@127.0.0.1:1/x",
    "redis": "redis://127.0.0.1:1",
    "clickhouse": "http://a@127.0.0.1:1",
}


def with_drills(site: Site, scratch_root: Path, **drills: dict[str, Any]) -> Site:
    """Configure drills, and scratch servers below ``scratch_root``; sources become ones that nobody can reach."""
    with present():
        programs = {"clickhouse": str(standins.clickhouse_programs())}
    site.config["scratch"] = {"dir": str(scratch_root), "programs": programs}
    site.config["drills"] = drills
    for source in site.sources.values():
        source["url"] = CLOSED[source["type"]]
        source["password"] = {"env": "NOBODY_SETS_THIS"}
    return site


def left_behind(scratch_root: Path) -> list[str]:
    """Return folders of scratch servers, and processes that run from them."""
    found = [str(path) for path in scratch_root.glob("*")] if scratch_root.exists() else []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(scratch_root) in (entry / "cwd").readlink().as_posix():
                found.append(f"process {entry.name}")
        except OSError:  # it ended meanwhile
            continue
    return found


@dataclass(frozen=True)
class Runtime:
    """A scratch runtime as tests of drills see it: its name, its ``scratch`` settings, what it has left behind."""

    name: str
    settings: dict[str, Any]
    left: Callable[[], list[str]]

    def use(self, site: Site, **drill: Any) -> Site:
        """Let the site's only drill run in this runtime."""
        site.config["scratch"] |= copy.deepcopy(self.settings)  # tests change theirs
        site.config["drills"] = {ONE: {**site.config["drills"].get(ONE, {}), **drill, "runtime": self.name}}
        return site


def settings_of(site: Site) -> dict[str, Any]:
    """Return the settings of the site's only drill, to be changed."""
    found: dict[str, Any] = site.config["drills"][ONE]
    return found


def judged(site: Site, verdict: str, rc: int, *args: str) -> dict[str, Any]:
    """Run the only drill, demand verdict and exit code, and return its one run; the store remembers the same."""
    return judge(site, site("drill", "now", *args, "--json"), verdict, rc)


def judge(site: Site, run: Run, verdict: str, rc: int) -> dict[str, Any]:
    """Demand verdict and exit code of a run that has ended, and return its one drill run."""
    assert run.rc == rc, run.described
    assert "Traceback" not in run.text
    document = run.json
    assert document["verdict"] == verdict, run.described
    (found,) = document["runs"]
    assert found["verdict"] == verdict
    if not document["unrecorded"]:
        kept = json.loads((site.store_dir / "drills" / ONE / f"{found['run']}.json").read_text())
        assert kept["verdict"] == verdict
    return dict(found)


def recorded(site: Site) -> dict[str, Any]:
    """Return the newest run of the only drill that the store remembers, as its JSON document."""
    found = site("drill", "list", ONE, "--json").succeeds().json["runs"]
    return dict(found[0])


def outcomes(run: dict[str, Any]) -> dict[str, str]:
    """Return the outcome of each check by its name."""
    return {check["name"]: check["outcome"] for check in run["checks"]}


def details(run: dict[str, Any]) -> str:
    """Return everything that a run says of itself: its error, then every check."""
    error = f"{run['error']['message']} → {run['error']['hint']}" if run["error"] else ""
    return "\n".join([error, *(f"{check['name']}: {check['detail']}" for check in run["checks"])])


def until_said(running: Running, words: str, within_s: float = 60.0) -> None:
    """Wait until a running drd has said ``words`` on standard error."""
    end = time.monotonic() + within_s
    while words not in running.err_path.read_text(encoding="utf-8"):
        assert time.monotonic() < end, f"{words!r} was not said"
        assert running.process.poll() is None, f"drd ended before it said {words!r}"
        time.sleep(0.002)


class Door:
    """A Unix socket through which to reach another one, until it is shut: as if who listens there had died."""

    def __init__(self, path: Path, behind: str) -> None:
        self._behind = behind.removeprefix("unix://")
        self.address = f"unix://{path}"
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(64)
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._behind)
                with self._lock:
                    self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()

    def shut(self) -> None:
        """Break every connection and refuse new ones; idempotent."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
