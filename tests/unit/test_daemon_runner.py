"""The process of a job is heard, ended at its deadline and never outlives its run; systemd hears of the service."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from drd.daemon.runner import Ended, JobProcess
from drd.daemon.systemd import ServiceManager
from drd.errors import JobError
from drd.wiring_daemon import folder_notice

REPORT = 'print(json.dumps({"event": "report", "exit_code": 0}), flush=True)'


def process(script: str, said: list[dict[str, Any]] | None = None, folder: Path | None = None) -> JobProcess:
    heard = said if said is not None else []
    argv = [sys.executable, "-c", f"import json, os, signal, subprocess, sys, time\n{script}"]
    return JobProcess(argv, environ=dict(os.environ), folder=folder, said=heard.append)


def run(script: str, deadline_s: float = 10, grace_s: float = 5, **values: Any) -> Ended:
    return process(script, **values).run({"kind": "backup"}, deadline_s=deadline_s, grace_s=grace_s)


def test_a_job_is_told_what_to_do_and_heard() -> None:
    """It reads the request; what it says is handed on, its last word is the report, noise is passed over."""
    said: list[dict[str, Any]] = []
    ended = run(
        "r = json.loads(sys.stdin.readline())\nprint(json.dumps({'event': 'progress', 'phase': r['kind']}))\n"
        f"print('noise')\nprint('[1]')\n{REPORT}\nsys.exit(7)",
        said=said,
    )
    assert ended == Ended(7, {"event": "report", "exit_code": 0}, late=False)
    assert said == [{"event": "progress", "phase": "backup"}]


def test_a_job_that_is_late_is_asked_then_killed() -> None:
    """One that hangs and hears nothing is gone after deadline and grace, with what it started."""
    asked = run(f"signal.signal(15, lambda *_: ({REPORT}, sys.exit(130)))\ntime.sleep(60)", deadline_s=0.5)
    assert (asked.status, asked.late) == (130, True)
    began = time.monotonic()
    deaf = "signal.signal(15, signal.SIG_IGN)\nsubprocess.Popen(['sleep', '61.25'])\ntime.sleep(60)"
    ended = run(deaf, deadline_s=0.5, grace_s=0.3)
    assert (ended.status, ended.report, ended.late) == (-9, None, True)
    assert time.monotonic() - began < 8
    assert b"61.25" not in b"".join(p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if _readable(p))


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_a_job_that_dies_leaves_no_report() -> None:
    """A crash is told from an end, and what cannot start is an error for people."""
    assert run("os.kill(os.getpid(), 11)") == Ended(-11, None, late=False)
    with pytest.raises(JobError, match="cannot be started"):
        JobProcess(["/nowhere/drd"], environ={}, folder=None, said=print).run({}, deadline_s=1, grace_s=1)


def test_its_temporary_folder_is_made_each_time(tmp_path: Path) -> None:
    """It may have been wiped since the last run; where it cannot be made, that is an error for people."""
    for _ in range(2):
        run(f"open(os.environ['TMPDIR'] + '/x', 'w')\n{REPORT}", folder=tmp_path / "state" / "tmp")
        (tmp_path / "state" / "tmp" / "x").unlink()
        (tmp_path / "state" / "tmp").rmdir()
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="cannot be started"):
        run(REPORT, folder=tmp_path / "file" / "tmp")


def test_a_folder_that_cannot_be_used_is_said_before_a_job_is_due(tmp_path: Path) -> None:
    """A folder that is there, or can be made, is no news; another is, with where and why, and is not made elsewhere."""
    assert folder_notice(None) is folder_notice(tmp_path / "state" / "tmp") is None
    assert list((tmp_path / "state" / "tmp").iterdir()) == []
    (tmp_path / "file").touch()
    notice = folder_notice(tmp_path / "file" / "tmp")
    assert notice is not None
    assert notice.code == "state-dir"
    assert f"{tmp_path}/file/tmp: Not a directory" in notice.message


def test_the_end_of_the_daemon_is_the_end_of_its_input() -> None:
    """Asking from another thread reaches it, and one that was asked before it started does not start."""
    job = process(f"signal.signal(15, lambda *_: sys.exit(3))\n{REPORT}\ntime.sleep(60)")
    threading.Timer(0.7, job.ask).start()
    assert job.run({}, deadline_s=20, grace_s=5).status == 3
    early = process(REPORT)
    early.ask()
    with pytest.raises(JobError, match="ending"):
        early.run({}, deadline_s=1, grace_s=1)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_of_the_service(tmp_path: Path, abstract: bool) -> None:
    """Each word is one datagram of sd_notify(3), to a path or to an abstract address."""
    address = f"@drd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + address[1:] if abstract else address)
        channel.settimeout(2)
        manager = ServiceManager(address)
        manager.ready()
        manager.reloading(123)
        manager.alive()
        manager.stopping()
        manager.extend(90)
        heard = [channel.recv(1000).decode() for _ in range(5)]
    expected = [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=123",
        "WATCHDOG=1",
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=90000000",
    ]
    assert heard == expected


def test_nobody_listening_harms_nobody(tmp_path: Path) -> None:
    """Without a supervisor, or with one that is gone, telling does nothing."""
    ServiceManager("").ready()
    ServiceManager(str(tmp_path / "gone")).alive()


def test_threads_that_are_still_at_something_do_not_break_at_the_end() -> None:
    """A thread that asks the store as the process ends fails in the interpreter's shutdown, unless it ends before."""
    script = """
import concurrent.futures, threading, time
from drd.cli.daemon import end_before_threads_break
end_before_threads_break(1)  # nobody is at anything: returns
pool = concurrent.futures.ThreadPoolExecutor()
def work():
    while True:
        pool.submit(int).result()
threading.Thread(target=work, name="drd-job-x", daemon=True).start()
time.sleep(0.1)
end_before_threads_break(130)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_the_daemon_imports_no_engine(tmp_path: Path) -> None:
    """What only jobs need stays out of the process that idles for years: databases' clients, engines, Docker."""
    config = tmp_path / "drd.yaml"
    config.write_text(
        f"store: {{type: local, path: {tmp_path / 'store'}}}\n"
        "sources:\n  a: {type: redis, url: 'redis://127.0.0.1:1'}\n"
        "  b: {type: postgres, url: 'postgresql://u@127.0.0.1:1/d'}\n"
        "  c: {type: clickhouse, url: 'http://u@127.0.0.1:1', databases: [d]}\n"
        "schedules: {s: {cron: '@hourly'}}\ndrills: {d: {cron: '@daily'}}\n"
    )
    script = f"""
import pathlib, sys
from drd import wiring_daemon
from drd.cancel import CancelToken
from drd.counts import StoreCounts
import drd.cli.daemon, drd.daemon.lifecycle, drd.daemon.web.serving
service = wiring_daemon.Service.of({{}})
world = wiring_daemon.load_world(pathlib.Path({str(config)!r}), service, StoreCounts(), CancelToken())
assert len(world.plans) == 4
heavy = ("psycopg", "redis", "clickhouse_connect", "docker", "boto3", "drd.engines", "drd.scratch")
print([name for name in sys.modules if name in heavy or name.startswith("drd.engines.")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
