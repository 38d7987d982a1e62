"""Private spool directories: one for each piece of work, and gone with it, at the latest with the next piece."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from drd.errors import ConfigError

_NAME = re.compile(r"drd-\d{8}T\d{6}Z-[0-9a-z]{6}-")
_ATTEMPTS = 10


@contextmanager
def spool_directory(root: Path | None, backup_id: str) -> Iterator[Path]:
    """Lend a new directory below ``root`` (None: the system's temporary folder), removed afterwards.

    What a killed drd of the same user left there is removed first, so that the disk it takes does not grow with
    every crash: a directory in use is locked (flock(2)), and the lock of a dead process is free. Raises
    :class:`~drd.errors.ConfigError` when nothing can be made there.
    """
    where = root or Path("the temporary folder")
    with ExitStack() as stack:
        try:
            where = root or Path(tempfile.gettempdir())
            where.mkdir(parents=True, exist_ok=True)
            sweep(where)
            spool = _make(where, backup_id, stack)
        except OSError as error:
            raise ConfigError(
                f"cannot make a spool directory below {where}: {error.strerror}",
                hint="set spool.dir to a directory drd may write to, and with room",
            ) from error
        try:
            yield spool
        finally:
            shutil.rmtree(spool, ignore_errors=True)


def sweep(where: Path) -> list[Path]:
    """Remove the spool directories of this user's processes that are gone; return them."""
    removed = []
    for entry in os.scandir(where):
        if not _NAME.match(entry.name):
            continue
        with ExitStack() as stack, suppress(OSError):  # in use, somebody else's, or just removed by another drd
            held = _lock(Path(entry.path), stack)
            if os.fstat(held).st_uid == os.geteuid():
                shutil.rmtree(entry.path, ignore_errors=True)
                removed.append(Path(entry.path))
    return removed


def _make(where: Path, backup_id: str, stack: ExitStack) -> Path:
    """Make a directory and hold its lock for as long as ``stack`` lives."""
    for _ in range(_ATTEMPTS):
        spool = Path(tempfile.mkdtemp(prefix=f"drd-{backup_id}-", dir=where))
        with suppress(FileNotFoundError, BlockingIOError):  # another drd swept it before it was locked
            held = _lock(spool, stack)
            if os.path.samestat(os.fstat(held), spool.stat()):
                return spool
    raise FileExistsError(0, "others keep removing it")


def _lock(folder: Path, stack: ExitStack) -> int:
    """Open and lock a directory; raises OSError when it is no directory, or locked by another."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor
