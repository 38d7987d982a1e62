"""A PostgreSQL server of its own data folder, any major version that can be had."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg

from devstack import obtain
from devstack.errors import DevstackError
from devstack.server import Server, private_file
from devstack.workspace import Workspace

DEFAULT_SETTINGS: Mapping[str, str] = {
    "fsync": "off",  # a test stack: a power cut may eat it
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",
    "max_connections": "100",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "log_line_prefix": "%m [%p] %u@%d ",
    "jit": "off",  # compiling costs more than it saves at these sizes
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres(Server):
    """PostgreSQL on loopback; superuser ``admin`` with ``password`` (scram over TCP), UTF-8, collation C.

    The Unix socket lies in the private folder ``socket_dir`` and trusts who can reach it. Run by root, the server
    runs as user ``postgres`` (it refuses root). ``settings`` go into postgresql.conf over :data:`DEFAULT_SETTINGS`.
    """

    kind = "postgres"
    stop_signal = 2  # SIGINT: fast shutdown, which does not wait for clients

    def __init__(
        self,
        workspace: Workspace,
        *,
        name: str | None = None,
        major: int = obtain.POSTGRES_APT_MAJOR,
        settings: Mapping[str, str] | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        self.bin_dir = obtain.postgres_bin(major)
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)
        self.major = major
        self.user = "admin"
        self.password = secrets.token_urlsafe(18)
        self.settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self.data_dir = self.dir / "data"
        self.socket_dir = self.dir / "s"
        self._run_as = _unprivileged_user()

    def url(self, database: str = "postgres", *, user: str | None = None) -> str:
        """Return a URL with the user and without the password."""
        return f"postgresql://{user or self.user}@{self.host}:{self.port}/{database}"

    def connect(
        self, database: str = "postgres", *, user: str | None = None, password: str | None = None
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """Open an autocommit connection over TCP, as admin unless told otherwise."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=database,
            user=user or self.user,
            password=password or self.password,
            autocommit=True,
            connect_timeout=10,
        )

    def fresh_database(self, prefix: str = "t") -> str:
        """Create an empty database (UTF-8, collation C) and return its name."""
        name = f"{prefix}_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'".encode())
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and throw its clients out; one that is not there is fine."""
        quoted = name.replace('"', '""')
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{quoted}" WITH (FORCE)'.encode())

    def prepare(self) -> None:
        """Make the data folder once and write the configuration."""
        if not self.data_dir.exists():
            self._own(self.dir)
            self.socket_dir.mkdir(mode=0o700)
            self._own(self.socket_dir)
            self.make_data_dir()
        lines = {
            **self.settings,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
        }
        text = "".join(f"{key} = '{value}'\n" for key, value in lines.items())
        private_file(self.data_dir / "devstack.conf", text)
        self._own(self.data_dir / "devstack.conf")

    def make_data_dir(self) -> None:
        """Fill ``data_dir`` by initdb, and include devstack's settings."""
        password_file = private_file(self.dir / "password", self.password)
        self._own(password_file)
        options = (
            f"--username={self.user} --encoding=UTF8 --locale=C --auth-local=trust --auth-host=scram-sha-256 --no-sync"
        )
        self.tool("initdb", *options.split(), f"--pwfile={password_file}", "-D", str(self.data_dir))
        password_file.unlink()
        with (self.data_dir / "postgresql.conf").open("a", encoding="utf-8") as stream:
            stream.write("include = 'devstack.conf'\n")

    def tool(self, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Run one of PostgreSQL's programs as the server's user; raises with the last lines of what it said."""
        done = subprocess.run(
            [*self._as_user(), str(self.bin_dir / program), *arguments],
            cwd=self.dir,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            tail = (done.stderr or done.stdout).strip()[-1000:]
            raise DevstackError(f"{self.name}: {program} ended with code {done.returncode}: {tail}")

    def argv(self) -> Sequence[str]:
        """Return the server's command line."""
        return [*self._as_user(), str(self.bin_dir / "postgres"), "-D", str(self.data_dir)]

    def probe(self) -> str | None:
        """Log in over TCP and ask whether it takes queries."""
        try:
            with self.connect() as connection:
                connection.execute("SELECT 1")
        except psycopg.Error as error:
            return str(error).strip().splitlines()[-1]
        return None

    def standby(self, *, name: str = "postgres-standby") -> PostgresStandby:
        """Return a standby of this running server (not started yet)."""
        return PostgresStandby(self, name=name)

    def _own(self, path: Path) -> None:
        if self._run_as:
            shutil.chown(path, self._run_as.pw_uid, self._run_as.pw_gid)

    def _as_user(self) -> list[str]:
        if self._run_as is None:
            return []
        user = self._run_as
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


class PostgresStandby(Postgres):
    """A streaming standby, made by pg_basebackup from a running primary; same user and password."""

    kind = "postgres-standby"

    def __init__(self, primary: Postgres, *, name: str) -> None:
        super().__init__(primary.workspace, name=name, major=primary.major, settings=primary.settings)
        self.primary = primary
        self.password = primary.password

    def make_data_dir(self) -> None:
        """Copy the primary and point the copy at it."""
        source = f"host={self.host} port={self.primary.port} user={self.user}"
        options = ["-D", str(self.data_dir), "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source]
        self.tool("pg_basebackup", *options, env={"PGPASSWORD": self.password})

    def start(self) -> Self:
        """Start and return when it answers queries and streams from the primary."""
        super().start()
        return self


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return whom the server runs as: nobody in particular unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise DevstackError("PostgreSQL refuses to run as root and there is no user postgres or nobody")
