"""A PostgreSQL that forgets: nothing is flushed, nothing archived, nobody replicates."""

from __future__ import annotations

import signal
from urllib.parse import quote, urlencode

import psycopg

from drd.model import EngineKind
from drd.scratch.recipes.recipe import USER, NotReady, Place, Recipe

_MIB = 1 << 20
_HERE = {"sslmode": "disable", "target_session_attrs": "any", "options": "-c default_transaction_read_only=off"}
# $1 user, $2 folder of the files, $3 server program, $4 data folder
_INITDB = (
    'initdb=$(dirname "$(command -v "$3")")/initdb; "$initdb" --username="$1" --pwfile="$2/password" --encoding=UTF8 '
    '--locale=C --auth=scram-sha-256 --no-sync -D "$4" && cat "$2/scratch.conf" >> "$4/postgresql.conf" && '
    'cat "$2/pg_hba.conf" > "$4/pg_hba.conf" && exec "$3" -D "$4"'
)


class PostgresRecipe(Recipe):
    """PostgreSQL: the same major version, or what the dump was made for is not what is proved."""

    engine: EngineKind = "postgres"
    title = "PostgreSQL"
    programs = ("postgres",)
    users = ("postgres", "nobody")
    stop_signal = signal.SIGQUIT  # immediate shutdown; SIGKILL would leave a System V segment behind
    ports = (5432,)
    image = "postgres:{release}"

    def fits(self, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
        """Ask for the same major version (two numbers before PostgreSQL 10)."""
        return self.release(have) == self.release(want)

    def release(self, version: tuple[int, ...]) -> str:
        """Return the major version."""
        return ".".join(map(str, version[: 1 if version[:1] >= (10,) else 2]))

    def files(self, place: Place) -> dict[str, str]:
        """Return the password for initdb, the settings, and who may log in: drd, and who is beside the server."""
        text = "".join(f"{name} = '{value}'\n" for name, value in self.settings(place).items())
        logins = "".join(f"host all all {host}/32 scram-sha-256\n" for host in sorted({"127.0.0.1", place.host}))
        return {"password": place.password + "\n", "scratch.conf": text, "pg_hba.conf": logins}

    def settings(self, place: Place) -> dict[str, str]:
        """Return the settings; memory is shared out so that a restore with a few jobs stays below the limit."""
        memory = place.memory_bytes // _MIB
        return {
            "listen_addresses": place.listen,
            "port": str(place.ports[0]),
            "unix_socket_directories": "",
            "fsync": "off",  # a power cut ends the drill anyway
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "archive_mode": "off",
            "max_wal_size": "1GB",
            "checkpoint_timeout": "30min",
            "autovacuum": "off",  # rows past their use are none of a drill's business
            "shared_buffers": f"{max(16, min(memory // 4, 2048))}MB",
            "maintenance_work_mem": f"{max(16, min(memory // 16, 1024))}MB",
            "max_connections": "60",
            "max_locks_per_transaction": "256",  # one transaction reads every table of a large schema
            "jit": "off",
            "restart_after_crash": "off",  # a backend that was killed is the end of the drill, and must show
            "max_logical_replication_workers": "0",  # restored subscriptions stay silent
            "log_line_prefix": "%m ",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }

    def command(self, place: Place, program: str) -> list[str]:
        """Make the cluster, then become the server."""
        return ["/bin/sh", "-c", _INITDB, "drd-scratch", USER, str(place.folder), program, str(place.data)]

    def url(self, host: str, port: int) -> str:
        """Return a libpq URL that leaves nothing to the environment (PGHOSTADDR, PGSSLMODE, PGSERVICE, PGOPTIONS)."""
        return f"{_address(host, port)}?{urlencode(_HERE | {'hostaddr': host}, quote_via=quote)}"

    def ask(self, host: str, port: int, password: str) -> str:
        """Log in over TCP and read the version."""
        try:
            with psycopg.connect(self.url(host, port), password=password, connect_timeout=5) as connection:
                row = connection.execute("SHOW server_version").fetchone()
        except psycopg.Error as error:
            raise NotReady(str(error).strip().splitlines()[-1]) from error
        return str(row[0]) if row else ""

    def connect(self, host: str, port: int, password_from: str) -> str:
        """Return a psql line."""
        return f'PGPASSWORD="$({password_from})" psql "{_address(host, port)}"'


def _address(host: str, port: int) -> str:
    return f"postgresql://{USER}@{host}:{port}/postgres"
