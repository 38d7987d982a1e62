"""Standard output and error as they are found: closed, left by their reader, or of an encoding without ✓."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import TextIO

_BARS = {bar: str(height) for height, bar in enumerate("▁▂▃▄▅▆▇█", 1)}
_PLAIN = {"✓": "ok", "✗": "FAILED", "·": "-", "–": "-", "—": "-", "→": "->", "…": "...", "━": "=", "╸": ">"} | _BARS


def prepare() -> None:
    """Make both streams take any text, and see that no file opened later becomes one of them by its number."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:  # 0, 1 or 2 was closed by whoever started drd
        pass
    os.close(spare)
    codecs.register_error("drd-plain", plainly)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as the process
        elif reconfigure := getattr(stream, "reconfigure", None):  # a test's own stream may have none
            reconfigure(errors="drd-plain")


def plainly(error: UnicodeError) -> tuple[str, int]:
    """Say in plain letters what the stream's encoding cannot show; marks keep their meaning (codecs error handler)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def abandon_output() -> None:
    """Forget what nobody reads any more on standard output, lest the interpreter try to write it when it ends."""
    _abandon(sys.stdout)


def abandon_errors() -> None:
    """Do the same for standard error: Python 3.11.2 ends with 120 where a last flush of it fails."""
    _abandon(sys.stderr)


def _abandon(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # no descriptor behind it, as in a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
