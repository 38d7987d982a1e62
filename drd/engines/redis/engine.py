"""The Redis engine: one class over the parts of this package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from drd.engines.redis import dump as dumping
from drd.engines.redis import live, restore
from drd.engines.redis.checks import check
from drd.engines.redis.connect import mapped, open_client
from drd.engines.redis.selection import expected_of
from drd.engines.redis.settings import RedisSettings
from drd.engines.redis.topology import discover, read_info
from drd.model import Backup, CheckItem, DumpResult, EngineKind, Fingerprint, Probe, RestoreResult, TargetState
from drd.protocols import ArtifactReader, ArtifactSink, WorkContext


class RedisEngine:
    """Redis or Valkey, standalone, behind Sentinel or a cluster, as source and as target.

    Implements :class:`drd.protocols.Engine`; holds no connection between calls, so it may be shared by threads.
    """

    kind: EngineKind = "redis"

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    def probe(self) -> Probe:
        """Connect and learn version and size in memory (the snapshot is usually smaller); changes nothing."""
        settings = self._settings
        layout = discover(settings, "source")
        version, size = "", 0
        for shard in layout.shards:
            with (
                mapped("source", shard.primary, settings.login, "INFO"),
                closing(open_client(settings, shard.primary, settings.login)) as c,
            ):
                info = read_info(c, "server") | read_info(c, "memory")
            version = version or info.get("valkey_version") or info.get("redis_version", "")
            size += int(info.get("used_memory", "0") or 0)
        detail = layout.kind if len(layout.shards) == 1 else f"{layout.kind} of {len(layout.shards)} shards"
        return Probe(version, size or None, detail)

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        """Write the snapshot of every shard, users, settings and slot map to ``sink``."""
        return dumping.dump(self._settings, sink, ctx)

    def inspect(self, backup: Backup, artifacts: ArtifactReader) -> TargetState:  # noqa: ARG002 - the protocol's form
        """Say whether the target is empty; raises :class:`~drd.errors.TargetError` when it cannot take the backup."""
        return restore.inspect(self._settings, backup)

    def restore(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> RestoreResult:
        """Load the backup into the empty target, by replication or key by key."""
        return restore.restore(self._settings, backup, artifacts, ctx)

    def narrowed(self, expected: Fingerprint, artifacts: ArtifactReader, ctx: WorkContext) -> Fingerprint:
        """Return the fingerprint of the chosen keys, read from the backup: ``expected`` is of all of them."""
        if self._settings.selection.everything:
            return expected
        now_ms = int(ctx.now().timestamp() * 1000)
        return expected_of(self._settings.selection, artifacts, restore.snapshots_of(artifacts), now_ms)

    def fingerprint(self, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Read everything the server holds, comparable to ``expected``."""
        return live.fingerprint(self._settings, expected, ctx)

    def check(self) -> Sequence[CheckItem]:
        """Look at everything a backup or restore needs; raises nothing."""
        return check(self._settings)
