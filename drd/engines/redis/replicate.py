"""Restore by replication: the target becomes a replica of drd for as long as the snapshot takes.

Works with the append-only file on (the server rewrites it after the synchronisation, and drd waits for that), keeps
everything a snapshot holds, and needs the same or a newer server. The snapshot is sent with its length, so a stream
that breaks is dropped, not loaded; only an empty server is ever asked to do this.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import redis

from drd.engines.redis.connect import Client, mapped, open_client
from drd.engines.redis.lent import settings_lent
from drd.engines.redis.primary import ActingPrimary
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.topology import read_info
from drd.errors import TargetError
from drd.model import Progress
from drd.protocols import ArtifactReader, WorkContext

CONNECT_BACK_S = 10.0
_QUICK_POLL_S, _SLOW_POLL_S = 0.002, 0.05
_POLL_SHARE = 0.02  # of the time waited so far: what is done is noticed that much late, at most


class CannotConnectBack(TargetError):
    """The target did not reach drd in time, so nothing was changed; another route may work."""

    code = "cannot_connect_back"


@dataclass(frozen=True)
class Job:
    """One replication into a target, over one connection of commands."""

    settings: RedisSettings
    target: Address
    client: Client
    ctx: WorkContext


def replicate(
    settings: RedisSettings, target: Address, artifacts: ArtifactReader, artifact: str, ctx: WorkContext
) -> None:
    """Load one snapshot into the empty server ``target``.

    Raises :class:`CannotConnectBack` untouched when the target cannot reach drd; any other
    :class:`~drd.errors.TargetError` after the target has been made an independent primary again, with its own
    settings and, unless the message says otherwise, empty.
    """
    size = artifacts.size(artifact)
    sent = [0]

    def passed(count: int) -> None:
        sent[0] += count
        ctx.progress(Progress(ctx.source, "restore", sent[0], size, "replication"))

    def snapshot() -> Iterator[memoryview]:
        sent[0] = 0
        with artifacts.open(artifact) as stream:
            yield from stream.chunks()

    with (
        mapped("target", target, settings.login, "REPLICAOF"),
        closing(open_client(settings, target, settings.login)) as client,
        ActingPrimary(settings.holder_listen, size, snapshot, passed, ctx.deadline_s) as primary,
        ctx.cancel.on_cancel(primary.stop),
    ):
        job = Job(settings, target, client, ctx)
        announced = Address(settings.holder_advertise or settings.holder_listen, primary.address.port)
        with settings_lent(client, target) as primary.password, _as_replica(job, announced):
            wait_for_connection(job, primary, announced)
            wait_for_load(job, primary)
        wait_for_append_only_file(job)


@contextmanager
def _as_replica(job: Job, primary: Address) -> Iterator[None]:
    """Make the target a replica for the block; afterwards it is its own primary again, whatever happened."""
    job.client.execute_command("REPLICAOF", primary.host, primary.port)
    loaded = False
    try:
        yield
        loaded = True
    finally:
        promote(job)
        if not loaded:
            _empty_again(job)


def promote(job: Job) -> None:
    """Run REPLICAOF NO ONE, also while the target is still loading what it received (then as soon as it can)."""
    deadline = time.monotonic() + job.ctx.deadline_s
    while True:
        try:
            job.client.execute_command("REPLICAOF", "NO", "ONE")
        except (redis.exceptions.BusyLoadingError, redis.exceptions.ConnectionError) as error:
            if time.monotonic() > deadline:
                raise TargetError(
                    f"{job.target} is still a replica of drd, which is gone", hint="on the target: REPLICAOF NO ONE"
                ) from error
            time.sleep(_SLOW_POLL_S)
        else:
            return


def _empty_again(job: Job) -> None:
    """Remove a snapshot that was loaded though the restore failed: the target was empty, and read-only since."""
    if int(job.client.execute_command("DBSIZE")) or any(k.startswith("db") for k in read_info(job.client, "keyspace")):
        job.client.execute_command("FLUSHALL")


def wait_for_connection(job: Job, primary: ActingPrimary, announced: Address) -> None:
    """Wait until the target logged in to drd; raises :class:`CannotConnectBack` when it does not."""
    deadline = time.monotonic() + CONNECT_BACK_S
    while not primary.connected.wait(_SLOW_POLL_S):
        job.ctx.cancel.raise_if_cancelled()
        if time.monotonic() > deadline:
            raise CannotConnectBack(
                f"{job.target} did not connect to drd at {announced} within {CONNECT_BACK_S:.0f} s",
                hint="set holder_listen and holder_advertise to an address it can reach, or restore_via: keys",
            )


def wait_for_load(job: Job, primary: ActingPrimary) -> None:
    """Wait until the target has loaded the snapshot and follows drd."""
    started = idle_since = time.monotonic()
    progress = (False, "")
    while True:
        job.ctx.cancel.raise_if_cancelled()
        if primary.error is not None:
            raise primary.error
        info = _info(job)
        if primary.sent.is_set() and info.get("master_link_status") == "up" and info.get("loading", "0") == "0":
            return
        now = (primary.sent.is_set(), info.get("master_sync_read_bytes", "") + info.get("loading_loaded_bytes", ""))
        if now != progress:
            idle_since, progress = time.monotonic(), now
        if time.monotonic() - idle_since > job.ctx.deadline_s:
            raise TargetError(
                f"{job.target} made no progress in loading the snapshot for {job.ctx.deadline_s:.0f} s",
                hint="its log says why; an RDB it cannot read, or too little disk or memory",
            )
        job.ctx.cancel.sleep(_pause_s(started))


def _info(job: Job) -> dict[str, str]:
    """Read the target's state; nothing while it is too busy loading to answer."""
    try:
        return read_info(job.client, "replication", "persistence")
    except redis.exceptions.BusyLoadingError:
        return {"loading": "1"}


def wait_for_append_only_file(job: Job) -> None:
    """Wait until a target with the append-only file on has rewritten it: only then does a restart keep the data."""
    started = progress_at = time.monotonic()
    last = ""
    while True:
        job.ctx.cancel.raise_if_cancelled()
        info = read_info(job.client, "persistence")
        if info.get("aof_enabled") != "1":
            return
        busy = info.get("aof_rewrite_in_progress") == "1" or info.get("aof_rewrite_scheduled") == "1"
        if not busy:
            if info.get("aof_last_bgrewrite_status") == "ok" and info.get("aof_last_write_status", "ok") == "ok":
                return
            raise TargetError(
                f"{job.target} holds the data, but could not rewrite its append-only file",
                hint="free its disk, then BGREWRITEAOF; until then a restart would lose the data",
            )
        now = info.get("current_save_keys_processed", "")
        if now != last:
            progress_at, last = time.monotonic(), now
        if time.monotonic() - progress_at > max(job.ctx.deadline_s, 60.0):
            raise TargetError(f"{job.target} does not finish rewriting its append-only file", hint="see its log")
        job.ctx.cancel.sleep(_pause_s(started))


def _pause_s(started: float) -> float:
    """Return how long to wait before asking again."""
    return min(max(_QUICK_POLL_S, _POLL_SHARE * (time.monotonic() - started)), _SLOW_POLL_S)
