"""What a PostgreSQL source or target is configured with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drd.engines.marks import Staging
from drd.model import Secret
from drd.selection import EVERYTHING, Selection

ALL_DATABASES = ("*",)


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """One PostgreSQL endpoint.

    ``url`` is a libpq connection URI (several hosts and ``target_session_attrs`` are welcome) without a password.
    ``databases`` is empty for the URL's own database, ``("*",)`` for every database that allows connections and is
    no template. ``tools_dir`` holds pg_dump and its kin and is looked at first. ``lock_timeout_s`` bounds the wait
    for a table that somebody alters; 0 waits for ever. ``staging`` diverts a restore and
    its fingerprint to databases beside those they are meant for. ``selection`` is the part of a backup to restore.
    ``read_changed`` lets an incremental backup leave ranges of pages unread in which no row came or went.
    """

    url: str
    password: Secret | None = None
    databases: tuple[str, ...] = ()
    tools_dir: Path | None = None
    lock_timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    staging: Staging | None = None
    selection: Selection = EVERYTHING
    read_changed: bool = False
