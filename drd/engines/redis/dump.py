"""Back up: one snapshot a shard, straight into the pipeline, and what a snapshot does not hold beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import redis

from drd.cancel import CancelToken
from drd.engines.redis.connect import mapped, open_client, text
from drd.engines.redis.fingerprint import from_scans
from drd.engines.redis.rdb.scan import NOT_CHECKED
from drd.engines.redis.settings import RedisSettings
from drd.engines.redis.snapshot import Snapshot, take_snapshot
from drd.engines.redis.topology import Chosen, Layout, Shard, choose, discover
from drd.errors import Cancelled, DrdError
from drd.model import DumpResult, Json, Notice, Progress
from drd.protocols import ArtifactSink, ArtifactWriter, WorkContext

RDB_ARTIFACT = "dump.rdb"
ACL_ARTIFACT = "acl.txt"
CONFIG_ARTIFACT = "config.json"
CLUSTER_ARTIFACT = "cluster.json"
_SHARDS_AT_ONCE = 4
_PROGRESS_BYTES = 1 << 20
_SECRET_SETTINGS = ("pass", "auth", "secret")


@dataclass(frozen=True)
class _Taken:
    chosen: Chosen
    snapshot: Snapshot


def artifact_name(layout_kind: str, shard: int) -> str:
    """Name the snapshot of a shard."""
    return f"shard-{shard}/{RDB_ARTIFACT}" if layout_kind == "cluster" else RDB_ARTIFACT


def dump(settings: RedisSettings, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
    """Write one backup to ``sink``; see :class:`drd.protocols.Engine`.

    A cluster's shards are taken side by side, a few at a time; they have no common instant, so the recovery point is
    the latest of theirs. When one shard fails, the others are stopped.
    """
    layout = discover(settings, "source")
    done = _Total(ctx)
    taken = _each(layout, ctx, lambda index, cancel: _dump_shard(settings, layout, index, sink, ctx, cancel, done.add))
    notices = [t.chosen.notice for t in taken if t.chosen.notice]
    notices += _notices(taken)
    notices += _extras(settings, layout, taken[0].chosen, sink)
    scans = [t.snapshot.scan for t in taken]
    fingerprint = from_scans(scans)
    return DumpResult(
        recovery_point=max(t.snapshot.taken_at for t in taken),
        fingerprint=fingerprint,
        engine_version=taken[0].snapshot.version,
        rows=fingerprint.rows,
        facts=_facts(layout, taken),
        tools=_tools(scans[0].structure),
        notices=tuple(dict.fromkeys(notices)),
    )


class _Total:
    """Bytes of all shards together, for the progress line."""

    def __init__(self, ctx: WorkContext) -> None:
        self._ctx = ctx
        self._bytes = 0
        self._shown = 0

    def add(self, size: int) -> None:
        self._bytes += size
        if self._bytes - self._shown >= _PROGRESS_BYTES:
            self._shown = self._bytes
            self._ctx.progress(Progress(self._ctx.source, "dump", self._bytes, None, "snapshot"))


def _each(layout: Layout, ctx: WorkContext, work: Callable[[int, CancelToken], _Taken]) -> list[_Taken]:
    """Run ``work`` for every shard, a few at once; the first failure stops the rest and is raised."""
    if len(layout.shards) == 1:
        return [work(0, ctx.cancel)]
    stop = CancelToken()

    def one(index: int) -> _Taken:
        try:
            return work(index, stop)
        except DrdError:
            stop.cancel()
            raise

    with ctx.cancel.on_cancel(stop.cancel), ThreadPoolExecutor(min(_SHARDS_AT_ONCE, len(layout.shards))) as pool:
        futures = [pool.submit(one, index) for index in range(len(layout.shards))]
        errors = [error for f in futures if (error := f.exception()) is not None]
    ctx.cancel.raise_if_cancelled()
    for error in sorted(errors, key=lambda e: isinstance(e, Cancelled)):
        raise error
    return [f.result() for f in futures]


def _dump_shard(
    settings: RedisSettings,
    layout: Layout,
    index: int,
    sink: ArtifactSink,
    ctx: WorkContext,
    cancel: CancelToken,
    passed: Callable[[int], None],
) -> _Taken:
    """Take one shard; a server that fails before its first byte is replaced once by another of the shard."""
    name = artifact_name(layout.kind, index)
    chosen = choose(settings, layout.shards[index])
    opened: list[ArtifactWriter] = []

    def take(chunk: bytes) -> None:
        if not opened:
            opened.append(sink.open(name))
        opened[0].write(chunk)
        passed(len(chunk))

    complete = False
    try:
        try:
            snapshot = take_snapshot(settings, chosen.address, "source", take, ctx, cancel)
        except DrdError as error:
            other = _instead(settings, layout, index, chosen) if error.retryable and not opened else None
            if other is None:
                raise
            chosen = other
            snapshot = take_snapshot(settings, chosen.address, "source", take, ctx, cancel)
        opened[0].close()
        complete = True
    finally:
        if opened and not complete:
            opened[0].abort()
    return _Taken(chosen, snapshot)


def _instead(settings: RedisSettings, layout: Layout, index: int, failed: Chosen) -> Chosen | None:
    """Ask again who is there and return another server than the one that failed, or None."""
    shards: tuple[Shard, ...] = discover(settings, "source").shards
    if len(shards) != len(layout.shards):
        return None
    candidates = [Chosen(shards[index].primary, "primary"), *(Chosen(a, "replica") for a in shards[index].replicas)]
    return next((c for c in candidates if c.address != failed.address), None)


def _facts(layout: Layout, taken: list[_Taken]) -> dict[str, Json]:
    """Return what a restore needs to know; no names of keys, no addresses."""
    scan = taken[0].snapshot.scan
    return {
        "topology": layout.kind,
        "rdb_magic": scan.magic,
        "rdb_version": max(t.snapshot.scan.version for t in taken),
        "used_memory_bytes": sum(int(t.snapshot.scan.aux.get("used-mem", "0") or 0) for t in taken),
        "modules": list(taken[0].snapshot.modules),
        "highest_database": max((db for t in taken for db in t.snapshot.scan.databases), default=0),
        "shards": [
            {
                "artifact": artifact_name(layout.kind, index),
                "slots": [[first, last] for first, last in layout.shards[index].slots],
                "role": t.chosen.role,
                "taken_at": t.snapshot.taken_at.isoformat(),
                "replication_offset": t.snapshot.offset,
                "replica_lag_s": t.snapshot.lag_s,
                "keys": t.snapshot.scan.keys,
                "crc64": t.snapshot.scan.checksummed,
                "structure_checked_by": t.snapshot.scan.structure,
            }
            for index, t in enumerate(taken)
        ],
    }


def _tools(structure: str) -> dict[str, str]:
    """Return name and version of the tool that checked the structure, if one did."""
    name, _, version = structure.partition(" ")
    return {name: version} if name.endswith("-check-rdb") else {}


def _notices(taken: list[_Taken]) -> list[Notice]:
    scans = [t.snapshot.scan for t in taken]
    out = []
    if not all(scan.checksummed for scan in scans):
        out.append(
            Notice("rdb_checksum_off", "the server writes snapshots without checksum: CONFIG SET rdbchecksum yes")
        )
    if any(scan.structure == NOT_CHECKED for scan in scans):
        out.append(
            Notice(
                "rdb_structure_unchecked",
                f"only the checksum was checked: nothing here knows {scans[0].magic} RDB version {scans[0].version}; "
                "install that server's redis-check-rdb and set tools_dir",
            )
        )
    elif not all(scan.exact for scan in scans):
        out.append(
            Notice("key_counts_uncertain", "the snapshot's own key counts do not add up, so they are not compared")
        )
    return out


def _extras(settings: RedisSettings, layout: Layout, chosen: Chosen, sink: ArtifactSink) -> list[Notice]:
    """Save users and settings where the login may read them, and the slot map of a cluster."""
    notices = []
    with (
        mapped("source", chosen.address, settings.login, "CONFIG GET"),
        closing(open_client(settings, chosen.address, settings.login)) as c,
    ):
        try:
            lines = c.execute_command("ACL", "LIST")
            _write(sink, ACL_ARTIFACT, b"".join(line + b"\n" for line in lines))
        except redis.exceptions.ResponseError:
            notices.append(Notice("acl_not_saved", "users are not in the backup: the login may not run ACL LIST"))
        try:
            flat = [text(word) for word in c.execute_command("CONFIG", "GET", "*")]
            config = dict(zip(flat[::2], flat[1::2], strict=False))
            shown = {k: "" if v and any(s in k for s in _SECRET_SETTINGS) else v for k, v in sorted(config.items())}
            _write(sink, CONFIG_ARTIFACT, json.dumps(shown, indent=1).encode())
        except redis.exceptions.ResponseError:
            notices.append(
                Notice("config_not_saved", "settings are not in the backup: the login may not run CONFIG GET")
            )
    if layout.kind == "cluster":
        shards = [
            {"artifact": artifact_name("cluster", i), "primary": str(s.primary), "slots": [list(r) for r in s.slots]}
            for i, s in enumerate(layout.shards)
        ]
        _write(sink, CLUSTER_ARTIFACT, json.dumps({"shards": shards}, indent=1).encode())
    return notices


def _write(sink: ArtifactSink, name: str, data: bytes) -> None:
    writer = sink.open(name)
    complete = False
    try:
        writer.write(data)
        writer.close()
        complete = True
    finally:
        if not complete:
            writer.abort()
