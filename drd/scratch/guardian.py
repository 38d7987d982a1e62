"""Start one scratch server, hold it to its limits, and end it with the drd that wanted it, however that ended.

A stand-alone script (``python -I guardian.py``), so that it starts quickly. Its standard input is a pipe that drd alone
holds open: the first line is the order, in JSON; then ``keep`` means that the server is to outlive drd until it
expires, and end of file without it that drd is done, or dead. The server gets a parent-death signal from the guardian
(prctl(2)), so nothing is left even when both are killed at once, but a folder that the ledger in it explains.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

_LOOK_EVERY_S = 0.1
_MEASURE_EVERY_S = 0.5
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_FIRST_VICTIM = 800  # the kernel's OOM killer takes a scratch server before the databases beside it


class _Stop(BaseException):
    """Somebody sent SIGTERM."""


def _stop(number: int, frame: object) -> None:
    del number, frame
    raise _Stop


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _family(top: int) -> dict[int, list[str]]:
    """Map every live process below ``top``, itself excluded, to its stat fields."""
    children: dict[int, list[tuple[int, list[str]]]] = {}
    for entry in os.scandir("/proc"):
        name = entry.name
        if name.isdigit() and (fields := _stat(int(name))) and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append((int(name), fields))
    found, pending = {}, [top]
    while pending:
        for pid, fields in children.pop(pending.pop(), []):
            found[pid] = fields
            pending.append(pid)
    return found


def _memory(pids: list[int]) -> int:
    """Return bytes in use: private memory of all, shared memory once (that of the process that touched most)."""
    private = shared = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = {name: value for name, _, value in (line.partition(":") for line in lines) if name.startswith("Rss")}
        private += int(sizes.get("RssAnon", "0").split()[0]) * 1024
        shared = max(shared, int(sizes.get("RssShmem", "0").split()[0]) * 1024)
    return private + shared


def _disk(folder: str) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                total += os.lstat(f"{where}/{name}").st_blocks * 512
    return total


def _kernel_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since boot (proc_vmstat, Linux 4.13)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"


class Guardian:
    """One server under guard."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.folder = Path(order["folder"])
        self.starter = os.getppid()
        self.kept = False
        self.expires_at = time.monotonic() + order["expires_s"]
        self.kills_before = _kernel_kills()
        self.why = ""
        self.measure_at = 0.0
        self.server: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the server as its user, with its limits, and write both processes down."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        order, me = self.order, os.getpid()

        def before_exec() -> None:  # safe: the guardian has one thread
            libc.prctl(_PR_SET_PDEATHSIG, order["stop_signal"], 0, 0, 0)
            if os.getppid() != me:
                os._exit(1)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            os.umask(0o077)
            if order["processors"]:
                os.sched_setaffinity(0, order["processors"])

        user = {} if order["uid"] is None else {"user": order["uid"], "group": order["gid"], "extra_groups": []}
        own = Path("/proc/self/oom_score_adj")
        before = own.read_text(encoding="ascii")
        with contextlib.suppress(OSError):
            own.write_text(str(max(int(before), _FIRST_VICTIM)), encoding="ascii")
        with (self.folder / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                order["argv"],
                env=order["env"],
                cwd=order["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=before_exec,  # noqa: PLW1509 # one thread
                **user,
            )
        with contextlib.suppress(OSError):
            own.write_text(before, encoding="ascii")
        running = {"guardian": me, "server": self.server.pid}
        stats = {name: (pid, _stat(pid)) for name, pid in running.items()}
        self.write("running.json", {name: [pid, int(fields[19])] for name, (pid, fields) in stats.items() if fields})

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Write a small document whole."""
        fresh = self.folder / f"{name}.new"
        fresh.write_text(json.dumps(document), encoding="utf-8")
        fresh.replace(self.folder / name)

    def watch(self) -> None:
        """Return when drd is done or gone, or the server has expired."""
        heard, told = b"", False
        while time.monotonic() < self.expires_at:
            if self.kept:
                time.sleep(_LOOK_EVERY_S)
            elif select.select([0], [], [], _LOOK_EVERY_S)[0]:
                data = os.read(0, 64)
                heard += data
                self.kept = b"keep\n" in heard
                if not data:
                    return
            elif os.getppid() != self.starter:  # a fork of drd may hold the pipe open
                return
            if not told and self.server.poll() is not None:
                rose = _kernel_kills() > self.kills_before
                self.write("ended.json", {"code": self.server.returncode, "why": self.why, "oom": rose})
                told = True
            elif not told and time.monotonic() > self.measure_at:
                self.measure()

    def measure(self) -> None:
        """Kill the server when it is over a limit."""
        began = time.monotonic()
        family = _family(os.getpid())
        tasks = sum(int(fields[17]) for fields in family.values())
        limits = (
            ("memory", _memory(list(family)), self.order["memory_bytes"]),
            ("disk", _disk(str(self.folder)), self.order["disk_bytes"]),
        )
        over = [
            f"it used {_size(used)} of {name}, its limit is {_size(most)}" for name, used, most in limits if used > most
        ]
        if tasks > self.order["pids"]:
            over.append(f"it had {tasks} threads and processes, its limit is {self.order['pids']}")
        if over:
            self.why = over[0]
            self.end(self.order["stop_signal"])
        self.measure_at = time.monotonic() + max(_MEASURE_EVERY_S, 20 * (time.monotonic() - began))

    def end(self, number: int) -> None:
        """End the server and whatever it left behind; returns when all is gone."""
        if self.server.poll() is None:
            self.server.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(self.order["grace_s"])
        until = time.monotonic() + 10.0
        while (family := _family(os.getpid())) and time.monotonic() < until:
            for pid in family:  # what it forked and left: it came to the guardian, its subreaper
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.server.poll()
            time.sleep(0.01)
        self.server.poll()

    def remove(self) -> None:
        """Remove the folder; what cannot be removed stays for drd to complain about."""
        for _ in range(20):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.05)


def main() -> None:
    """Guard until there is nothing to guard."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard = b""
    while not heard.endswith(b"\n"):
        if not (data := os.read(0, 1)):
            return
        heard += data
    guardian = Guardian(json.loads(heard))
    try:
        guardian.start()
    except OSError as error:
        guardian.write("ended.json", {"code": 127, "why": f"cannot start it: {error}", "oom": False})
        while os.getppid() == guardian.starter and os.read(0, 64):
            pass
        guardian.remove()
        return
    try:
        signal.signal(signal.SIGTERM, _stop)
        guardian.watch()
    except _Stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guardian.end(guardian.order["stop_signal"])
    guardian.remove()


if __name__ == "__main__":
    main()
