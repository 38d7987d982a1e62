"""Redis servers filled with every kind of value, and what is needed to back them up in tests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from devstack.redis import Redis
from drd.engines.redis import RedisEngine, RedisSettings
from drd.model import Backup, DumpResult, Secret
from tests.support.artifacts import MemoryReader, MemorySink, backup_of, work_context
from tests.support.drd_site import Site

LIBRARY = "#!lua name=demo\nredis.register_function('answer', function(keys, args) return 42 end)\n"


def engine(server: Redis, **settings: Any) -> RedisEngine:
    """Make an engine for a devstack server."""
    settings.setdefault("password", Secret(server.password) if server.password else None)
    return RedisEngine(RedisSettings(url=server.url, timeout_s=20, **settings))


def fill(server: Redis, *, big_value_bytes: int = 0, keys: int = 300, functions: bool = True) -> None:
    """Write all types and encodings, several databases, expiries, and a function library."""
    rng = random.Random(7)
    for db in (0, 3, 15):
        with server.client(db) as client, client.pipeline(transaction=False) as pipe:
            for n in range(keys):
                pipe.set(f"user:{n}", rng.randbytes(rng.randint(0, 60)))
                pipe.set(f"text:{n}", f"order {n} " * rng.randint(1, 40))
            pipe.set("integer", 12345)
            pipe.set("negative", -7)
            pipe.set(b"binary\x00\xff\xfe\x03\xfb\x01\x01", b"\xfe\x00\xfb\x05\x05" * 30)  # looks like a header
            for n in range(40):
                pipe.set(f"session:{n}", "x", ex=3600 + n)
            pipe.rpush("list:small", "a", "b", 3, -70000, 2**40)
            pipe.rpush("list:long", *[f"item {n} " + "y" * (n % 90) for n in range(3000)])
            pipe.rpush("list:plain", "z" * 20000, "short")
            pipe.sadd("set:integers", *range(0, 90000, 300))
            pipe.sadd("set:small", "a", "b", "c")
            pipe.sadd("set:large", *[f"member {n}" for n in range(1000)])
            pipe.zadd("zset:small", {"a": 1, "b": 2.5, "c": -3, "inf": float("inf")})
            pipe.zadd("zset:large", {f"m{n}": n / 7 for n in range(700)})
            pipe.hset("hash:small", mapping={"f": "v", "n": 17, "m": -300000})
            pipe.hset("hash:large", mapping={f"field {n}": rng.randbytes(20) for n in range(900)})
            pipe.pfadd("hll", *[f"e{n}" for n in range(2000)])
            pipe.geoadd("geo", (13.361389, 38.115556, "Palermo"))
            for n in range(250):
                pipe.xadd("stream", {"exchange": "x", "price": n} if n % 5 else {"other": n}, id=f"1-{n + 1}")
            pipe.xdel("stream", "1-7", "1-100")
            pipe.xgroup_create("stream", "group", id="0")
            pipe.xreadgroup("group", "consumer", {"stream": ">"}, count=10)
            pipe.execute()
    if big_value_bytes:
        with server.client() as client:
            client.set("big", random.Random(1).randbytes(big_value_bytes))
    if functions:
        with server.client() as client:
            client.function_load(LIBRARY, replace=True)


def digest(server: Redis) -> str:
    """Return DEBUG DIGEST, which covers every key, value and expiry of all databases."""
    with server.client() as client:
        return str(client.execute_command("DEBUG", "DIGEST"))


class ChangedRedis:
    """A Redis that was filled, backed up and changed since; ``site`` has it for its only source."""

    def __init__(self, server: Redis, site: Site, *, keys: int) -> None:
        self.server = server
        self.site = site
        server.flush()
        fill(server, keys=keys)
        self.at: str = site("backup", "now", "--json").succeeds().json["backups"][0]["recovery_point"]
        self.backed_up = self.state()
        with server.client() as client:
            client.set("who", "changed")
            client.delete("integer")
        self.changed = self.state()

    @property
    def replace(self) -> tuple[str, ...]:
        """The command that puts the backup in the place of the live data."""
        return ("restore", "--at", self.at, "--replace")

    def settings(self) -> dict[str, str]:
        """Return what a replacement must leave as it was: role and replication settings."""
        with self.server.client() as client:
            found: dict[str, str] = client.config_get("repl-*") | client.config_get("masterauth")
            return {**found, "role": client.info("replication")["role"]}

    def state(self) -> str:
        """Return a digest of all data."""
        return digest(self.server)


class Taken:
    """One backup in memory."""

    def __init__(self, source: RedisEngine, spool: Path, **context: Any) -> None:
        sink = MemorySink()
        self.context = work_context(spool, **context)
        self.result: DumpResult = source.dump(sink, self.context)
        self.artifacts = sink.artifacts
        self.reader = MemoryReader(sink.artifacts)
        self.backup: Backup = backup_of("redis", self.result, sink.artifacts)
