"""``python -m devstack`` keeps servers, finds them again, and takes exactly those down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from devstack import ledger
from devstack.process import ProcessId, identify, is_alive
from drd import config

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).resolve().parents[2]


def _devstack(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devstack", *arguments], capture_output=True, text=True, cwd=_ROOT, check=False
    )


@pytest.fixture
def state_dir(tmp_path: Path, postgres, redis_source) -> Iterator[Path]:
    """Give a folder whose servers are taken down in the end, whatever the test did."""
    yield tmp_path / "stack"
    _devstack("down", "--dir", str(tmp_path / "stack"))


def test_up_status_down(state_dir: Path):
    """Up writes a valid drd.yaml and returns; the servers answer; down removes all of it."""
    up = _devstack("up", "--dir", str(state_dir), "--no-clickhouse", "--no-s3", "--scale", "0.01", "--json")
    assert up.returncode == 0, up.stderr
    document = json.loads(up.stdout)
    loaded = config.load(document["config"], check_references=True)
    assert set(loaded.sources) == {"trading-postgres", "trading-redis"}
    pids = [service["pid"] for service in document["services"]]
    processes = [identify(pid) for pid in pids]
    assert all(processes)
    url = next(s["url"] for s in document["services"] if s["name"] == "postgres")
    password = (state_dir / "secrets" / "postgres-password").read_text().strip()
    with psycopg.connect(url, password=password) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1000,)

    status = _devstack("status", "--dir", str(state_dir), "--json")
    assert (status.returncode, json.loads(status.stdout)["up"]) == (0, True)
    workspace = ledger.kept_workspace(state_dir)
    assert workspace is not None
    assert workspace not in ledger.reap_abandoned()

    down = _devstack("down", "--dir", str(state_dir))
    assert down.returncode == 0, down.stderr
    assert not any(is_alive(process) for process in processes if process)
    assert not workspace.exists()
    assert not state_dir.exists()
    assert _devstack("status", "--dir", str(state_dir)).returncode == 1


def test_status_tells_what_is_gone_and_up_starts_anew(state_dir: Path):
    """A server that died is said to be gone; once all are, up replaces them."""
    options = ("--dir", str(state_dir), "--no-postgres", "--no-clickhouse", "--no-s3", "--scale", "0", "--json")
    first = json.loads(_devstack("up", *options).stdout)
    again = _devstack("up", *options)
    assert again.returncode == 1
    assert "up already" in json.loads(again.stdout)["error"]
    for service in first["services"]:
        process = identify(service["pid"])
        assert process
        os.kill(process.pid, signal.SIGKILL)
        _wait_gone(process)
    status = json.loads(_devstack("status", "--dir", str(state_dir), "--json").stdout)
    assert {service["state"] for service in status["services"]} == {"gone"}
    old = ledger.kept_workspace(state_dir)
    second = _devstack("up", *options)
    assert second.returncode == 0, second.stderr
    assert old is not None
    assert not old.exists()


def test_killed_up_leaves_nothing(state_dir: Path):
    """A kill -9 of up in the middle of its work leaves no server and no workspace."""
    before = set(ledger.base_dir().glob(ledger.PREFIX + "*"))
    command = [sys.executable, "-m", "devstack", "up", "--dir", str(state_dir), "--no-clickhouse", "--no-s3"]
    up = subprocess.Popen([*command, "--scale", "20"], cwd=_ROOT, stderr=subprocess.PIPE, text=True)
    assert up.stderr is not None
    for line in up.stderr:
        if "loading" in line:
            break
    mine = [
        path
        for path in set(ledger.base_dir().glob(ledger.PREFIX + "*")) - before
        if json.loads((path / ledger.OWNER).read_text())["pid"] == up.pid
    ]
    assert len(mine) == 1
    processes = [entry.process for entry in ledger.entries(mine[0])]
    up.kill()
    up.wait()
    deadline = time.monotonic() + 20
    while mine[0].exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not mine[0].exists()
    assert not any(map(is_alive, processes))


def test_up_does_not_overwrite_a_configuration_of_another_hand(state_dir: Path):
    """A drd.yaml that devstack did not write stays."""
    state_dir.mkdir()
    (state_dir / "drd.yaml").write_text("precious")
    refused = _devstack("up", "--dir", str(state_dir), "--no-clickhouse", "--no-s3")
    assert refused.returncode == 1
    assert "not of devstack's making" in refused.stderr
    assert (state_dir / "drd.yaml").read_text() == "precious"


def _wait_gone(process: ProcessId) -> None:
    deadline = time.monotonic() + 10
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
