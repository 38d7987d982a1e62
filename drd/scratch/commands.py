"""Run a command for a drill and keep what it says within bounds."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess

from drd.cancel import CancelToken

OUTPUT_BYTES = 64 * 1024


def bounded_output(process: subprocess.Popen[bytes], cancel: CancelToken) -> tuple[int, str]:
    """Read a process (in a session of its own) to its end; return its code and the first 64 KiB of its output.

    On cancellation, or any other exception, the whole session is killed first.
    """
    kept = bytearray()
    if process.stdout is None:
        raise ValueError("the process has no pipe to read")
    try:
        with process.stdout as stream:
            while True:
                cancel.raise_if_cancelled()
                if not select.select([stream], [], [], 0.1)[0]:
                    if process.poll() is not None:  # a child of its own holds the pipe open
                        break
                    continue
                if not (data := os.read(stream.fileno(), 65536)):
                    break
                kept += data[: OUTPUT_BYTES - len(kept)]
        while process.poll() is None:
            cancel.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, kept.decode("utf-8", "replace")
