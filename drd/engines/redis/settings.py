"""Where a Redis or Valkey is, how to log in, and how to back it up and restore it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from drd.errors import ConfigError
from drd.model import Secret
from drd.selection import EVERYTHING, Selection

Topology = Literal["auto", "standalone", "sentinel", "cluster"]


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of one server process."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int) -> Address:
        """Read ``host``, ``host:port`` or ``[v6]:port``; raises :class:`~drd.errors.ConfigError`."""
        try:
            parts = urlsplit(f"//{text}")
            return cls(parts.hostname or "", parts.port or default_port)
        except ValueError as error:
            raise ConfigError(f"{text} is not host:port: {error}") from error


@dataclass(frozen=True, slots=True)
class Login:
    """A user name (None: the default user) and a password (None: do not log in)."""

    username: str | None
    password: Secret | None


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """One Redis source or target; immutable, holds no connection.

    ``url`` is ``redis://`` or ``rediss://host:port``, may name a user, never a password; with ``sentinel_master`` it
    names a sentinel, and ``sentinels`` names more of them. ``holder_listen`` is the address on which drd plays the
    primary during a restore by replication, ``holder_advertise`` what the target is told to connect to instead
    (behind NAT or in a container). ``timeout_s`` bounds one answer of a server, not a whole transfer. ``selection`` is
    the part of a backup to restore.
    """

    url: str
    username: str | None = None
    password: Secret | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    topology: Topology = "auto"
    sentinel_master: str | None = None
    sentinels: tuple[str, ...] = ()
    sentinel_username: str | None = None
    sentinel_password: Secret | None = None
    prefer: Literal["replica", "primary"] = "replica"
    restore_via: Literal["auto", "replication", "keys"] = "auto"
    holder_listen: str = "127.0.0.1"
    holder_advertise: str | None = None
    tools_dir: Path | None = None
    timeout_s: float = 60.0
    selection: Selection = EVERYTHING

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            raise ConfigError(f"{_without_login(self.url)} is not a Redis URL", hint="redis://host:6379 or rediss://")
        if parts.password:
            raise ConfigError("the Redis URL holds a password", hint="give it as password: {env: NAME} or {file: PATH}")
        if parts.path.strip("/"):
            raise ConfigError(
                f"{self.url} names a database number, but a snapshot always holds all of them",
                hint="end it at the port",
            )
        if self.topology == "sentinel" and not self.sentinel_master:
            raise ConfigError("topology sentinel needs sentinel_master, the name the sentinels know the primary by")
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("cert_file and key_file belong together")

    @property
    def address(self) -> Address:
        """Host and port of the URL."""
        parts = urlsplit(self.url)
        return Address(parts.hostname or "", parts.port or 6379)

    @property
    def login(self) -> Login:
        """Who to log in as on data nodes."""
        in_url = urlsplit(self.url).username
        user = self.username or (unquote(in_url) if in_url else None)
        return Login(user, self.password)

    @property
    def sentinel_login(self) -> Login:
        """Who to log in as on sentinels."""
        return Login(self.sentinel_username, self.sentinel_password)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.url.startswith("rediss:")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Make a verifying client context, or None without TLS; raises :class:`~drd.errors.ConfigError`."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file and self.key_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"cannot load the TLS files of {self.address}: {error}") from error
        return context


def _without_login(url: str) -> str:
    return url.rpartition("@")[2] if "@" in url else url
