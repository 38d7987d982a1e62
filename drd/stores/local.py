"""A directory as a store: the embedded default, also for a mounted network file system.

A key is a path below the directory. A put writes an unfinished file in ``.drd-tmp`` of the same directory, syncs it,
renames it (or links it, when the key must be absent) into place, and syncs the folder: after a crash there is the
old object or the new one. Unlike S3, a key cannot lie below another: ``a`` and ``a/b`` exclude each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from drd.errors import DrdError, ObjectExists, ObjectMissing, StoreRefused, StoreUnavailable
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Clock
from drd.stores.checking import check_store
from drd.stores.keys import RESERVED_FOLDER, check_delimiter, check_key, check_prefix, check_range
from drd.stores.local_folders import Folders, read_range, store_error, write_all
from drd.stores.times import ignore_skew, is_sharp, skew_s, utc_now

_FILE_MODE = 0o600  # backups are as secret as the databases
_STALE_AFTER_S = 3600.0  # no put of a part takes an hour
_RACES = 100  # how often a put makes its folder again when deletions keep removing it
_LOW_SPACE_BYTES = 1 << 30


class LocalStore:
    """Objects as files below ``path``, which the first put creates. Thread-safe, and so are several processes.

    Raises :class:`~drd.errors.StoreRefused` for a full disk and missing permissions (a person must act), and
    :class:`~drd.errors.StoreUnavailable` for input-output errors that may pass. ``on_skew`` is told by how many seconds
    our clock is ahead of that which dates the files: another one where the folder is a network file system's.
    """

    def __init__(self, path: Path, *, clock: Clock = utc_now, on_skew: Callable[[float], None] = ignore_skew) -> None:
        self._folders = Folders(path)
        self._root = path
        self._clock = clock
        self._on_skew = on_skew
        self._sweep_lock = threading.Lock()
        self._swept_at_s: float | None = None

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Write, sync, rename or link, sync the folder; raise ObjectExists when it should be absent and is not."""
        check_key(key)
        try:
            self._sweep()
            with self._folders.opened((RESERVED_FOLDER,), create=True) as unfinished:
                name = f"{os.getpid()}-{secrets.token_hex(8)}"
                try:
                    self._write_new(unfinished, name, data)
                    self._place(unfinished, name, key, if_absent=if_absent)
                finally:
                    with contextlib.suppress(FileNotFoundError):  # renamed
                        os.unlink(name, dir_fd=unfinished)
        except OSError as error:
            raise store_error(error, op="write", subject=key, root=self._root) from error

    def _write_new(self, unfinished: int, name: str, data: BytesLike) -> None:
        before = self._clock()
        dated = _write_new(unfinished, name, data)
        after = self._clock()
        if is_sharp(before, after):
            self._on_skew(skew_s(before, dated, after))

    def _place(self, unfinished: int, name: str, key: str, *, if_absent: bool) -> None:
        *parents, last = key.split("/")
        for _ in range(_RACES):
            try:
                with self._folders.opened(tuple(parents), create=True) as folder:
                    if if_absent:
                        _link(unfinished, name, folder, last, key=key, root=self._root)
                    else:
                        os.rename(name, last, src_dir_fd=unfinished, dst_dir_fd=folder)
                    os.fsync(folder)
                    return
            except FileNotFoundError:  # a deletion removed the folder after it was opened or made
                continue
        raise StoreUnavailable(
            f"cannot write {key} in {self._root}: its folder vanishes again and again",
            op="write",
            subject=key,
            hint="something deletes below this folder at the same time; let only drd work there",
        )

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return the file or a range of it; raise ObjectMissing."""
        check_range(start, length)
        with self._errors(key, "read"):
            descriptor = self._open(key)
            try:
                return read_range(descriptor, start, length)
            finally:
                os.close(descriptor)

    def stat(self, key: str) -> ObjectInfo:
        """Return size and modification time of the file; raise ObjectMissing."""
        with self._errors(key, "look at"):
            descriptor = self._open(key)
            try:
                found = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        return ObjectInfo(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _open(self, key: str) -> int:
        *parents, last = check_key(key).split("/")
        return self._folders.open_file(tuple(parents), last)

    @contextlib.contextmanager
    def _errors(self, key: str, op: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            hint = "" if self._root.is_dir() else f"the folder {self._root} does not exist (yet): see store.path"
            raise ObjectMissing(f"{key} does not exist in {self._root}", op=op, subject=key, hint=hint) from error
        except OSError as error:
            raise store_error(error, op=op, subject=key, root=self._root) from error

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """Yield the files below ``prefix`` ascending by key, reading one folder at a time as they are asked for."""
        check_prefix(prefix)
        check_delimiter(delimiter)
        *parents, partial = prefix.split("/")
        return self._walk(tuple(parents), partial, deep=not delimiter)

    def _walk(self, segments: tuple[str, ...], start: str, *, deep: bool) -> Iterator[ObjectInfo]:
        above = "".join(f"{segment}/" for segment in segments)
        try:
            entries = self._folders.entries(segments, start, with_empty=deep)
        except OSError as error:
            raise store_error(error, op="list", subject=above or "everything", root=self._root) from error
        for name, is_folder in entries:
            if not segments and name == RESERVED_FOLDER:
                continue
            if not is_folder:
                try:
                    info = self.stat(f"{above}{name}")
                except ObjectMissing:  # deleted since the folder was read
                    continue
                yield info
            elif deep:
                yield from self._walk((*segments, name), "", deep=True)
            else:  # S3 knows no empty folder, and such a one is not among the entries
                yield ObjectInfo(f"{above}{name}/", 0)

    def delete(self, keys: Iterable[str]) -> None:
        """Unlink the files, sync their folders, remove folders that became empty."""
        checked = [check_key(key) for key in keys]
        touched: dict[tuple[str, ...], None] = {}
        for key in checked:
            *parents, last = key.split("/")
            try:
                with self._folders.opened(tuple(parents)) as folder:
                    os.unlink(last, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno in {errno.EISDIR, errno.EPERM} and not self._is_file(key):
                    continue  # a folder is no object
                raise store_error(error, op="delete", subject=key, root=self._root) from error
            touched[tuple(parents)] = None
        for segments in touched:
            try:
                with contextlib.suppress(FileNotFoundError), self._folders.opened(segments) as folder:
                    os.fsync(folder)
                self._folders.prune(segments)
            except OSError as error:
                raise store_error(error, op="delete", subject="/".join(segments), root=self._root) from error

    def _is_file(self, key: str) -> bool:
        try:
            self.stat(key)
        except ObjectMissing:
            return False
        return True

    def check(self) -> Sequence[CheckItem]:
        """Try everything with a probe object, and look at the free space."""
        return [*check_store(self), self._check_space()]

    def _check_space(self) -> CheckItem:
        name = "store: free space"
        try:
            found = os.statvfs(self._root)
        except OSError as error:
            mapped: DrdError = store_error(error, op="look at", subject="the free space", root=self._root)
            return CheckItem(name, "failed", mapped.message, mapped.hint)
        free_bytes = found.f_bavail * found.f_frsize
        detail = f"{free_bytes / (1 << 30):.1f} GiB free in {self._root}"
        if free_bytes < _LOW_SPACE_BYTES:
            return CheckItem(name, "warning", detail, f"free space there, or prune: df -h {self._root}")
        return CheckItem(name, "ok", detail)

    def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    def _sweep(self) -> None:
        """Remove unfinished files that a killed process left, at most once an hour."""
        with self._sweep_lock:
            if self._swept_at_s is not None and time.monotonic() - self._swept_at_s < _STALE_AFTER_S:
                return
            self._swept_at_s = time.monotonic()
        oldest = self._clock().timestamp() - _STALE_AFTER_S
        with self._folders.opened((RESERVED_FOLDER,), create=True) as unfinished, os.scandir(unfinished) as scan:
            for entry in scan:
                with contextlib.suppress(FileNotFoundError):  # swept by another drd
                    if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.name, dir_fd=unfinished)


def _write_new(folder: int, name: str, data: BytesLike) -> datetime:
    """Write a file, durably, and return how the file system dates it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, _FILE_MODE, dir_fd=folder)
    try:
        write_all(descriptor, data)
        return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
    finally:
        os.close(descriptor)


def _link(source: int, name: str, folder: int, last: str, *, key: str, root: Path) -> None:
    """Give the finished file its key unless the key is taken; link(2) lets exactly one of several win."""
    try:
        os.link(name, last, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError as error:
        if os.stat(name, dir_fd=source, follow_symlinks=False).st_nlink > 1:
            return  # a network file system answered a repeated request: the first one had won (link(2), NOTES)
        raise ObjectExists(f"{key} exists already", op="write", subject=key) from error
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        raise StoreRefused(
            f"the file system of {root} has no hard links, so two drd cannot be kept apart there",
            op="write",
            subject=key,
            hint="use a file system with hard links (ext4, XFS, btrfs, ZFS, NFS) for store.path",
        ) from error
