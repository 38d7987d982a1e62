"""Scratch servers that are processes, when everybody who would clean up dies at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from devstack.workspace import Workspace
from drd.scratch import ledger
from drd.scratch.owners import identify
from tests.support.scratch_sites import ENGINES, ProcessSite
from tests.support.services import present

pytestmark = [pytest.mark.integration, pytest.mark.faults]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(workspace: Workspace) -> ProcessSite:
    """Give a site of its own."""
    folder = workspace.directory("scratch-killed")
    folder.chmod(0o711)
    with present():
        return ProcessSite(folder / "root")


def start(site: ProcessSite) -> tuple[subprocess.Popen[bytes], list[Path]]:
    """Start a drd with a server of every engine; return it and the servers' folders."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*site.owner(), *ENGINES]
    owner = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    json.loads(owner.stdout.readline())
    return owner, sorted(site.root.glob("drd-scratch-*"))


def settle(site: ProcessSite, within_s: float = 15.0) -> list[str]:
    """Return what is left once nothing changes any more, or time is up."""
    until = time.monotonic() + within_s
    while (left := site.leftovers()) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def test_a_killed_drd_takes_its_servers_along(site: ProcessSite) -> None:
    """After ``kill -9`` of drd the guardians end the servers and remove the folders, with nobody's help."""
    owner, folders = start(site)
    assert len(folders) == len(ENGINES)
    owner.kill()
    owner.wait()
    assert settle(site) == []


def test_servers_end_with_drd_and_their_guardians(site: ProcessSite) -> None:
    """When the guardians are killed too the kernel ends the servers; the next start removes the folders."""
    owner, folders = start(site)
    running = [ledger.processes_of(folder) for folder in folders]
    os.kill(owner.pid, signal.SIGSTOP)  # so that it cannot act between the blows
    for processes in running:
        os.kill(processes["guardian"].pid, signal.SIGKILL)
    owner.kill()
    owner.wait()
    until = time.monotonic() + 15.0
    servers = [processes["server"] for processes in running]
    while alive := [server for server in servers if identify(server.pid) == server]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)
    assert sorted(map(str, folders)) == sorted(left for left in settle(site, 1.0) if not left.startswith("process"))
    lines = site.runtime().reap()
    assert len(lines) == len(ENGINES)
    assert all("its drd is gone" in line for line in lines)
    assert settle(site) == []
