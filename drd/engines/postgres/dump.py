"""Dump one or more databases with pg_dump, shipping each file while it grows; see DESIGN §9.

Artifacts: ``globals.sql``, ``databases.json`` (what ``db-0``, ``db-1``… are called, and their properties), and for
each database ``db-N/toc.dat``, a ``db-N/<id>.dat`` for each large table, ``db-N/small.tar`` with all small files. Their
names say nothing about the databases. Unpack the tar beside the rest and the folder is what ``pg_restore`` reads.
With ``read_changed`` the larger tables are read by :mod:`.reading` and pg_dump is told to leave out their rows.
"""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from drd.engines.children import running
from drd.engines.marks import left_out
from drd.engines.postgres import catalog
from drd.engines.postgres.complaints import explain, warnings_of
from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.engines.postgres.held import Changed, HeldTables, room_for_locks
from drd.engines.postgres.inventory import inventory
from drd.engines.postgres.reading import RangeReader
from drd.engines.postgres.settings import ALL_DATABASES, PostgresSettings
from drd.engines.postgres.spool import SpoolShipper, can_punch
from drd.engines.postgres.toc import parse_toc
from drd.engines.postgres.tools import Tool, complaint, find_tool, guarded
from drd.engines.postgres.unchanged import refusal
from drd.errors import SourceError, ToolError
from drd.model import DumpResult, Fingerprint, Json, Notice, Progress
from drd.protocols import ArtifactSink, WorkContext

UNLOGGED_EMPTY = "unlogged-tables-empty"
DATABASES_ARTIFACT = "databases.json"
GLOBALS_ARTIFACT = "globals.sql"
COMPARED = ("rows", "sha256", "objects", "bytes", "last_value", "is_called", "populated")

_SNAPSHOT_TRIES = 5


@dataclass
class _Source:
    """One database held at its snapshot: the session keeps the snapshot alive."""

    index: int
    session: Session
    snapshot: str
    taken_at: datetime
    properties: dict[str, Json]
    tables: HeldTables

    @property
    def name(self) -> str:
        return str(self.properties["name"])


@dataclass
class _Tally:
    """What the dump has learned so far."""

    items: dict[str, dict[str, Json]] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    facts: list[Json] = field(default_factory=list)
    spool_peak_bytes: int = 0


def dump(settings: PostgresSettings, endpoint: Endpoint, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
    """Write the artifacts of one backup; see :meth:`drd.protocols.Engine.dump`."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.closing(endpoint.connect()))
        here = endpoint.pinned(first)
        major = catalog.require_supported(first, here)
        pg_dump = find_tool("pg_dump", major, settings.tools_dir, ctx.cancel)
        pg_dumpall = find_tool("pg_dumpall", major, settings.tools_dir, ctx.cancel)
        names = catalog.database_names(first, settings.databases, here)
        tally = _Tally()
        if settings.databases == ALL_DATABASES:
            tally.notices += left_out(catalog.kept_copies(first, here))
        sources = _take_snapshots(settings, here, names, stack, ctx, tally)
        punching = _require_spool(sources, here, ctx, tally)
        with mapped(here, "measure the tables"):
            sizes = [catalog.table_bytes(source.session) for source in sources]
        progress = _Reporter(ctx, None if None in sizes else sum(size or 0 for size in sizes))
        with ThreadPoolExecutor(1, thread_name_prefix="pg-globals") as beside:
            roles = beside.submit(_dump_globals, pg_dumpall, here, names[0], sink, ctx)
            for source in sources:
                _dump_database(settings, here, pg_dump, source, sink, ctx, tally, progress, punching=punching)
            tally.notices += roles.result()
        _write(sink, DATABASES_ARTIFACT, _databases_json(sources))
        version = catalog.server_version(first)
    fingerprint = Fingerprint("postgres", tally.items, COMPARED)
    return DumpResult(
        recovery_point=max(source.taken_at for source in sources),
        fingerprint=fingerprint,
        engine_version=version,
        rows=fingerprint.rows,
        facts={"databases": tally.facts, "spool_peak_bytes": tally.spool_peak_bytes, "server_major": major},
        tools={"pg_dump": pg_dump.version, "pg_dumpall": pg_dumpall.version},
        notices=tuple(tally.notices),
    )


def _take_snapshots(
    settings: PostgresSettings,
    here: Endpoint,
    names: list[str],
    stack: contextlib.ExitStack,
    ctx: WorkContext,
    tally: _Tally,
) -> list[_Source]:
    """Open a snapshot in every database before the first byte is read, so that they are milliseconds apart.

    Their tables are locked before, see :mod:`.held`; not where that would fill the server's lock table, which matters
    for databases that wait long for their turn: then each is looked at again before its dump begins.
    """
    sessions = [stack.enter_context(contextlib.closing(here.connect(name))) for name in names]
    tables = [HeldTables(session, here, ctx.cancel, settings.lock_timeout_s) for session in sessions]
    with mapped(here, "count the tables"):
        hold = len(names) == 1 or room_for_locks(sessions)
    changed = ""
    for _ in range(_SNAPSHOT_TRIES):
        notices: list[Notice] = []
        try:
            for held in tables:
                with mapped(here, "lock the tables against being emptied"):
                    held.begin(lock=hold)
            pairs = enumerate(zip(sessions, tables, strict=True))
            sources = [_snapshot(here, index, session, held, notices) for index, (session, held) in pairs]
            for held in tables:
                with mapped(here, "lock the tables against being emptied"):
                    held.confirm(lock=hold)
        except Changed as change:
            changed = str(change)
            continue
        tally.notices += notices
        return sources
    raise SourceError(
        f"tables come, go or are emptied faster than a snapshot can be taken, such as {changed}", hint="run again"
    )


def _snapshot(here: Endpoint, index: int, session: Session, tables: HeldTables, notices: list[Notice]) -> _Source:
    """Take the snapshot of one session's database, whose transaction has begun."""
    name = session.info.dbname
    with mapped(here, f'take a snapshot of the database "{name}"'):
        # The clock is read in the statement that takes the snapshot, after it: no later commit is visible.
        snapshot, taken_at, standby = catalog.one(
            session,
            "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.clock_timestamp(), pg_catalog.pg_is_in_recovery()",
        )
        if standby:
            taken_at = _replayed_until(session, taken_at, notices)
        properties = catalog.describe_database(session)
    if standby and properties["unlogged_tables"]:
        notices.append(
            Notice(UNLOGGED_EMPTY, f"{name}: unlogged tables have no data on a standby and are dumped empty")
        )
    return _Source(index, session, str(snapshot), taken_at.astimezone(UTC), properties, tables)


def _replayed_until(session: Session, clock: datetime, notices: list[Notice]) -> datetime:
    """Return the time whose state a standby shows: the clock's when it has replayed all that its primary sent."""
    (current,) = catalog.one(
        session,
        """SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'
                AND latest_end_lsn <= pg_catalog.pg_last_wal_replay_lsn()
                AND last_msg_receipt_time > pg_catalog.clock_timestamp() - interval '15 s')""",
    )
    (replayed,) = catalog.one(session, "SELECT pg_catalog.pg_last_xact_replay_timestamp()")
    if current or replayed is None:
        return clock
    lag = (clock - replayed).total_seconds()
    notices.append(
        Notice("standby-behind", f"the last transaction that the standby shows is {lag:.0f} s old; it may lag behind")
    )
    return replayed if isinstance(replayed, datetime) else clock


def _require_spool(sources: list[_Source], here: Endpoint, ctx: WorkContext, tally: _Tally) -> bool:
    """Find out whether read blocks can be freed; raise when they cannot and a table would not fit into the spool."""
    if can_punch(ctx.spool_dir):
        return True
    hint = "put the spool on ext4, xfs, btrfs or tmpfs, or raise the spool limit above the largest table"
    for source in sources:
        with mapped(here, "measure the tables"):
            name, size = catalog.largest_table(source.session)
        if size > ctx.spool_limit_bytes // 2:
            raise SourceError(
                f"the spool's file system cannot free what was read of a file, and {source.name}.{name} "
                f"({size >> 20} MiB) does not fit into the spool limit of {ctx.spool_limit_bytes >> 20} MiB",
                hint=hint,
            )
    tally.notices.append(
        Notice("spool-cannot-free", "the spool's file system cannot free read blocks: each table lies there whole")
    )
    return False


def _dump_globals(tool: Tool, here: Endpoint, database: str, sink: ArtifactSink, ctx: WorkContext) -> list[Notice]:
    """Save roles, memberships and role settings; without passwords, or not at all, where the server does not let us.

    Beside the databases, as most of its time is waiting. Returns what a person should know.
    """
    path = ctx.spool_dir / GLOBALS_ARTIFACT
    said = ""
    for extra in ([], ["--no-role-passwords"]):
        argv = [
            str(tool.path),
            "--globals-only",
            "--no-password",
            f"--file={path}",
            f"--dbname={here.conninfo(database)}",
        ]
        with running([*argv, *extra], cancel=ctx.cancel, env=here.environment()) as child:
            code = child.process.wait()
            ctx.cancel.raise_if_cancelled()
            said = complaint(child.stderr_tail()) if code else ""
        if code == 0:
            _write(sink, GLOBALS_ARTIFACT, path.read_bytes())
            path.unlink()
            text = "roles are saved without passwords: this user may not read them"
            return [Notice("roles-without-passwords", text)] if extra else []
    path.unlink(missing_ok=True)
    return [Notice("roles-not-saved", f"roles and their settings are not in this backup: {said}")]


def _dump_database(
    settings: PostgresSettings,
    here: Endpoint,
    tool: Tool,
    source: _Source,
    sink: ArtifactSink,
    ctx: WorkContext,
    tally: _Tally,
    progress: _Reporter,
    *,
    punching: bool,
) -> None:
    prefix = f"db-{source.index}/"
    folder = ctx.spool_dir / f"db-{source.index}"
    progress.database = source.name
    with mapped(here, f"look at the tables of {source.name}"):
        lost = source.tables.rewritten()
    if lost:
        raise SourceError(
            f"{source.name}.{lost} was emptied or written anew after the snapshot, which may have lost its rows",
            hint="run again, or back up fewer databases in one source",
        )
    reader = RangeReader(here, source.name, source.snapshot, sink, prefix, ctx, lock_timeout_s=settings.lock_timeout_s)
    shipper = SpoolShipper(
        folder,
        sink,
        prefix,
        ctx,
        report=lambda done, files: progress(done + reader.read_bytes, files),
        can_punch=punching,
    )
    folder.mkdir(mode=0o700)
    argv = [
        str(tool.path),
        "--format=directory",
        "--compress=0",
        "--no-sync",
        "--no-password",
        f"--jobs={max(1, ctx.jobs)}",
        f"--snapshot={source.snapshot}",
        f"--encoding={source.properties['encoding']}",
        f"--file={folder}",
        f"--dbname={here.conninfo(source.name)}",
    ]
    if settings.lock_timeout_s > 0:
        argv.append(f"--lock-wait-timeout={max(1, round(settings.lock_timeout_s * 1000))}")
    with contextlib.closing(reader):
        if settings.read_changed and not _must_read_all(source, tally):
            reader.begin()
        argv += [f"--exclude-table-data={pattern}" for pattern in reader.patterns]
        try:
            with guarded(argv, cancel=ctx.cancel, env=here.environment()) as child:
                shipper.run(child, lambda: explain(child, here, source.session, ctx), reader.check)
                tally.notices += warnings_of(child.stderr_tail(), source.name)
            reader.wait(lambda: progress(shipper.done_bytes + reader.read_bytes, len(shipper.shipped)))
        except BaseException:
            shipper.abort()
            raise
        ranges = reader.database_facts()
    progress.settle()
    tally.spool_peak_bytes = max(tally.spool_peak_bytes, shipper.peak_bytes)
    whole = reader.whole_toc(shipper.toc)
    _write(sink, f"{prefix}toc.dat", whole)
    toc = parse_toc(whole)
    missing = sorted(toc.data_files().keys() - shipper.shipped - reader.facts.keys())
    if missing:
        raise ToolError(f"pg_dump ended well but {len(missing)} data files are missing, such as {missing[0]}")
    tally.items |= inventory(toc, source.name, shipper.tables | reader.facts, shipper.large_objects.facts())
    tally.facts.append(
        {
            "artifact": prefix.rstrip("/"),
            "tables": len(shipper.tables) + len(reader.facts),
            "large_objects": shipper.large_objects.count,
            "archive_version": f"1.{toc.version}",
            **ranges,
        }
    )


def _must_read_all(source: _Source, tally: _Tally) -> bool:
    """Whether pg_dump has to read all tables although the configuration asks for changed ranges only; then says why."""
    why = refusal(catalog.server_major(source.session), str(source.properties["encoding"]))
    if why:
        text = f"{source.name}: all rows are read, not only changed ranges: {why}"
        tally.notices.append(Notice("all-rows-read", text, standing=True))
    return bool(why)


def _databases_json(sources: list[_Source]) -> bytes:
    listed: list[Json] = [{"artifact": f"db-{source.index}", **source.properties} for source in sources]
    return json.dumps({"version": 1, "databases": listed}, indent=1).encode()


def _write(sink: ArtifactSink, name: str, data: bytes) -> None:
    writer = sink.open(name)
    try:
        writer.write(data)
    except BaseException:
        writer.abort()
        raise
    writer.close()


class _Reporter:
    """Passes progress on, a few times a second, over all databases of one dump."""

    def __init__(self, ctx: WorkContext, total_bytes: int | None) -> None:
        self.database = ""
        self._ctx = ctx
        self._total = total_bytes
        self._before = 0
        self._now = 0
        self._due = 0.0

    def __call__(self, done_bytes: int, files: int) -> None:
        self._now = done_bytes
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + 0.2
        self._ctx.progress(
            Progress(
                self._ctx.source, "dump", self._before + done_bytes, self._total, f"{self.database}: {files} files"
            )
        )

    def settle(self) -> None:
        """Count what is done as done; the next database begins at zero."""
        self._before += self._now
        self._now = 0
