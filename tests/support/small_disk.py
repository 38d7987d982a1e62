"""A disk of a few megabytes, for one command alone: a mount that nobody else sees and that goes with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.services import do_without

_INSIDE = """mount -t tmpfs -o "size=$1,mode=0711" none "$2" || exit 99
folder=$2; shift 2
"$@"
code=$?
find "$folder" -mindepth 1 >"$folder.listing"
exit $code"""


def small_disk(folder: Path, size: str) -> list[str]:
    """Return the words before a command that give it a disk of ``size`` at ``folder``; a list of files stays."""
    folder.mkdir(parents=True, exist_ok=True)
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    words = [*namespace, "sh", "-c", _INSIDE, "sh", size, str(folder)]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        do_without(f"this machine allows no mount namespace: {tried.stderr.strip()}")
    return words


def left_on(folder: Path) -> list[str]:
    """Return what lay on the small disk at the end of the command."""
    return Path(f"{folder}.listing").read_text().splitlines()
