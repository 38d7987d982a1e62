"""Who holds a lease, precisely enough to know from the same host that it is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Holder:
    """A process: ``started`` is its start in clock ticks since boot, ``boot`` names the boot and the pid namespace.

    Source: proc(5), stat field 22; namespaces(7). Both are empty where /proc cannot be read, and then nobody
    concludes that the process is gone. Containers on one host share a boot id but not their process numbers,
    hence the namespace.
    """

    host: str
    pid: int
    started: str = ""
    boot: str = ""

    @classmethod
    def of_this_process(cls) -> Self:
        """Describe this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _started(pid) or "", _boot())


def is_gone(holder: Holder, *, seen_from: Holder) -> bool:
    """Whether ``holder`` certainly no longer runs; False when that cannot be known from here.

    A process that ended and whose parent has not yet noticed (a zombie) is gone.
    """
    if not holder.boot or not holder.started or holder.boot != seen_from.boot:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass  # it runs as somebody else; or no such number can be asked for
    started = _started(holder.pid)
    return started is not None and started != holder.started  # ended, or the number was given to another process


def _started(pid: int) -> str | None:
    """Return when a process started, ``ended`` for a zombie, None when that cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    values = stat.rpartition(")")[2].split()  # after the name, which may hold anything
    return "ended" if values[0] in {"Z", "X"} else values[19]


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
