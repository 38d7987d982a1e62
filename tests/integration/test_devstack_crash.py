"""A starter that dies in any way leaves no process and no folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack import ledger
from devstack.process import ProcessId, identify, is_alive

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).resolve().parents[2]

_STARTER = """
import json, sys, time
from devstack.workspace import Workspace
from devstack.redis import Redis
from devstack.postgres import Postgres
workspace = Workspace.create()
servers = [Redis(workspace).start(), Postgres(workspace).start()]
fork = 0
if sys.argv[1] == "fork":
    import os
    fork = os.fork()
    if fork == 0:
        time.sleep(60)  # holds the pipe to the guardian open
        os._exit(0)
said = {"path": str(workspace.path), "pids": [s.pid for s in servers], "fork": fork}
print(json.dumps(said), flush=True)
if sys.argv[1] != "raise":
    time.sleep(600)
raise SystemExit("planted")
"""


def _wait(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _start(how: str, redis_source: object, postgres: object) -> tuple[subprocess.Popen[str], Path, list[ProcessId]]:
    """Start a starter; the fixtures are asked for so that a missing service skips."""
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, how],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        start_new_session=True,
    )
    assert starter.stdout is not None
    said = json.loads(starter.stdout.readline())
    servers = [identify(pid) for pid in said["pids"]]
    assert all(servers)
    return starter, Path(said["path"]), [process for process in servers if process]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_killed_starter_leaves_nothing(redis_source, postgres, number: signal.Signals):
    """Whatever signal ends the starter, its servers and folder are gone within seconds."""
    starter, path, servers = _start("sleep", redis_source, postgres)
    os.killpg(starter.pid, number)
    starter.wait(10)
    assert _wait(lambda: not path.exists() and not any(map(is_alive, servers)))


def test_starter_that_ends_without_closing_leaves_nothing(redis_source, postgres):
    """A starter that forgets to close its workspace is cleaned up after, too."""
    starter, path, servers = _start("raise", redis_source, postgres)
    starter.wait(10)
    assert _wait(lambda: not path.exists() and not any(map(is_alive, servers)))


def test_fork_that_outlives_the_starter_does_not_keep_servers(redis_source, postgres):
    """A forked child that inherited the guardian's pipe cannot make it wait."""
    starter, path, servers = _start("fork", redis_source, postgres)
    try:
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait(10)
        assert _wait(lambda: not path.exists() and not any(map(is_alive, servers)))
    finally:
        os.killpg(starter.pid, signal.SIGKILL)  # the fork is still there, in the starter's group


def test_next_start_reaps_what_a_dead_guardian_left(redis_source, postgres):
    """With starter and guardian both killed, the next user of devstack cleans up."""
    starter, path, servers = _start("sleep", redis_source, postgres)
    guardian = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"devstack.guardian\0{path}\0".encode() in _cmdline(entry)
    )
    os.kill(guardian, signal.SIGKILL)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait(10)
    assert all(map(is_alive, servers))
    assert path in ledger.reap_abandoned()
    assert not path.exists()
    assert not any(map(is_alive, servers))


def _cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
