"""Take the snapshot of one server: pull it, check it while it passes, hand every byte on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis

from drd.cancel import CancelToken
from drd.engines.redis.connect import Side, mapped, open_client, text
from drd.engines.redis.psync import FullSync, full_sync
from drd.engines.redis.rdb.scan import Scan, Scanner
from drd.engines.redis.settings import Address, RedisSettings
from drd.engines.redis.spool import through_spool
from drd.engines.redis.topology import Info, read_info
from drd.protocols import WorkContext

Take = Callable[[bytes], None]
_BUILT_IN = {"lua"}  # Valkey 9.1 lists its own script engine; it puts nothing into snapshots


@dataclass(frozen=True)
class Snapshot:
    """One server's snapshot after it passed. ``taken_at`` is not before the state it holds, by the server's clock."""

    scan: Scan
    taken_at: datetime
    version: str
    offset: int
    lag_s: int | None
    modules: tuple[str, ...]
    spooled: bool


@dataclass(frozen=True)
class _About:
    info: Info
    clock_ahead: timedelta
    modules: tuple[str, ...]
    field_expires: dict[int, int]


def take_snapshot(
    settings: RedisSettings,
    address: Address,
    side: Side,
    take: Take,
    ctx: WorkContext,
    cancel: CancelToken,
    *,
    allow_direct: bool = True,
) -> Snapshot:
    """Pull one snapshot, give each chunk to ``take``, and return what it holds once all of it has been proven.

    The recovery point is the moment the server announced the snapshot, or one second after the time in the snapshot
    itself (whole seconds) when that is earlier, as it is when the server shared one that had begun before. Raises
    what :func:`~drd.engines.redis.psync.full_sync` raises, :class:`~drd.errors.IntegrityError` for damaged bytes,
    and what ``take`` raises.
    """
    about = _ask(settings, address, side, ctx.now)
    valkey = about.info.get("valkey_version")
    scanner = Scanner(settings.tools_dir, cancel)
    try:
        with full_sync(
            settings, address, side, cancel=cancel, now=ctx.now, announce_version=valkey, rdb_only=allow_direct
        ) as sync:
            for chunk in _paced(sync, ctx):
                cancel.raise_if_cancelled()
                scanner.feed(chunk)
                take(chunk)
        scan = scanner.finish()
    finally:
        scanner.abandon()
    for db, count in about.field_expires.items():
        if db in scan.databases:
            scan.databases[db].field_expires = max(scan.databases[db].field_expires, count)
    taken_at = sync.started_at + about.clock_ahead
    if (ctime := scan.aux.get("ctime", "")).isdigit():
        taken_at = min(taken_at, datetime.fromtimestamp(int(ctime) + 1, UTC))
    lag = about.info.get("master_last_io_seconds_ago", "")
    return Snapshot(
        scan=scan,
        taken_at=taken_at,
        version=valkey
        or scan.aux.get("valkey-ver")
        or scan.aux.get("redis-ver")
        or about.info.get("redis_version", ""),
        offset=sync.offset,
        lag_s=int(lag) if lag.lstrip("-").isdigit() else None,
        modules=about.modules,
        spooled=not sync.rdb_only,
    )


def _paced(sync: FullSync, ctx: WorkContext) -> Iterator[bytes]:
    if sync.rdb_only:
        return sync.chunks()
    return through_spool(sync.chunks(), ctx.spool_dir, ctx.spool_limit_bytes)


def _ask(settings: RedisSettings, address: Address, side: Side, now: Callable[[], datetime]) -> _About:
    """Learn what helps and is not needed: a user with the rights for PSYNC alone is enough for a backup."""
    with mapped(side, address, settings.login, "INFO"), closing(open_client(settings, address, settings.login)) as c:
        info = read_info(c, "server", "replication")
        keyspace = read_info(c, "keyspace")
        ahead = timedelta()
        modules: tuple[str, ...] = ()
        try:
            before = now()
            seconds, micros = c.execute_command("TIME")
            middle = before + (now() - before) / 2
            ahead = datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros)) - middle
        except redis.exceptions.NoPermissionError:
            ahead = timedelta()
        try:
            modules = tuple(sorted({text(row[1]) for row in c.execute_command("MODULE", "LIST")} - _BUILT_IN))
        except redis.exceptions.ResponseError:
            modules = ()
    return _About(info, ahead, modules, _field_expires(keyspace))


def _field_expires(keyspace: Info) -> dict[int, int]:
    """Return, by database, how many keys hold fields that expire (Redis 7.4: subexpiry; Valkey 9: its own name)."""
    found = {}
    for name, value in keyspace.items():
        facts = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
        count = facts.get("subexpiry") or facts.get("keys_with_volatile_items") or "0"
        if name.startswith("db") and name[2:].isdigit() and count.isdigit() and int(count):
            found[int(name[2:])] = int(count)
    return found
