"""What a database's comment says of its part in a restore in place: by this mark alone drd knows what it may touch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from drd.engines.postgres.connection import Session

Role = Literal["staged", "old", "undone"]
_BEGIN = "drd-restore "
_NAME_BYTES = 63


@dataclass(frozen=True, slots=True)
class Mark:
    """``restore`` made or moved the database; ``live`` is the name it is kept for or was taken from.

    ``comment`` is the database's own, to be given back. ``staged``: being built. ``old``: was live before the restore.
    ``undone``: came by the restore and was taken out again.
    """

    restore: str
    role: Role
    live: str
    comment: str | None

    def text(self) -> str:
        """Return the comment that says so."""
        fields = {"restore": self.restore, "role": self.role, "live": self.live, "comment": self.comment}
        return _BEGIN + json.dumps(fields, ensure_ascii=False)


def read_mark(comment: str | None) -> Mark | None:
    """Return the mark that a comment is, or None: anybody may write comments, so nothing about it is believed."""
    if comment is None or not comment.startswith(_BEGIN):
        return None
    try:
        fields = json.loads(comment.removeprefix(_BEGIN))
    except ValueError:
        return None
    if not isinstance(fields, dict) or set(fields) != {"restore", "role", "live", "comment"}:
        return None
    texts = isinstance(fields["restore"], str) and isinstance(fields["live"], str)
    known = texts and fields["role"] in get_args(Role)
    if not known or not isinstance(fields["comment"], str | None):
        return None
    return Mark(fields["restore"], fields["role"], fields["live"], fields["comment"])


def marked(session: Session, restore_id: str) -> dict[str, Mark]:
    """Return the databases of one restore by name."""
    rows = session.execute(
        "SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database ORDER BY 1"
    ).fetchall()
    found = {str(name): read_mark(comment) for name, comment in rows}
    return {name: mark for name, mark in found.items() if mark is not None and mark.restore == restore_id}


def of_role(found: Mapping[str, Mark], role: Role) -> dict[str, str]:
    """Return the databases that play a role, by the live name they are kept for."""
    return {mark.live: name for name, mark in found.items() if mark.role == role}


def staged_name(restore_id: str, live: str) -> str:
    """Return the name under which a database is built beside the live one."""
    return f"drd_new_{restore_id[-6:]}_{live}".encode()[:_NAME_BYTES].decode("utf-8", "ignore")


def kept_name(restore_id: str, live: str, role: Role) -> str:
    """Return the name under which a copy is kept: it says of which database, and the time of the restore in UTC."""
    at = f"{restore_id[:8]}_{restore_id[9:15]}_{restore_id[-6:]}"
    tail = f"_{'before' if role == 'old' else 'undone'}_{at}"
    return live.encode()[: _NAME_BYTES - len(tail)].decode("utf-8", "ignore") + tail
