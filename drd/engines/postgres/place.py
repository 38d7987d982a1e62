"""Where a restored database goes: built under a name of drd's own, and given its real name when it is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from psycopg import sql

from drd.engines.postgres import catalog, logical
from drd.engines.postgres.connection import Endpoint, Session, first_line, mapped
from drd.engines.postgres.sqltext import list_items
from drd.errors import DrdError, TargetError, TargetNotEmpty
from drd.model import Json, Notice

TEMPORARY_PREFIX = "drd_restore_"
# The name alone proves nothing: people, too, call databases so. Only what carries this comment is drd's to drop.
UNFINISHED = "drd: a restore that has not ended; the next restore drops this database when nobody works on it"
# Set by CREATE DATABASE itself, so one that drd dies before it comments on is known, too. It limits nobody.
_BEGUN_LIMIT = 0x64726400
IS_UNFINISHED = f"""(pg_catalog.shobj_description(d.oid, 'pg_database') = '{UNFINISHED}' OR
  (pg_catalog.shobj_description(d.oid, 'pg_database') IS NULL AND d.datconnlimit = {_BEGUN_LIMIT}))"""
"""Whether ``pg_database d`` is one that a restore of drd's still builds, or has left."""
_PUBLISH_TRIES = 5
_MAINTENANCE = ("postgres", "template1")
_CLOSED = ("does not exist", "permission denied", "pg_hba.conf", "not currently accepting connections")
_NAME_BYTES = 63


@dataclass(frozen=True)
class Rights:
    """What the user of a session may do on the whole server."""

    superuser: bool
    create_database: bool
    create_role: bool


def rights(session: Session) -> Rights:
    """Ask for the session user's rights."""
    row = catalog.one(
        session, "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    return Rights(bool(row[0]), bool(row[0] or row[1]), bool(row[0] or row[2]))


def maintenance(endpoint: Endpoint, targets: set[str]) -> Session:
    """Connect to a database that is not to be replaced, to create and rename others from; not on a standby."""
    session = _outside(endpoint, targets)
    with mapped(endpoint, "ask whether the target is a standby"):
        (standby,) = catalog.one(session, "SELECT pg_catalog.pg_is_in_recovery()")
    if standby:
        label = endpoint.pinned(session).label
        session.close()
        raise TargetError(
            f"{label} is a standby, which takes no restore",
            hint="name its primary: in the url of the source, beside the standby (host1,host2), or with --into",
        )
    return session


def _outside(endpoint: Endpoint, targets: set[str]) -> Session:
    for name in _MAINTENANCE:
        if name not in targets:
            try:
                return endpoint.connect(name)
            except TargetError as error:
                if not any(word in error.message for word in _CLOSED):
                    raise
    return endpoint.connect()


def exists(session: Session, name: str) -> bool:
    """Whether the server has a database of this name."""
    (found,) = catalog.one(session, "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)", name)
    return bool(found)


def holdings(endpoint: Endpoint, session: Session, name: str) -> str:
    """Say what the database holds; empty when it is absent or empty."""
    with mapped(endpoint, f'look into the database "{name}"'):
        if not exists(session, name):
            return ""
        (open_,) = catalog.one(session, "SELECT datallowconn FROM pg_catalog.pg_database WHERE datname = %s", name)
        if not open_:
            return "what nobody may look at (ALLOW_CONNECTIONS false)"
        with contextlib.closing(endpoint.connect(name)) as inside:
            return catalog.contents(inside)


def refuse_if_taken(endpoint: Endpoint, session: Session, name: str) -> None:
    """Raise :class:`~drd.errors.TargetNotEmpty` when the database holds anything."""
    held = holdings(endpoint, session, name)
    if held:
        raise TargetNotEmpty(
            f"the database {name} already holds {held}. Nothing was changed",
            hint=f"to restore beside it, choose another name: --into …/{name}_restored",
        )


def temporary_name(backup_id: str, name: str) -> str:
    """Return the name to build under: recognisable after a crash, within PostgreSQL's 63 bytes."""
    short = name.encode()[: _NAME_BYTES - len(TEMPORARY_PREFIX) - 7].decode("utf-8", "ignore")
    return f"{TEMPORARY_PREFIX}{backup_id[-6:]}_{short}"


def choose(session: Session, target: str, backup_id: str, may: Rights) -> str:
    """Return the name to restore into: a temporary one, or the target's own where nothing can be created or swapped."""
    taken = exists(session, target)
    if may.create_database and not (taken and (sessions_in(session, target) or not _may_replace(session, target))):
        name = temporary_name(backup_id, target)
        session.execute("SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext(%s))", (name,))
        return name
    if not taken:
        raise TargetError(
            f"the database {target} does not exist and this user may not create it",
            hint=f"let an administrator run: createdb {target}; or restore as a user with CREATEDB",
        )
    return target


def sessions_in(session: Session, name: str) -> int:
    """Count the clients connected to a database, not counting this session."""
    (count,) = catalog.one(
        session,
        """SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid()
              AND backend_type = 'client backend'""",
        name,
    )
    return int(count)


def publish(endpoint: Endpoint, session: Session, built: str, target: str, backup_id: str) -> None:
    """Give the finished database its name; an empty one that had it is dropped after, never before."""
    with mapped(endpoint, f"give the restored database its name {target}"):
        replaced = exists(session, target)
        empty = f"{TEMPORARY_PREFIX}{backup_id[-6:]}_was_empty"
        if replaced:
            refuse_if_taken(endpoint, session, target)
            _rename(session, target, empty)
        try:
            _rename_built(session, built, target)
        except psycopg.Error:
            if replaced:
                _rename(session, empty, target)
            raise
        if replaced:
            session.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(empty)))


def _rename(session: Session, old: str, new: str) -> None:
    session.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new)))


def _rename_built(session: Session, built: str, target: str) -> None:
    """Rename a database of drd's own, ending sessions of others in it (monitoring connects to whatever it finds)."""
    for last in (False,) * (_PUBLISH_TRIES - 1) + (True,):
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            _end_sessions(session, built)
        try:
            _rename(session, built, target)
        except psycopg.errors.ObjectInUse:
            if last:
                raise
        else:
            return


def _end_sessions(session: Session, name: str) -> None:
    session.execute(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
        "WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid()",
        (name,),
    )


def _may_replace(session: Session, name: str) -> bool:
    (owns,) = catalog.one(
        session,
        """SELECT pg_catalog.pg_has_role(datdba, 'USAGE') AND NOT datistemplate
             FROM pg_catalog.pg_database WHERE datname = %s""",
        name,
    )
    return bool(owns)


def _emptied(endpoint: Endpoint, name: str) -> bool:
    """Take out of a database that was empty all that a failed restore put in; False where that did not work."""
    try:
        with contextlib.closing(endpoint.connect(name)) as inside, inside.transaction():
            for (schema,) in inside.execute(
                """SELECT nspname FROM pg_catalog.pg_namespace
                    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"""
            ).fetchall():
                inside.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
            inside.execute("CREATE SCHEMA public")
            inside.execute("SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata")
    except (psycopg.Error, TargetError):
        return False
    return True


def sweep(endpoint: Endpoint, session: Session) -> list[Notice]:
    """Drop what earlier restores left when they were killed: unfinished databases of drd's that nobody works on.

    Whether another drd works on one is seen in ``pg_locks``: an advisory lock counts in its own database alone, and
    the other drd may hold it from another one.
    """
    notices: list[Notice] = []
    with mapped(endpoint, "look for leftovers of earlier restores"):
        rows = session.execute(
            f"""SELECT datname FROM pg_catalog.pg_database d WHERE starts_with(datname, %s) AND NOT EXISTS
                 (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.backend_type = 'client backend')
                  AND {IS_UNFINISHED} AND NOT EXISTS
                 (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1
                     AND l.pid <> pg_catalog.pg_backend_pid()
                     AND l.objid::bigint = pg_catalog.hashtext(d.datname::text)::bigint & 4294967295)
                ORDER BY 1""".encode(),  # noqa: S608 - a constant
            (TEMPORARY_PREFIX,),
        ).fetchall()
        for (name,) in rows:
            (free,) = catalog.one(session, "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext(%s))", name)
            if not free:  # another drd is building it right now
                continue
            logical.leave(endpoint, session, name)
            session.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            notices.append(Notice("leftover-removed", f"dropped {name}, left by a restore that was interrupted"))
    return notices


def create(session: Session, name: str, properties: dict[str, Json]) -> None:
    """Create an empty database with the encoding and locale that the backup recorded."""
    major = catalog.server_major(session)
    parts: list[sql.SQL | sql.Composed] = [
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(
            sql.Identifier(name),
            sql.Literal(properties["encoding"]),
            sql.Literal(properties["collate"]),
            sql.Literal(properties["ctype"]),
        )
    ]
    provider, locale = properties["provider"], properties["locale"]
    if provider == "i":
        if major < 15:
            raise TargetError(
                f'the backup\'s database "{properties["name"]}" uses ICU collation; the target is too old'
            )
        parts.append(sql.SQL("LOCALE_PROVIDER icu ICU_LOCALE {}").format(sql.Literal(locale)))
        if properties.get("icu_rules") and major >= 16:
            parts.append(sql.SQL("ICU_RULES {}").format(sql.Literal(properties["icu_rules"])))
    elif provider == "b":
        if major < 17:
            raise TargetError(
                f'the backup\'s database "{properties["name"]}" uses a builtin locale; the target is too old'
            )
        parts.append(sql.SQL("LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(sql.Literal(locale)))
    elif major >= 15:
        parts.append(sql.SQL("LOCALE_PROVIDER libc"))
    parts.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(_BEGUN_LIMIT)))
    try:
        session.execute(sql.SQL(" ").join(parts))
    except psycopg.errors.InvalidParameterValue as error:
        raise TargetError(
            f"cannot create a database with encoding {properties['encoding']} and locale {properties['collate']}: "
            f"{first_line(str(error))}",
            hint="install this locale on the target's host (locale -a lists them) and restart the server",
        ) from error
    database = sql.Identifier(name)
    session.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(UNFINISHED)))
    session.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(database))


@contextlib.contextmanager
def undone_on_failure(endpoint: Endpoint, session: Session, name: str, *, temporary: bool) -> Iterator[None]:
    """Remove what was built when the block fails, whatever the reason; say so where that was not possible."""
    try:
        yield
    except BaseException as error:
        if temporary:
            drop(endpoint, session, name)
        elif not _emptied(endpoint, name) and isinstance(error, DrdError):
            error.hint = f"{name} was empty before and now holds part of the backup: drop it before trying again"
        raise


def drop(endpoint: Endpoint, session: Session, name: str) -> None:
    """Drop a database of drd's own, ending sessions that are still in it."""
    with contextlib.suppress(
        psycopg.Error, TargetError
    ):  # what remains is recognised by its name and swept by the next restore
        _end_sessions(session, name)
        logical.leave(endpoint, session, name)
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def apply_properties(
    endpoint: Endpoint, session: Session, name: str, properties: dict[str, Json], may: Rights
) -> list[Notice]:
    """Set owner, grants, settings and connection limit; what the target does not allow becomes a notice."""
    database = sql.Identifier(name)
    wanted: list[sql.SQL | sql.Composed] = []
    if may.superuser:
        wanted.append(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(str(properties["owner"])))
        )
    if properties["connection_limit"] not in (-1, None):
        limit = sql.Literal(properties["connection_limit"])
        wanted.append(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, limit))
    wanted += _grants(database, properties)
    wanted += _settings(database, properties)
    return _tried(endpoint, session, name, wanted)


def apply_comment(endpoint: Endpoint, session: Session, name: str, properties: dict[str, Json]) -> list[Notice]:
    """Give a database that has its final name its comment, in the place of drd's own mark."""
    comment = sql.Literal(properties["comment"]) if properties["comment"] else sql.SQL("NULL")
    wanted = sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), comment)
    return _tried(endpoint, session, name, [wanted])


def _tried(endpoint: Endpoint, session: Session, name: str, wanted: list[sql.SQL | sql.Composed]) -> list[Notice]:
    failed: list[str] = []
    for statement in wanted:
        try:
            session.execute(statement)
        except psycopg.Error as error:
            if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
                with mapped(endpoint, f"set the properties of {name}"):
                    raise
            failed.append(f"{statement.as_string(session)}: {error.diag.message_primary}")
    if not failed:
        return []
    return [Notice("database-properties", f"{len(failed)} properties of {name} were not set, first {failed[0]}")]


def _grants(database: sql.Identifier, properties: dict[str, Json]) -> list[sql.SQL | sql.Composed]:
    acl = properties["acl"]
    if not isinstance(acl, list):
        return []
    out: list[sql.SQL | sql.Composed] = [sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database)]
    for entry in cast("list[dict[str, Any]]", acl):
        grantee = sql.Identifier(entry["grantee"]) if entry["grantee"] else sql.SQL("PUBLIC")
        privilege = {"CONNECT": "CONNECT", "CREATE": "CREATE", "TEMPORARY": "TEMPORARY"}[entry["privilege"]]
        out.append(
            sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
                sql.SQL(privilege), database, grantee, sql.SQL(" WITH GRANT OPTION" if entry["grantable"] else "")
            )
        )
    return out


def _settings(database: sql.Identifier, properties: dict[str, Json]) -> list[sql.SQL | sql.Composed]:
    out: list[sql.SQL | sql.Composed] = []
    for entry in cast("list[dict[str, Any]]", properties["settings"] or []):
        for setting in entry["settings"] or []:
            name, _, value = str(setting).partition("=")
            subject = sql.SQL("DATABASE {}").format(database)
            if entry["role"]:
                subject = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(entry["role"]), database)
            # names such as "app.tenant" are two identifiers; lists such as search_path keep their own quoting
            named = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
            out.append(sql.SQL("ALTER {} SET {} TO {}").format(subject, named, _value(name, value)))
    return out


_LISTS = {"search_path", "session_preload_libraries", "local_preload_libraries", "temp_tablespaces", "datestyle"}


def _value(name: str, value: str) -> sql.Composable:
    if name.lower() not in _LISTS:
        return sql.Literal(value)
    items = list_items(value)
    return sql.SQL(", ").join(sql.Literal(item) for item in items) if items else sql.Literal("")
