"""A ``clickhouse`` program made of libchdb.so, for scratch servers on machines that have none."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from devstack import obtain
from devstack.errors import ServiceMissing

CLICKHOUSE_VERSION = "26.7.2.1"
"""What libchdb.so of :data:`devstack.obtain.CHDB_VERSION` answers to ``SELECT version()``."""
_HERE = Path(__file__).resolve().parent
SCRIPTS = ("clickhouse_launcher.py", "clickhouse_standin.py")


def launcher_text(folder: str, python: str) -> str:
    """Return the shell script ``clickhouse``; ``folder`` holds the scripts and the library where it will run."""
    return f"""#!/bin/sh
if [ "$1" = --version ]; then
    echo "ClickHouse server version {CLICKHOUSE_VERSION} (stand-in)"
elif [ "$1" = server ]; then
    shift
    exec {python} -I {folder}/clickhouse_standin.py "$@"
else
    echo "clickhouse stand-in: not here: $*" >&2
    exit 2
fi
"""


def clickhouse_programs(*, install: bool = False) -> Path:
    """Return a folder with a program ``clickhouse`` that any user can run; quick when it is there."""
    library = obtain.libchdb(install=install)
    target = obtain.shared_cache_dir() / f"clickhouse-{obtain.CHDB_VERSION}"
    script = launcher_text(str(target), _python())

    def fill(folder: Path) -> None:
        try:
            os.link(library, folder / "libchdb.so")  # half a gigabyte
        except OSError:
            shutil.copyfile(library, folder / "libchdb.so")
        (folder / "libchdb.so").chmod(0o755)

    if not target.exists():
        obtain.fill_cache(target, fill)
    for name in SCRIPTS:
        _put(target / name, (_HERE / name).read_text(encoding="utf-8"), 0o644)
    _put(target / "clickhouse", script, 0o755)
    return target


def _python() -> str:
    """Return a Python that any user may start: not one below root's home."""
    for name in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        path = Path(name)
        if path.exists() and all(folder.stat().st_mode & 0o001 for folder in (path, *path.resolve().parents)):
            return name
    raise ServiceMissing("the stand-in for ClickHouse needs a Python that any user may start: apt-get install python3")


def _put(path: Path, text: str, mode: int) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(mode)
    fresh.replace(path)
