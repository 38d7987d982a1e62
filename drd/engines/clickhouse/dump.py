"""Take one backup: the server's own BACKUP, by way of the gateway, straight into the bucket, or a shared volume.

The recovery point is a bound that is never earlier than the newest row inside: ClickHouse collects the parts of
every table before it writes the first file, so in gateway mode it is when the first file arrived; in the other
modes drd cannot see that moment, and it is when the server reported the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from drd.engines.clickhouse import access, alive, disk, fingerprints, increments, orphans, unfinished
from drd.engines.clickhouse.client import SOURCE, Server, ServerRefusal, told
from drd.engines.clickhouse.gateway import Gateway
from drd.engines.clickhouse.job import Watch, new_job_id, run_job
from drd.engines.clickhouse.manifest import ServerManifest, parse_manifest
from drd.engines.clickhouse.packindex import PackIndex, write_index
from drd.engines.clickhouse.packing import MANIFEST_KEY, PackingSpace
from drd.engines.clickhouse.quoting import SYSTEM_DATABASES, identifier, literal
from drd.engines.clickhouse.route import explain, open_gateway, unreachable, using_bucket
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.engines.marks import copies_among, left_out
from drd.errors import ConfigError, SourceError
from drd.model import DumpResult, Json, Notice, Progress
from drd.protocols import ArtifactSink, WorkContext


@dataclass
class Taken:
    """What one of the three ways out gives back."""

    manifest: ServerManifest
    recovery_point: datetime
    facts: dict[str, Json] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    base_objects: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """One backup under way."""

    server: Server
    settings: ClickHouseSettings
    sink: ArtifactSink
    ctx: WorkContext
    databases: list[str]
    kinds: tuple[str, ...]
    snapshot: fingerprints.PartsSnapshot
    job_id: str

    def statement(self, target: str, base: str = "", **settings: Json) -> str:
        """Spell BACKUP for all that is to be saved, built on ``base``."""
        what = [f"DATABASE {identifier(name)}" for name in self.databases] + access.elements(self.kinds)
        options = {"id": self.job_id, **settings}
        spelled = ", ".join(f"{k}={literal(v) if isinstance(v, str) else int(v or 0)}" for k, v in options.items())  # type: ignore[arg-type]
        built_on = f", base_backup={base}" if base else ""
        return f"BACKUP {', '.join(what)} TO {target} SETTINGS {spelled}{built_on}"

    def run(
        self, statement: str, *, moved: Callable[[], int], tick: Callable[[dict[str, Any]], None],
        refuse: Callable[[], None],
    ) -> dict[str, Any]:  # fmt: skip
        """Run a statement under watch, with the query settings of this source."""
        watch = Watch(self.ctx.cancel, self.settings.stall_timeout_s, moved, tick, refuse)
        return run_job(self.server, statement, self.job_id, query_settings(self.settings), watch)


_CUT_OFF = (
    "restore_replace_external_engines_to_null",
    "restore_replace_external_table_functions_to_null",
    "restore_replace_external_dictionary_source_to_null",
)


def query_settings(settings: ClickHouseSettings) -> dict[str, Any]:
    """Collect the settings that go with BACKUP and RESTORE."""
    out: dict[str, Any] = {"backup_restore_s3_retry_attempts": settings.s3_retry_attempts}
    if settings.backup_threads:
        out |= {"backup_threads": settings.backup_threads, "restore_threads": settings.backup_threads}
    if settings.bandwidth_bytes_per_s:
        out["max_backup_bandwidth"] = settings.bandwidth_bytes_per_s
    if settings.outside == "cut_off":
        out |= dict.fromkeys(_CUT_OFF, 1)
    elif replaces_outside(settings):
        out[_CUT_OFF[0]] = 1
    return out


def replaces_outside(settings: ClickHouseSettings) -> bool:
    """Whether RESTORE makes Null tables of those that reach out of the server.

    Beside live data it does, lest the copy of a queue takes messages from the live one; they get their own engine
    together with their name (:mod:`.definitions`).
    """
    return settings.outside == "cut_off" or settings.staging is not None


def choose_databases(server: Server, settings: ClickHouseSettings) -> list[str]:
    """Name the databases to save; raises :class:`~drd.errors.SourceError` when one is missing or there is none."""
    have = [r["name"] for r in server.rows("SELECT name FROM system.databases ORDER BY name")]
    named = settings.address().database
    wanted = list(dict.fromkeys(settings.databases)) or ([named] if named else [])
    missing = [name for name in wanted if name not in have]
    if missing:
        seen = ", ".join(n for n in have if n not in SYSTEM_DATABASES)
        raise SourceError(
            f"ClickHouse has no database {', '.join(missing)}" + ("" if seen else ", or does not show it to this user"),
            hint=f"it has: {seen}" if seen else "a user sees what it has a right to: GRANT BACKUP, SELECT ON *.*",
        )
    if any(name in SYSTEM_DATABASES for name in wanted):
        raise ConfigError("the system's own databases are not backed up", hint="take them out of databases")
    if not (out := wanted):
        others = {*SYSTEM_DATABASES, *kept_copies(server)}
        out = [name for name in have if name not in others]
    if not out:
        raise SourceError("ClickHouse has no database to back up")
    return out


def kept_copies(server: Server) -> list[str]:
    """Name the databases of this server that restores keep or are building."""
    return copies_among(unfinished.comments(server))


def dump(server: Server, settings: ClickHouseSettings, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
    """Take one backup; see the module for the recovery point and :mod:`fingerprints` for the fingerprint."""
    with told(SOURCE):
        orphaned = orphans.end_orphans(server)
        ahead = _server_ahead(server, ctx)
        databases = choose_databases(server, settings)
        kinds, refused = access.savable(server)
        tables = fingerprints.engines(server, databases)
        before = fingerprints.count_rows(server, tables)
        snapshot = fingerprints.PartsSnapshot(server, databases)
        half_made = _half_made(server, databases)
        with alive.sign(server) as owner:
            job_id = new_job_id(ctx.backup_id, owner)
            run = Run(server, settings, sink, ctx, databases, kinds, snapshot, job_id)
            taken = {"gateway": _through_gateway, "direct": _directly, "disk": _through_disk}[settings.mode](run)
        parts = taken.manifest.parts()
        if not snapshot.knows(parts):
            snapshot.take()
        tables |= fingerprints.engines(server, databases)
        after = fingerprints.count_rows(server, {n: e for n, e in tables.items() if n in before})
        fingerprint, partial = fingerprints.of_backup(taken.manifest, snapshot, tables, before, after)
        everything = not settings.databases and not settings.address().database
        copies = left_out(kept_copies(server)) if everything else []
        notices = orphaned + half_made + copies + [n for n in (refused, partial) if n]
        notices += fingerprints.unsaved(server, databases, tables) + taken.notices
        facts: dict[str, Json] = {"mode": settings.mode, "access": list(kinds), "tables": len(fingerprint.items)}
        return DumpResult(
            recovery_point=taken.recovery_point + ahead,
            fingerprint=fingerprint,
            engine_version=server.version(),
            rows=fingerprint.rows,
            facts=facts | taken.facts,
            notices=tuple(notices),
            direct_objects=settings.mode == "direct",
            base_objects=taken.base_objects,
            kind="incremental" if taken.base_objects else "full",
        )


def _half_made(server: Server, databases: list[str]) -> list[Notice]:
    """Say which of the databases are what a restore has made so far, or had when it was killed."""
    names = ", ".join(sorted(unfinished.marked(server, databases)))
    if not names:
        return []
    return [
        Notice("half-made", f"{names}: made by a restore that is under way or was killed, so the data are not whole")
    ]


def _server_ahead(server: Server, ctx: WorkContext) -> timedelta:
    """Return how far the server's clock is ahead of drd's: rows carry its time, so the recovery point must too.

    Too large by the time of one question, so that the recovery point is never earlier than a row inside.
    """
    asked = ctx.now()
    milliseconds = int(server.rows("SELECT toUnixTimestamp64Milli(now64(3)) AS ms")[0]["ms"])
    return datetime.fromtimestamp((milliseconds + 1) / 1000, UTC) - asked


def check_complete(manifest: ServerManifest, index: PackIndex) -> None:
    """Compare the server's manifest with what arrived; raises :class:`~drd.errors.SourceError` for a gap."""
    for item in manifest.files:
        want = item.size - item.in_base
        found = index.objects.get(item.key)
        if want > 0 and (found is None or found.size != want):
            have = "is missing" if found is None else f"has {found.size} bytes instead of {want}"
            raise SourceError(f"ClickHouse reported success, but {item.key} {have}", hint="run it again")


def _through_gateway(run: Run) -> Taken:
    ctx, settings = run.ctx, run.settings
    space = PackingSpace(run.sink, ctx.now)
    try:
        with open_gateway(space, settings, ctx.now, SOURCE) as gateway:
            run.server.scrub.add(gateway.secret_access_key, gateway.access_key_id)
            _backup_to(run, space, gateway)
        manifest = parse_manifest([space.manifest()])
        index = space.finish()
    except BaseException:
        space.abort()
        raise
    check_complete(manifest, index)
    write_index(index, run.sink)
    return Taken(manifest, space.first_data_at or ctx.now())


def _backup_to(run: Run, space: PackingSpace, gateway: Gateway) -> None:
    """Let the server write its backup into the gateway."""
    started = time.monotonic()

    def tick(_row: dict[str, Any]) -> None:
        gateway.raise_failure()
        if not gateway.requests and time.monotonic() - started > run.settings.connect_timeout_s:
            raise unreachable(gateway, SOURCE, "no request arrived")
        if space.first_data_at and not run.snapshot.taken:
            run.snapshot.take()
        run.ctx.progress(Progress(run.ctx.source, "BACKUP to gateway", gateway.bytes_moved))

    target = f"S3({literal(gateway.url)}, {literal(gateway.access_key_id)}, {literal(gateway.secret_access_key)})"
    try:
        run.run(
            run.statement(target, allow_s3_native_copy=0),
            moved=lambda: gateway.bytes_moved + gateway.requests,
            tick=tick,
            refuse=gateway.refuse,
        )
    except ServerRefusal as refusal:
        explain(gateway, refusal, SOURCE)
        raise
    gateway.raise_failure()


def _directly(run: Run) -> Taken:
    direct = run.settings.direct
    if direct is None:
        raise ConfigError(
            "mode direct needs the bucket as the ClickHouse server reaches it", hint="see direct: in drd.yaml"
        )
    run.server.scrub.add(direct.secret_access_key.reveal(), direct.access_key_id.reveal())
    where = f"{direct.url.rstrip('/')}/{run.ctx.direct_prefix}"
    keys = f"{literal(direct.access_key_id.reveal())}, {literal(direct.secret_access_key.reveal())}"

    def tick(row: dict[str, Any]) -> None:
        if not run.snapshot.taken and (row.get("ProfileEvents") or {}).get("WriteBufferFromS3Bytes"):
            run.snapshot.take()
        done = int((row.get("ProfileEvents") or {}).get("WriteBufferFromS3Bytes", 0))
        run.ctx.progress(Progress(run.ctx.source, "BACKUP to the bucket", done))

    base_prefix = increments.prefix_of_base(run.ctx)
    base_where = f"{direct.url.rstrip('/')}/{base_prefix}" if base_prefix else ""
    statement = run.statement(
        f"S3({literal(where)}, {keys})", f"S3({literal(base_where)}, {keys})" if base_where else ""
    )
    with using_bucket(direct.url, SOURCE):
        run.run(statement, moved=lambda: 0, tick=tick, refuse=lambda: None)
    ended = run.ctx.now()
    facts: dict[str, Json] = {increments.PREFIX_FACT: run.ctx.direct_prefix}
    data = _read_back(run, where, keys)
    increments.refuse_secret(data, direct.secret_access_key.reveal())
    manifest = parse_manifest([data])
    if not manifest.base_backup_uuid:
        return Taken(manifest, ended, facts)
    of_base = increments.needed(manifest, parse_manifest([_read_back(run, base_where, keys)]))
    return Taken(manifest, ended, facts | {increments.BASE_PREFIX_FACT: base_prefix}, base_objects=of_base)


def _read_back(run: Run, where: str, keys: str) -> bytes:
    """Read the server's manifest of a backup in the bucket, by the server's own way to it."""
    try:
        place = f"{literal(where + MANIFEST_KEY)}, {keys}"
        rows = run.server.rows(f"SELECT * FROM s3({place}, 'RawBLOB', 'data String')")  # noqa: S608 - quoted
    except ServerRefusal as refusal:
        raise SourceError(
            f"the backup's manifest cannot be read back from the bucket: {refusal}",
            hint="the user needs GRANT READ ON S3, CREATE TEMPORARY TABLE ON *.*",
        ) from None
    data = rows[0]["data"] if rows else b""
    return data.encode() if isinstance(data, str) else bytes(data)


def _through_disk(run: Run) -> Taken:
    settings, ctx = run.settings, run.ctx
    volume = disk.Volume.of(settings, SOURCE)
    target = f"Disk({literal(settings.disk_name)}, {literal(run.job_id)})"

    def tick(_row: dict[str, Any]) -> None:
        if not run.snapshot.taken:
            run.snapshot.take()
        ctx.progress(Progress(ctx.source, "BACKUP to disk"))

    notices: list[Notice] = []
    try:
        run.run(run.statement(target), moved=lambda: 0, tick=tick, refuse=lambda: None)
        ended = ctx.now()
        space = PackingSpace(run.sink, ctx.now)
        try:
            volume.pack(run.job_id, space, ctx)
            manifest = parse_manifest([space.manifest()])
            index = space.finish()
        except BaseException:
            space.abort()
            raise
        check_complete(manifest, index)
        write_index(index, run.sink)
    finally:
        if leftover := volume.remove(run.job_id):
            notices.append(leftover)
    return Taken(manifest, ended, notices=notices)
