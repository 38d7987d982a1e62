"""An awkward PostgreSQL database: everything that a careless backup tool loses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from devstack.postgres import Postgres

_EXTENSIONS = ("hstore", "citext", "pg_trgm")
_EXTENSIONS_IF_AVAILABLE = ("pgcrypto", "uuid-ossp")

_STRUCTURE = Path(__file__).with_name("awkward.sql")


@dataclass(frozen=True, slots=True)
class Awkward:
    """What was made: the database, its roles, and the large objects by id."""

    database: str
    owner: str
    reader: str
    group: str
    extensions: tuple[str, ...]
    large_objects: dict[int, bytes] = field(repr=False)

    @property
    def roles(self) -> tuple[str, str, str]:
        """The roles that exist on the server for this database."""
        return self.owner, self.reader, self.group


def make_awkward(server: Postgres) -> Awkward:
    """Create an awkward database and its roles on ``server``; :func:`drop_awkward` removes both.

    Roles: ``owner`` (owns nearly all, member of ``group`` with a setting of its own), ``reader`` (login with password
    and limits), ``group`` (nologin). Database settings, three to five extensions, four large objects (one of 3 MB).
    """
    database = server.fresh_database("Awkward db-é")
    mark = database.rpartition("_")[2]
    made = Awkward(database, f"owner-{mark}", f"Reader {mark}", f"group_{mark}", _extensions(server), {})
    names = {name: _quoted(getattr(made, name)) for name in ("owner", "reader", "group")}
    quoted_database = _quoted(database)
    with server.connect(database) as connection:
        for statement in (
            f"CREATE ROLE {names['group']} NOLOGIN",
            f"CREATE ROLE {names['owner']} LOGIN CREATEDB CONNECTION LIMIT 50",
            f"CREATE ROLE {names['reader']} LOGIN PASSWORD 'throw-away' VALID UNTIL '2031-01-01'",
            f"GRANT {names['group']} TO {names['owner']} WITH ADMIN OPTION",
            f"GRANT {names['group']} TO {names['reader']}",
            f"GRANT pg_read_all_settings TO {names['reader']}",
            f"ALTER ROLE {names['owner']} SET work_mem = '8MB'",
            f"ALTER ROLE {names['reader']} IN DATABASE {quoted_database} SET search_path = app, public",
            f"ALTER DATABASE {quoted_database} OWNER TO {names['owner']}",
            f"ALTER DATABASE {quoted_database} SET statement_timeout = '1h'",
            f"ALTER DATABASE {quoted_database} SET search_path = app, public",
            f"COMMENT ON DATABASE {quoted_database} IS 'awkward on purpose'",
            *(f'CREATE EXTENSION "{name}" WITH SCHEMA public' for name in made.extensions),
        ):
            connection.execute(statement.encode())
    with server.connect(database) as connection:  # anew, so that the database's settings hold
        connection.execute("SET search_path = public")
        structure = _STRUCTURE.read_text(encoding="utf-8")
        for name, text in {**names, "event": f"{made.group}_event"}.items():
            structure = structure.replace(f":{name}:", text)
        connection.execute(structure.encode())
        if "uuid-ossp" in made.extensions:
            connection.execute("ALTER TABLE with_extensions ALTER COLUMN id SET DEFAULT uuid_generate_v4()")
        made.large_objects.update(_large_objects(connection, names["owner"], names["reader"]))
    return made


def _extensions(server: Postgres) -> tuple[str, ...]:
    with server.connect() as connection:
        available = {row[0] for row in connection.execute("SELECT name FROM pg_available_extensions")}
    return (*_EXTENSIONS, *(name for name in _EXTENSIONS_IF_AVAILABLE if name in available))


def _large_objects(connection: psycopg.Connection[tuple[Any, ...]], owner: str, reader: str) -> dict[int, bytes]:
    contents = [b"", b"small", bytes(range(256)) * 12_000, "Größe\n\\.\n".encode()]
    made = {}
    for content in contents:
        row = connection.execute("SELECT lo_from_bytea(0, %s)", [content]).fetchone()
        assert row is not None  # noqa: S101 # a function answers one row
        made[int(row[0])] = content
    first, second, *_ = made
    connection.execute(f"ALTER LARGE OBJECT {first} OWNER TO {owner}".encode())
    connection.execute(f"GRANT SELECT ON LARGE OBJECT {second} TO {reader}".encode())
    connection.execute(f"COMMENT ON LARGE OBJECT {second} IS 'a small one'".encode())
    return made


def drop_awkward(server: Postgres, made: Awkward) -> None:
    """Drop the database and its roles; what is gone already is fine."""
    server.drop_database(made.database)
    with server.connect() as connection:
        for role in made.roles:
            quoted = _quoted(role)
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                connection.execute(f"DROP OWNED BY {quoted} CASCADE".encode())
                connection.execute(f"DROP ROLE {quoted}".encode())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
