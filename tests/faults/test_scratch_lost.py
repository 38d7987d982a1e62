"""Scratch servers, when those who would clean up die, servers never answer, and engines are away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devstack.workspace import Workspace
from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.scratch import ledger
from drd.scratch.docker import DockerRuntime
from drd.scratch.owners import identify
from tests.support.scratch_sites import ENGINES, DockerSite, ProcessSite, spec
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


SILENT = """#!/bin/sh
[ "$1" = --version ] && exec echo "Redis server v=7.0.15"
echo still counting sheep
exec sleep 60
"""


def test_a_server_that_never_answers_is_given_up(site: ProcessSite) -> None:
    """The wait is bounded; the error repeats the server's last words, and nothing of it is left."""
    silent = spec("redis", image=site.program("silent", SILENT))
    with (
        pytest.raises(ScratchError, match=r"not ready after 1 s .* still counting sheep"),
        site.runtime(ready_timeout_s=1.0).start(silent, CancelToken()),
    ):
        pass
    assert site.leftovers() == []


def test_a_server_that_is_killed_says_so(site: ProcessSite) -> None:
    """Whoever ended it from outside is not mistaken for a damaged backup; a kill of its guardian shows too."""
    with site.runtime().start(spec("postgres"), CancelToken()) as server:
        running = ledger.processes_of(site.root / server.endpoint.name)
        os.kill(running["server"].pid, signal.SIGQUIT)
        assert "exit code" in wait_for(server.death)
    with site.runtime().start(spec("redis"), CancelToken()) as server:
        running = ledger.processes_of(site.root / server.endpoint.name)
        os.kill(running["guardian"].pid, signal.SIGKILL)
        assert "guardian was killed" in wait_for(server.death)
    assert site.leftovers() == []


def test_an_engine_that_is_away_is_named(tmp_path: Path) -> None:
    """Without a Docker Engine a drill learns where none answered and what to do; check says the same."""
    runtime = DockerRuntime(now=lambda: datetime.now(UTC), host=f"unix://{tmp_path}/docker.sock")
    with (
        pytest.raises(ScratchError, match=r"docker\.sock: .* does not answer") as caught,
        runtime.start(spec("redis"), CancelToken()),
    ):
        pass
    assert "runtime process" in caught.value.hint
    assert [item.outcome for item in runtime.check()] == ["failed"]
    with pytest.raises(ScratchError):
        runtime.reap()


def test_a_container_removed_from_outside_is_named(docker_host: str) -> None:
    """Somebody tidied up: the server's end is told, and leaving the block is no error."""
    with present():
        containers = DockerSite(docker_host)
    with containers.runtime().start(spec("redis"), CancelToken()) as server:
        containers.remove(server.endpoint.name)
        assert "removed" in wait_for(server.death)
    assert containers.leftovers() == []


def wait_for(death: Callable[[], str], within_s: float = 15.0) -> str:
    """Return why a server died, once that is known."""
    until = time.monotonic() + within_s
    while not (said := death()) and time.monotonic() < until:
        time.sleep(0.05)
    return said
