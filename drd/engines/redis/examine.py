"""What a restored Redis can say of itself: the snapshot's structure, every key read, answers to commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from drd.cancel import CancelToken
from drd.engines.redis.connect import Client, mapped, open_client, text
from drd.engines.redis.rdb.cursor import Cursor
from drd.engines.redis.rdb.scan import NOT_CHECKED, scan_chunks
from drd.engines.redis.rdb.walk import Walk, is_supported, read_magic
from drd.engines.redis.restore import snapshots_of
from drd.engines.redis.settings import RedisSettings
from drd.engines.redis.topology import read_info
from drd.errors import QuestionError, ScratchError, TargetError
from drd.model import Answer, Backup, Cell, Finding, Question
from drd.protocols import ArtifactReader, WorkContext

STRUCTURE, KEYS = "redis-check-rdb", "every key"
_BATCH = 500
_READ_AT_ONCE = 100
_READ = """
local out = {}
for i, key in ipairs(KEYS) do
  local dumped = redis.pcall('DUMP', key)
  local size = type(dumped) == 'string' and #dumped or (type(dumped) == 'table' and -1 or 0)
  out[i] = {redis.call('PTTL', key), size}
end
return out
"""
_EXPIRY_MARGIN_MS = 60_000
_WALK_LIMIT_BYTES = 256 << 20
"""Above this, drd's own reader would take minutes: expiries are then only bounded by the snapshot's totals."""
_ALSO_READS = frozenset({"INFO", "TIME", "LASTSAVE"})


@dataclass
class _Held:
    """What a snapshot holds: keys by database, those among them that cannot have expired yet (None: not known)."""

    keys: dict[int, int] = field(default_factory=dict)
    expires: dict[int, int] = field(default_factory=dict)
    alive: dict[int, int] | None = field(default_factory=dict)


@dataclass
class _Read:
    keys: int = 0
    expires: int = 0
    unreadable: int = 0


class RedisExaminer:
    """Implements :class:`drd.protocols.Examiner` for a standalone scratch server; connects when asked."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    def prepare(self, backup: Backup, cancel: CancelToken) -> str:
        """Demand a server that is not older than the backup's."""
        cancel.raise_if_cancelled()
        try:
            with self._client() as c:
                info = read_info(c, "server")
                c.execute_command("CONFIG", "SET", "repl-diskless-sync-delay", "0")  # nobody else will want a snapshot
        except TargetError as error:
            raise ScratchError(error.message, hint=error.hint) from error
        version = info.get("valkey_version") or info.get("redis_version", "")
        if _release(version) < _release(backup.engine_version):
            raise ScratchError(
                f"the scratch server is of version {version}, the backup of {backup.engine_version}:"
                " an older server cannot load it",
                hint="give the drill a server of the same version or a newer one",
            )
        return version

    def examine(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Iterator[Finding]:
        """Check the snapshot's structure, then read every key of the server and hold the counts against it."""
        del backup
        held = _Held()
        for name in snapshots_of(artifacts):
            yield self._structure(name, artifacts, held, ctx)
        yield self._every_key(held, ctx)

    def ask(self, question: Question, ctx: WorkContext) -> Answer:
        """Run a command that only reads, or count the keys that match a pattern."""
        if question.kind == "sql":
            raise QuestionError("a Redis source is asked in redis or keys, not sql")
        if question.database is not None and not question.database.isdigit():
            raise QuestionError(f"{question.database} is no number of a Redis database")
        try:
            with self._client(int(question.database or 0)) as c:
                if question.kind == "keys":
                    return Answer(((_count(c, question.words[0], ctx),),))
                _require_reading(c, question.words)
                return _answer(c.execute_command(*question.words), question.limit_rows)
        except redis.exceptions.ResponseError as error:
            raise QuestionError(f"the server does not take the command: {error}", hint="correct the suite") from error

    def _structure(self, name: str, artifacts: ArtifactReader, held: _Held, ctx: WorkContext) -> Finding:
        with artifacts.open(name) as stream:
            scan = scan_chunks(iter(stream.chunks()), self._settings.tools_dir, ctx.cancel)
        for db, counts in scan.databases.items():
            held.keys[db] = held.keys.get(db, 0) + counts.keys
            held.expires[db] = held.expires.get(db, 0) + counts.expires
        self._count_alive(name, artifacts, held, ctx)
        if scan.structure == NOT_CHECKED:
            return Finding(STRUCTURE, "skipped", f"nothing here reads {scan.magic} RDB version {scan.version}")
        return Finding(
            STRUCTURE, "passed", f"{scan.structure}: structure and checksum of {scan.keys:,} keys, RDB {scan.version}"
        )

    def _count_alive(self, name: str, artifacts: ArtifactReader, held: _Held, ctx: WorkContext) -> None:
        """Count the keys that must still be there a minute from now."""
        with artifacts.open(name, length=9) as stream:
            known = is_supported(*read_magic(Cursor([stream.read()])))
        if held.alive is None or not known or artifacts.size(name) > _WALK_LIMIT_BYTES:
            held.alive = None
            return
        edge_ms = ctx.now().timestamp() * 1000 + _EXPIRY_MARGIN_MS
        with artifacts.open(name) as stream:
            for number, entry in enumerate(Walk(stream.chunks()).entries()):
                if number % 1000 == 0:
                    ctx.cancel.raise_if_cancelled()
                if entry.expires_ms is None or entry.expires_ms > edge_ms:
                    held.alive[entry.db] = held.alive.get(entry.db, 0) + 1

    def _every_key(self, held: _Held, ctx: WorkContext) -> Finding:
        found = {db: self._read(db, ctx) for db in sorted({*held.keys, *self._databases()})}
        problems: list[str] = []
        for db, read in found.items():
            most = held.keys.get(db, 0)
            least = most - held.expires.get(db, 0) if held.alive is None else held.alive.get(db, 0)
            if read.unreadable:
                problems.append(f"db{db}: {read.unreadable:,} keys cannot be read")
            if not least <= read.keys <= most:
                problems.append(f"db{db}: {read.keys:,} keys, between {least:,} and {most:,} can be left")
            if read.expires > held.expires.get(db, 0):
                problems.append(f"db{db}: {read.expires:,} keys expire, the snapshot has {held.expires.get(db, 0):,}")
        keys, expires = sum(r.keys for r in found.values()), sum(r.expires for r in found.values())
        total = sum(held.keys.values())
        if problems:
            return Finding(
                KEYS, "failed", "; ".join(problems[:5]), f"{total:,} keys less those expired", f"{keys:,} keys"
            )
        gone = f", {total - keys:,} expired since the backup" if keys < total else ""
        return Finding(KEYS, "passed", f"{keys:,} keys serialised, {expires:,} with a time to live{gone}")

    def _databases(self) -> list[int]:
        with self._client() as c:
            names = read_info(c, "keyspace")
        return [int(name[2:]) for name in names if name.startswith("db") and name[2:].isdigit()]

    def _read(self, db: int, ctx: WorkContext) -> _Read:
        """Let the server serialise every key of a database, a hundred at a time; the bytes stay there."""
        out = _Read()
        with self._client(db) as c:
            cursor = 0
            seen: set[bytes] = set()
            while True:
                ctx.cancel.raise_if_cancelled()
                cursor, names = _scan(c, cursor, "*")
                fresh = [name for name in dict.fromkeys(names) if name not in seen]
                seen.update(fresh)  # a key may come twice while the table is rehashed
                for start in range(0, len(fresh), _READ_AT_ONCE):
                    some = fresh[start : start + _READ_AT_ONCE]
                    for ttl, size in c.execute_command("EVAL", _READ, len(some), *some):
                        if ttl == -2 or size == 0:
                            continue  # it expired meanwhile
                        out.keys += 1
                        out.unreadable += size < 0
                        out.expires += ttl >= 0
                if cursor == 0:
                    return out

    @contextmanager
    def _client(self, db: int = 0) -> Iterator[Client]:
        """Lend a client; a command that the server refuses stays redis-py's error, all else becomes drd's."""
        settings = self._settings
        refused: redis.exceptions.ResponseError | None = None
        with (
            mapped("target", settings.address, settings.login, "a check"),
            closing(open_client(settings, settings.address, settings.login, db=db)) as c,
        ):
            try:
                yield c
            except redis.exceptions.ResponseError as error:
                if isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)):
                    raise
                refused = error
        if refused is not None:
            raise refused


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _scan(c: Client, cursor: int, pattern: str) -> tuple[int, list[bytes]]:
    reply = c.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", _BATCH)
    return int(reply[0]), list(reply[1])


def _count(c: Client, pattern: str, ctx: WorkContext) -> int:
    names: set[bytes] = set()
    cursor = 0
    while True:
        ctx.cancel.raise_if_cancelled()
        cursor, found = _scan(c, cursor, pattern)
        names.update(found)
        if cursor == 0:
            return len(names)


def _require_reading(c: Client, words: tuple[str, ...]) -> None:
    """Refuse a command that could change data: a check must not make the next one pass or fail."""
    name = words[0].upper()
    known = c.execute_command("COMMAND", "INFO", name)
    flags = {text(flag) for flag in known[0][2]} if known and known[0] else set()
    if not flags:
        raise QuestionError(f"the server knows no command {name}", hint="correct the suite")
    if "readonly" not in flags and name not in _ALSO_READS:
        raise QuestionError(f"{name} may change data; a check may only read", hint="use a command that reads")


def _answer(reply: Any, limit_rows: int) -> Answer:
    if isinstance(reply, (list, tuple)):
        rows = tuple((_cell(item),) for item in reply[:limit_rows])
        return Answer(rows, len(reply) > limit_rows)
    return Answer(((_cell(reply),),))


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, (int, float)):
        return value
    return " ".join(str(_cell(item)) for item in value) if isinstance(value, (list, tuple)) else text(value)
