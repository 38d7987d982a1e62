"""The list of processes that a workspace started, on disk, so that anyone can end exactly those.

A process is written down before it may run (see :meth:`devstack.workspace.Workspace.spawn`), so there is no moment
in which a crash of the starter leaves one that nobody knows of.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.process import ProcessId, end_all, identify, is_alive

LEDGER = "processes.jsonl"
OWNER = "owner.json"
STATE = "state.json"
PREFIX = "drd-devstack-"
_UNOWNED_GRACE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One started process and how it wants to be stopped."""

    name: str
    process: ProcessId
    stop_signal: int


def base_dir() -> Path:
    """Return the folder below which workspaces are made: reachable by unprivileged users, with a short path.

    ``$DRD_DEVSTACK_TMP`` if set, else ``/var/tmp`` (on disk, unlike some ``/tmp``). Short, because the path of a
    Unix socket has at most 107 bytes (unix(7)).
    """
    return Path(os.environ.get("DRD_DEVSTACK_TMP") or "/var/tmp")  # noqa: S108 # private folders are made below


def append(workspace: Path, entry: Entry) -> None:
    """Write a process down."""
    line = {
        "name": entry.name,
        "pid": entry.process.pid,
        "started_ticks": entry.process.started_ticks,
        "stop_signal": entry.stop_signal,
    }
    with (workspace / LEDGER).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def entries(workspace: Path) -> list[Entry]:
    """Return every process written down, in the order of their start; none for a missing ledger."""
    try:
        lines = (workspace / LEDGER).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    result = []
    for line in lines:
        row = json.loads(line)
        result.append(Entry(row["name"], ProcessId(row["pid"], row["started_ticks"]), row["stop_signal"]))
    return result


def reap(workspace: Path) -> None:
    """End every process of the workspace that still runs and remove the folder. Idempotent.

    After a reboot a pid and start time may be another process's, so then nothing is ended.
    """
    owner = _owner(workspace)
    same_boot = owner is not None and owner["boot"] == _boot_id()
    if same_boot:
        running = [entry for entry in reversed(entries(workspace)) if is_alive(entry.process)]
        end_all([(entry.process, entry.stop_signal) for entry in running])
    remove_tree(workspace)


def remove_tree(path: Path) -> None:
    """Remove a folder; what a dying server still adds to it is removed in another round."""
    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.1)
    shutil.rmtree(path)


def write_owner(workspace: Path, state_dir: Path | None) -> None:
    """Write down who the workspace belongs to: this process, or (once kept) a state folder."""
    me = identify(os.getpid())
    assert me is not None  # noqa: S101 # we run
    owner = {
        "pid": me.pid,
        "started_ticks": me.started_ticks,
        "boot": _boot_id(),
        "pid_namespace": _pid_namespace(),
        "state_dir": None if state_dir is None else str(state_dir),
    }
    temporary = workspace / (OWNER + ".new")
    temporary.write_text(json.dumps(owner), encoding="utf-8")
    temporary.replace(workspace / OWNER)


def _owner(workspace: Path) -> dict[str, Any] | None:
    try:
        owner: dict[str, Any] = json.loads((workspace / OWNER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return owner


def kept_workspace(state_dir: Path) -> Path | None:
    """Return the workspace that a state folder of ``devstack up`` speaks of, or None."""
    try:
        state = json.loads((state_dir / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Path(state["workspace"])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _is_abandoned(workspace: Path) -> bool:
    """Whether nobody can want this workspace any more; in doubt, no."""
    owner = _owner(workspace)
    if owner is None:
        return time.time() - workspace.stat().st_mtime > _UNOWNED_GRACE_S
    if owner["boot"] != _boot_id():
        return True
    if owner["pid_namespace"] != _pid_namespace():
        return False  # its processes cannot be seen from here
    if owner["state_dir"] is not None:
        return kept_workspace(Path(owner["state_dir"])) != workspace
    return not is_alive(ProcessId(owner["pid"], owner["started_ticks"]))


def reap_abandoned() -> list[Path]:
    """Reap the workspaces of this user whose starter died without its guardian; return their paths."""
    found = []
    for path in sorted(base_dir().glob(PREFIX + "*")):
        try:
            if path.stat().st_uid == os.getuid() and _is_abandoned(path):
                reap(path)
                found.append(path)
        except FileNotFoundError:  # its own guardian was quicker
            continue
    return found
