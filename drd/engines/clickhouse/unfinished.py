"""The mark on a database that a restore is still making, so that what a killed restore left can be told and removed.

drd creates such a database itself, under a UUID of its choice, with a comment that names the restore, its owner (the
token of :func:`alive.sign`) and that UUID, and replaces the comment at the end by the one of the backup. A database is
drd's to drop only when the comment names its own name and UUID: a copy of it, say by RESTORE of a backup that was taken
meanwhile, has another UUID, so it is nobody's leftover.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from drd.engines.clickhouse import alive, orphans
from drd.engines.clickhouse.client import Server, ServerRefusal
from drd.engines.clickhouse.packindex import PackIndex
from drd.engines.clickhouse.quoting import from_file_name, identifier, literal
from drd.errors import TargetError
from drd.model import Notice
from drd.protocols import ArtifactReader

# views and dictionaries hold on to each other; a user may have limited what may be dropped
FORCE = {"check_table_dependencies": 0, "check_referential_table_dependencies": 0, "max_table_size_to_drop": 0}
_PREFIX = "unfinished restore by drd, removed by the next one: "
_KEYS = {"backup", "owner", "user", "database", "uuid"}
_OWNER = re.compile(r"[0-9a-f]{16}")
_EXISTS = 82
_CANNOT = frozenset(
    {36, 48, 62, 344, 497}
)  # BAD_ARGUMENTS, NOT_IMPLEMENTED, SYNTAX_ERROR, SUPPORT_IS_DISABLED, ACCESS_DENIED
_MAX_DEFINITION_BYTES = 1 << 20
_ATOMIC = re.compile(r"\sENGINE = Atomic(?:\s+COMMENT\s+(?P<comment>'(?:[^'\\]|\\.|'')*'))?\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Mark:
    """What the comment of a database says that a restore is making, or was when it was killed."""

    backup: str
    owner: str
    user: str
    database: str
    uuid: str

    def comment(self) -> str:
        """Spell it."""
        return _PREFIX + json.dumps({key: getattr(self, key) for key in sorted(_KEYS)})


def parse_mark(comment: str, database: str, its_uuid: str) -> Mark | None:
    """Read the mark of the database of this name and UUID; None for any other comment."""
    if not comment.startswith(_PREFIX):
        return None
    try:
        document = json.loads(comment.removeprefix(_PREFIX))
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(document, dict)
        or set(document) != _KEYS
        or not all(isinstance(v, str) for v in document.values())
    ):
        return None
    mark = Mark(**document)
    ours = mark.database == database and mark.uuid == its_uuid and bool(_OWNER.fullmatch(mark.owner))
    return mark if ours else None


def marked(server: Server, databases: Collection[str]) -> dict[str, Mark]:
    """Find those of ``databases`` that a restore by our user is making, or was when it was killed."""
    rows = server.rows(
        "SELECT name, comment, toString(uuid) AS id, currentUser() AS me FROM system.databases "
        "WHERE name IN {names:Array(String)}",
        {"names": list(databases)},
    )
    found = {row["name"]: (parse_mark(row["comment"], row["name"], row["id"]), row["me"]) for row in rows}
    return {name: mark for name, (mark, me) in found.items() if mark and mark.user == me}


def take_back(server: Server, databases: Collection[str]) -> list[Notice]:
    """Drop what killed restores left under these names.

    Raises :class:`~drd.errors.TargetError`, untouched, when a restore into one of them is under way, here or in
    another drd, or when the server still runs its job.
    """
    found = marked(server, databases)
    gone = alive.gone(server, {mark.owner for mark in found.values()})
    for name, mark in found.items():
        if mark.owner not in gone:
            raise under_way(name)
        if queries := orphans.queries_of(server, mark.owner):
            raise TargetError(
                f"a restore into {name} was killed, but the server still works on it",
                hint=f"try again when it has ended; to end it: KILL QUERY WHERE query_id = {literal(queries[0])}",
            )
    for name in found:
        server.execute(f"DROP DATABASE IF EXISTS {identifier(name)} SYNC", settings=FORCE)
    return [
        Notice("leftover-removed", f"dropped the database {name}, left by a restore that was killed ({mark.backup})")
        for name, mark in found.items()
    ]


def under_way(name: str) -> TargetError:
    """Say that another drd works on a database."""
    return TargetError(f"another drd restores into {name} right now", hint="wait for it, then look there")


def definition(index: PackIndex, artifacts: ArtifactReader, database: str) -> str:
    """Read the statement that makes a database from a backup; "" when there is none."""
    for key, item in index.objects.items():
        parts = key.split("/")
        if len(parts) == 2 and parts[0] == "metadata" and from_file_name(parts[1]) == f"{database}.sql":
            if item.size > _MAX_DEFINITION_BYTES:
                break
            return b"".join(_bytes_of(index, key, artifacts)).decode("utf-8", "surrogateescape")
    return ""


def _bytes_of(index: PackIndex, key: str, artifacts: ArtifactReader) -> Iterator[bytes]:
    for artifact, offset, size in index.ranges(key, 0, index.objects[key].size):
        with artifacts.open(artifact, start=offset, length=size) as stream:
            yield stream.read()


def own_comment(statement: str) -> str | None:
    """Return the comment in the definition of an Atomic database, as an SQL literal; None for any other definition.

    A mark in it is none of the database's own: the backup was taken while a restore made it.
    """
    found = _ATOMIC.search(statement)
    if found is None:
        return None
    comment: str = found["comment"] or "''"
    return "''" if comment.startswith(f"'{_PREFIX}") else comment


def create(server: Server, name: str, backup: str, owner: str) -> ServerRefusal | None:
    """Create an empty marked database; return why, and make none, where the server cannot take the mark off again.

    ``ALTER DATABASE … MODIFY COMMENT`` is younger than the oldest servers drd works with, and a right of its own.
    Raises :class:`~drd.errors.TargetError` when somebody else has just made a database of that name.
    """
    me = server.rows("SELECT currentUser() AS me")[0]["me"]
    mark = Mark(backup, owner, me, name, str(uuid.uuid4()))
    comment = literal(mark.comment())
    try:
        server.execute(f"CREATE DATABASE {identifier(name)} UUID '{mark.uuid}' ENGINE = Atomic COMMENT {comment}")
    except ServerRefusal as refusal:
        if refusal.number == _EXISTS:
            raise under_way(name) from None
        if refusal.number in _CANNOT:
            return refusal
        raise
    try:
        set_comment(server, name, comment)
    except ServerRefusal as refusal:
        server.execute(f"DROP DATABASE {identifier(name)} SYNC")
        if refusal.number in _CANNOT:
            return refusal
        raise
    return None


def comments(server: Server) -> dict[str, str]:
    """Return the comment of every database, by name; empty where it has none."""
    rows = server.rows("SELECT name, comment FROM system.databases ORDER BY name")
    return {row["name"]: row["comment"] for row in rows}


def set_comment(server: Server, name: str, comment: str) -> None:
    """Give a database a comment, spelled as an SQL literal."""
    server.execute(f"ALTER DATABASE {identifier(name)} MODIFY COMMENT {comment}")
