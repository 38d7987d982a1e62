"""Which servers there are and which to read from: standalone, behind Sentinel, or a cluster.

Facts: redis ``INFO``, ``SENTINEL``, ``CLUSTER SLOTS`` documentation; a key's slot is CRC-16/XMODEM of the key or of
the part in its first non-empty braces, modulo 16384 (cluster specification).
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import redis

from drd.engines.redis.connect import Client, Side, mapped, open_client, refused, text, unreachable
from drd.engines.redis.settings import Address, RedisSettings
from drd.errors import ConfigError, DrdError
from drd.model import Notice

SLOTS = 16384
_LAG_LIMIT_S = 10
Info = dict[str, str]


@dataclass(frozen=True)
class Shard:
    """A primary, its replicas, and the slot ranges it owns (none outside a cluster)."""

    primary: Address
    replicas: tuple[Address, ...] = ()
    slots: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Layout:
    """The servers behind one configured URL. ``shards`` has one element unless it is a cluster."""

    kind: Literal["standalone", "sentinel", "cluster"]
    shards: tuple[Shard, ...]

    def shard_of(self, name: bytes) -> int:
        """Return the index of the shard that owns a key."""
        if self.kind != "cluster":
            return 0
        slot = key_slot(name)
        for index, shard in enumerate(self.shards):
            if any(first <= slot <= last for first, last in shard.slots):
                return index
        raise refused("target", f"no server of the cluster owns slot {slot}", "redis-cli --cluster check")


@dataclass(frozen=True)
class Chosen:
    """The server of a shard to take the snapshot from, and why it is not the preferred one."""

    address: Address
    role: Literal["primary", "replica"]
    notice: Notice | None = None


def key_slot(name: bytes) -> int:
    """Return the cluster slot of a key."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return binascii.crc_hqx(name, 0) % SLOTS


def read_info(c: Client, *sections: str) -> Info:
    """Return sections of INFO by field; empty where the user may not run it."""
    try:
        raw = b"\n".join(c.execute_command("INFO", section) for section in sections)
    except redis.exceptions.NoPermissionError:
        return {}
    lines = text(raw).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def discover(settings: RedisSettings, side: Side) -> Layout:
    """Find the servers; raises drd errors of ``side``, and :class:`~drd.errors.ConfigError` for a wrong topology."""
    if settings.sentinel_master:
        return Layout("sentinel", (_ask_sentinels(settings, settings.sentinel_master, side),))
    address, login = settings.address, settings.login
    with mapped(side, address, login, "INFO"), closing(open_client(settings, address, login)) as c:
        server = read_info(c, "server")
        mode = server.get("redis_mode", server.get("server_mode", "standalone"))
        if mode == "sentinel":
            raise ConfigError(
                f"{address} is a sentinel", hint="set sentinel_master to the name it knows the primary by"
            )
        if settings.topology == "cluster" and mode != "cluster":
            raise ConfigError(f"topology is cluster, but {address} is not in cluster mode", hint="set topology: auto")
        if mode == "cluster" and settings.topology in {"auto", "cluster"}:
            return Layout("cluster", _cluster_shards(c.execute_command("CLUSTER", "SLOTS"), address, side))
        return Layout("standalone", (Shard(address, _announced_replicas(read_info(c, "replication"))),))


def _announced_replicas(replication: Info) -> tuple[Address, ...]:
    """Return the replicas that are online and close behind, as a primary's INFO replication lists them."""
    found = []
    for name, value in replication.items():
        if not (name.startswith("slave") and name[5:].isdigit()):
            continue
        facts = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
        if facts.get("state") == "online" and int(facts.get("lag", "0")) <= _LAG_LIMIT_S:
            found.append(Address(facts.get("ip", ""), int(facts.get("port", "0"))))
    return tuple(found)


def _cluster_shards(slots: Sequence[Any], asked: Address, side: Side) -> tuple[Shard, ...]:
    """Group CLUSTER SLOTS by primary, ordered by first slot."""
    by_primary: dict[Address, tuple[list[tuple[int, int]], tuple[Address, ...]]] = {}
    for first, last, *nodes in slots:
        addresses = [Address(text(node[0] or b"") or asked.host, int(node[1])) for node in nodes]
        ranges, _ = by_primary.setdefault(addresses[0], ([], tuple(addresses[1:])))
        ranges.append((int(first), int(last)))
    if not by_primary:
        raise unreachable(side, f"the cluster of {asked} has no slots assigned", "redis-cli --cluster check")
    shards = [Shard(primary, replicas, tuple(sorted(r))) for primary, (r, replicas) in by_primary.items()]
    covered = sum(last - first + 1 for shard in shards for first, last in shard.slots)
    if covered != SLOTS:
        raise unreachable(
            side, f"only {covered} of {SLOTS} slots of the cluster of {asked} are served", "redis-cli --cluster fix"
        )
    return tuple(sorted(shards, key=lambda shard: shard.slots))


def _ask_sentinels(settings: RedisSettings, master: str, side: Side) -> Shard:
    """Ask the sentinels in turn; the first that knows the primary is believed."""
    asked = dict.fromkeys([settings.address, *(Address.parse(s, 26379) for s in settings.sentinels)])
    login, problem = settings.sentinel_login, None
    for address in asked:
        try:
            with (
                mapped(side, address, login, "SENTINEL"),
                closing(open_client(settings, address, login, timeout_s=10)) as c,
            ):
                found = c.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master)
                if not found:
                    problem = refused(
                        side, f"the sentinel {address} knows no primary named {master}", "check sentinel_master"
                    )
                    continue
                replicas = c.execute_command("SENTINEL", "REPLICAS", master)
        except DrdError as error:
            problem = error
            continue
        rows = [dict(zip(map(text, row[::2]), map(text, row[1::2]), strict=False)) for row in replicas]
        usable = tuple(Address(row["ip"], int(row["port"])) for row in rows if _in_sync(row))
        return Shard(Address(text(found[0]), int(found[1])), usable)
    raise problem or unreachable(side, f"no sentinel answers for {master}")


def _in_sync(replica: dict[str, str]) -> bool:
    """Whether a sentinel sees this replica up and connected to its primary."""
    flags = set(replica.get("flags", "").split(","))
    return replica.get("master-link-status") == "ok" and not flags & {"s_down", "o_down", "disconnected"}


def choose(settings: RedisSettings, shard: Shard) -> Chosen:
    """Choose where to take the snapshot: a healthy replica if preferred and there is one, else the primary.

    Replicas that do not answer or are not in sync are passed over; all of them bad is worth a notice, not a failure.
    """
    if settings.prefer == "primary" or not shard.replicas:
        return Chosen(shard.primary, "primary")
    for address in shard.replicas:
        try:
            with (
                mapped("source", address, settings.login, "INFO"),
                closing(open_client(settings, address, settings.login, timeout_s=5)) as c,
            ):
                info = read_info(c, "replication", "persistence")
        except DrdError:
            continue  # the next one, or the primary with a notice
        healthy = info.get("master_link_status") == "up" and info.get("master_sync_in_progress", "0") == "0"
        if info.get("role") == "slave" and healthy and info.get("loading", "0") == "0":
            return Chosen(address, "replica")
    return Chosen(
        shard.primary,
        "primary",
        Notice("replica_unusable", f"no replica of {shard.primary} could be used, so the primary made the snapshot"),
    )
