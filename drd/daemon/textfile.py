"""Metrics in a file, for the textfile collector of Prometheus' node_exporter: there whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from drd.errors import ConfigError

_MODE = 0o644
"""For everybody to read: the collector is another user, and metrics hold no secret."""


def write_textfile(path: Path, data: bytes) -> None:
    """Replace the file by ``data`` in one step; raises ConfigError where that cannot be.

    The collector reads names that end in ``.prom`` alone, so it never meets the file that is being written.
    """
    under_way = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            descriptor = os.open(under_way, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _MODE)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                os.fchmod(stream.fileno(), _MODE)
            under_way.replace(path)
        finally:
            under_way.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be written to {path}: {error.strerror}",
            subject=str(path),
            hint="the folder must be there, and drd may write to it",
        ) from error
