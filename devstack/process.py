"""Find, identify and end processes exactly: by pid and start time, never by name.

Source: proc(5), ``/proc/<pid>/stat`` fields 3 (state), 4 (ppid) and 22 (starttime, in clock ticks since boot).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be confused with a later one of the same number."""

    pid: int
    started_ticks: int


def _stat(pid: int) -> tuple[str, int, int] | None:
    """Return state, parent and start time of a process, or None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return fields[0], int(fields[1]), int(fields[19])


def identify(pid: int) -> ProcessId | None:
    """Return the identity of a live process, or None."""
    found = _stat(pid)
    return ProcessId(pid, found[2]) if found and found[0] not in "ZX" else None


def is_alive(process: ProcessId) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    return identify(process.pid) == process


def descendants(process: ProcessId) -> list[ProcessId]:
    """Return every live process below ``process``, itself excluded."""
    children: defaultdict[int, list[ProcessId]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) and found[0] not in "ZX":
            children[found[1]].append(ProcessId(int(entry.name), found[2]))
    result: list[ProcessId] = []
    pending = [process.pid]
    while pending:
        below = children.pop(pending.pop(), [])
        result += below
        pending += [child.pid for child in below]
    return result


def send(process: ProcessId, number: int) -> None:
    """Send a signal to that very process; one that is gone is fine."""
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait until the process is gone; return whether it is."""
    deadline = time.monotonic() + timeout_s
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def end(process: ProcessId, stop_signal: int = signal.SIGTERM, grace_s: float = 5.0) -> None:
    """Stop a process and all below it: the signal, up to ``grace_s`` seconds of patience, then SIGKILL.

    Returns when all of them are gone. A paused process is resumed first, or it could not obey.
    """
    end_all([(process, stop_signal)], grace_s)


def end_all(processes: Sequence[tuple[ProcessId, int]], grace_s: float = 5.0) -> None:
    """Do what :func:`end` does to several processes at once, each with its own signal, one patience for all."""
    family = [member for process, _ in processes for member in (process, *descendants(process))]
    for member in family:
        send(member, signal.SIGCONT)
    for process, stop_signal in processes:
        send(process, stop_signal)
    deadline = time.monotonic() + grace_s
    for process, _ in processes:
        wait_gone(process, max(0.0, deadline - time.monotonic()))
    for member in family:
        send(member, signal.SIGKILL)
    for member in family:
        wait_gone(member, 5.0)
