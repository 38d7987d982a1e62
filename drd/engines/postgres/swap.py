"""Put a backup in the place of live PostgreSQL databases: built under other names, then renamed, all at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

from drd.engines.marks import Mark, Role, Staging, kept_name, marks_of, of_role, staged_for, staged_name
from drd.engines.postgres import catalog, live, logical, place, restore
from drd.engines.postgres.connection import Endpoint, Session, endpoint_of, mapped
from drd.engines.postgres.moves import Move, move
from drd.engines.postgres.settings import PostgresSettings
from drd.errors import TargetError
from drd.model import Backup, Fingerprint, Json, Notice, Recovered
from drd.protocols import ArtifactReader, Engine, WorkContext


class PostgresReplacer:
    """Implements :class:`drd.protocols.Replacer`; holds no connection between calls."""

    keeps: Literal["beside", "backup"] = "beside"

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings

    def survey(self, backup: Backup, artifacts: ArtifactReader) -> Sequence[str]:
        """Say the steps; raises TargetError when this user may not, or there is no room."""
        targets = self._targets(artifacts)
        with self._session(targets) as (here, session), mapped(here, "look at the target"):
            catalog.require_supported(session, here)
            present = [name for name in targets if place.exists(session, name)]
            _require_rights(session, present)
            _require_room(here, session, backup)
            people = sum(place.sessions_in(session, name) for name in present)
            staying = logical.staying(session, present)
        names = ", ".join(targets)
        return (
            f"build {names} beside, as {', '.join(staged_name('……', name) for name in targets)}; clients go on",
            "compare every row with the fingerprint",
            f"swap by one transaction of renames; {people} session(s) end there, and may connect again at once",
            f"keep {', '.join(present)} as NAME_before_TIME",
            *([f"with it stays {staying}; subscriptions that the backup brings are disabled"] if staying else []),
        )

    def stage(self, restore_id: str, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Sequence[Notice]:
        """Restore into databases of other names, which carry the restore's mark."""
        targets = self._targets(artifacts)
        with self._session(targets) as (here, session), mapped(here, "look at the target"):
            staying = logical.staying(session, targets)
        settings = self._staging(restore_id, targets)
        notices = restore.restore(settings, endpoint_of(settings, "target"), backup, artifacts, ctx).notices
        return [*notices, *([Notice("replication-stays", f"with the old data stays {staying}")] if staying else [])]

    def fingerprint(self, restore_id: str, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Read the staged databases."""
        names = sorted({str(item["database"]) for item in expected.items.values()})
        if len(names) == 1 and not self._settings.databases:
            names = [endpoint_of(self._settings, "target").database or names[0]]
        settings = self._staging(restore_id, names)
        return live.fingerprint(settings, endpoint_of(settings, "target"), expected, ctx)

    def swap(
        self,
        restore_id: str,
        backup: Backup,
        artifacts: ArtifactReader,
        ctx: WorkContext,
        save_old: Callable[[Engine], None],
    ) -> Sequence[str]:
        """Rename the live databases away and the staged ones to their names, in one transaction."""
        del backup, save_old
        ctx.cancel.raise_if_cancelled()
        listed = restore.plan(self._settings, endpoint_of(self._settings, "target"), artifacts)
        comments = {job.target: _text(job.properties["comment"]) for job in listed}
        with self._session(list(comments)) as (here, session):
            staged = staged_for(_marked(here, session, restore_id), comments)
            kept = _kept(here, session, restore_id, list(comments), "old")
            move(here, session, [*kept, *(Move(staged[name], name, comments[name]) for name in comments)])
        return [item.becomes for item in kept]

    def recover(self, restore_id: str) -> Recovered:
        """Drop what was staged; the renames are one transaction, so there is no other half-way."""
        with self._session(()) as (here, session):
            found = _marked(here, session, restore_id)
            left = [*of_role(found, "staged").values(), *_unfinished(here, session, restore_id)]
            _drop(here, session, left)
            notices = [Notice("leftover-removed", f"dropped {name}, left by the restore {restore_id}") for name in left]
        return Recovered(bool(of_role(found, "old")), tuple(notices))

    def undo(self, restore_id: str) -> Sequence[str]:
        """Rename the old databases back, and those in their place away, in one transaction."""
        with self._session(()) as (here, session):
            found = _marked(here, session, restore_id)
            old = of_role(found, "old")
            if not old:
                if undone := of_role(found, "undone"):
                    return sorted(undone.values())
                raise TargetError(
                    f"{here.label} has no old copy of the restore {restore_id} any more",
                    hint="it was dropped; an earlier state is in the backups: drd list",
                )
            with mapped(here, "look at the old copies"):
                _require_rights(session, [*old, *old.values()])
            away = _kept(here, session, restore_id, list(old), "undone")
            back = [Move(name, live_name, found[name].comment) for live_name, name in old.items()]
        with self._session([*old, *old.values()]) as (here, session):
            move(here, session, [*away, *back])
        return [item.becomes for item in away]

    def drop_old(self, restore_id: str) -> Sequence[str]:
        """Drop the copies that are kept, ending sessions in them."""
        with self._session(()) as (here, session), mapped(here, "drop the kept copies"):
            found = _marked(here, session, restore_id)
            kept = [*of_role(found, "old").values(), *of_role(found, "undone").values()]
            logical.require_none_enabled(session, kept)
            _drop(here, session, kept)
        return kept

    def _targets(self, artifacts: ArtifactReader) -> list[str]:
        return [job.target for job in restore.plan(self._settings, endpoint_of(self._settings, "target"), artifacts)]

    def _staging(self, restore_id: str, names: Sequence[str]) -> PostgresSettings:
        return replace(self._settings, staging=Staging.of(restore_id, names))

    @contextlib.contextmanager
    def _session(self, targets: Sequence[str]) -> Iterator[tuple[Endpoint, Session]]:
        """Connect to a database that is none of the targets."""
        endpoint = endpoint_of(self._settings, "target")
        avoid = {*targets, *([endpoint.database] if endpoint.database else [])}
        with contextlib.closing(place.maintenance(endpoint, avoid)) as session:
            if session.info.dbname in avoid:
                raise TargetError(
                    f"{endpoint.label} lets this user connect to {session.info.dbname} alone, which is to be renamed",
                    hint="let it connect to the database postgres or template1",
                )
            yield endpoint.pinned(session), session


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def _marked(here: Endpoint, session: Session, restore_id: str) -> dict[str, Mark]:
    with mapped(here, "look for what the restore made"):
        return marks_of(catalog.comments(session), restore_id)


def _kept(here: Endpoint, session: Session, restore_id: str, names: Sequence[str], role: Role) -> list[Move]:
    """Say how the databases of these names, as far as they exist, are renamed to be kept."""
    with mapped(here, "look at the live databases"):
        rows = session.execute(
            """SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database
                WHERE datname = ANY (%s)""",
            (list(names),),
        ).fetchall()
    return [
        Move(name, kept_name(restore_id, name, role), Mark(restore_id, role, name, comment).text())
        for name, comment in rows
    ]


def _unfinished(here: Endpoint, session: Session, restore_id: str) -> list[str]:
    """Name what a restore was still building: it has no mark of its own yet, but drd's, and the restore in its name."""
    with mapped(here, "look for what the restore was building"):
        rows = session.execute(
            f"""SELECT datname FROM pg_catalog.pg_database d WHERE pg_catalog.strpos(datname, %s) > 0
                  AND {place.IS_UNFINISHED} ORDER BY 1""".encode(),  # noqa: S608 - a constant
            (staged_name(restore_id, ""),),
        ).fetchall()
    return [str(row[0]) for row in rows]


def _drop(here: Endpoint, session: Session, names: Sequence[str]) -> None:
    """Drop databases, ending sessions in them."""
    for name in names:
        logical.leave(here, session, name)
        with mapped(here, f"drop {name}"):
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):  # DROP then says who is in the way
                session.execute(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = %s",
                    (name,),
                )
            session.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def _require_rights(session: Session, present: Sequence[str]) -> None:
    """Raise TargetError when this user may not create and rename databases, or one of these must not be renamed."""
    if not place.rights(session).create_database:
        (user,) = catalog.one(session, "SELECT current_user")
        raise TargetError(
            f"{user} may not create databases, so nothing can be restored beside the live data",
            hint=f"let an administrator run: ALTER ROLE {user} CREATEDB",
        )
    rows = session.execute(
        """SELECT datname, pg_catalog.pg_has_role(datdba, 'USAGE'), datistemplate,
                  EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts x WHERE x.database = datname)
             FROM pg_catalog.pg_database WHERE datname = ANY (%s)""",
        (list(present),),
    ).fetchall()
    for name, owned, template, prepared in rows:
        if not owned:
            raise TargetError(
                f"this user does not own {name}, so it may not rename it", hint="restore as its owner or a superuser"
            )
        if template:
            raise TargetError(
                f"{name} is a template database and is not replaced", hint="restore elsewhere with --into"
            )
        if prepared:
            raise TargetError(
                f"{name} has prepared transactions, so it cannot be renamed",
                hint="COMMIT PREPARED or ROLLBACK PREPARED them: SELECT gid, database FROM pg_prepared_xacts",
            )


def _require_room(here: Endpoint, session: Session, backup: Backup) -> None:
    """Raise TargetError when the server's disk cannot hold a second copy; it is looked at where it is this host's.

    PostgreSQL does not tell its free disk space. That the server's folder is the one seen here is known by its lock
    file, which holds the server's process number and start time.
    """
    if not place.rights(session).superuser:
        return
    (folder,) = catalog.one(session, "SELECT pg_catalog.current_setting('data_directory')")
    try:
        local = (Path(folder) / "postmaster.pid").read_text(encoding="utf-8")
        (remote,) = catalog.one(session, "SELECT pg_catalog.pg_read_file('postmaster.pid')")
        if local != remote:
            return
        stat = os.statvfs(folder)
    except OSError:
        return
    free = stat.f_bavail * stat.f_frsize
    if free < backup.plain_bytes:
        raise TargetError(
            f"{here.label} has {free >> 20:,} MiB free, and a second copy needs about {backup.plain_bytes >> 20:,} MiB",
            hint="free disk space on the server, or restore elsewhere with --into; nothing was changed",
        )
