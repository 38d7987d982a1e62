"""The shape of ``sources``: one model for each kind of database drd backs up."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from drd.config_chains import MaxChain
from drd.config_retention import OddnessConfig, RetentionRules
from drd.config_urls import (
    ClickHouseUrl,
    Host,
    HostPort,
    HttpUrl,
    KeylessHttpUrl,
    ListenAddress,
    PostgresUrl,
    RedisUrl,
)
from drd.config_values import (
    AutoOrCount,
    Bandwidth,
    Count,
    Duration,
    FilePath,
    SecretField,
    Section,
    Text,
    its_defaults,
    refuse,
)


def _all_or_names(value: object) -> tuple[str, ...] | Literal["all"]:
    if value == "all":
        return "all"
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, str) and v for v in value):
        raise ValueError("allowed: all, or a list of names such as [shop, billing]")
    if len(set(value)) != len(value):
        raise ValueError("allowed: each name once")
    return tuple(value)


def _method(value: object) -> object:
    if value in ("physical", "both"):
        raise ValueError(f"method '{value}' is not in this release; use dump")
    return value


Databases: TypeAlias = Annotated[
    tuple[str, ...] | Literal["all"],
    PlainValidator(_all_or_names),
    PlainSerializer(lambda value: value if value == "all" else list(value)),
    WithJsonSchema(
        {
            "oneOf": [
                {"const": "all"},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True},
            ]
        }
    ),
]


class SourceBase(Section):
    """What every source has."""

    labels: dict[Text, str] = Field(
        default_factory=dict,
        description="Words of your own, kept in each backup's manifest (readable without the key).",
    )
    deadline: Duration = Field(
        default=timedelta(hours=6),
        description="How long the server may make no progress in a backup or restore before it is given up.",
    )
    retention: RetentionRules | None = Field(
        default=None, description="What drd prune keeps of this source. Default: the general retention, as a whole."
    )
    oddness: OddnessConfig | None = Field(
        default=None, description="When a backup of this source is oddly small. Default: the general oddness."
    )
    rpo: Duration | None = Field(
        default=None, description="How old the newest backup may become before drd status marks the source as late."
    )

    @property
    def writes_in_the_clear(self) -> bool:
        """Whether the server itself puts objects into the store, which drd cannot encrypt."""
        return False


class ChainedSource(SourceBase):
    """What sources have whose backups may build on each other."""

    full_every: Duration | None = Field(
        default=None,
        description="A full backup is taken when the last full one is this old. Default: incremental.full_every.",
    )
    max_chain: MaxChain | None = Field(
        default=None,
        description="How many incremental backups may stand on one full backup; 0: every backup is full. "
        "Default: incremental.max_chain.",
    )

    @property
    def builds_on(self) -> Literal["newest", "full"]:
        """Say what a backup builds on: the newest one, or the last full one."""
        return "newest"


class PostgresConfig(ChainedSource):
    """A PostgreSQL server (12 to 18), or databases of it."""

    type: Literal["postgres"] = Field(description="The kind of database.")
    url: PostgresUrl = Field(
        description="Where the server is, without password. Several hosts and target_session_attrs=prefer-standby work."
    )
    password: SecretField | None = Field(default=None, description="Password of the URL's user.")
    databases: Databases | None = Field(
        default=None, description="Which databases: a list, or all of the server. Default: the one the URL names."
    )
    method: Annotated[Literal["dump"], BeforeValidator(_method)] = Field(
        default="dump", description="How: dump is a parallel pg_dump. (physical and both are not in this release.)"
    )
    read: Literal["all", "changed"] = Field(
        default="all",
        description="What an incremental backup reads of tables of 4 MiB and more: all rows, or only ranges of pages "
        "in which a row came or went since the backup before (PostgreSQL 14 and newer, UTF8; docs/changed-ranges.md).",
    )
    tools_dir: FilePath | None = Field(
        default=None,
        description="Folder of pg_dump and pg_restore. Default: the best match for the server that is found.",
    )
    lock_timeout: Duration = Field(
        default=timedelta(seconds=60), description="How long pg_dump waits for a table that is locked by someone else."
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=10), description="How long to wait for a connection, for each host of the URL."
    )
    jobs: AutoOrCount = Field(default="auto", description="Parallel pg_dump and pg_restore workers; auto: by CPU.")

    @model_validator(mode="after")
    def _names_a_database(self) -> PostgresConfig:
        if self.databases is None and urlsplit(self.url).path in {"", "/"}:
            refuse({"databases": "the URL names no database; add one to it, or allowed: all, or a list of names"})
        return self


class HolderConfig(Section):
    """Where drd listens while it plays the primary for a restore by replication."""

    listen: Host = Field(
        default="127.0.0.1",
        description="Address of this machine to listen on (any free port). The target must reach it.",
    )
    advertise: Host | None = Field(
        default=None, description="Host name or address to name to the target instead, behind NAT or in a container."
    )


class RedisConfig(SourceBase):
    """A Redis or Valkey server, a Sentinel group, or a cluster."""

    type: Literal["redis"] = Field(description="The kind of database.")
    url: RedisUrl = Field(
        description="Where the server (or one node of the cluster) is, without password; rediss:// is TLS. "
        "With sentinel_master it names a Sentinel."
    )
    username: Text | None = Field(default=None, description="ACL user; default: the default user.")
    password: SecretField | None = Field(default=None, description="Password of the user.")
    ca_file: FilePath | None = Field(default=None, description="Certificate authority for TLS. Default: the system's.")
    cert_file: FilePath | None = Field(default=None, description="Client certificate for TLS.")
    key_file: FilePath | None = Field(default=None, description="Private key of the client certificate.")
    topology: Literal["auto", "standalone", "sentinel", "cluster"] = Field(
        default="auto",
        description="What is behind the URL; auto asks the server, and means sentinel if sentinel_master is given.",
    )
    sentinels: tuple[HostPort, ...] = Field(
        default=(), description="More Sentinels besides the one of the URL, host:port each."
    )
    sentinel_master: Text | None = Field(default=None, description="Name of the primary that the Sentinels watch.")
    sentinel_username: Text | None = Field(default=None, description="ACL user on the Sentinels.")
    sentinel_password: SecretField | None = Field(default=None, description="Password on the Sentinels.")
    prefer: Literal["replica", "primary"] = Field(
        default="replica", description="Whom to read from; replica takes a healthy, current one where there is one."
    )
    restore_via: Literal["auto", "replication", "keys"] = Field(
        default="auto",
        description="How to restore: replication (the target reads from drd), or key by key (slower).",
    )
    holder: HolderConfig = Field(
        default_factory=its_defaults, description="Where the target finds drd during a restore by replication."
    )
    tools_dir: FilePath | None = Field(
        default=None,
        description="Folder of redis-check-rdb or valkey-check-rdb, for a second check. Default: found on PATH.",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=60), description="How long the server may stay silent before it counts as gone."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> RedisConfig:
        problems: dict[str, str] = {}
        if (self.cert_file is None) != (self.key_file is None):
            problems["key_file"] = "cert_file and key_file go together"
        if not self.url.startswith("rediss:"):
            for key in ("ca_file", "cert_file", "key_file"):
                if getattr(self, key) is not None:
                    problems[key] = "has no effect without TLS; write the url with rediss://"
        if self.topology == "sentinel" and self.sentinel_master is None:
            problems["sentinel_master"] = "required for topology sentinel: the name the Sentinels know the primary by"
        if self.sentinel_master is not None and self.topology in {"standalone", "cluster"}:
            problems["sentinel_master"] = f"has no effect with topology {self.topology}"
        if self.sentinel_master is None and self.topology != "sentinel":
            for key in ("sentinels", "sentinel_username", "sentinel_password"):
                if getattr(self, key):
                    problems[key] = "has no effect without sentinel_master"
        refuse(problems)
        return self


class GatewayConfig(Section):
    """The short-lived S3 endpoint that the ClickHouse server writes to and reads from."""

    listen: ListenAddress = Field(
        default="127.0.0.1:0",
        description="Where it listens; port 0 is any free one. The ClickHouse server must reach it.",
    )
    advertise: KeylessHttpUrl | None = Field(
        default=None,
        description="URL by which ClickHouse reaches it, http://10.1.2.3:9444. Default: by the address of listen.",
    )


class DirectConfig(Section):
    """How the ClickHouse server itself reaches the bucket. Default for each key: what ``store`` says."""

    url: HttpUrl | None = Field(
        default=None,
        description="Bucket URL as the server sees it, such as https://s3.eu-west-1.amazonaws.com/drd-backups.",
    )
    access_key_id: SecretField | None = Field(default=None, description="Access key for the server's own use.")
    secret_access_key: SecretField | None = Field(default=None, description="Secret key for the server's own use.")

    @model_validator(mode="after")
    def _both_keys(self) -> DirectConfig:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            refuse({"secret_access_key": "access_key_id and secret_access_key go together"})
        return self


class DiskConfig(Section):
    """A volume shared by the ClickHouse server and drd."""

    name: Text = Field(description="Name of the disk in the server's configuration (backups/allowed_disk).")
    path: FilePath = Field(description="Where drd sees the same folder.")


class ClickHouseConfig(ChainedSource):
    """A ClickHouse server, through its HTTP interface."""

    type: Literal["clickhouse"] = Field(description="The kind of database.")
    url: ClickHouseUrl = Field(description="HTTP interface of the server, without password: http://user@host:8123.")
    password: SecretField | None = Field(default=None, description="Password of the URL's user.")
    databases: Databases = Field(
        default="all",
        description="Which databases: a list, or all (but the system's own; the one of the URL, if it names one).",
    )
    mode: Literal["gateway", "direct", "disk"] = Field(
        default="gateway",
        description="Way out of the server: gateway (through drd, encrypted), direct (the server writes to the bucket, "
        "not encrypted by drd), disk (a shared volume).",
    )
    gateway: GatewayConfig = Field(default_factory=its_defaults, description="For mode gateway.")
    direct: DirectConfig = Field(default_factory=its_defaults, description="For mode direct.")
    disk: DiskConfig | None = Field(default=None, description="For mode disk.")
    ca_file: FilePath | None = Field(
        default=None, description="Certificate authority for https. Default: the system's."
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="How long to wait for a connection; three times that for the answer to a small question.",
    )
    stall_timeout: Duration = Field(
        default=timedelta(minutes=5), description="How long BACKUP or RESTORE may make no progress before it is killed."
    )
    s3_retry_attempts: Annotated[Count, Field(ge=0, le=1000)] = Field(
        default=10, description="How often the server itself retries a failing S3 request (its own default is 1000)."
    )
    bandwidth: Bandwidth | None = Field(
        default=None, description="Most bytes a second the server may read for a backup (max_backup_bandwidth)."
    )

    @property
    def writes_in_the_clear(self) -> bool:
        """Whether the server writes to the bucket itself."""
        return self.mode == "direct"

    @property
    def builds_on(self) -> Literal["newest", "full"]:
        """Say what a backup builds on: the server itself takes the place of one base at a restore, not of several."""
        return "full" if self.mode == "direct" else "newest"

    @model_validator(mode="after")
    def _fits_the_mode(self) -> ClickHouseConfig:
        idle = {"gateway": GatewayConfig(), "direct": DirectConfig(), "disk": None}
        problems = {
            key: f"has no effect with mode {self.mode}; remove it or write mode: {key}"
            for key, default in idle.items()
            if key != self.mode and getattr(self, key) != default
        }
        if self.mode == "disk" and self.disk is None:
            problems["disk"] = "required for mode disk: {name: backups, path: /mnt/clickhouse-backups}"
        if self.ca_file is not None and not self.url.startswith("https:"):
            problems["ca_file"] = "has no effect without TLS; write the url with https://"
        refuse(problems)
        return self


SourceConfig: TypeAlias = Annotated[PostgresConfig | RedisConfig | ClickHouseConfig, Field(discriminator="type")]
