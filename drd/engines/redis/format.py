"""A Redis backup at rest: is every snapshot whole, and how to restore it with stock tools."""

from __future__ import annotations

import json
from collections.abc import Iterator

from drd.engines.redis.dump import ACL_ARTIFACT, CLUSTER_ARTIFACT, artifact_name
from drd.engines.redis.fingerprint import aligned, from_scans
from drd.engines.redis.rdb.scan import NOT_CHECKED, Scan, scan_chunks
from drd.engines.redis.restore import snapshots_of
from drd.errors import IntegrityError
from drd.model import (
    FINGERPRINT_ARTIFACT,
    Backup,
    EngineKind,
    Fingerprint,
    Json,
    Problem,
    Progress,
    compare_fingerprints,
)
from drd.protocols import ArtifactReader, WorkContext


class RedisFormat:
    """Implements :class:`drd.protocols.Format` for RDB snapshots; needs no server."""

    kind: EngineKind = "redis"

    def verify(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> list[Problem]:
        """Read every snapshot: CRC-64, structure, counts and sampled keys against the fingerprint of backup time."""
        problems: list[Problem] = []
        scans: list[Scan] = []
        for name in snapshots_of(artifacts):
            try:
                with artifacts.open(name) as stream:
                    scans.append(scan_chunks(_counted(stream.chunks(), artifacts.size(name), ctx), None, ctx.cancel))
            except IntegrityError as error:
                problems.append(Problem(name, error.message, "this snapshot cannot be restored"))
        shards = backup.facts.get("shards")
        expected = len(shards) if isinstance(shards, list) else 1
        if not problems and len(scans) != expected:
            problems.append(
                Problem("snapshots", f"{expected} shards were saved, {len(scans)} are here", "data is missing")
            )
        if problems or any(scan.structure == NOT_CHECKED for scan in scans):
            return problems
        return _compare(artifacts, scans)

    def runbook(self, backup: Backup) -> list[str]:
        """Return shell lines that restore from ``$DRD_WORK`` with redis-server and redis-cli alone."""
        shards = backup.facts.get("shards")
        if backup.facts.get("topology") == "cluster" and isinstance(shards, list):
            return _cluster_runbook(backup, shards)
        return _runbook(backup)


def _counted(chunks: Iterator[memoryview], size: int, ctx: WorkContext) -> Iterator[memoryview]:
    done = 0
    for chunk in chunks:
        done += len(chunk)
        yield chunk
        ctx.progress(Progress(ctx.source, "verify", done, size, "snapshot"))


def _compare(artifacts: ArtifactReader, scans: list[Scan]) -> list[Problem]:
    """Compare what the snapshots hold with the fingerprint artifact, where there is one."""
    if FINGERPRINT_ARTIFACT not in artifacts.names():
        return []
    with artifacts.open(FINGERPRINT_ARTIFACT) as stream:
        expected = parse_fingerprint(stream.read())
    return [
        Problem(
            d.name, f"{d.fact} is {d.found}, but was {d.expected} at backup time", "the snapshot is not the one taken"
        )
        for d in compare_fingerprints(expected, aligned(expected, from_scans(scans)))
    ]


def parse_fingerprint(data: bytes) -> Fingerprint:
    """Read the fingerprint artifact; raises :class:`~drd.errors.IntegrityError` when it is malformed."""
    try:
        raw = json.loads(data)
        items: dict[str, dict[str, Json]] = {str(k): dict(v) for k, v in raw["items"].items()}
        return Fingerprint("redis", items, tuple(str(c) for c in raw["compared"]), int(raw.get("version", 1)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{FINGERPRINT_ARTIFACT} is malformed: {error}") from error


def _head(backup: Backup) -> list[str]:
    version = f"{backup.engine_version} (RDB version {backup.facts.get('rdb_version')})"
    return [
        f"# Redis backup {backup.id}: state as of {backup.recovery_point.isoformat()}, from server {version}.",
        "# Needs redis-server of that version or newer, redis-check-rdb, redis-cli. Variables: DRD_WORK (the decoded",
        "# artifacts), REDIS_DIR (an empty data directory of the new server), REDIS_PORT (a free port).",
        "# Stop replicas, Sentinel and clients of the old server first.",
        "set -eu",
        ': "${DRD_WORK:?}" "${REDIS_DIR:?}" "${REDIS_PORT:?}"',
    ]


def _runbook(backup: Backup) -> list[str]:
    return [
        *_head(backup),
        'redis-check-rdb "$DRD_WORK/dump.rdb"',
        'install -m 600 "$DRD_WORK/dump.rdb" "$REDIS_DIR/dump.rdb"',
        "# The append-only file must be OFF at first: with it on, the server ignores dump.rdb and starts EMPTY.",
        *_start('"$REDIS_DIR"', '"$REDIS_PORT"'),
        f"# Compare with the backup: {backup.rows} keys, less those that have expired since.",
        'redis-cli -p "$REDIS_PORT" info persistence | grep rdb_last_load_keys || true',
        'redis-cli -p "$REDIS_PORT" info keyspace',
        "# Now turn the append-only file on and wait for its first rewrite; then set your password and configuration",
        "# (with appendonly yes) and restart with them.",
        'redis-cli -p "$REDIS_PORT" config set appendonly yes',
        'while redis-cli -p "$REDIS_PORT" info persistence | grep -Eq "aof_rewrite_(in_progress|scheduled):1"',
        "do sleep 0.2; done",
        'redis-cli -p "$REDIS_PORT" info persistence | grep -q "aof_last_bgrewrite_status:ok"',
        f"# Users, if the old server had any besides default: $DRD_WORK/{ACL_ARTIFACT} (lines for an aclfile).",
    ]


def _start(folder: str, port: str, *options: str) -> list[str]:
    """Return the lines that start a server on the snapshot in ``folder`` and wait until it has loaded it, or died."""
    return [
        f"redis-server --port {port} --bind 127.0.0.1 --dir {folder} --dbfilename dump.rdb --appendonly no \\",
        f"  --daemonize yes --pidfile {folder}/redis.pid --logfile {folder}/redis.log {' '.join(options)}".rstrip(),
        f"until sleep 1; redis-cli -p {port} ping 2>/dev/null | grep -q PONG",
        f'do kill -0 "$(cat {folder}/redis.pid)" || {{ tail {folder}/redis.log; exit 1; }}; done',
    ]


def _cluster_runbook(backup: Backup, shards: list[Json]) -> list[str]:
    """Return the lines for a cluster: one node a shard, each with its own snapshot and the slots it owned."""
    lines = [
        *_head(backup),
        f"# This was a cluster of {len(shards)} shards ({CLUSTER_ARTIFACT}). Each is started here on a port of its own",
        "# (REDIS_PORT, REDIS_PORT+1, …; each also uses the port 10000 above its own); a node takes the slots it has",
        "# keys of by itself, and the others are given to it.",
    ]
    for index, shard in enumerate(shards):
        folder, port = f'"$REDIS_DIR/{index}"', f'"$((REDIS_PORT + {index}))"'
        file = f'"$DRD_WORK/{artifact_name("cluster", index)}"'
        lines += [f"redis-check-rdb {file}", f"mkdir -p {folder}", f"install -m 600 {file} {folder}/dump.rdb"]
        lines += _start(folder, port, "--cluster-enabled yes")
        lines += [
            f'seq {first} {last} | sed "s/^/cluster addslots /" | redis-cli -p {port} >/dev/null'
            for first, last in _slots(shard)
        ]
        lines.append(f"redis-cli -p {port} cluster set-config-epoch {index + 1}")
    meet = 'redis-cli -p "$REDIS_PORT" cluster meet 127.0.0.1'
    lines += [f'{meet} "$((REDIS_PORT + {index}))"' for index in range(1, len(shards))]
    return [
        *lines,
        'until redis-cli -p "$REDIS_PORT" cluster info | grep -q cluster_state:ok; do sleep 0.5; done',
        "# They take some seconds to agree.",
        'for _ in $(seq 60); do redis-cli --cluster check "127.0.0.1:$REDIS_PORT" >/dev/null && break; sleep 0.5; done',
        'redis-cli --cluster check "127.0.0.1:$REDIS_PORT"',
        "# Then, on every node: config set appendonly yes, wait for the rewrite, add replicas, set your configuration.",
    ]


def _slots(shard: Json) -> list[tuple[int, int]]:
    ranges = shard.get("slots") if isinstance(shard, dict) else None
    if not isinstance(ranges, list):
        return []
    pairs = [[n for n in pair if isinstance(n, int)] for pair in ranges if isinstance(pair, list)]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
