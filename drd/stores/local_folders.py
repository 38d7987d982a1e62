"""Folders and files of the local store, reached without following a symbolic link.

Every step opens a folder relative to the one before it (openat(2) with O_NOFOLLOW), so that neither a planted link
nor a folder that is renamed or removed meanwhile can lead a key out of the store.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drd.errors import StoreError, StoreRefused, StoreUnavailable

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o700  # backups are as secret as the databases
_REMEMBERED = 4096
_LOOKED_INTO = 100
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_PASSING = {
    errno.EIO,
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}


def store_error(error: OSError, *, op: str, subject: str, root: Path) -> StoreError:
    """Map a system error to drd's; a full disk is refused, not retried: it needs a person."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"cannot {op} {subject} in {root}: {reason}"
    if error.errno in _FULL:
        hint = f"free space on the file system of {root} (df -h {root}), or prune old backups: drd prune"
        return StoreRefused(message, op=op, subject=subject, hint=hint)
    if error.errno in _FORBIDDEN:
        hint = f"let the user that runs drd read and write {root}, and see that it is not mounted read-only"
        return StoreRefused(message, op=op, subject=subject, hint=hint)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.ELOOP}:
        hint = f"a file, folder or link lies where another is needed below {root}; it was not made by drd"
        return StoreRefused(message, op=op, subject=subject, hint=hint)
    if error.errno in _PASSING:
        hint = f"see that the disk or network file system of {root} is well: dmesg | tail"
        return StoreUnavailable(message, op=op, subject=subject, hint=hint)
    return StoreRefused(message, op=op, subject=subject, hint=f"look at {root} and the file system it is on")


class Folders:
    """The folder tree below ``root``. Thread-safe. Raises OSError; the store maps it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, segments: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """Yield a descriptor of the folder; with ``create`` make it first, and durably."""
        if create:
            self._make_root()
        current = os.open(self.root, _FOLDER_FLAGS & ~os.O_NOFOLLOW)  # the root itself may be a link
        try:
            for depth, name in enumerate(segments, start=1):
                if create:
                    self._make(current, name, segments[:depth])
                deeper = os.open(name, _FOLDER_FLAGS, dir_fd=current)
                os.close(current)
                current = deeper
            yield current
        finally:
            os.close(current)

    def open_file(self, segments: tuple[str, ...], name: str) -> int:
        """Return a descriptor of a plain file for reading: :meth:`opened` and :func:`open_regular`, but quicker."""
        current = os.open(self.root, _FOLDER_FLAGS & ~os.O_NOFOLLOW)
        try:
            for segment in segments:
                deeper = os.open(segment, _FOLDER_FLAGS, dir_fd=current)
                os.close(current)
                current = deeper
            return open_regular(name, current)
        finally:
            os.close(current)

    def _make_root(self) -> None:
        missing = [path for path in (self.root, *self.root.parents) if not path.is_dir()]
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):  # made by another put; a file in the way fails at opening
                path.mkdir(mode=_FOLDER_MODE)
            above = os.open(path.parent, _FOLDER_FLAGS & ~os.O_NOFOLLOW)
            try:
                os.fsync(above)
            finally:
                os.close(above)

    def _make(self, parent: int, name: str, path: tuple[str, ...]) -> None:
        """Make one folder; sync its parent once in this process, since whoever made it may not have yet."""
        with self._lock:
            if path in self._durable:
                with contextlib.suppress(FileNotFoundError):
                    os.stat(name, dir_fd=parent, follow_symlinks=False)
                    return
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
        os.fsync(parent)
        with self._lock:
            if len(self._durable) >= _REMEMBERED:
                self._durable.clear()
            self._durable.add(path)

    def prune(self, segments: tuple[str, ...]) -> None:
        """Remove the folder and those above it as far as they are empty; never the root.

        Safe against a put at the same time: a folder that just got an entry is not empty, and a put whose folder
        vanished makes it again.
        """
        while segments:
            with self._lock:
                self._durable.discard(segments)
            try:
                with self.opened(segments[:-1]) as parent:
                    os.rmdir(segments[-1], dir_fd=parent)
                    os.fsync(parent)
            except FileNotFoundError:
                pass  # another deletion was quicker; the folders above may be empty as well
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}:
                    return
                raise
            segments = segments[:-1]

    def entries(self, segments: tuple[str, ...], start: str, *, with_empty: bool = True) -> list[tuple[str, bool]]:
        """Return ``(name, is_folder)`` of those that begin with ``start``, in the order of the keys they hold.

        A folder sorts as its name and a slash. Links, sockets and names that are not UTF-8 hold no object. Without
        ``with_empty`` folders are left out that hold no object at any depth, unless there are many: to look into
        thousands takes longer than all else.
        """
        try:
            with self.opened(segments) as folder, os.scandir(folder) as scan:
                found = [item for item in _objects(scan) if item[0].startswith(start)]
                if not with_empty and len(found) <= _LOOKED_INTO:
                    found = [
                        (name, is_folder) for name, is_folder in found if not is_folder or _holds_object(folder, name)
                    ]
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(self.root) and not self.root.is_dir():
                raise  # a file in the place of the whole store is no empty store
            return []  # removed meanwhile, or the prefix names no folder
        found.sort(key=lambda item: f"{item[0]}/" if item[1] else item[0])
        return found


def _objects(scan: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, bool]]:
    """Yield ``(name, is_folder)`` of what holds or may hold an object."""
    for entry in scan:
        is_folder = entry.is_dir(follow_symlinks=False)
        if (is_folder or entry.is_file(follow_symlinks=False)) and (entry.name.isascii() or _is_text(entry.name)):
            yield entry.name, is_folder


def _holds_object(parent: int, name: str) -> bool:
    """Whether a folder holds a file at any depth; files are looked for before folders, as most have one at the top."""
    try:
        folder = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    except FileNotFoundError:  # removed meanwhile
        return False
    try:
        with os.scandir(folder) as scan:
            deeper = []
            for inside, is_folder in _objects(scan):
                if not is_folder:
                    return True
                deeper.append(inside)
        return any(_holds_object(folder, inside) for inside in deeper)
    finally:
        os.close(folder)


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # surrogates stand for bytes that are no UTF-8
        return False
    return True


def open_regular(name: str, folder: int) -> int:
    """Open a plain file of a folder for reading; raise FileNotFoundError for anything else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted FIFO must not block
    descriptor = os.open(name, flags, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def read_range(descriptor: int, start: int, length: int | None) -> bytes:
    """Read ``length`` bytes (all for None) from ``start``, fewer only at the end of the file."""
    size = os.fstat(descriptor).st_size
    left = max(0, size - start) if length is None else max(0, min(length, size - start))
    pieces = []
    while left > 0 and (piece := os.pread(descriptor, min(left, 1 << 30), start)):
        pieces.append(piece)
        start += len(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write everything and make it durable."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
