"""Outlive the starter by a moment: when it dies, end its servers and remove their files.

Run as ``python -m devstack.guardian WORKSPACE`` with a pipe as standard input that the starter alone holds open. End of
file means that the starter is gone, however it went; the line ``keep`` means that the servers are to stay.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

from devstack.ledger import reap

_LOOK_EVERY_S = 0.5


def watch(workspace: Path) -> None:
    """Wait for the starter to die or to say ``keep``.

    The parent is watched too, since a fork of the starter may hold the pipe's other end open.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    starter = os.getppid()
    heard = b""
    while os.getppid() == starter:
        if not select.select([0], [], [], _LOOK_EVERY_S)[0]:
            continue
        if not (data := os.read(0, 64)):
            break
        heard += data
        if b"keep\n" in heard:
            return
    reap(workspace)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
