"""The fingerprint of a live server, comparable to that of a backup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import redis

from drd.engines.redis.connect import Client, mapped, open_client
from drd.engines.redis.fingerprint import (
    COMPARED,
    LIBRARIES,
    aligned,
    found_facts,
    item_name,
    libraries_facts,
    merged_counts,
)
from drd.engines.redis.rdb.scan import NOT_CHECKED
from drd.engines.redis.rdb.walk import Counts
from drd.engines.redis.settings import RedisSettings
from drd.engines.redis.snapshot import take_snapshot
from drd.engines.redis.topology import Layout, discover, read_info
from drd.errors import SourceRefused, TargetError
from drd.model import Fingerprint, Json
from drd.protocols import WorkContext

_BATCH = 200


def fingerprint(settings: RedisSettings, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
    """Read everything the server or cluster holds; see :mod:`drd.engines.redis.fingerprint` for what equality proves.

    Every primary serialises all its keys for a snapshot that is counted and dropped. Where PSYNC is refused (managed
    services), the server's own counts are taken, and each item says so in ``read``.
    """
    layout = discover(settings, "target")
    counts, exact, read = _counts(settings, layout, ctx)
    databases = {int(name[2:]) for name in expected.items if name.startswith("db") and name[2:].isdigit()}
    items: dict[str, dict[str, Json]] = {}
    for db in sorted(databases | {n for n, c in counts.items() if c.keys}):
        name = item_name(db)
        items[name] = found_facts(
            expected.items.get(name, {}), counts.get(db, Counts()), exact=exact, dump=_dumper(settings, layout, db, ctx)
        )
        items[name]["read"] = read
    expected_libraries = expected.items.get(LIBRARIES, {})
    if expected_libraries.get("libraries", 0) is None:
        items[LIBRARIES] = expected_libraries
    elif libraries := _libraries(settings, layout):
        items[LIBRARIES] = libraries_facts(libraries)
    return aligned(expected, Fingerprint("redis", items, COMPARED))


def _counts(settings: RedisSettings, layout: Layout, ctx: WorkContext) -> tuple[dict[int, Counts], bool, str]:
    scans = []
    try:
        for shard in layout.shards:
            taken = take_snapshot(settings, shard.primary, "target", lambda _chunk: None, ctx, ctx.cancel)
            scans.append(taken.scan)
    except (SourceRefused, TargetError) as error:
        if error.retryable:
            raise
        return _stated_counts(settings, layout), True, "the server's own counts, because PSYNC was refused"
    if any(scan.structure == NOT_CHECKED for scan in scans):
        return _stated_counts(settings, layout), True, "the server's own counts; every key was serialised"
    return merged_counts(scans), all(scan.exact for scan in scans), "every key, by snapshot"


def _stated_counts(settings: RedisSettings, layout: Layout) -> dict[int, Counts]:
    """Add up INFO keyspace of every primary."""
    out: dict[int, Counts] = {}
    for shard in layout.shards:
        with (
            mapped("target", shard.primary, settings.login, "INFO"),
            closing(open_client(settings, shard.primary, settings.login)) as c,
        ):
            for name, value in read_info(c, "keyspace").items():
                facts = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
                if name.startswith("db") and name[2:].isdigit():
                    total = out.setdefault(int(name[2:]), Counts())
                    total.keys += int(facts.get("keys", "0"))
                    total.expires += int(facts.get("expires", "0"))
    return out


def _dumper(
    settings: RedisSettings, layout: Layout, db: int, ctx: WorkContext
) -> Callable[[Sequence[bytes]], Sequence[bytes | None]]:
    """Return what reads keys of one database by DUMP, wherever in the cluster they are."""

    def dump(names: Sequence[bytes]) -> Sequence[bytes | None]:
        found: dict[bytes, bytes | None] = {}
        by_shard: dict[int, list[bytes]] = {}
        for name in names:
            by_shard.setdefault(layout.shard_of(name), []).append(name)
        for index, mine in by_shard.items():
            address = layout.shards[index].primary
            with (
                mapped("target", address, settings.login, "DUMP"),
                closing(open_client(settings, address, settings.login, db=db)) as c,
            ):
                for start in range(0, len(mine), _BATCH):
                    ctx.cancel.raise_if_cancelled()
                    batch = mine[start : start + _BATCH]
                    found.update(zip(batch, _dump_batch(c, batch), strict=True))
        return [found[name] for name in names]

    return dump


def _dump_batch(c: Client, names: list[bytes]) -> list[bytes | None]:
    with c.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.execute_command("DUMP", name)
        return list(pipe.execute())


def _libraries(settings: RedisSettings, layout: Layout) -> list[bytes]:
    """Return the code of the function libraries; none before 7.0 or where the login may not list them."""
    address = layout.shards[0].primary
    with ExitStack() as stack:
        stack.enter_context(mapped("target", address, settings.login, "FUNCTION LIST"))
        c = stack.enter_context(closing(open_client(settings, address, settings.login)))
        try:
            rows = c.execute_command("FUNCTION", "LIST", "WITHCODE")
        except redis.exceptions.ResponseError:
            return []
    return [dict(zip(row[::2], row[1::2], strict=False))[b"library_code"] for row in rows]
