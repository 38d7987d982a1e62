"""Who goes first where processors are few."""

from __future__ import annotations

import os
import sys
import threading

_NICER = 5  # how much less than others a thread that encodes claims of a processor


def let_others_first() -> None:
    """Lower the priority of this thread: whoever feeds the pipeline, and the database, go first where cores are few.

    Linux has a nice value for each thread (setpriority(2), "C library/kernel differences"); elsewhere nothing is done.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + _NICER))
