"""Find PostgreSQL's client tools, of the server's major version or newer, and say what they complained about."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drd.cancel import CancelToken
from drd.engines.children import Child, running
from drd.errors import ToolError
from drd.model import Backup

_SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/{major}/bin",  # Debian, Ubuntu
    "/usr/pgsql-{major}/bin",  # PGDG packages for RHEL and SUSE
    "/usr/libexec/postgresql{major}",  # Alpine
    "/usr/local/pgsql/bin",  # built from source
)
_QUOTED_VALUE = re.compile(r"(invalid input (?:syntax|value) for [^:]+: |field value out of range: )\".*")  # of a row
_NEWEST_MAJOR = 30  # how far ahead to look for a newer client
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(\S*)")


@dataclass(frozen=True, slots=True)
class Tool:
    """A client program that can be run: ``major`` is PostgreSQL's, ``version`` as it says it."""

    name: str
    path: Path
    major: int
    version: str


def find_tool(
    name: str, least_major: int, tools_dir: Path | None, cancel: CancelToken, *, whose: str = "the server's"
) -> Tool:
    """Return the tool of this major version if there is one, else the oldest newer one.

    Looks in ``tools_dir``, then in the packages' folders, then on PATH. ``whose`` version it is, is told where all are
    older. Raises :class:`~drd.errors.ToolError` naming what was found instead.
    """
    older: list[Tool] = []
    newer: list[Tool] = []
    refused = ""
    for path in _candidates(name, least_major, tools_dir):
        tool = _examine(name, path, cancel)
        if isinstance(tool, str):
            refused = refused or f"{path} cannot be run: {tool}"
            continue
        if tool.major == least_major:
            return tool
        (newer if tool.major > least_major else older).append(tool)
    if newer:
        return min(newer, key=lambda tool: tool.major)
    hint = f"install postgresql-client-{least_major} or newer, or set tools_dir to the folder that holds it"
    if older:
        best = max(older, key=lambda tool: tool.major)
        raise ToolError(
            f"{best.path} is version {best.version}, older than {whose} {least_major}: it would refuse", hint=hint
        )
    if refused:
        raise ToolError(refused, hint=f"run {name} --version as drd's user, under the same limits (systemd, seccomp)")
    raise ToolError(f"{name} was not found; PostgreSQL {least_major} needs {name} {least_major} or newer", hint=hint)


def pg_restore_for(backup: Backup, server_major: int, tools_dir: Path | None, cancel: CancelToken) -> Tool:
    """Return a pg_restore for this server that also reads what the pg_dump of the backup wrote.

    An older one refuses the archives of a newer pg_dump ("unsupported version in file header").
    """
    written_by = major_of(backup.tools.get("pg_dump", ""))
    if written_by > server_major:
        return find_tool("pg_restore", written_by, tools_dir, cancel, whose="the backup's pg_dump")
    return find_tool("pg_restore", server_major, tools_dir, cancel)


def major_of(version: str) -> int:
    """Return the number that a version begins with, 0 where it begins with none."""
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def _candidates(name: str, server_major: int, tools_dir: Path | None) -> Iterator[Path]:
    seen: set[Path] = set()
    folders = [tools_dir, tools_dir / "bin"] if tools_dir is not None else []
    folders += [
        Path(pattern.format(major=major)) for major in range(server_major, _NEWEST_MAJOR) for pattern in _SYSTEM_FOLDERS
    ]
    for path in [folder / name for folder in folders] + [Path(found) for found in [shutil.which(name)] if found]:
        if path not in seen and os.access(path, os.X_OK) and path.is_file():
            seen.add(path)
            yield path


def _examine(name: str, path: Path, cancel: CancelToken) -> Tool | str:
    """Ask a program for its version; return why it did not say one."""
    with running([str(path), "--version"], cancel=cancel, stdout=subprocess.PIPE) as child:
        output = child.process.communicate()[0]
        cancel.raise_if_cancelled()  # what an interruption ended did not refuse
        said = child.stderr_tail().strip().splitlines() or [f"it ended with {child.process.returncode} and no version"]
    found = _VERSION.search(output.decode("utf-8", "replace"))
    return Tool(name, path, int(found[1]), found[1] + found[2]) if found else said[-1][:200]


# Parallel pg_dump and pg_restore fork workers, which the parent-death signal of running() does not reach: after a
# kill -9 of drd they would go on, into a spool that nobody empties. The watcher sees the end of drd at its pipe.
_GUARD = 'exec 3<&0; (cat <&3 >/dev/null; kill -KILL 0) & exec "$@" 3<&- </dev/null'


@contextmanager
def guarded(argv: Sequence[str], *, cancel: CancelToken, env: Mapping[str, str]) -> Iterator[Child]:
    """Run a tool that forks workers so that none of them outlives drd, not even a drd that was killed with -9."""
    with running(["/bin/sh", "-c", _GUARD, "sh", *argv], cancel=cancel, env=env, stdin=subprocess.PIPE) as child:
        yield child


def processes_of(child: Child) -> list[int]:
    """Return the ids of a guarded tool and the workers it forked, without the watcher."""
    leader = child.process.pid
    try:
        name = _read_proc(f"{leader}/comm")
        forked = [int(pid) for pid in _read_proc(f"{leader}/task/{leader}/children").split()]
    except OSError:  # it just ended
        return []
    same = [leader]
    for pid in forked:
        with contextlib.suppress(OSError):
            if _read_proc(f"{pid}/comm") == name:
                same.append(pid)
    return same


def open_files_of(pid: int) -> set[str]:
    """Return what a process has open; nothing for one that has ended or is about to, so that it writes no more.

    A process that has given up its memory belongs to root in /proc until it is gone, so nobody else may look then
    (proc(5)). Raises PermissionError where a process that runs may not be looked at.
    """
    table = f"/proc/{pid}/fd"
    found: set[str] = set()
    try:
        for descriptor in os.listdir(table):  # noqa: PTH208 - done many times a second: Path costs ten times as much
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"{table}/{descriptor}"))  # noqa: PTH115 - as above
    except (FileNotFoundError, ProcessLookupError):
        return set()
    except PermissionError:
        if _has_memory(pid):
            raise
        return set()
    return found


def _has_memory(pid: int) -> bool:
    try:
        return _read_proc(f"{pid}/statm").split()[0] != b"0"
    except OSError:
        return False


def _read_proc(name: str) -> bytes:
    """Read a short file of /proc; called many times a second, so without the layers of open()."""
    descriptor = os.open(f"/proc/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 64 * 1024)
    finally:
        os.close(descriptor)


def complaint(stderr: str) -> str:
    """Return the line of a tool's standard error that says why it failed, without its prefix."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for mark in ("fatal: ", "error: ", "FATAL: ", "ERROR: "):
        for line in lines:
            if mark in line:
                return _brief(line.split(mark, 1)[1])
    useful = [line for line in lines if "detail:" not in line and "hint:" not in line]
    return _brief(useful[0]) if useful else "it said nothing"


def _brief(text: str) -> str:
    text = re.sub(r"^(?:query failed|could not execute query|connection to server .*? failed): ", "", text.strip())
    text = re.sub(r"^(?:ERROR|FATAL):\s+", "", text)
    text = _QUOTED_VALUE.sub(r"\1…", text)
    return text if len(text) <= 300 else text[:297] + "…"
