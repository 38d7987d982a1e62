"""Load an archive's tables and large objects over connections of drd's own.

pg_restore makes everything before and after the data. It could read the data from named pipes, too, but since the
minor releases of November 2026 it refuses what is not a regular file; so drd sends the COPY streams itself, as
pg_restore does: table by table, the largest first, each emptied in the transaction that loads it. That makes the
server skip its log where it may and ignore the free space map, so that the rows lie in the order of the backup.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg

from drd.engines.postgres.archive import Archive
from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.engines.postgres.inventory import VIA_ROOT
from drd.engines.postgres.pack import TAR_NAME
from drd.engines.postgres.sqltext import always_quoted, copy_columns, dotted
from drd.engines.postgres.toc import TocEntry, damaged, python_codec
from drd.engines.postgres.wire import copy_in
from drd.errors import DrdError, TargetError
from drd.protocols import WorkContext

_RANGE_BYTES = 8 << 20  # how much of the pack is read at once for large objects
_PIECE_BYTES = 1 << 20
_OBJECTS_A_TRANSACTION = 500
_REPORT_EVERY_S = 0.1


class _Elsewhere(TargetError):
    """Another thread failed first; its error is the one to report."""


class Loader:
    """Loads one archive into one database; ``loaded_bytes`` counts for the progress."""

    def __init__(self, here: Endpoint, database: str, archive: Archive, ctx: WorkContext) -> None:
        self.loaded_bytes = 0
        self._here = here
        self._database = database
        self._archive = archive
        self._ctx = ctx
        self._lock = threading.Lock()
        self._failed = threading.Event()
        self._created = {(entry.schema, entry.tag) for entry in archive.toc.entries if entry.desc == "TABLE"}

    def run(self, report: Callable[[], None]) -> None:
        """Load everything; returns when all is committed. Raises the first failure after all threads have ended."""
        todo: queue.SimpleQueue[Callable[[Session], None]] = queue.SimpleQueue()
        for work in self._work():
            todo.put(work)
        with ThreadPoolExecutor(max(1, self._ctx.jobs), thread_name_prefix="pg-load") as pool:
            futures = [pool.submit(self._take, todo) for _ in range(max(1, self._ctx.jobs))]
            while not self._failed.is_set() and wait(futures, _REPORT_EVERY_S).not_done:
                report()
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda found: isinstance(found, _Elsewhere)):
            raise error

    def _work(self) -> Iterator[Callable[[Session], None]]:
        """Yield what can be done side by side, the largest first so that no job ends up with it alone."""
        tables = [entry for name, entry in self._archive.toc.data_files().items() if name.endswith(".dat")]
        sized = sorted(((self._archive.size(entry.filename), entry.dump_id, entry) for entry in tables), reverse=True)
        for oid, name in self._archive.own_large_objects() if self._archive.has_large_objects else ():
            yield lambda session, oid=oid, name=name: self._large_object(session, oid, name)  # type: ignore[misc]
        for _size, _id, entry in sized:
            yield lambda session, entry=entry: self._table(session, entry)  # type: ignore[misc]
        if not self._archive.has_large_objects:
            return
        for offset, length, members in self._archive.index.large_object_ranges(_RANGE_BYTES):
            yield lambda session, o=offset, n=length, m=members: self._packed_objects(session, o, n, m)  # type: ignore[misc]

    def _take(self, todo: queue.SimpleQueue[Callable[[Session], None]]) -> None:
        try:
            with contextlib.closing(self._here.connect(self._database, encoding=self._archive.toc.encoding)) as session:
                session.execute("SET xmloption = content")
                while not self._failed.is_set():
                    try:
                        work = todo.get_nowait()
                    except queue.Empty:
                        return
                    work(session)
        except BaseException:
            self._failed.set()
            raise

    def _table(self, session: Session, entry: TocEntry) -> None:
        if copy_columns(entry.copy_statement) is None:
            raise damaged(f"its entry {entry.dump_id} loads a table in an unknown way")
        statement = entry.copy_statement.rstrip().removesuffix(";")
        own = (entry.schema, entry.tag) in self._created and not entry.definition.startswith(VIA_ROOT)
        try:
            session.execute("BEGIN")
            if own:  # empty since we made it; FREEZE spares the first vacuum its work
                session.execute(self._encoded(f"TRUNCATE TABLE ONLY {always_quoted(entry.schema, entry.tag)}"))
                statement += " WITH (FREEZE)"
            copy_in(session, self._encoded(statement), self._counted(entry), self._ctx)
            session.execute("COMMIT")
        except psycopg.Error as error:
            raise self._refused(f"load {dotted(entry.schema, entry.tag)}", error) from error

    def _encoded(self, statement: str) -> bytes:
        """Write SQL as the archive was written, byte for byte, whatever psycopg makes of the encoding."""
        return statement.encode(python_codec(self._archive.toc.encoding), "surrogateescape")

    def _counted(self, entry: TocEntry) -> Iterator[memoryview]:
        for piece in self._archive.rows(entry.filename):
            if self._failed.is_set():
                raise _Elsewhere("another table failed to load")
            with self._lock:
                self.loaded_bytes += len(piece)
            yield piece

    def _large_object(self, session: Session, oid: int, name: str) -> None:
        try:
            with self._archive.open(name) as stream, session.transaction():
                at = 0
                while piece := stream.read(_PIECE_BYTES):
                    self._ctx.cancel.raise_if_cancelled()
                    session.execute("SELECT pg_catalog.lo_put(%s::oid, %s, %b)", (oid, at, piece))
                    at += len(piece)
                    with self._lock:
                        self.loaded_bytes += len(piece)
        except psycopg.Error as error:
            raise self._refused(f"load the large object {oid}", error) from error

    def _packed_objects(self, session: Session, offset: int, length: int, members: list[tuple[int, int, int]]) -> None:
        with self._archive.artifacts.open(self._archive.prefix + TAR_NAME, start=offset, length=length) as stream:
            data = memoryview(stream.read())
        try:
            for start in range(0, len(members), _OBJECTS_A_TRANSACTION):
                self._ctx.cancel.raise_if_cancelled()
                with session.pipeline(), session.transaction():
                    for oid, at, size in members[start : start + _OBJECTS_A_TRANSACTION]:
                        if size:
                            content = bytes(data[at - offset : at - offset + size])
                            session.execute("SELECT pg_catalog.lo_put(%s::oid, 0, %b)", (oid, content))
        except psycopg.Error as error:
            raise self._refused("load large objects", error) from error
        with self._lock:
            self.loaded_bytes += length

    def _refused(self, doing: str, error: psycopg.Error) -> DrdError:
        self._ctx.cancel.raise_if_cancelled()
        try:
            with mapped(self._here, f"{doing} into {self._database}"):
                raise error
        except DrdError as found:
            found.hint = found.hint or "nothing of it was kept"
            return found
