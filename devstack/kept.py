"""The folder of ``devstack up``: what it is made of, what runs, and how it goes. Imports nothing heavy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from devstack import ledger
from devstack.errors import DevstackError
from devstack.process import is_alive

CONFIG = "drd.yaml"
SECRETS = "secrets"
HEADER = "# Written by python -m devstack up; throw-away servers, throw-away secrets.\n"


@dataclass(frozen=True, slots=True)
class Service:
    """One server as ``status`` tells of it; ``password_file`` is relative to the state folder."""

    name: str
    url: str
    user: str
    password_file: str
    pid: int
    log: str
    state: str = "running"


def refuse_to_overwrite(state_dir: Path) -> None:
    """Raise when the folder holds a drd.yaml or secrets that ``up`` did not write."""
    config = state_dir / CONFIG
    ours = config.exists() and config.read_text(encoding="utf-8").startswith(HEADER)
    for path in (config, state_dir / SECRETS):
        if path.exists() and not ours:
            raise DevstackError(f"{path} is there and not of devstack's making; choose another --dir")


def read(state_dir: Path) -> list[Service]:
    """Return the services of a state folder with their present state; none when nothing is up there.

    A process counts as running if it is the very one that was started, by pid and start time.
    """
    workspace = ledger.kept_workspace(state_dir)
    if workspace is None:
        return []
    running = {entry.process.pid for entry in ledger.entries(workspace) if is_alive(entry.process)}
    try:
        rows = json.loads((state_dir / ledger.STATE).read_text(encoding="utf-8"))["services"]
    except FileNotFoundError:
        return []
    return [Service(**{**row, "state": "running" if row["pid"] in running else "gone"}) for row in rows]


def take_down(state_dir: Path) -> bool:
    """End exactly the servers of a state folder and remove all that ``up`` wrote; return whether there was any.

    The folder itself goes when nothing else is in it.
    """
    workspace = ledger.kept_workspace(state_dir)
    if workspace is None:
        return False
    if workspace.parent != ledger.base_dir() or not workspace.name.startswith(ledger.PREFIX):
        raise DevstackError(f"{state_dir / ledger.STATE} names {workspace}, which is no workspace of devstack")
    ledger.reap(workspace)
    for path in (state_dir / "store", state_dir / SECRETS):
        if path.exists():
            ledger.remove_tree(path)
    for name in (CONFIG, ledger.STATE, ledger.STATE + ".new"):
        (state_dir / name).unlink(missing_ok=True)
    if not any(state_dir.iterdir()):
        state_dir.rmdir()
    return True
