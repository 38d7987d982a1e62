"""The three databases as the fault tests see them: data that do not compress, a source, a target, what is left over."""

from __future__ import annotations

import hashlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.process import ProcessId, descendants, identify, is_alive
from devstack.redis import Redis
from devstack.server import Server
from tests.support.drd_site import Running, Site

_WAIT_S = 30.0


def wait_for(
    what: str, condition: Callable[[], object], *, running: Running | None = None, timeout_s: float = _WAIT_S
) -> None:
    """Wait until ``condition`` holds; fail after half a minute, or when ``running`` ends before."""
    until = time.monotonic() + timeout_s
    while not condition():
        if running is not None and running.process.poll() is not None:
            pytest.fail(f"drd ended before: {what}\n{running.finish().described}")
        if time.monotonic() > until:
            said = running.err_path.read_text() if running else ""
            pytest.fail(f"not within {timeout_s:.0f} s: {what}\n{said}")
        time.sleep(0.02)


def family(running: Running) -> list[ProcessId]:
    """Return every process below a running drd, itself excluded."""
    me = identify(running.pid)
    return descendants(me) if me else []


def names_of(processes: list[ProcessId]) -> list[str]:
    """Return what those of the processes that still live are called."""
    found = []
    for process in processes:
        if is_alive(process):
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


class Subject(ABC):
    """One database with its target: what is backed up, restored, compared and looked for afterwards."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def source_server(self) -> Server:
        """Return the server that is backed up, to be paused and killed."""

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """Return the source as a configuration has it."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the environment variables that the source and the target's password need."""

    @abstractmethod
    def into(self) -> list[str]:
        """Return the options that restore into the target."""

    @abstractmethod
    def fill(self, megabytes: float, seed: int = 1) -> None:
        """Put that much random data into the source, in place of what was there."""

    def grow(self, megabytes: float) -> None:
        """Add that much to what is there, where a backup can build on the one before."""
        raise NotImplementedError

    @abstractmethod
    def source_digest(self) -> str:
        """Digest the source's rows."""

    @abstractmethod
    def target_digest(self) -> str | None:
        """Digest the target's rows; None when a person would find nothing under the final name but what says so."""

    @abstractmethod
    def clear(self) -> None:
        """Empty the target, and end what may still run there."""

    @abstractmethod
    def restoring(self) -> bool:
        """Whether the target is receiving data right now."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """Name what drd holds or runs on source and target: sessions, jobs, half-made databases, lent settings."""


class PostgresSubject(Subject):
    """A database with one large and one small table; restored under another name on the same server."""

    name = "pg"

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.database = server.fresh_database("faults")
        self.restored = f"{self.database}_restored"

    @property
    def source_server(self) -> Server:
        return self.server

    def source(self) -> dict[str, Any]:
        return {"type": "postgres", "url": self.server.url(self.database), "password": {"env": "PG_SECRET"}}

    def environment(self) -> dict[str, str]:
        return {"PG_SECRET": self.server.password}

    def into(self) -> list[str]:
        return ["--into", self.server.url(self.restored)]

    def fill(self, megabytes: float, seed: int = 1) -> None:
        with self.server.connect(self.database) as session:
            session.execute("DROP TABLE IF EXISTS big, small")
            session.execute("CREATE TABLE small AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, 500) n")
            session.execute("CREATE TABLE big (id int PRIMARY KEY, v text)")
            session.execute(
                """INSERT INTO big SELECT n,
                     (SELECT string_agg(encode(sha256((%s::text || n || '-' || m)::bytea), 'base64'), '')
                        FROM generate_series(1, 22) m) FROM generate_series(1, %s) n""",
                (str(seed), int(megabytes * 1000)),
            )

    def grow(self, megabytes: float) -> None:
        with self.server.connect(self.database) as session:
            session.execute(
                """INSERT INTO big SELECT n,
                     (SELECT string_agg(encode(sha256((n || '+' || m)::bytea), 'base64'), '')
                        FROM generate_series(1, 22) m)
                     FROM generate_series((SELECT max(id) + 1 FROM big), (SELECT max(id) FROM big) + %s) n""",
                (int(megabytes * 1000),),
            )

    def _digest(self, database: str) -> str:
        with self.server.connect(database) as session:
            rows = [
                session.execute(
                    f"SELECT count(*), md5(string_agg(md5(t::text), '' ORDER BY id)) FROM {table} t".encode()
                )
                for table in ("big", "small")
            ]
            return str([row.fetchone() for row in rows])

    def source_digest(self) -> str:
        return self._digest(self.database)

    def target_digest(self) -> str | None:
        with self.server.connect() as session:
            found = session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (self.restored,)).fetchone()
        return self._digest(self.restored) if found else None

    def clear(self) -> None:
        self.server.drop_database(self.restored)
        for name in self._half_made():
            self.server.drop_database(name)

    def close(self) -> None:
        """Drop everything."""
        self.clear()
        self.server.drop_database(self.database)

    def _half_made(self) -> list[str]:
        with self.server.connect() as session:
            return [r[0] for r in session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'drd_restore_%'")]

    def restoring(self) -> bool:
        with self.server.connect() as session:
            row = session.execute("SELECT sum(bytes_processed) FROM pg_stat_progress_copy WHERE command = 'COPY FROM'")
            found = row.fetchone()
        return bool(found and found[0] and found[0] > 100_000)

    def leftovers(self) -> list[str]:
        with self.server.connect() as session:
            rows = session.execute(
                """SELECT application_name || ': ' || coalesce(query, '') FROM pg_stat_activity
                    WHERE application_name IN ('drd', 'pg_dump', 'pg_dumpall', 'pg_restore')"""
            ).fetchall()
        return [f"session {row[0]}" for row in rows] + [f"database {name}" for name in self._half_made()]


class RedisSubject(Subject):
    """A Redis with values of 100 kB and some small keys; restored into a second server, append-only file on."""

    name = "redis"

    def __init__(self, server: Redis, target: Redis) -> None:
        self.server = server
        self.target = target

    @property
    def source_server(self) -> Server:
        return self.server

    def source(self) -> dict[str, Any]:
        return {"type": "redis", "url": self.server.url, "password": {"env": "REDIS_SECRET"}}

    def environment(self) -> dict[str, str]:
        return {"REDIS_SECRET": self.server.password, "REDIS_TARGET_SECRET": self.target.password}

    def into(self) -> list[str]:
        return ["--into", self.target.url, "--password-env", "REDIS_TARGET_SECRET"]

    def fill(self, megabytes: float, seed: int = 1) -> None:
        rng = random.Random(seed)
        self.server.flush()
        with self.server.client() as client:
            for n in range(int(megabytes * 10)):
                client.set(f"blob:{n}", rng.randbytes(100_000))
            client.mset({f"key:{n}": n * seed for n in range(500)})

    def refill(self, megabytes: float) -> None:
        """Fill where the server does not hold as much already."""
        with self.server.client() as client:
            held = client.dbsize()
        if held != int(megabytes * 10) + 500:
            self.fill(megabytes)

    def source_digest(self) -> str:
        return _redis_digest(self.server)

    def target_digest(self) -> str | None:
        with self.target.client() as client:
            return _redis_digest(self.target) if client.dbsize() else None

    def clear(self) -> None:
        with self.target.client() as client:
            client.replicaof("NO", "ONE")
            client.config_set("masterauth", self.target.password)
            client.config_set("repl-timeout", 60)
            client.flushall()

    def restoring(self) -> bool:
        with self.target.client() as client:
            info = client.info()
        return bool(info["role"] == "slave" and info.get("master_sync_read_bytes", 0)) or "db0" in info

    def leftovers(self) -> list[str]:
        found = []
        with self.server.client() as client:
            if client.info("replication")["connected_slaves"]:
                found.append("a replica of the source")
        with self.target.client() as client:
            if client.info("replication")["role"] != "master":
                found.append("the target is a replica")
            if client.config_get("masterauth")["masterauth"] != self.target.password:
                found.append("the target's masterauth is not its own")
            if client.config_get("repl-timeout")["repl-timeout"] != "60":
                found.append("the target's repl-timeout is not its own")
        return found


def _redis_digest(server: Redis) -> str:
    with server.client() as client:
        digest = hashlib.sha256()
        for key in sorted(client.keys()):
            digest.update(key + b"=" + (client.get(key) or b"") + b"\n")
        return digest.hexdigest()


class ClickHouseSubject(Subject):
    """A database with a table that does not compress; restored into a second server under its own name."""

    name = "clickhouse"

    def __init__(self, server: ClickHouse, target: ClickHouse) -> None:
        self.server = server
        self.target = target
        self.database = server.fresh_database()

    @property
    def source_server(self) -> Server:
        return self.server

    def source(self) -> dict[str, Any]:
        return {
            "type": "clickhouse",
            "url": self.server.url,
            "password": {"env": "CH_SECRET"},
            "databases": [self.database],
        }

    def environment(self) -> dict[str, str]:
        return {"CH_SECRET": self.server.password, "CH_TARGET_SECRET": self.target.password}

    def into(self) -> list[str]:
        return ["--into", self.target.url, "--password-env", "CH_TARGET_SECRET"]

    def fill(self, megabytes: float, seed: int = 1) -> None:
        self.server.query(f"DROP DATABASE IF EXISTS {self.database} SYNC")
        self.server.query(f"CREATE DATABASE {self.database}")
        for table, rows in (("big", int(megabytes * 1000)), ("small", 500)):
            self.server.query(
                f"CREATE TABLE {self.database}.{table} (id UInt64, v String CODEC(NONE)) ENGINE = MergeTree ORDER BY id"
            )
            self.server.query(
                f"INSERT INTO {self.database}.{table} "
                f"SELECT number + {seed}, randomString(1000, {seed}) FROM numbers({rows})"
            )

    def grow(self, megabytes: float) -> None:
        self.server.query(f"SYSTEM STOP MERGES {self.database}.big")
        for part in range(4):
            rows, first = int(megabytes * 250), 1_000_000 * (part + 1)
            self.server.query(
                f"INSERT INTO {self.database}.big SELECT number + {first}, randomString(1000) FROM numbers({rows})"
            )

    def close(self) -> None:
        """Drop everything."""
        self.clear()
        self.server.query(f"DROP DATABASE IF EXISTS {self.database} SYNC")

    def _digest(self, server: ClickHouse) -> str:
        return "; ".join(
            server.query(f"SELECT count(), groupBitXor(sipHash64(id, v)) FROM {self.database}.{table}").strip()
            for table in ("big", "small")
        )

    def source_digest(self) -> str:
        return self._digest(self.server)

    def target_digest(self) -> str | None:
        found = self.target.rows(f"SELECT name FROM system.tables WHERE database = '{self.database}'")
        return self._digest(self.target) if found and not self._half_made() else None

    def clear(self) -> None:
        for server in (self.server, self.target):
            for row in server.rows(
                "SELECT query_id FROM system.backups WHERE status IN ('CREATING_BACKUP', 'RESTORING')"
            ):
                server.query(f"KILL QUERY WHERE query_id = '{row['query_id']}' ASYNC")
        wait_for("the servers' jobs to end", lambda: not self._jobs())
        self.target.query(f"DROP DATABASE IF EXISTS {self.database} SYNC")

    def restoring(self) -> bool:
        return bool(self.target.rows(f"SELECT name FROM system.tables WHERE database = '{self.database}'"))

    def _jobs(self) -> list[str]:
        return [
            f"{server.name}: {row['status']} {row['id']}"
            for server in (self.server, self.target)
            for row in server.rows(
                "SELECT id, status FROM system.backups WHERE status IN ('CREATING_BACKUP', 'RESTORING')"
            )
        ]

    def _half_made(self) -> list[str]:
        return [
            f"{server.name}: database {row['name']}"
            for server in (self.server, self.target)
            for row in server.rows("SELECT name FROM system.databases WHERE comment LIKE 'unfinished restore by drd%'")
        ]

    def _signs(self) -> list[str]:
        return [
            f"{server.name}: {row['query_id']}"
            for server in (self.server, self.target)
            for row in server.rows("SELECT query_id FROM system.processes WHERE query_id LIKE 'drd-%'")
        ]

    def leftovers(self) -> list[str]:
        return self._jobs() + self._half_made() + self._signs()


def parts_in_store(site: Site, source: str) -> int:
    """Count the finished objects below a source's folder in a local store, manifests excluded."""
    return sum(1 for _ in (site.store_dir / "backups" / source).rglob("*.age"))
