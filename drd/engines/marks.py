"""What a database's comment says of its part in a restore in place: by this mark alone drd knows what it may touch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

from drd.errors import IntegrityError
from drd.model import Notice

Role = Literal["staged", "old", "undone"]
_BEGIN = "drd-restore "
_FIELDS = {"restore", "role", "live", "comment", "parked"}
_NAME_BYTES = 63  # PostgreSQL's limit; ClickHouse's is larger


@dataclass(frozen=True, slots=True)
class Staging:
    """Databases that are built beside live ones: for each live name, the name and the comment meanwhile."""

    names: Mapping[str, str]
    comments: Mapping[str, str]

    @classmethod
    def of(cls, restore_id: str, live: Iterable[str]) -> Self:
        """Stage these databases for a restore."""
        names = {name: staged_name(restore_id, name) for name in live}
        return cls(names, {name: Mark(restore_id, "staged", name, None).text() for name in names})

    def comment_of(self, built: str) -> str:
        """Return the comment of a database by the name under which it is built."""
        return next(self.comments[live] for live, name in self.names.items() if name == built)


@dataclass(frozen=True, slots=True)
class Mark:
    """``restore`` made or moved the database; ``live`` is the name it is kept for or was taken from.

    ``comment`` is the database's own, to be given back. ``staged``: being built. ``old``: was live before the restore.
    ``undone``: came by the restore and was taken out again. ``parked`` are views in it that were switched off.
    """

    restore: str
    role: Role
    live: str
    comment: str | None
    parked: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the comment that says so."""
        fields = {name: getattr(self, name) for name in sorted(_FIELDS)}
        return _BEGIN + json.dumps(fields, ensure_ascii=False)


def read_mark(comment: str | None) -> Mark | None:
    """Return the mark that a comment is, or None: anybody may write comments, so nothing about it is believed."""
    if comment is None or not comment.startswith(_BEGIN):
        return None
    try:
        fields = json.loads(comment.removeprefix(_BEGIN))
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        return None
    parked = fields.pop("parked")
    texts = isinstance(fields["restore"], str) and isinstance(fields["live"], str)
    known = texts and fields["role"] in get_args(Role) and isinstance(parked, list)
    if not known or not isinstance(fields["comment"], str | None) or not all(isinstance(p, str) for p in parked):
        return None
    return Mark(**fields, parked=tuple(parked))


def copies_among(comments: Mapping[str, str | None]) -> list[str]:
    """Name the databases that are a restore's own, kept or being built, given the comment of every database.

    One that somebody gave another name since is his own: the mark alone says nothing.
    """
    found = {name: read_mark(comment) for name, comment in comments.items()}
    return [
        name
        for name, mark in found.items()
        if mark is not None
        and name
        in {
            kept_name(mark.restore, mark.live, "old"),
            kept_name(mark.restore, mark.live, "undone"),
            staged_name(mark.restore, mark.live),
        }
    ]


def left_out(copies: Sequence[str]) -> list[Notice]:
    """Say that a backup of all databases holds none of these."""
    if not copies:
        return []
    text = f"not in this backup of all databases, as restores keep them: {', '.join(copies)}; see: drd restore list"
    return [Notice("copies-left-out", text, standing=True)]


def marks_of(comments: Mapping[str, str | None], restore_id: str) -> dict[str, Mark]:
    """Return the databases of one restore by name, given the comment of every database."""
    found = {name: read_mark(comment) for name, comment in comments.items()}
    return {name: mark for name, mark in found.items() if mark is not None and mark.restore == restore_id}


def of_role(found: Mapping[str, Mark], role: Role) -> dict[str, str]:
    """Return the databases that play a role, by the live name they are kept for."""
    return {mark.live: name for name, mark in found.items() if mark.role == role}


def staged_for(found: Mapping[str, Mark], wanted: Collection[str]) -> dict[str, str]:
    """Return the staged databases by live name; raises IntegrityError unless they are those of all that is wanted."""
    staged = of_role(found, "staged")
    if set(staged) != set(wanted):
        raise IntegrityError("what was built beside the live data is gone", hint="somebody dropped it: run again")
    return staged


def staged_name(restore_id: str, live: str) -> str:
    """Return the name under which a database is built beside the live one."""
    head = f"drd_new_{restore_id[-6:]}_"
    return head + _shortened(live, _NAME_BYTES - len(head))


def kept_name(restore_id: str, live: str, role: Role) -> str:
    """Return the name under which a copy is kept: it says of which database, and the time of the restore in UTC."""
    at = f"{restore_id[:8]}_{restore_id[9:15]}_{restore_id[-6:]}"
    tail = f"_{'before' if role == 'old' else 'undone'}_{at}"
    return _shortened(live, _NAME_BYTES - len(tail)) + tail


def _shortened(name: str, limit_bytes: int) -> str:
    """Cut a name that is too long, and end it so that two long ones that begin alike stay apart."""
    if len(name.encode()) <= limit_bytes:
        return name
    end = f"~{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return name.encode()[: limit_bytes - len(end)].decode("utf-8", "ignore") + end
