"""Have a guardian run a command beside its server, and keep what the command says within bounds."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from drd.cancel import CancelToken
from drd.errors import Cancelled
from drd.model import Json
from drd.scratch import ledger

OUTPUT_BYTES = 64 * 1024
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STOP_S = 15.0


def guarded_run(
    guardian: subprocess.Popen[bytes], folder: Path, order: Mapping[str, Json], cancel: CancelToken
) -> tuple[int | None, str]:
    """Return the exit code of a command (negative: the signal that ended it) and the first 64 KiB of its output.

    It is 127 for a program that is not there, 126 for one that cannot be started, None when the guardian died. On
    cancellation the command, and all that it started, has ended when Cancelled is raised.
    """
    name = f"command-{secrets.token_hex(4)}"
    pipe, report = folder / f"{name}.pipe", folder / f"{name}.json"
    os.mkfifo(pipe, 0o600)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _tell(guardian, b"run " + json.dumps({**order, "output": str(pipe), "report": report.name}).encode() + b"\n")
        try:
            said = _read(end, report, guardian, cancel)
        except Cancelled:
            _tell(guardian, b"stop\n")
            _read(end, report, guardian, CancelToken(), patience_s=_STOP_S)
            raise
    finally:
        os.close(end)
        pipe.unlink(missing_ok=True)
    found = ledger.read(report)
    report.unlink(missing_ok=True)
    code = found.get("code")
    return (code if isinstance(code, int) else None), said.decode("utf-8", "replace") or str(found.get("why", ""))


def _tell(guardian: subprocess.Popen[bytes], line: bytes) -> None:
    if guardian.stdin is not None:
        with suppress(BrokenPipeError):  # it died, which whoever waits for its answer will see
            guardian.stdin.write(line)
            guardian.stdin.flush()


def _read(
    end: int, report: Path, guardian: subprocess.Popen[bytes], cancel: CancelToken, patience_s: float = 1e9
) -> bytes:
    """Read a pipe until the guardian has reported the command's end, or has ended itself."""
    kept = bytearray()
    waited_s = 0.0
    while waited_s < patience_s:
        cancel.raise_if_cancelled()
        over = report.exists() or guardian.poll() is not None
        ready = select.select([end], [], [], 0.0 if over else 0.05)[0]
        with suppress(BlockingIOError):
            data = os.read(end, 65536) if ready else b""
            kept += data[: OUTPUT_BYTES - len(kept)]
            if data:
                continue
        if over:
            break
        if ready:  # nobody has it open yet, or any more
            cancel.sleep(0.02)
        waited_s += 0.05
    return bytes(kept)
