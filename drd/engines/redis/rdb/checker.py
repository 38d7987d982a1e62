"""The server's own redis-check-rdb, as a child that reads the snapshot while it passes.

It checks structure and checksum at 90 MB/s and more, which Python cannot; it prints where each database begins and,
at the end, the totals. It prints into a file of ours and is fed through a pipe.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from drd.cancel import CancelToken
from drd.engines.children import Child, running
from drd.engines.redis.rdb.crc import crc64
from drd.errors import IntegrityError, ToolError

_NAMES = ("redis-check-rdb", "valkey-check-rdb")
_OUTPUT_LIMIT_BYTES = 8 << 20
_DATABASE = re.compile(r"\[offset (\d+)\] Selecting DB ID (\d+)")
_TOTAL = re.compile(r"\[info\] (\d+) (keys read|expires|already expired|subexpires)")


@dataclass(frozen=True)
class CheckerReport:
    """What the tool said: totals, and for each database the offset right after its number."""

    keys: int
    expires: int
    field_expires: int | None
    database_offsets: dict[int, int]


def find_checker(tools_dir: Path | None, magic: str, version: int) -> str | None:
    """Return the path of a tool that knows this RDB version, or None; tried, not guessed from version tables."""
    for name in _NAMES:
        path = shutil.which(name, path=str(tools_dir)) if tools_dir else shutil.which(name)
        if path and _knows(path, magic, version):
            return path
    return None


@lru_cache(maxsize=64)
def _knows(path: str, magic: str, version: int) -> bool:
    """Let the tool read an empty snapshot of that version."""
    body = f"{magic}{version:0{9 - len(magic)}d}".encode() + b"\xff"
    sample = body + crc64(body).to_bytes(8, "little")
    with tempfile.NamedTemporaryFile(prefix="drd-rdb-") as file:
        file.write(sample)
        file.flush()
        try:
            done = subprocess.run([path, file.name], capture_output=True, check=False, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0


@lru_cache(maxsize=8)
def tool_version(path: str) -> str:
    """Return what the tool calls itself, such as ``redis-check-rdb 7.0.15``; only its name where it does not say."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return Path(path).name
    words = done.stdout.decode("utf-8", "replace").split()[:2]
    return " ".join(words) if len(words) == 2 and words[0].endswith("-check-rdb") else Path(path).name


def check_stream(path: str, chunks: Iterator[bytes], cancel: CancelToken) -> CheckerReport:
    """Feed ``chunks`` to the tool and return its report; must run in one thread from start to end.

    Raises :class:`~drd.errors.IntegrityError` with the tool's words when it rejects the snapshot,
    :class:`~drd.errors.ToolError` when it fails in another way. ``chunks`` is always read to its end.
    """
    with (
        tempfile.TemporaryFile(prefix="drd-check-") as output,
        running([path, "/dev/stdin"], cancel=cancel, stdin=subprocess.PIPE, stdout=output.fileno()) as child,
    ):
        _feed(child, chunks)
        code = child.process.wait()
        said = _read(output)
        cancel.raise_if_cancelled()
        if code != 0:
            raise _rejection(path, code, said, child.stderr_tail())
    return _parse(path, said)


def _feed(child: Child, chunks: Iterator[bytes]) -> None:
    pipe = child.process.stdin
    assert pipe is not None  # noqa: S101 - asked for above
    broken = False
    for chunk in chunks:
        if broken:
            continue  # drain: whoever feeds us must not block
        try:
            pipe.write(chunk)
        except BrokenPipeError:
            broken = True
    try:
        pipe.close()
    except BrokenPipeError:
        return  # it stopped reading: its exit code and output say why


def _read(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read(_OUTPUT_LIMIT_BYTES).decode("utf-8", "replace")


def _rejection(path: str, code: int, said: str, stderr: str) -> IntegrityError | ToolError:
    name = Path(path).name
    lines = [line for line in (said + stderr).splitlines() if line.strip()]
    at = next((i for i, line in enumerate(lines) if "RDB ERROR" in line), None)
    if at is None or at + 1 >= len(lines):
        return ToolError(f"{name} ended with {code}: {lines[-1][:200] if lines else 'it said nothing'}")
    return IntegrityError(f"{name} rejects the snapshot: {lines[at + 1][:200]}")


def _parse(path: str, said: str) -> CheckerReport:
    totals = {name: int(number) for number, name in _TOTAL.findall(said)}
    if "keys read" not in totals or "expires" not in totals:
        raise ToolError(f"{Path(path).name} printed no totals", hint="is it the tool of a Redis or Valkey server?")
    return CheckerReport(
        keys=totals["keys read"],
        expires=totals["expires"],
        field_expires=totals.get("subexpires"),
        database_offsets={int(offset): int(db) for offset, db in _DATABASE.findall(said)},
    )
