"""Look at a server before restoring into it: is it empty, and can it hold and read this backup? Changes nothing."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import dataclass

import redis

from drd.engines.redis.connect import Client, config_get, mapped, open_client, text
from drd.engines.redis.lent import is_left_behind
from drd.engines.redis.rdb.crc import crc64
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.topology import Info, Layout, discover, read_info
from drd.errors import TargetError
from drd.model import Backup, TargetState


@dataclass(frozen=True)
class TargetNode:
    """One primary of the target and what it said."""

    address: Address
    info: Info
    databases: int
    libraries: int
    modules: tuple[str, ...]
    max_memory_bytes: int
    tls_replication: bool
    left_behind: bool = False
    """Whether it is the half-filled target of a restore that was killed, which the next one empties."""

    @property
    def product(self) -> str:
        """Name and version, such as ``Redis 7.0.15``."""
        valkey = self.info.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {self.info.get('redis_version', 'of unknown version')}"

    @property
    def contents(self) -> list[str]:
        """What it holds, as phrases; empty when it holds nothing."""
        found = []
        for name, value in sorted(self.info.items()):
            if name.startswith("db") and name[2:].isdigit():
                keys = int(value.split(",")[0].partition("=")[2])
                if keys:
                    found.append(f"{name} with {keys:,} keys")
        if self.libraries:
            found.append(f"{self.libraries} function libraries")
        return found


def look(settings: RedisSettings) -> tuple[Layout, list[TargetNode]]:
    """Connect to every primary of the target and ask what it is."""
    layout = discover(settings, "target")
    return layout, [_ask(settings, shard.primary) for shard in layout.shards]


def _ask(settings: RedisSettings, address: Address) -> TargetNode:
    with (
        mapped("target", address, settings.login, "INFO"),
        closing(open_client(settings, address, settings.login)) as c,
    ):
        info = {
            name: value
            for section in ("server", "replication", "keyspace", "memory", "persistence")
            for name, value in read_info(c, section).items()
        }
        if not info:
            raise TargetError(f"{address} does not tell its state", hint="the login needs +info")
        return TargetNode(
            address=address,
            info=info,
            databases=int(config_get(c, "databases") or 16),
            libraries=_count(c, "FUNCTION", "LIST"),
            modules=_modules(c),
            max_memory_bytes=int(info.get("maxmemory", "0") or 0),
            tls_replication=config_get(c, "tls-replication") == "yes",
            left_behind=is_left_behind(info, config_get(c, "masterauth")),
        )


def _count(c: Client, *command: str) -> int:
    try:
        return len(c.execute_command(*command))
    except redis.exceptions.ResponseError:
        return 0  # before 7.0 there are no functions


def _modules(c: Client) -> tuple[str, ...]:
    try:
        return tuple(sorted(text(row[1]) for row in c.execute_command("MODULE", "LIST")))
    except redis.exceptions.ResponseError:
        return ()


def state(layout: Layout, nodes: list[TargetNode]) -> TargetState:
    """Say where a restore would go and whether that place is empty."""
    first = nodes[0]
    where = str(first.address) if len(nodes) == 1 else f"cluster of {len(nodes)} primaries at {first.address}"
    span = "db 0" if layout.kind == "cluster" or first.databases == 1 else f"db 0–{first.databases - 1}"
    if any(node.left_behind for node in nodes):
        return TargetState(f"{where} {span} (left by a restore that was killed, and emptied first)", empty=True)
    held = [phrase if len(nodes) == 1 else f"{node.address}: {phrase}" for node in nodes for phrase in node.contents]
    detail = ", ".join(held[:6]) + (f" and {len(held) - 6} more" if len(held) > 6 else "")
    return TargetState(f"{where} {span}" + (" (empty)" if not held else ""), not held, detail)


def require_fit(settings: RedisSettings, layout: Layout, nodes: list[TargetNode], backup: Backup) -> None:
    """Raise :class:`~drd.errors.TargetError`, untouched, when this target cannot take this backup."""
    for node in nodes:
        if node.info.get("role") not in {None, "master"} and not node.left_behind:
            raise TargetError(
                f"{node.address} is a replica of {node.info.get('master_host')}:{node.info.get('master_port')}",
                hint="restore into its primary, or make it one first: REPLICAOF NO ONE",
            )
    if layout.kind != "cluster":
        _require_databases(settings, nodes[0].address, backup)
    version = backup.facts.get("rdb_version")
    if any(node.left_behind for node in nodes):
        return  # it takes no commands that write before it is its own primary again; then it is asked
    if isinstance(version, int) and not _reads(settings, layout, nodes[0].address, version):
        raise TargetError(
            f"the backup is RDB version {version} (from {backup.engine_version}), which {nodes[0].address} "
            f"({nodes[0].product}) cannot read",
            hint=f"restore into version {backup.engine_version} or newer",
        )
    if layout.kind != "cluster" and settings.restore_via != "keys":
        _require_modules(nodes[0], backup)
    used = backup.facts.get("used_memory_bytes")
    limits = [node.max_memory_bytes for node in nodes]
    if isinstance(used, int) and all(limits) and used > sum(limits):
        raise TargetError(
            f"the data took {used >> 20:,} MiB of memory; maxmemory of {nodes[0].address} is {sum(limits) >> 20:,} MiB",
            hint="raise maxmemory first, or keys would be evicted or refused",
        )


def _require_databases(settings: RedisSettings, address: Address, backup: Backup) -> None:
    """A snapshot with a database that the server does not have makes a replica exit (redis ``rdbLoadRio``)."""
    highest = backup.facts.get("highest_database")
    if not isinstance(highest, int) or not highest:
        return
    with (
        mapped("target", address, settings.login, "SELECT"),
        closing(open_client(settings, address, settings.login)) as c,
    ):
        try:
            c.execute_command("SELECT", highest)
        except redis.exceptions.ResponseError as error:
            if "out of range" not in str(error):
                raise
            raise TargetError(
                f"the backup has keys in db {highest}, which {address} does not have",
                hint=f"set databases {highest + 1} in its configuration and restart it; nothing was changed",
            ) from error


def _require_modules(node: TargetNode, backup: Backup) -> None:
    wanted = backup.facts.get("modules")
    missing = sorted(set(map(str, wanted if isinstance(wanted, list) else [])) - set(node.modules))
    if missing:
        raise TargetError(
            f"{node.address} lacks the modules {', '.join(missing)} that the source had loaded",
            hint="load them first: a snapshot with unknown module data ends the server; or try restore_via: keys",
        )


def _reads(settings: RedisSettings, layout: Layout, address: Address, version: int) -> bool:
    """Whether the server accepts values of this RDB version: tried with a RESTORE that expired long ago.

    Such a RESTORE is checked whole and then creates nothing (redis ``restoreCommand``).
    """
    body = b"\x00\x01x" + version.to_bytes(2, "little")
    payload = body + crc64(body).to_bytes(8, "little")
    name = secrets.token_hex(12).encode()
    while layout.shard_of(name) != 0:
        name = secrets.token_hex(12).encode()
    with (
        mapped("target", address, settings.login, "RESTORE"),
        closing(open_client(settings, address, settings.login)) as c,
    ):
        try:
            c.execute_command("RESTORE", name, 1, payload, "ABSTTL")
        except redis.exceptions.ResponseError as error:
            if "version or checksum" in str(error):
                return False
            raise
    return True
