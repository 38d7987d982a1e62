"""A Docker Engine for tests: the one that answers, else one of our own, which ends when nobody uses it any more.

Every user holds a shared lock on a file for as long as it uses the engine; a keeper, which also started ``dockerd``,
stops it once it can have that lock alone, so also after ``kill -9`` of all users. There is one for the whole machine:
two engines take each other's bridge away. Images stay in the devstack's cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import docker.errors

from devstack import obtain
from devstack.errors import DevstackError, ServiceMissing

RUN = Path("/run/drd-devstack-docker")
SOCKET = RUN / "docker.sock"
_HINT = "apt-get install docker.io iptables (as root, the devstack then starts it by itself)"
_READY_S = 60.0
_LINGER_S = 3.0


def answers(host: str) -> bool:
    """Whether a Docker Engine answers at this address."""
    try:
        client = docker.DockerClient(base_url=host, timeout=10)
    except docker.errors.DockerException:
        return False
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except (docker.errors.DockerException, OSError):
            return False


def named_host() -> str:
    """Return where the docker command would look for an engine."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@contextmanager
def engine() -> Iterator[str]:
    """Give the address of a Docker Engine for the block; raises ServiceMissing where there can be none."""
    if not SOCKET.exists() and named_host().startswith("unix:") and answers(named_host()):
        yield named_host()
        return
    if os.geteuid() != 0:
        raise ServiceMissing(f"no Docker Engine answers at {named_host()}, and only root can start one")
    for program in ("dockerd", "containerd", "iptables", "setpriv"):
        if not shutil.which(program):
            raise ServiceMissing(f"no Docker Engine answers at {named_host()}, and there is no {program}: {_HINT}")
    RUN.mkdir(mode=0o700, exist_ok=True)
    with (RUN / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        _start_once()
        yield f"unix://{SOCKET}"


def _start_once() -> None:
    """Start the keeper unless it runs, and wait for the engine."""
    log = RUN / "log"
    with (RUN / "start").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not answers(f"unix://{SOCKET}"):
            with log.open("ab") as stream:
                subprocess.Popen(
                    [sys.executable, "-m", "devstack.docker"],
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    start_new_session=True,
                    cwd="/",
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
                )
        until = time.monotonic() + _READY_S
        while not answers(f"unix://{SOCKET}"):
            if time.monotonic() > until:
                tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
                raise DevstackError(f"dockerd was not ready after {_READY_S:.0f} s: {' | '.join(tail)}")
            time.sleep(0.1)


def keep() -> None:
    """Run ``dockerd`` until nobody holds the users' lock; the keeper's own life, at most one at a time."""
    with (RUN / "keeper").open("w") as alone, (RUN / "users").open("r") as users:
        fcntl.flock(alone, fcntl.LOCK_EX)  # the one before may still be stopping its engine
        data = obtain.cache_dir() / "docker"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = {"data-root": data, "exec-root": RUN / "exec", "pidfile": RUN / "pid", "host": f"unix://{SOCKET}"}
        (RUN / "pid").unlink(missing_ok=True)  # we are alone: nobody's
        tied = ["setpriv", "--pdeathsig", "TERM", "--"]  # a keeper that is killed takes its engine along
        process = subprocess.Popen([*tied, "dockerd", *(f"--{name}={value}" for name, value in options.items())])
        idle_since = time.monotonic()
        while process.poll() is None:
            time.sleep(0.5)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.monotonic() - idle_since > _LINGER_S:
                    break
                fcntl.flock(users, fcntl.LOCK_UN)
                continue
            idle_since = time.monotonic()
        SOCKET.unlink(missing_ok=True)  # whoever comes now starts another
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    keep()
