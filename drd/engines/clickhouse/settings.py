"""What a ClickHouse source or target is configured with; values only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from drd.engines.marks import Staging
from drd.errors import ConfigError
from drd.model import Secret
from drd.selection import EVERYTHING, Selection

Mode = Literal["gateway", "direct", "disk"]


@dataclass(frozen=True)
class DirectAccess:
    """Where a server writes by itself: ``url`` is ``http://host:port/bucket[/prefix]`` as the *server* reaches it."""

    url: str
    access_key_id: Secret
    secret_access_key: Secret


@dataclass(frozen=True)
class Address:
    """A parsed server URL."""

    scheme: str
    host: str
    port: int
    user: str
    database: str

    @property
    def netloc(self) -> str:
        """``host:port``, an IPv6 host in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class ClickHouseSettings:
    """One ClickHouse server and the way backups take out of it.

    ``url`` is ``http(s)://user@host:8123``; it may name one database as ``/name`` or ``?database=name``: the one to
    back up when ``databases`` is empty, and the new name when a backup of one database is restored here.
    ``databases`` empty means all but the system's own. ``gateway_listen`` is where drd listens for the server,
    ``gateway_advertise`` the URL base the server reaches that at (None: derived from the local address that
    reaches the server). ``disk_name`` is the server's disk, ``disk_path`` where drd sees the same folder.
    ``stall_timeout_s`` ends a run that makes no progress. ``backup_threads`` and
    ``bandwidth_bytes_per_s`` leave the server's defaults when None. ``merges_after_restore`` is "stopped" for a
    scratch server whose rows past their TTL must stay until every check was made. ``outside`` is "cut_off" there: what
    would reach other systems (Kafka, S3, dictionaries' sources) is restored as a table that holds nothing. ``staging``
    diverts a restore and its fingerprint to databases beside those they are meant for. ``selection`` is the part of a
    backup to restore.
    """

    url: str
    password: Secret | None = None
    databases: tuple[str, ...] = ()
    mode: Mode = "gateway"
    gateway_listen: str = "127.0.0.1:0"
    gateway_advertise: str | None = None
    direct: DirectAccess | None = None
    disk_name: str = "backups"
    disk_path: Path | None = None
    ca_file: Path | None = None
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 300.0
    s3_retry_attempts: int = 10
    backup_threads: int | None = None
    bandwidth_bytes_per_s: int | None = None
    merges_after_restore: Literal["started", "stopped"] = "started"
    staging: Staging | None = None
    outside: Literal["kept", "cut_off"] = "kept"
    selection: Selection = EVERYTHING

    @property
    def look_timeout_s(self) -> float:
        """How long a server may keep silent when it is asked something small."""
        return 3 * self.connect_timeout_s

    def address(self) -> Address:
        """Parse ``url``; raises :class:`~drd.errors.ConfigError` when it is not usable."""
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"not a port in the ClickHouse URL {parts.hostname}: {error}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(
                "a ClickHouse URL begins with http:// or https:// and names a host",
                hint="such as http://admin@127.0.0.1:8123 (the HTTP port, not 9000)",
            )
        if parts.password is not None:
            raise ConfigError(
                "the ClickHouse URL holds a password", hint="give it by reference: password: {env: CLICKHOUSE_PASSWORD}"
            )
        named = parse_qs(parts.query).get("database", [unquote(parts.path.strip("/"))])[0]
        return Address(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or (8443 if parts.scheme == "https" else 8123),
            user=unquote(parts.username or "default"),
            database=named,
        )

    def listen(self) -> tuple[str, int]:
        """Split ``gateway_listen`` into host and port; raises :class:`~drd.errors.ConfigError`."""
        host, _, port = self.gateway_listen.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"not an address to listen on: {self.gateway_listen!r}", hint="such as 0.0.0.0:9444")
        return host.strip("[]"), int(port)
