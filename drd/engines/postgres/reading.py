"""Read the larger tables of one database in page ranges, beside the pg_dump that dumps everything else.

Ranges in which no row came or went since the backup before are not read: the parts that hold them are referred to. The
result is what pg_dump would have written, file by file, so a restore, pg_restore and the runbook know no difference.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import psycopg

from drd.engines.postgres.catalog import one
from drd.engines.postgres.connection import Endpoint, Session, join_snapshot, mapped
from drd.engines.postgres.digest import COPY_END
from drd.engines.postgres.ranges import Gap, PageRange, TableState, note_of, plan, root_digest, state_of
from drd.engines.postgres.toc_add import ReadTable, add_table_data
from drd.engines.postgres.unchanged import (
    History,
    Table,
    copy_statement,
    history,
    history_from_json,
    lock,
    survey,
    tables,
)
from drd.engines.postgres.wire import copy_out
from drd.errors import SourceError
from drd.model import Backup, Json
from drd.protocols import ArtifactSink, ArtifactWriter, WorkContext

_REPORT_S = 0.2
_LEAST_DUMP_ID = 1 << 20  # pg_restore keeps 16 bytes for each number up to the largest


class Earlier:
    """What the backup before says of one database: where in the server's life it was taken, and its tables by oid."""

    def __init__(self, parent: Backup | None, now: History | None) -> None:
        self.history: History | None = None
        self.tables: dict[int, TableState] = {}
        listed = parent.facts.get("databases") if parent is not None else None
        if parent is None or now is None or not isinstance(listed, list):
            return
        for facts in listed:
            before = history_from_json(facts.get("history")) if isinstance(facts, dict) else None
            if before is not None and now.continues(before) and isinstance(facts, dict):
                self.history = before
                prefix = f"{facts.get('artifact')}/"
                found = (state_of(a) for a in parent.artifacts if a.facts and a.name.startswith(prefix))
                self.tables = {state.oid: state for state in found if state is not None}
                return


class RangeReader:
    """Reads the tables of one database; :meth:`close` it whatever happens.

    After :meth:`wait`: ``facts`` maps data files to what a fingerprint keeps of them, ``ranges`` and ``ranges_kept``
    count page ranges, ``read_bytes`` the text that was read.
    """

    def __init__(
        self,
        here: Endpoint,
        database: str,
        snapshot: str,
        sink: ArtifactSink,
        prefix: str,
        ctx: WorkContext,
        *,
        lock_timeout_s: float,
    ) -> None:
        self.facts: dict[str, dict[str, Json]] = {}
        self.ranges = self.ranges_kept = self.read_bytes = 0
        self._here = here
        self._database = database
        self._snapshot = snapshot
        self._sink = sink
        self._prefix = prefix
        self._ctx = ctx
        self._lock_timeout_ms = round(lock_timeout_s * 1000)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._sessions: list[Session] = []
        self._pool = ThreadPoolExecutor(max(1, ctx.jobs), thread_name_prefix="pg-ranges")
        self._work: list[Future[None]] = []
        self._failure: BaseException | None = None
        self._tables: deque[tuple[Table, ReadTable]] = deque()
        self._read: list[ReadTable] = []
        self._history: History | None = None
        self._earlier = Earlier(None, None)
        self.patterns: list[str] = []
        """Of the tables whose rows pg_dump is to leave out."""

    def begin(self) -> None:
        """Choose the tables, lock them and begin to read; raises what a lock in the way or a lost server is."""
        with mapped(self._here, f"look at the tables of {self._database}"):
            session = self._join()
            self._history = history(session)
            with self._locking(session):
                chosen = tables(session)
            first = _first_dump_id(session)
        parents = self._ctx.ancestors
        self._earlier = Earlier(parents[-1].backup if parents else None, self._history)
        for number, table in enumerate(chosen):
            entry = ReadTable(table.oid, first + number, table.name, table.columns)
            self._read.append(entry)
            self._tables.append((table, entry))
            self.patterns.append(table.pattern)
        if chosen:
            with mapped(self._here, f"look at the tables of {self._database}"):
                more = [self._join_locked() for _ in range(min(self._ctx.jobs, len(chosen)) - 1)]
            self._work = [self._pool.submit(self._run, one_of_them) for one_of_them in (session, *more)]

    def check(self) -> None:
        """Raise what reading failed with, if it has; a cancelled backup is what comes first."""
        self._ctx.cancel.raise_if_cancelled()
        if self._failure is not None:
            raise self._failure

    def wait(self, report: Callable[[], None]) -> None:
        """Wait until all is read, calling ``report`` meanwhile; raises what it failed with."""
        left = set(self._work)
        while left:
            left = wait(left, _REPORT_S).not_done
            self.check()
            report()

    def whole_toc(self, data: bytes) -> bytes:
        """Return pg_dump's table of contents with the data that was read here; see :func:`add_table_data`."""
        return add_table_data(data, self._read)

    def database_facts(self) -> dict[str, Json]:
        """Return what the manifest keeps of the database for the next backup to build on; see :class:`Earlier`.

        Nothing of the server's life where the next one must read everything.
        """
        if not self._read:
            return {}
        counts: dict[str, Json] = {"ranges": self.ranges, "ranges_read": self.ranges - self.ranges_kept}
        return counts | ({"history": self._history.to_json()} if self._history is not None else {})

    def close(self) -> None:
        """End all reading and all sessions; idempotent."""
        self._stopping.set()
        if any(not future.done() for future in self._work):
            with self._lock:
                open_sessions = list(self._sessions)
            for session in open_sessions:
                with contextlib.suppress(psycopg.Error):
                    session.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for session in self._sessions:
            session.close()

    @contextlib.contextmanager
    def _locking(self, session: Session) -> Iterator[None]:
        """Let the statements inside be cancelled, and say what a lock in their way is."""
        try:
            with self._ctx.cancel.on_cancel(session.cancel):
                yield
        except psycopg.errors.LockNotAvailable as error:
            raise SourceError(
                f"the dump of {self._database} waited too long for a lock: {error.diag.message_primary}",
                hint="somebody alters or truncates a table; run again when that is done, or raise the lock timeout",
            ) from error
        except psycopg.errors.QueryCanceled:
            self._ctx.cancel.raise_if_cancelled()
            raise

    def _join(self) -> Session:
        session = self._here.connect(self._database, encoding="UTF8")  # as the archive is; the url may name another
        with self._lock:
            self._sessions.append(session)
        session.execute(f"SET lock_timeout = {self._lock_timeout_ms}".encode())
        session.execute(b"SET max_parallel_workers_per_gather = 0")  # workers would mix up the order of rows
        join_snapshot(session, self._snapshot)
        return session

    def _join_locked(self) -> Session:
        """Open a session that holds all tables from the start: it would wait behind those who wait to alter one."""
        session = self._join()
        with self._locking(session):
            lock(session, (entry.name for entry in self._read))
        return session

    def _run(self, session: Session) -> None:
        try:
            with mapped(self._here, f"read the tables of {self._database}"):
                while not self._stopping.is_set():
                    try:
                        table, entry = self._tables.popleft()
                    except IndexError:
                        return
                    self._read_table(session, table, entry)
        except BaseException as error:  # noqa: BLE001 - handed on to check() and wait()
            with self._lock:
                if self._failure is None and not self._stopping.is_set():
                    self._failure = error
            self._stopping.set()

    def _read_table(self, session: Session, table: Table, entry: ReadTable) -> None:
        writer = self._sink.open(self._prefix + entry.filename)  # cut at the ends of ranges, and by size within
        try:
            with self._ctx.cancel.on_cancel(session.cancel):
                pieces = self._plan(session, table)
            done = [self._take(session, table, piece, writer) for piece in pieces]
            writer.end_part()
            writer.write(COPY_END)
            writer.note(note_of(TableState(table.oid, table.filenode, table.definition, tuple(done))))
        except BaseException:
            writer.abort()
            raise
        writer.close()
        held = [(one.rows, one.sha256) for one in done if one.rows]
        rows: list[Json] = [count for count, _ in held]
        with self._lock:
            self.facts[entry.filename] = {
                "rows": sum(count for count, _ in held),
                "sha256": root_digest(held),
                "range_rows": rows,
            }
            self.ranges += len(done)
            self.ranges_kept += sum(isinstance(piece, PageRange) for piece in pieces)

    def _plan(self, session: Session, table: Table) -> Sequence[PageRange | Gap]:
        before, state = self._earlier.history, self._earlier.tables.get(table.oid)
        now = (table.filenode, table.definition)
        if before is None or state is None or (state.filenode, state.definition) != now:
            return plan((), (), table.pages, self._usable)
        counts = survey(session, table, state.ranges, before)
        return plan(state.ranges, counts, table.pages, self._usable)

    def _usable(self, known: PageRange) -> bool:
        return all(self._sink.holds(sha256, size) for sha256, size in known.parts)

    def _take(self, session: Session, table: Table, piece: PageRange | Gap, writer: ArtifactWriter) -> PageRange:
        """Write one range, by its parts or by its rows, and say what was written."""
        if isinstance(piece, PageRange):
            for sha256, size in piece.parts:
                writer.refer(sha256, size)
            return piece
        before = writer.end_part()
        digest = hashlib.sha256()
        rows = size = 0
        for text in self._rows(session, table, piece):
            digest.update(text)
            rows += text.count(b"\n")
            size += len(text)
            writer.write(text)
        with self._lock:
            self.read_bytes += size
        number = writer.end_part() - before
        sha256 = digest.hexdigest()
        # of its only part digest and size are known here; those of several are the sink's to know, and only counted
        parts = ((sha256, size),) if number == 1 else (("", 0),) * number
        return PageRange(piece.first, piece.end, rows, sha256, parts)

    def _rows(self, session: Session, table: Table, gap: Gap) -> Iterator[bytes]:
        for text in copy_out(session, copy_statement(table, gap.first, gap.end).encode(), self._ctx):
            if self._stopping.is_set():
                raise SourceError("the dump was given up")
            yield text


def _first_dump_id(session: Session) -> int:
    """Return a number above all that pg_dump will give to its entries: it counts objects, the system's as well."""
    (objects,) = one(
        session,
        """SELECT (SELECT count(*) FROM pg_catalog.pg_class) + (SELECT count(*) FROM pg_catalog.pg_proc)
                + (SELECT count(*) FROM pg_catalog.pg_type) + (SELECT count(*) FROM pg_catalog.pg_constraint)
                + (SELECT count(*) FROM pg_catalog.pg_operator) + (SELECT count(*) FROM pg_catalog.pg_attrdef)
                + (SELECT count(*) FROM pg_catalog.pg_description) + (SELECT count(*) FROM pg_catalog.pg_seclabel)
                + (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata)""",
    )
    first = _LEAST_DUMP_ID
    while first < 8 * int(objects):
        first *= 2
    return first
