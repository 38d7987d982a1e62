"""Restore key by key: RESTORE commands made from the snapshot's own bytes, routed to whoever owns each key.

For targets that cannot connect back to drd, for clusters of any shape, behind Sentinel, over TLS. Needs no redis-server
here and no disk; memory is bounded by the largest single value, which must fit the server's proto-max-bulk-len.
A value travels in the encoding of the snapshot, so the target must be of the same or a newer version. Keys are never
replaced: a key that a client creates meanwhile stops the restore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import redis

from drd.engines.redis.connect import Client, config_get, mapped, open_client
from drd.engines.redis.rdb.crc import crc64
from drd.engines.redis.rdb.values import UnsupportedValue
from drd.engines.redis.rdb.walk import Entry, Walk
from drd.engines.redis.selection import Matcher, matcher
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.topology import Layout, read_info
from drd.errors import TargetError
from drd.model import Progress
from drd.protocols import ArtifactReader, WorkContext

_BATCH_COMMANDS = 1000
_BATCH_BYTES = 1 << 20
_BULK_LIMIT_BYTES = 512 << 20


@dataclass
class _Lane:
    """One primary of the target, the database selected there, and what waits to be sent."""

    address: Address
    client: Client
    connection: Any
    db: int = 0
    commands: list[bytes] = field(default_factory=list)
    size: int = 0


def restore_keys(
    settings: RedisSettings, layout: Layout, artifacts: ArtifactReader, snapshots: list[str], ctx: WorkContext
) -> int:
    """Load the snapshots into the empty target and return how many keys were written (expired ones are left out).

    Of a selection of keys no function library comes along.

    After a failure the target is emptied again if nobody else wrote to it, else the message says that it is not.
    """
    with ExitStack() as stack:
        lanes = []
        for shard in layout.shards:
            stack.enter_context(mapped("target", shard.primary, settings.login, "RESTORE"))
            client = stack.enter_context(closing(open_client(settings, shard.primary, settings.login)))
            connection = client.connection_pool.get_connection()
            lanes.append(_Lane(shard.primary, client, connection))
        writer = _Writer(layout, lanes, ctx, matcher(settings.selection))
        complete = False
        try:
            for name in snapshots:
                writer.load(artifacts, name)
            complete = True
        except UnsupportedValue as error:
            raise TargetError(
                f"key by key is not possible: {error.message}", hint="restore_via: replication needs no parser"
            ) from error
        finally:
            for lane in lanes:
                lane.connection.disconnect()
            if not complete:
                writer.undo()
    return writer.written


class _Writer:
    """Turns entries into RESTORE commands and keeps count."""

    def __init__(self, layout: Layout, lanes: list[_Lane], ctx: WorkContext, chosen: Matcher | None) -> None:
        self._chosen = chosen
        self._layout = layout
        self._lanes = lanes
        self._ctx = ctx
        self._now_ms = int(ctx.now().timestamp() * 1000)
        self._libraries_loaded = False
        self.written = 0
        limit = config_get(lanes[0].client, "proto-max-bulk-len")
        self._limit = int(limit) if limit and limit.isdigit() else _BULK_LIMIT_BYTES

    def load(self, artifacts: ArtifactReader, name: str) -> None:
        """Send every key of one snapshot, then its function libraries (the same on every shard, so once)."""
        size, passed = artifacts.size(name), [0]

        def counted(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
            for piece in pieces:
                yield piece
                passed[0] += len(piece)
                self._ctx.progress(Progress(self._ctx.source, "restore", passed[0], size, "key by key"))

        with artifacts.open(name) as stream:
            walk = Walk(counted(stream.chunks()), values=True, keep_limit_bytes=self._limit)
            for entry in walk.entries():
                alive = entry.expires_ms is None or entry.expires_ms > self._now_ms
                if alive and (self._chosen is None or self._chosen(entry.name)):
                    self._add(entry, walk.version)
            for lane in self._lanes:
                self._flush(lane)
        if walk.libraries and self._chosen is None and not self._libraries_loaded:
            self._libraries_loaded = True
            for lane in self._lanes:
                for code in walk.libraries:
                    lane.client.execute_command("FUNCTION", "LOAD", code)

    def _add(self, entry: Entry, version: int) -> None:
        lane = self._lanes[self._layout.shard_of(entry.name)]
        if lane.db != entry.db:
            self._flush(lane)
            lane.commands.append(b"*2\r\n$6\r\nSELECT\r\n" + _bulk(b"%d" % entry.db))
            lane.db = entry.db
        body = bytes((entry.kind,)) + entry.value + version.to_bytes(2, "little")
        payload = body + crc64(body).to_bytes(8, "little")
        command = b"".join(
            (
                b"*5\r\n$7\r\nRESTORE\r\n",
                _bulk(entry.name),
                _bulk(b"%d" % (entry.expires_ms or 0)),
                _bulk(payload),
                b"$6\r\nABSTTL\r\n",
            )
        )
        lane.commands.append(command)
        lane.size += len(command)
        if len(lane.commands) >= _BATCH_COMMANDS or lane.size >= _BATCH_BYTES:
            self._flush(lane)

    def _flush(self, lane: _Lane) -> None:
        """Send what waits and read every answer; the first refusal stops the restore."""
        self._ctx.cancel.raise_if_cancelled()
        commands, lane.commands, lane.size = lane.commands, [], 0
        if not commands:
            return
        lane.connection.send_packed_command([b"".join(commands)])
        problem: redis.exceptions.ResponseError | None = None
        for command in commands:
            try:
                lane.connection.read_response()
            except redis.exceptions.ResponseError as error:
                problem = problem or error
            else:
                self.written += command.startswith(b"*5")
        if problem is not None:
            raise _refusal(lane.address, problem) from problem

    def undo(self) -> None:
        """Empty the target again when all it holds is ours; raises, saying so, when that cannot be known or done."""
        if not self.written and not self._libraries_loaded:
            return
        try:
            held = 0
            for lane in self._lanes:
                for name, value in read_info(lane.client, "keyspace").items():
                    if name.startswith("db"):
                        held += int(value.split(",")[0].partition("=")[2])
            if held > self.written + _BATCH_COMMANDS * len(self._lanes):
                raise TargetError(
                    "the restore failed half-way, and the target was left as it is because others wrote to it",
                    hint="look at it, then FLUSHALL and repeat",
                )
            for lane in self._lanes:
                lane.client.execute_command("FLUSHALL")
                if self._libraries_loaded:
                    lane.client.execute_command("FUNCTION", "FLUSH")
        except (redis.exceptions.RedisError, OSError) as error:
            raise TargetError(
                f"the restore failed half-way and the target could not be emptied again: {type(error).__name__}",
                hint="when it is back: FLUSHALL, then repeat",
            ) from error


def _refusal(address: Address, error: redis.exceptions.ResponseError) -> TargetError:
    """Say in words for people why a key was not taken."""
    kinds = redis.exceptions
    if "BUSYKEY" in str(error):
        return TargetError(f"a client wrote to {address} during the restore", hint="keep clients away, then repeat")
    if isinstance(error, (kinds.MovedError, kinds.AskError, kinds.ClusterDownError)):
        return TargetError(f"the cluster of {address} moved slots during the restore", hint="let it settle, repeat")
    if isinstance(error, kinds.OutOfMemoryError):
        return TargetError(f"{address} is out of memory (maxmemory)", hint="raise maxmemory, then repeat")
    return TargetError(f"{address} refused a key: {error}")


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
