"""Start one scratch server, hold it to its limits, and end it with the drd that wanted it, however that ended.

A stand-alone script (``python -I guardian.py``), so that it starts quickly. Its standard input is a pipe that drd alone
holds open: the first line is the order, in JSON; then ``keep`` means that the server is to outlive drd until it
expires, ``run`` and an order that a command is to run beside it, ``stop`` that this is to end, and end of file without
``keep`` that drd is done, or dead. The server gets a parent-death signal from the guardian (prctl(2)), so nothing is
left even when both are killed at once, but a folder that the ledger in it explains.

A command runs as the server's user and under the same limits; whatever it forked and left ends with it.
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
from collections.abc import Callable
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


def _end_all(find: Callable[[], list[int]], patience_s: float) -> None:
    """Kill what ``find`` finds until it finds nothing: stopped first, so that what forks does not get away."""
    until = time.monotonic() + patience_s
    while (pids := find()) and time.monotonic() < until:
        stopped: set[int] = set()
        while fresh := set(pids) - stopped:
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            stopped |= fresh
            pids = find()
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _tasks_of(uid: int) -> int:
    """Return how many processes and threads a user has."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                count += int(_stat_field(int(entry.name), 17)) if entry.stat().st_uid == uid else 0
    return count


def _stat_field(pid: int, number: int) -> str:
    return (_stat(pid) or ["0"] * (number + 1))[number]


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
        self.command: subprocess.Popen[bytes] | None = None
        self.report = ""
        self.heard = b""
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def tie(self, death_signal: int, most_tasks: int | None = None) -> Callable[[], None]:
        """Return what a child does before it becomes its program: die with the guardian, take its limits."""
        order, me = self.order, os.getpid()

        def before_exec() -> None:  # safe: the guardian has one thread
            self.libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if os.getppid() != me:
                os._exit(1)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            if most_tasks is not None:
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(resource.RLIMIT_NPROC, (most_tasks, most_tasks))
            os.umask(0o077)
            if order["processors"]:
                os.sched_setaffinity(0, order["processors"])

        return before_exec

    def user(self) -> dict[str, Any]:
        """Return whom a child becomes."""
        order = self.order
        return {} if order["uid"] is None else {"user": order["uid"], "group": order["gid"], "extra_groups": []}

    def start(self) -> None:
        """Start the server as its user, with its limits, and write both processes down."""
        order, me = self.order, os.getpid()
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
                preexec_fn=self.tie(order["stop_signal"]),  # noqa: PLW1509 # one thread
                **self.user(),
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
        told = False
        while time.monotonic() < self.expires_at:
            if self.kept:
                time.sleep(_LOOK_EVERY_S)
            elif select.select([0], [], [], _LOOK_EVERY_S if self.command is None else _LOOK_EVERY_S / 5)[0]:
                if not (data := os.read(0, 65536)):
                    return
                *lines, self.heard = (self.heard + data).split(b"\n")
                for line in lines:
                    self.obey(line)
            elif os.getppid() != self.starter:  # a fork of drd may hold the pipe open
                return
            self.look_at_command()
            if not told and self.server.poll() is not None:
                rose = _kernel_kills() > self.kills_before
                self.write("ended.json", {"code": self.server.returncode, "why": self.why, "oom": rose})
                told = True
            elif not told and time.monotonic() > self.measure_at:
                self.measure()

    def obey(self, line: bytes) -> None:
        """Do what drd asks for while the server runs."""
        word, _, rest = line.partition(b" ")
        if word == b"keep":
            self.kept = True
        elif word == b"run" and self.command is None:
            self.run(json.loads(rest))
        elif word == b"stop" and self.command is not None:
            _end_all(self.beside, 10.0)

    def run(self, wanted: dict[str, Any]) -> None:
        """Start a command as the server's user; its output goes to the pipe that is named."""
        uid = os.geteuid() if self.order["uid"] is None else self.order["uid"]
        self.report = wanted["report"]
        try:
            with Path(wanted["output"]).open("wb", buffering=0) as output:
                self.command = subprocess.Popen(
                    wanted["argv"],
                    env=wanted["env"],
                    cwd=self.order["cwd"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=self.tie(signal.SIGKILL, _tasks_of(uid) + self.order["pids"]),  # noqa: PLW1509 # one thread
                    **self.user(),
                )
        except FileNotFoundError as error:
            self.write(self.report, {"code": 127, "why": str(error)})
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.write(self.report, {"code": 126, "why": str(error)})

    def look_at_command(self) -> None:
        """Once the command has ended, end what it left behind and report its exit code."""
        if self.command is None or self.command.poll() is None:
            return
        code, self.command = self.command.returncode, None
        _end_all(self.beside, 10.0)
        self.write(self.report, {"code": code, "why": ""})

    def beside(self) -> list[int]:
        """Return the processes below the guardian that are not the server's."""
        servers = {self.server.pid, *_family(self.server.pid)}
        return [pid for pid in _family(os.getpid()) if pid not in servers]

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
        _end_all(lambda: list(_family(os.getpid())), 10.0)  # what it forked and left came to its subreaper
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
