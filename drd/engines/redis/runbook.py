"""Redis' half of ``drd runbook``: redis-server and redis-cli."""

from __future__ import annotations

from pathlib import Path

from drd.engines.redis.dump import artifact_name
from drd.model import Backup, EngineRunbook, Json

_SHELL = Path(__file__).with_name("runbook.sh")
_UNCERTAIN = {"rdb_structure_unchecked", "key_counts_uncertain"}


def runbook(backup: Backup) -> EngineRunbook:
    """Return what starts a new server, or one a shard, on the snapshots."""
    cluster = backup.facts.get("topology") == "cluster"
    found = backup.facts.get("shards")
    shards: list[Json] = found if isinstance(found, list) else [{}]
    lines = [_shard(backup, "cluster" if cluster else "standalone", number, one) for number, one in enumerate(shards)]
    ports = f"a free port for it, and the {len(shards) - 1} after it" if cluster else "a free port for it"
    return EngineRunbook(
        programs=(),  # what they are called differs; the shell looks for them itself
        settings=(
            ("REDIS_DIR", "an empty data folder for the new server, which this script starts on loopback"),
            ("REDIS_PORT", ports),
            ("REDISCLI_AUTH", "(the password that the new server shall have)"),
            ("REDIS_CONF", "(a file with more configuration lines, such as loadmodule)"),
            ("REDIS_SERVER, REDIS_CLI", "(where the programs are; also REDIS_CHECK, for redis-check-rdb)"),
        ),
        values={
            "REDIS_FAMILY": "valkey" if backup.facts.get("rdb_magic") == "VALKEY" else "redis",
            "REDIS_BACKUP_VERSION": backup.engine_version,
            "REDIS_CLUSTER": "yes" if cluster else "no",
            "REDIS_SHARDS": "\n".join(lines),
        },
        shell=_SHELL.read_text(encoding="utf-8"),
    )


def _shard(backup: Backup, topology: str, number: int, shard: Json) -> str:
    """Return a line ``artifact keys slots``, ``-`` for what is not known."""
    facts = shard if isinstance(shard, dict) else {}
    keys = facts.get("keys")
    known = isinstance(keys, int) and not _UNCERTAIN & set(backup.warnings)
    slots = ",".join(f"{first}-{last}" for first, last in _slots(facts))
    return f"{artifact_name(topology, number)} {keys if known else '-'} {slots or '-'}"


def _slots(facts: dict[str, Json]) -> list[tuple[int, int]]:
    ranges = facts.get("slots")
    if not isinstance(ranges, list):
        return []
    pairs = [[n for n in pair if isinstance(n, int)] for pair in ranges if isinstance(pair, list)]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
