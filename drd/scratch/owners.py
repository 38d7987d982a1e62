"""Who started a scratch server, written down so exactly that anybody can tell later whether they are gone.

Source: proc(5), ``/proc/<pid>/stat`` fields 3 (state), 4 (ppid) and 22 (start time, in clock ticks since boot).
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from drd.model import Json

Fate = Literal["alive", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be confused with a later one of the same number."""

    pid: int
    started_ticks: int


def identify(pid: int) -> ProcessId | None:
    """Return the identity of a live process (a zombie is not), or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] in "ZX" else ProcessId(pid, int(fields[19]))


def end(process: ProcessId, stop_signal: int, grace_s: float = 5.0) -> bool:
    """Stop that very process: the signal, some patience, then SIGKILL; return whether it was there.

    A process of another start time is somebody else's and is left alone.
    """
    if identify(process.pid) != process:
        return False
    for number, patience_s in ((stop_signal, grace_s), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        until = time.monotonic() + patience_s
        while identify(process.pid) == process:
            if time.monotonic() > until:
                break
            time.sleep(0.02)
        else:
            return True
    return True


@dataclass(frozen=True, slots=True)
class Owner:
    """The drd process that a scratch server belongs to: host, boot, pid namespace, pid and start time."""

    host: str
    boot: str
    namespace: str
    pid: int
    started_ticks: int

    @classmethod
    def current(cls) -> Owner:
        """Describe this process."""
        me = identify(os.getpid()) or ProcessId(os.getpid(), 0)
        return cls(platform.node(), _boot(), _namespace(), me.pid, me.started_ticks)

    def fate(self) -> Fate:
        """Say whether the owner still runs; unknown when it runs, or ran, where this process cannot see."""
        if self.host != platform.node():
            return "unknown"
        if self.boot != _boot():
            return "gone"
        if self.namespace != _namespace():
            return "unknown"
        return "alive" if identify(self.pid) == ProcessId(self.pid, self.started_ticks) else "gone"

    def same_boot(self) -> bool:
        """Whether process numbers written down with it mean anything here and now."""
        return (self.host, self.boot, self.namespace) == (platform.node(), _boot(), _namespace())

    def to_json(self) -> dict[str, Json]:
        """Return the form that ledgers hold."""
        return dict(asdict(self))

    @classmethod
    def from_json(cls, value: object) -> Owner | None:
        """Read what :meth:`to_json` wrote; None for anything else."""
        if not isinstance(value, dict):
            return None
        texts = [value.get(name) for name in ("host", "boot", "namespace")]
        numbers = [value.get(name) for name in ("pid", "started_ticks")]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in numbers):
            return None
        return cls(value["host"], value["boot"], value["namespace"], value["pid"], value["started_ticks"])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())
