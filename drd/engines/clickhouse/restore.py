"""Bring one backup into databases that are absent or hold no tables; undo everything when that fails.

What a killed restore left is told by the mark of :mod:`unfinished`, and removed first.

Databases are restored under their final names: they were absent, so a failure harms nobody, and RENAME DATABASE
would break views and is refused for databases with dictionaries (code 630). First the empty tables, then STOP MERGES
and STOP TTL MERGES on each (rows past their TTL would vanish within seconds), then the data, then CHECK TABLE, since
RESTORE does not verify what it reads. Then the parts are noted for the fingerprint and merges are started again: they
are never left stopped behind a restore that ended, well or not, unless the settings say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from drd.engines.clickhouse import access, alive, disk, fingerprints, increments, orphans, selection, unfinished
from drd.engines.clickhouse.aftercare import MERGES, check_table, merge_trees, refresh_views, start_merges
from drd.engines.clickhouse.client import ACCESS_DENIED, TARGET, Server, ServerRefusal, clean, told
from drd.engines.clickhouse.dump import query_settings, replaces_outside
from drd.engines.clickhouse.elsewhere import repoint
from drd.engines.clickhouse.job import Watch, new_job_id, run_job
from drd.engines.clickhouse.longquery import LongQuery
from drd.engines.clickhouse.packindex import INDEX_ARTIFACT, PackIndex, read_index
from drd.engines.clickhouse.quoting import identifier, literal, table
from drd.engines.clickhouse.route import explain, open_gateway, unreachable, using_bucket
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.engines.clickhouse.spaces import BackupSpace
from drd.errors import DrdError, IntegrityError, TargetError, TargetNotEmpty
from drd.model import Backup, Notice, Progress, RestoreResult, TargetState
from drd.protocols import ArtifactReader, WorkContext


def renames(settings: ClickHouseSettings, databases: Sequence[str]) -> dict[str, str]:
    """Map each database of a backup to its name on the target: the URL's database replaces a single one."""
    names = live_names(settings, databases)
    if settings.staging is None:
        return names
    return {there: settings.staging.names[here] for there, here in names.items()}


def live_names(settings: ClickHouseSettings, databases: Sequence[str]) -> dict[str, str]:
    """Map each database of a backup to the name that people know it by on the target."""
    named = settings.address().database
    if named and len(databases) == 1:
        return {databases[0]: named}
    if named and named not in databases:
        raise TargetError(
            f"the target names one database ({named}), the backup holds {len(databases)}",
            hint="name the server alone to restore all under their own names",
        )
    return {name: name for name in databases}


def chosen_databases(settings: ClickHouseSettings, index: PackIndex) -> list[str]:
    """Return the databases of a backup that are to be restored, whole or in part; raises ConfigError for none."""
    return selection.databases(settings.selection, index.databases(), selection.tables_of(index.objects))


def held(server: Server, databases: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """List the tables of each database that exists; absent databases are absent from the result."""
    names = {"names": list(databases)}
    have = server.rows("SELECT name FROM system.databases WHERE name IN {names:Array(String)}", names)
    out: dict[str, list[dict[str, Any]]] = {row["name"]: [] for row in have}
    for row in server.rows(
        "SELECT database, name, ifNull(total_rows, 0) AS rows, "
        "multiIf(engine = 'Dictionary', 'DICTIONARY', engine LIKE '%View', 'VIEW', 'TABLE') AS kind FROM system.tables "
        "WHERE database IN {names:Array(String)} AND NOT is_temporary "
        "ORDER BY kind != 'DICTIONARY', kind != 'VIEW', name",
        names,
    ):
        out.setdefault(row["database"], []).append(row)
    return out


def inspect(server: Server, settings: ClickHouseSettings, artifacts: ArtifactReader) -> TargetState:
    """Say which databases a restore would make and whether they are absent or empty."""
    with told(TARGET, "looked at the target"):
        names = list(renames(settings, chosen_databases(settings, read_index(artifacts))).values())
        marks = unfinished.marked(server, names)
        at_work = alive.living(server) if marks else set()
        for name, mark in marks.items():
            if mark.owner in at_work:
                raise unfinished.under_way(name)
        return _state(held(server, names), names, marks)


def _state(tables: Mapping[str, list[dict[str, Any]]], names: Sequence[str], left: Collection[str] = ()) -> TargetState:
    words, full = [], []
    for name in names:
        if name in left:
            words.append(f"{name} (left by a restore that was killed, and removed first)")
        elif name not in tables:
            words.append(f"{name} (absent)")
        elif not tables[name]:
            words.append(f"{name} (empty)")
        else:
            most = max(int(row["rows"]) for row in tables[name])
            count = len(tables[name])
            noun = "table" if count == 1 else "tables"
            words.append(name)
            full.append(f"the database {name} already holds {count} {noun} ({most:,} rows in the largest)")
    return TargetState(", ".join(words), not full, "; ".join(full))


@dataclass
class _Restore:
    """One restore under way; ``made`` are the databases it created, ``marked`` maps some to the comment they get."""

    server: Server
    settings: ClickHouseSettings
    ctx: WorkContext
    backup: Backup
    names: dict[str, str]
    owner: str | None
    made: set[str] = field(default_factory=set)
    marked: dict[str, str] = field(default_factory=dict)

    def statement(self, what: Sequence[str], origin: _Origin, job_id: str, **options: int) -> str:
        spelled = "".join(f", {name}={value}" for name, value in options.items())
        return (
            f"RESTORE {', '.join(what)} FROM {origin.spelled} SETTINGS id={literal(job_id)}{spelled}{origin.built_on}"
        )

    def elements(self, index: PackIndex) -> list[str]:
        return selection.elements(self.settings.selection, self.names, selection.tables_of(index.objects))


@dataclass
class _Origin:
    """Where the server reads from, how its work is watched meanwhile, and what could not be cleaned up after it.

    ``base`` is where it reads what the backup is built on, if that is one.
    """

    spelled: str
    watch: Watch
    base: str = ""
    explain: Callable[[ServerRefusal], None] = lambda _refusal: None
    leftovers: list[Notice] = field(default_factory=list)

    @property
    def built_on(self) -> str:
        """Return the setting that names the base."""
        return f", base_backup={self.base}" if self.base else ""


def restore(
    server: Server, settings: ClickHouseSettings, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext
) -> tuple[RestoreResult, fingerprints.PartsSnapshot]:
    """Restore, and note the parts as they were before any merge.

    Raises :class:`~drd.errors.TargetNotEmpty`, untouched, when a database holds tables.
    """
    with told(TARGET):
        index = read_index(artifacts)
        if not index.databases():
            raise IntegrityError("the backup holds no database", hint="drd verify --deep it")
        names = renames(settings, chosen_databases(settings, index))
        taken_back = orphans.end_orphans(server) + unfinished.take_back(server, list(names.values()))
        before = held(server, list(names.values()))
        state = _state(before, list(names.values()))
        if not state.empty:
            raise TargetNotEmpty(
                f"{state.detail}. Nothing was changed", hint="restore elsewhere with --into http://…/otherdb"
            )
        with alive.sign(server) as owner:
            work = _Restore(server, settings, ctx, backup, names, owner)
            try:
                unmarked = _create(work, index, artifacts, before)
                result, restored = _bring(work, index, artifacts)
                for name, comment in work.marked.items():
                    unfinished.set_comment(server, name, comment)
            except BaseException as error:
                if (left := _undo(work, before)) and isinstance(error, DrdError):
                    error.add_hint(left)
                raise
        return RestoreResult((*taken_back, *unmarked, *result.notices)), restored


def _create(work: _Restore, index: PackIndex, artifacts: ArtifactReader, before: Collection[str]) -> list[Notice]:
    """Create the absent databases with a mark where that is possible, and leave the others to RESTORE."""
    unmarked, why = [], ""
    for there, here in work.names.items():
        if here in before:
            continue
        comment = unfinished.own_comment(unfinished.definition(index, artifacts, there))
        if comment and work.settings.staging is not None:
            comment = literal(work.settings.staging.comment_of(here))
        if comment and work.owner:
            refusal = unfinished.create(work.server, here, work.ctx.backup_id, work.owner)
            if refusal and refusal.number == ACCESS_DENIED and work.settings.staging is not None:
                raise refusal
            why = f" ({refusal.text})" if refusal else why
            unmarked += [here] if refusal else []
            work.marked |= {} if refusal else {here: comment}
        else:
            unmarked.append(here)
        work.made.add(here)
    if not unmarked:
        return []
    if work.settings.staging is not None:
        raise TargetError(
            f"{', '.join(unmarked)} cannot be marked on this server, so nothing can be restored beside live data{why}",
            hint="ClickHouse 25.1 and newer can (ALTER DATABASE … MODIFY COMMENT); or use --into",
        )
    text = f"{', '.join(unmarked)} could not be marked as unfinished on this server{why}: had the restore been killed, "
    return [Notice("restore-unmarked", text + "it would have had to be dropped by hand")]


def _bring(
    work: _Restore, index: PackIndex, artifacts: ArtifactReader
) -> tuple[RestoreResult, fingerprints.PartsSnapshot]:
    notices: list[Notice] = []
    restored = fingerprints.PartsSnapshot(work.server, list(work.names.values()))
    with _origin(work, index, artifacts) as origin:
        wanted = work.elements(index)
        different = {"allow_different_database_def": 1}
        if replaces_outside(work.settings):  # RESTORE refuses the Null tables that it makes itself
            different["allow_different_table_def"] = 1
        _run(work, origin, wanted, structure_only=1, **different)
        tables = merge_trees(work.server, work.names.values())
        for name in tables:
            for what in MERGES:
                work.server.execute(f"SYSTEM STOP {what} {table(*name)}")
        _run(work, origin, wanted, **different)
        notices += _bring_access(work, origin)
    notices += repoint(work.server, work.names)
    notices += origin.leftovers
    with closing(LongQuery(work.server, work.ctx.cancel, work.settings.stall_timeout_s)) as query:
        for name in tables:
            check_table(query, name, work.ctx)
    restored.take(active_only=True)
    known_by = live_names(work.settings, list(work.names))
    notices += fingerprints.came_empty(work.server, {here: known_by[there] for there, here in work.names.items()})
    if work.settings.merges_after_restore == "started":
        start_merges(work.server, work.names.values())
    refresh_views(work.server, work.names.values())
    return RestoreResult(tuple(notices)), restored


def _run(work: _Restore, origin: _Origin, what: Sequence[str], **options: int) -> None:
    job_id = new_job_id(work.ctx.backup_id, work.owner)
    statement = work.statement(what, origin, job_id, **options)
    try:
        run_job(work.server, statement, job_id, query_settings(work.settings), origin.watch)
    except ServerRefusal as refusal:
        origin.explain(refusal)
        raise


def _bring_access(work: _Restore, origin: _Origin) -> list[Notice]:
    """Bring users and functions that do not exist yet, where the server allows it and no name changed."""
    saved = work.backup.facts.get("access")
    kinds = [k for k in saved if isinstance(k, str)] if isinstance(saved, list) else []
    if any(here != there for there, here in work.names.items()) or not work.settings.selection.everything:
        return []
    refused = []
    for kind, element in zip(kinds, access.elements(kinds), strict=False):
        try:
            _run(work, origin, [element])
        except ServerRefusal as refusal:
            if refusal.number != 605:  # BACKUP_ENTRY_NOT_FOUND: there were none to save
                refused.append(f"{kind}: {refusal.text}")
    return [Notice("access-not-restored", f"ClickHouse did not take {'; '.join(refused)}")] if refused else []


@contextmanager
def _origin(work: _Restore, index: PackIndex, artifacts: ArtifactReader) -> Iterator[_Origin]:
    """Open the way from the backup's artifacts to the server."""
    direct = work.settings.direct
    prefix = work.backup.facts.get("direct_prefix")
    packed = INDEX_ARTIFACT in artifacts.names()
    if work.settings.mode == "disk":
        with _from_disk(work, index, artifacts) as origin:
            yield origin
    elif work.settings.mode == "direct" and direct and isinstance(prefix, str) and not packed:
        work.server.scrub.add(direct.secret_access_key.reveal(), direct.access_key_id.reveal())
        keys = f"{literal(direct.access_key_id.reveal())}, {literal(direct.secret_access_key.reveal())}"
        watch = Watch(work.ctx.cancel, work.settings.stall_timeout_s, tick=_ticker(work, "RESTORE from the bucket"))
        url = direct.url.rstrip("/")
        base_prefix = increments.prefix_recorded(work.backup)
        built_on = f"S3({literal(f'{url}/{base_prefix}')}, {keys})" if base_prefix else ""
        with using_bucket(direct.url, TARGET):
            yield _Origin(f"S3({literal(f'{url}/{prefix}')}, {keys})", watch, built_on)
    else:
        with _from_gateway(work, index, artifacts) as origin:
            yield origin


def _ticker(work: _Restore, phase: str) -> Any:
    def tick(row: Mapping[str, Any]) -> None:
        done = int((row.get("ProfileEvents") or {}).get("ReadBufferFromS3Bytes", 0))
        work.ctx.progress(Progress(work.ctx.source, phase, done))

    return tick


@contextmanager
def _from_gateway(work: _Restore, index: PackIndex, artifacts: ArtifactReader) -> Iterator[_Origin]:
    space = BackupSpace(index, artifacts)
    total = sum(item.size for item in index.objects.values())
    with open_gateway(space, work.settings, work.ctx.now, TARGET) as gateway:
        work.server.scrub.add(gateway.secret_access_key, gateway.access_key_id)
        started = time.monotonic()

        def tick(_row: Mapping[str, Any]) -> None:
            gateway.raise_failure()
            if not gateway.requests and time.monotonic() - started > work.settings.connect_timeout_s:
                raise unreachable(gateway, TARGET, "no request arrived")
            work.ctx.progress(Progress(work.ctx.source, "RESTORE from gateway", gateway.bytes_moved, total))

        keys = f"{literal(gateway.access_key_id)}, {literal(gateway.secret_access_key)}"
        built_on = f"S3({literal(gateway.url + increments.FOLDER)}, {keys})" if increments.view_of_base(index) else ""
        yield _Origin(
            f"S3({literal(gateway.url)}, {keys})",
            Watch(
                work.ctx.cancel,
                work.settings.stall_timeout_s,
                moved=lambda: gateway.bytes_moved + gateway.requests,
                tick=tick,
                refuse=gateway.refuse,
            ),
            built_on,
            lambda refusal: explain(gateway, refusal, TARGET),
        )


@contextmanager
def _from_disk(work: _Restore, index: PackIndex, artifacts: ArtifactReader) -> Iterator[_Origin]:
    volume = disk.Volume.of(work.settings, TARGET)
    folder = new_job_id(work.ctx.backup_id, work.owner)
    origin: _Origin | None = None
    try:
        volume.unpack(folder, index, artifacts, work.ctx)
        watch = Watch(work.ctx.cancel, work.settings.stall_timeout_s, tick=_ticker(work, "RESTORE from disk"))
        name = literal(work.settings.disk_name)
        built_on = f"Disk({name}, {literal(f'{folder}/{increments.FOLDER}')})" if increments.view_of_base(index) else ""
        origin = _Origin(f"Disk({name}, {literal(folder)})", watch, built_on)
        yield origin
    finally:
        left = volume.remove(folder)
        if left is not None and origin is not None:
            origin.leftovers.append(left)


def _undo(work: _Restore, before: Mapping[str, Any]) -> str:
    """Drop what the restore made; return a sentence for people when that failed, else ""."""
    server = work.server
    failed = []
    for name in [*work.made, *before]:
        doomed = [f"DATABASE IF EXISTS {identifier(name)}"]
        try:
            if name in before:
                doomed = [f"{row['kind']} IF EXISTS {table(name, row['name'])}" for row in held(server, [name])[name]]
        except (ServerRefusal, DrdError) as error:
            return f"what was restored so far could not be dropped ({clean(str(error), 120)})"
        for what in doomed:
            try:
                server.execute(f"DROP {what} SYNC", settings=unfinished.FORCE)
            except (ServerRefusal, DrdError) as error:
                failed.append(f"DROP {what} ({clean(str(error), 120)})")
    return f"{len(failed)} of what was restored so far could not be dropped: {failed[0]}" if failed else ""
