"""Where the session's servers have their data: in memory, where there is plenty of it.

They have fsync off, so nothing is proven by their disk, and a file system makes and removes thousands of their small
files at the price of a third of the suite's work. What drd itself writes (local stores, spools, state) lies in
pytest's own folders, on a disk, with every fsync.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import MutableMapping
from pathlib import Path

from devstack import ledger

VARIABLE = "DRD_DEVSTACK_TMP"
MEMORY = Path("/dev/shm")
ROOM_BYTES = 6 << 30
"""What the servers of a run of four workers need at most is half of this."""
AVAILABLE_BYTES = 12 << 30
"""With that much memory free before the run, the data fit beside the servers themselves."""


def choose(environment: MutableMapping[str, str]) -> None:
    """Say in the environment that servers live in memory; does nothing where it is said already, or memory is short."""
    if VARIABLE not in environment and roomy(MEMORY, Path("/proc/meminfo")):
        environment[VARIABLE] = str(MEMORY)


def roomy(folder: Path, meminfo: Path) -> bool:
    """Whether a folder lies in memory, anybody may pass through it, and it and the machine have room."""
    try:
        open_to_all = folder.stat().st_mode & 0o1777 == 0o1777
        available = re.search(r"^MemAvailable: +(\d+) kB$", meminfo.read_text(), re.MULTILINE)
        free_bytes = shutil.disk_usage(folder).free
    except OSError:  # not Linux, or a machine without it
        return False
    if available is None or not os.path.ismount(folder):
        return False
    return open_to_all and free_bytes >= ROOM_BYTES and int(available[1]) * 1024 >= AVAILABLE_BYTES


def described() -> str:
    """Return a line for the head of a run."""
    return f"servers' data below {ledger.base_dir()}"
