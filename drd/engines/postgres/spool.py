"""The folder pg_dump writes into: each file is shipped while it grows, and what was read is given back to the disk.

pg_dump opens a file, only ever appends, and closes it when its table is done; so a file that no process of pg_dump
has open is complete. When the folder holds too much, pg_dump is suspended until the sink has caught up: it holds a
snapshot and ACCESS SHARE locks meanwhile, nothing stronger.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from drd.engines.children import Child
from drd.engines.postgres.digest import ArchivedTableDigest, LargeObjectsDigest
from drd.engines.postgres.pack import PackWriter
from drd.engines.postgres.tools import open_files_of, processes_of
from drd.errors import DrdError, SourceError
from drd.model import Json
from drd.protocols import ArtifactSink, WorkContext

SMALL_FILE_BYTES = 1 << 20
"""A file that ends smaller goes into the pack: an object or two less, but what changes there takes much else along."""
_READ_BYTES = 1 << 20
_PUNCH_BYTES = 4 << 20
_PAGE_BYTES = 4096
_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h
_ASSUMED_BYTES_PER_S = 1 << 30  # how fast pg_dump may fill the folder between two looks
_TOC_NAME = "toc.dat"
_STILL_S = 1.0  # how long nothing moves in a full folder before it is given up; one look is old when it is judged
_DYING_S = 2.0  # how long a pg_dump that met an error may take to say so and end


def punch_hole(descriptor: int, start: int, length: int) -> bool:
    """Give the blocks of a range back to the file system, keeping the file's size; False where it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(descriptor, _KEEP_SIZE_AND_PUNCH, start, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in {errno.EOPNOTSUPP, errno.ENOSYS}:
        return False
    raise OSError(number, os.strerror(number))


def can_punch(folder: Path) -> bool:
    """Try whether the file system of ``folder`` can free what was read of a file."""
    path = folder / "punch-probe"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, bytes(2 * _PAGE_BYTES))
        return punch_hole(descriptor, 0, _PAGE_BYTES)
    finally:
        os.close(descriptor)
        path.unlink()


@dataclass
class _File:
    """One file of the folder, from its first sight until it is shipped."""

    name: str
    complete: bool = False
    claimed: bool = False
    drained: bool = False  # its thread has read all there is
    freed_bytes: int = 0


class SpoolShipper:
    """Ships the files of one running pg_dump to a sink, and digests them as they pass.

    After :meth:`run`: ``tables`` maps a data file to its facts, ``large_objects`` digests the large objects,
    ``shipped`` holds the names of all files but those of large objects, ``toc`` the table of contents, which is not
    shipped. ``done_bytes`` counts while it runs.
    """

    def __init__(
        self,
        folder: Path,
        sink: ArtifactSink,
        prefix: str,
        ctx: WorkContext,
        *,
        report: Callable[[int, int], None],
        can_punch: bool,
    ) -> None:
        self.tables: dict[str, dict[str, Json]] = {}
        self.large_objects = LargeObjectsDigest()
        self.toc = b""
        self.shipped: set[str] = set()
        self.peak_bytes = 0
        self._folder = folder
        self._sink = sink
        self._prefix = prefix
        self._ctx = ctx
        self._report = report
        self._can_punch = can_punch
        # what may lie in the folder untouched must stay well below the mark at which pg_dump is resumed
        self._small_bytes = min(SMALL_FILE_BYTES, ctx.spool_limit_bytes // (8 * ctx.jobs))
        self._punch_bytes = max(_PAGE_BYTES, min(_PUNCH_BYTES, ctx.spool_limit_bytes // (16 * ctx.jobs)))
        self._poll_s = min(0.025, max(0.002, ctx.spool_limit_bytes / 8 / _ASSUMED_BYTES_PER_S))
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._work: set[Future[None]] = set()
        self._pack = PackWriter(sink, prefix)
        self.done_bytes = 0
        self._last_usage_bytes = 0
        self._paused: list[int] = []
        self._still: tuple[float, int] | None = None  # since when pg_dump waits for nothing, and the usage then

    def run(self, child: Child, explain: Callable[[], DrdError], check: Callable[[], None] = lambda: None) -> None:
        """Ship until pg_dump has ended and everything is shipped.

        Raises what ``explain`` returns when pg_dump failed, what the sink raised, and what ``check``, called again and
        again, raises. On any error no thread is left.
        """
        streams = ThreadPoolExecutor(2 * self._ctx.jobs + 1, thread_name_prefix="pg-spool")
        packer = ThreadPoolExecutor(1, thread_name_prefix="pg-pack")
        try:
            self._follow(child, streams, packer, explain, check)
            self._pack.close()
        except BaseException:
            self._stopping.set()
            self._pause(child, pause=False)
            raise
        finally:
            self._stopping.set()
            streams.shutdown(wait=True, cancel_futures=True)
            packer.shutdown(wait=True, cancel_futures=True)

    def abort(self) -> None:
        """Drop the pack; call after :meth:`run` raised."""
        self._pack.abort()

    def _follow(
        self,
        child: Child,
        streams: ThreadPoolExecutor,
        packer: ThreadPoolExecutor,
        explain: Callable[[], DrdError],
        check: Callable[[], None],
    ) -> None:
        while True:
            check()
            code = child.process.poll()
            self._ctx.cancel.raise_if_cancelled()
            if code not in (None, 0):
                raise explain()
            usage = self._look(None if code == 0 else child)
            try:
                self._collect()
            except SourceError:  # a file cut short is often how a pg_dump that fails is first seen: it knows why
                if child.wait(_DYING_S):
                    raise explain() from None
                raise
            self._claim(streams, packer)
            self._balance(child, usage, running=code is None)
            self._report(self.done_bytes, len(self.shipped))
            if code == 0 and not self._files and not self._work:
                return
            if self._stands_still(usage):
                raise SourceError(
                    f"the spool limit of {self._ctx.spool_limit_bytes >> 20} MiB is too small for one table here",
                    hint="raise it, or put the spool on ext4, xfs, btrfs or tmpfs, where read blocks can be freed",
                )
            if code == 0:  # nothing more is to come: as soon as something is shipped, look whether that was all
                wait(self._work, self._poll_s, FIRST_COMPLETED)
            else:
                self._ctx.cancel.sleep(self._poll_s)

    def _look(self, child: Child | None) -> int:
        """Note new files and those now complete; return the bytes on disk. First the folder, then who has what open."""
        seen: list[str] = []
        usage = 0
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):  # shipped and deleted meanwhile
                found = entry.stat()
                file = self._files.get(entry.name)
                # XFS counts blocks it set aside beyond the end of a growing file; those do not count here
                kept = found.st_size - (file.freed_bytes if file else 0)
                usage += min(found.st_blocks * 512, kept + _PAGE_BYTES)
                seen.append(entry.name)
        with self._lock:
            files = [self._files.setdefault(name, _File(name)) for name in seen]
            asked = any(not file.complete and (file.drained or not file.claimed) for file in files)
        if asked or child is None:  # else nobody waits to hear that a file is complete, and to find out is dear
            writing = set() if child is None else self._open_files(child)
            with self._lock:
                for file in files:
                    file.complete = file.complete or file.name not in writing
        self.peak_bytes = max(self.peak_bytes, usage)
        return usage

    def _open_files(self, child: Child) -> set[str]:
        found: set[str] = set()
        folder = f"{self._folder}/"
        for pid in processes_of(child):
            found |= {target[len(folder) :] for target in open_files_of(pid) if target.startswith(folder)}
        return found

    def _claim(self, streams: ThreadPoolExecutor, packer: ThreadPoolExecutor) -> None:
        """Give each file that can be shipped to a thread: large ones while they grow, small ones when complete."""
        with self._lock:
            waiting = [file for file in self._files.values() if not file.claimed]
        for file in waiting:
            try:
                size = (self._folder / file.name).stat().st_size
            except FileNotFoundError:  # seen in the same moment as it was shipped and deleted
                with self._lock:
                    del self._files[file.name]
                continue
            if file.name == _TOC_NAME:
                if file.complete:
                    file.claimed = True
                    self._work.add(streams.submit(self._take_toc, file))
            elif size >= self._small_bytes:
                file.claimed = True
                self._work.add(streams.submit(self._ship_alone, file))
            elif file.complete:
                file.claimed = True
                self._work.add(packer.submit(self._ship_packed, file))

    def _collect(self) -> None:
        done = {future for future in self._work if future.done()}
        self._work -= done
        for future in done:
            future.result()

    def _stands_still(self, usage: int) -> bool:
        """Whether pg_dump stays suspended although nothing is left that could be shipped, nor given back."""
        with self._lock:
            idle = all(file.drained and not file.complete for file in self._files.values())
        if not (self._paused and idle):
            self._still = None
            return False
        now = time.monotonic()
        if self._still is None or self._still[1] != usage:  # read meanwhile: the next look may let pg_dump go on
            self._still = (now, usage)
        return now - self._still[0] >= _STILL_S

    def _balance(self, child: Child, usage: int, *, running: bool) -> None:
        grown = max(0, usage - self._last_usage_bytes)  # as much again may come before the next look
        self._last_usage_bytes = usage
        if running and not self._paused and usage + grown > self._ctx.spool_limit_bytes // 2:
            self._pause(child, pause=True)
        elif self._paused and usage < self._ctx.spool_limit_bytes // 4:
            self._pause(child, pause=False)

    def _pause(self, child: Child, *, pause: bool) -> None:
        targets = processes_of(child) if pause else self._paused
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if pause else signal.SIGCONT)
        self._paused = targets if pause else []

    def _ship_packed(self, file: _File) -> None:
        path = self._folder / file.name
        content = bytearray(path.read_bytes())
        self._digest_whole(file.name, content)
        self._pack.add(file.name, content)
        self._finish(file, len(content))

    def _take_toc(self, file: _File) -> None:
        self.toc = (self._folder / file.name).read_bytes()
        self._finish(file, len(self.toc))

    def _ship_alone(self, file: _File) -> None:
        holds_rows = file.name.endswith(".dat") and not file.name.startswith("blob_")
        writer = self._sink.open(self._prefix + file.name, cut="rows" if holds_rows else "size")
        try:
            with open(self._folder / file.name, "rb+", buffering=0) as stream:  # noqa: PTH123 - no buffer wanted
                self._tail(file, stream.fileno(), writer.write)
        except BaseException:
            writer.abort()
            raise
        writer.close()
        self._finish(file, 0)

    def _tail(self, file: _File, descriptor: int, write: Callable[[memoryview], None]) -> None:
        table = ArchivedTableDigest()
        plain = hashlib.sha256()
        is_blob = file.name.startswith("blob_")
        buffer = bytearray(_READ_BYTES)
        view = memoryview(buffer)
        at = 0
        while True:
            last = file.complete  # looked at before the read: what comes after a complete file's end is nothing
            size = os.readv(descriptor, [view])
            if size == 0:
                file.drained = True
                if last:
                    break
                if self._stopping.wait(0.01):
                    raise SourceError("the dump was given up")
                continue
            file.drained = False
            if is_blob:
                plain.update(view[:size])
            else:
                table.update(buffer, size)
            write(view[:size])
            at += size
            with self._lock:
                self.done_bytes += size
            if at - file.freed_bytes >= self._punch_bytes:
                end = at - at % _PAGE_BYTES
                if self._can_punch and punch_hole(descriptor, file.freed_bytes, end - file.freed_bytes):
                    file.freed_bytes = end
        if is_blob:
            self._take_blob(file.name, at, plain.digest())
        elif file.name.endswith(".dat"):
            self._take_table(file.name, table)

    def _digest_whole(self, name: str, content: bytearray) -> None:
        if name.startswith("blob_"):
            self._take_blob(name, len(content), hashlib.sha256(content).digest())
        elif name.endswith(".dat"):
            table = ArchivedTableDigest()
            table.update(content, len(content))
            self._take_table(name, table)

    def _take_blob(self, name: str, size: int, digest: bytes) -> None:
        with self._lock:
            self.large_objects.add(int(name[5:-4]), size, digest)

    def _take_table(self, name: str, table: ArchivedTableDigest) -> None:
        facts = table.facts()
        if facts is None:
            raise SourceError(f"pg_dump closed {name} before its end", hint="look at the server's log and run again")
        with self._lock:
            self.tables[name] = facts

    def _finish(self, file: _File, size: int) -> None:
        (self._folder / file.name).unlink()
        with self._lock:
            self.done_bytes += size
            if not file.name.startswith("blob_"):
                self.shipped.add(file.name)
            del self._files[file.name]
