"""What a client tool has open: asked many times a second, also in the instants in which a worker ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drd.engines.postgres.tools import open_files_of

_ZOMBIE = """
import os
from drd.engines.postgres.tools import open_files_of
os.setgid(65534)
os.setuid(65534)
child = os.fork()
if child == 0:
    os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
try:
    os.listdir(f"/proc/{child}/fd")
except PermissionError:
    print("denied", open_files_of(child))
"""


def test_an_open_file_is_seen(tmp_path: Path) -> None:
    """A file that this process has open is named, one that it closed is not."""
    held, closed = tmp_path / "held", tmp_path / "closed"
    closed.touch()
    with held.open("w"):
        assert str(held) in open_files_of(os.getpid())
        assert str(closed) not in open_files_of(os.getpid())
    assert str(held) not in open_files_of(os.getpid())


def test_a_process_that_is_gone_has_nothing_open() -> None:
    """Its number may be asked for after its end."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    assert open_files_of(process.pid) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_zombie_that_an_unprivileged_user_may_not_look_at_has_nothing_open() -> None:
    """The kernel gives what is left of a process to root; that is no error, as it writes no more."""
    run = subprocess.run([sys.executable, "-c", _ZOMBIE], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "denied set()"


def test_a_running_process_that_may_not_be_looked_at_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """To take its files for complete would cut them short."""

    def denied(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(PermissionError):
        open_files_of(os.getpid())
