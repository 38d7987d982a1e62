"""What ``drd check`` says about a Redis source: a line an item, with a remedy that can be pasted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import redis

from drd.engines.redis.connect import Client, config_get, mapped, open_client, text
from drd.engines.redis.rdb.checker import find_checker, tool_version
from drd.engines.redis.rdb.values import LARGEST_REDIS_VERSION, VALKEY_VERSIONS
from drd.engines.redis.settings import RedisSettings
from drd.engines.redis.topology import Chosen, Info, choose, discover, read_info
from drd.errors import DrdError
from drd.model import CheckItem

# RDB version by first server version (redis src/rdb.h in git tags; librdb for 8.x); newest first
_RDB_BY_REDIS = (
    ((8, 8), 14),
    ((8, 6), 13),
    ((7, 4), 12),
    ((7, 2), 11),
    ((7, 0), 10),
    ((5, 0), 9),
    ((4, 0), 8),
    ((3, 2), 7),
)
_RDB_BY_VALKEY = (((9, 2), 81), ((9, 0), 80), ((7, 2), 11))
_RIGHTS = ("PSYNC", "REPLCONF")


def check(settings: RedisSettings) -> Sequence[CheckItem]:
    """Look at reachability, login, rights, versions, persistence, replicas and tools; raises nothing."""
    try:
        layout = discover(settings, "source")
    except DrdError as error:
        return [CheckItem("reachable", "failed", error.message, error.hint)]
    primaries = "1 primary" if len(layout.shards) == 1 else f"{len(layout.shards)} primaries"
    items = [CheckItem("reachable", "ok", f"{layout.kind}, {primaries}, {settings.address}")]
    for shard in layout.shards:
        prefix = f"{shard.primary} " if len(layout.shards) > 1 else ""
        try:
            chosen = choose(settings, shard)
            with (
                mapped("source", chosen.address, settings.login, "INFO"),
                closing(open_client(settings, chosen.address, settings.login)) as c,
            ):
                found = _server(settings, chosen, c)
        except DrdError as error:
            found = [CheckItem("login", "failed", error.message, error.hint)]
        items += [CheckItem(prefix + item.name, item.outcome, item.detail, item.hint) for item in found]
    return items


def _server(settings: RedisSettings, chosen: Chosen, c: Client) -> list[CheckItem]:
    info: Info = {}
    c.execute_command("PING")
    for section in ("server", "replication", "persistence", "memory"):
        info |= read_info(c, section)
    return [
        _version(info),
        _source(settings, chosen),
        _rights(settings, c),
        _replication(info),
        _persistence(info),
        _diskless(c, info),
        _checksum(c),
        _structure(settings, info),
        _memory(info),
    ]


def _version(info: Info) -> CheckItem:
    if not info:
        return CheckItem(
            "version", "warning", "the login may not run INFO, so little can be checked", "ACL SETUSER … +info"
        )
    valkey = info.get("valkey_version")
    name = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version')}"
    if _numbers(info.get("redis_version", "0")) < (2, 8):
        return CheckItem("version", "failed", f"{name} has no PSYNC", "upgrade to 2.8 or newer")
    if not valkey and _numbers(info.get("redis_version", "0")) < (7, 0):
        return CheckItem("version", "ok", f"{name}; without rdb-only (7.0+) the snapshot goes through the spool")
    return CheckItem("version", "ok", name)


def _source(settings: RedisSettings, chosen: Chosen) -> CheckItem:
    if chosen.notice:
        return CheckItem(
            "snapshot from", "warning", chosen.notice.message, "check the replicas, or set prefer: primary"
        )
    note = "" if chosen.role == "replica" or settings.prefer == "primary" else "; there is no replica"
    return CheckItem("snapshot from", "ok", f"{chosen.role} {chosen.address}{note}")


def _rights(settings: RedisSettings, c: Client) -> CheckItem:
    """Ask the server by ACL DRYRUN (7.0+) whether the login may do what a backup needs, without doing it."""
    try:
        user = text(c.execute_command("ACL", "WHOAMI"))
        verdicts = {right: text(c.execute_command("ACL", "DRYRUN", user, right, "?", "-1")) for right in _RIGHTS}
    except redis.exceptions.ResponseError:
        user = settings.login.username or "default"
        return CheckItem("rights", "ok", f"logged in as {user}; the server does not tell rights beforehand")
    missing = [right.lower() for right, verdict in verdicts.items() if verdict != "OK"]
    if missing:
        rules = " ".join(f"+{name}" for name in missing)
        return CheckItem(
            "rights", "failed", f"user {user} may not run {', '.join(missing)}", f"ACL SETUSER {user} {rules}"
        )
    return CheckItem("rights", "ok", f"user {user} may replicate")


def _replication(info: Info) -> CheckItem:
    if info.get("role") != "slave":
        return CheckItem("replication", "ok", f"primary with {info.get('connected_slaves', '0')} replicas")
    up = info.get("master_link_status") == "up"
    heard = info.get("master_last_io_seconds_ago", "?")
    detail = f"replica, link {info.get('master_link_status')}, heard from its primary {heard} s ago"
    return CheckItem(
        "replication", "ok" if up else "failed", detail, "" if up else "repair replication, or prefer: primary"
    )


def _persistence(info: Info) -> CheckItem:
    if info.get("loading") == "1":
        return CheckItem("snapshots", "failed", "the server is loading its data", "wait until it is up")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return CheckItem(
            "snapshots", "warning", "its last BGSAVE failed", "see its log; disk full, or no memory to fork?"
        )
    if info.get("rdb_bgsave_in_progress") == "1" or info.get("aof_rewrite_in_progress") == "1":
        return CheckItem("snapshots", "warning", "a BGSAVE or AOF rewrite is running now; a backup waits for it")
    return CheckItem("snapshots", "ok", "nothing in the way of a fork")


def _diskless(c: Client, info: Info) -> CheckItem:
    diskless, delay = config_get(c, "repl-diskless-sync"), config_get(c, "repl-diskless-sync-delay")
    if diskless is None:
        return CheckItem("transfer", "ok", "settings cannot be read; both ways work")
    if diskless == "no":
        size = info.get("used_memory_human", "?")
        return CheckItem(
            "transfer",
            "warning",
            f"repl-diskless-sync is no: the server overwrites its dump file (up to {size}) for each backup",
            "CONFIG SET repl-diskless-sync yes",
        )
    return CheckItem("transfer", "ok", f"diskless; the server waits {delay} s for other replicas first")


def _checksum(c: Client) -> CheckItem:
    value = config_get(c, "rdbchecksum")
    if value == "no":
        return CheckItem("checksum", "warning", "snapshots carry no checksum", "set rdbchecksum yes and restart")
    return CheckItem("checksum", "ok", "snapshots carry a CRC-64")


def _structure(settings: RedisSettings, info: Info) -> CheckItem:
    magic = "VALKEY" if "valkey_version" in info else "REDIS"
    table = _RDB_BY_VALKEY if magic == "VALKEY" else _RDB_BY_REDIS
    server = _numbers(info.get("valkey_version") or info.get("redis_version", "0"))
    version = next((rdb for first, rdb in table if server >= first), 6)
    magic = magic if version >= 80 else "REDIS"
    tool = find_checker(settings.tools_dir, magic, version)
    if tool:
        return CheckItem("structure check", "ok", f"{tool_version(tool)} knows RDB version {version}")
    if version in VALKEY_VERSIONS or version <= LARGEST_REDIS_VERSION:
        return CheckItem(
            "structure check",
            "warning",
            f"no redis-check-rdb here knows RDB version {version}; drd's own reader does it, at some 10 MB/s",
            "install the server's package (redis-tools), or set tools_dir",
        )
    return CheckItem(
        "structure check",
        "warning",
        f"nothing here knows RDB version {version}: only the checksum will be checked, keys not counted",
        "install that server's redis-check-rdb and set tools_dir",
    )


def _memory(info: Info) -> CheckItem:
    limit, policy = int(info.get("maxmemory", "0") or 0), info.get("maxmemory_policy", "noeviction")
    if limit and policy != "noeviction":
        return CheckItem(
            "memory", "ok", f"maxmemory {limit >> 20:,} MiB, {policy}: keys may be evicted, also from a restore"
        )
    return CheckItem("memory", "ok", f"{int(info.get('used_memory', '0') or 0) >> 20:,} MiB used, no eviction")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
