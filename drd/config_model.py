"""The shape of a drd configuration: every key, its default, its range and what it does.

The descriptions feed the JSON Schema and are mirrored in ``config/drd.example.yaml``. To add a section: write its
model and name it in :class:`Config`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeAlias

import pyrage
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from drd.config_alertmanager import AlertmanagerConfig
from drd.config_chains import IncrementalConfig
from drd.config_daemon import DaemonConfig, ScheduleConfig
from drd.config_drills import DrillConfig, ScratchConfig
from drd.config_metrics import MetricsConfig
from drd.config_retention import DrillHistoryConfig, OddnessConfig, RetentionConfig
from drd.config_sources import SourceConfig
from drd.config_urls import KeylessHttpUrl
from drd.config_values import (
    SECRET_SCHEMA,
    AutoOrCount,
    Bandwidth,
    Count,
    Duration,
    FilePath,
    LockDays,
    SecretField,
    Section,
    Size,
    Text,
    format_size,
    its_defaults,
    refuse,
    size_between,
)
from drd.repository.layout import SOURCE_NAME_PATTERN, is_source_name
from drd.repository.signing import is_public_key

MIB = 1 << 20
_BUCKET_PATTERN = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"


def _prefix(value: str) -> str:
    text = value.strip("/")
    if text and not re.fullmatch(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*", text):
        raise ValueError("allowed: letters, digits and - _ . in segments joined by /")
    if len(text) > 100 or {".", ".."} & set(text.split("/")):
        raise ValueError("allowed: at most 100 characters, no segment . or ..")
    return text


def _bucket(value: str) -> str:
    if not re.fullmatch(_BUCKET_PATTERN, value):
        raise ValueError("allowed: 3 to 63 of a-z, 0-9, dot and dash")
    return value


def _recipient(value: str) -> str:
    if value.upper().startswith("AGE-SECRET-KEY-"):
        raise PydanticCustomError("secret", "is an age identity (a secret!); allowed: its public half, age1…")
    try:
        pyrage.x25519.Recipient.from_str(value)
    except pyrage.RecipientError as error:
        raise ValueError("allowed: an age recipient, age1 and 58 characters more; see: drd keygen") from error
    return value


def _public_key(value: str) -> str:
    if "PRIVATE KEY" in value:
        raise PydanticCustomError("secret", "is a private key (a secret!); allowed: its public half, ed25519:…")
    if not is_public_key(value):
        raise ValueError("allowed: ed25519: and 44 characters of base64; see: drd keygen --signing")
    return value


def _moment(value: object) -> datetime:
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError("allowed: a time with its zone, such as 2026-11-22T18:00:00Z")
    return at.astimezone(UTC)


def _moment_text(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


def _source_name(value: str) -> str:
    if not is_source_name(value):
        raise ValueError("allowed: a name of a-z, 0-9, dash, dot and underscore, at most 63 characters")
    return value


def _one_or_more(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else () if value is None else (value,)


Bucket: TypeAlias = Annotated[
    str, AfterValidator(_bucket), WithJsonSchema({"type": "string", "pattern": _BUCKET_PATTERN})
]
Recipient: TypeAlias = Annotated[
    str, AfterValidator(_recipient), WithJsonSchema({"type": "string", "pattern": "^age1[02-9ac-hj-np-z]{58}$"})
]

PublicKey: TypeAlias = Annotated[
    str, AfterValidator(_public_key), WithJsonSchema({"type": "string", "pattern": "^ed25519:[A-Za-z0-9+/]{43}=$"})
]
Moment: TypeAlias = Annotated[
    datetime,
    PlainValidator(_moment),
    PlainSerializer(_moment_text),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T18:00:00Z"]}),
]


class ObjectLockConfig(Section):
    """A lock on every object of a backup, for a bucket that was made with object lock enabled."""

    mode: Literal["governance", "compliance"] = Field(
        description="governance: a right of its own lifts it. compliance: nobody can, the account's owner included."
    )
    days: LockDays = Field(
        description="For how long, from the backup on; keep_within: as long as the longest retention.keep_within."
    )


class S3StoreConfig(Section):
    """A bucket of Amazon S3 or anything that speaks its protocol."""

    type: Literal["s3"] = Field(description="Kind of store.")
    bucket: Bucket = Field(description="Name of the bucket; it must exist.")
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="", description="Folder of the bucket that is drd's alone. Several repositories may share a bucket."
    )
    endpoint_url: KeylessHttpUrl | None = Field(
        default=None, description="Where the service is, for anything but Amazon: http(s)://host:port."
    )
    region: Text = Field(default="us-east-1", description="Region that requests are signed for.")
    access_key_id: SecretField | None = Field(
        default=None, description="Access key. Without keys: the AWS SDK's own chain (profile, instance role)."
    )
    secret_access_key: SecretField | None = Field(default=None, description="Secret key of the access key.")
    session_token: SecretField | None = Field(default=None, description="Token of temporary credentials.")
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Bucket in the path or in the host name; auto: path whenever endpoint_url is given."
    )
    ca_file: FilePath | None = Field(
        default=None, description="Certificate authority for https. Default: the system's."
    )
    server_side_encryption: Literal["none", "AES256", "aws:kms"] = Field(
        default="none", description="Encryption at rest by the service, besides drd's own: none, AES256 or aws:kms."
    )
    kms_key_id: Text | None = Field(default=None, description="Key for aws:kms. Default: the account's.")
    storage_class: Text | None = Field(
        default=None, description="Storage class of what drd writes, such as STANDARD_IA. Default: the bucket's."
    )
    object_lock: ObjectLockConfig | None = Field(
        default=None, description="Lock what backups write against deletion. Default: the bucket's own rule, if any."
    )
    connect_timeout: Duration = Field(default=timedelta(seconds=10), description="How long to wait for a connection.")
    read_timeout: Duration = Field(default=timedelta(seconds=60), description="How long to wait for an answer.")
    patience: Duration = Field(
        default=timedelta(minutes=2),
        description="How long a request is retried in all before the store counts as away.",
    )
    max_bandwidth: Bandwidth | None = Field(default=None, description="Most bytes a second, both ways together.")

    @model_validator(mode="after")
    def _fits_together(self) -> S3StoreConfig:
        problems: dict[str, str] = {}
        if (self.access_key_id is None) != (self.secret_access_key is None):
            missing = "access_key_id" if self.access_key_id is None else "secret_access_key"
            problems[missing] = "required: access_key_id and secret_access_key go together"
        if self.session_token is not None and self.access_key_id is None:
            problems["session_token"] = "has no effect without access_key_id and secret_access_key"  # noqa: S105
        if self.kms_key_id is not None and self.server_side_encryption != "aws:kms":
            problems["kms_key_id"] = "has no effect without server_side_encryption: aws:kms"
        if self.ca_file is not None and self.endpoint_url is not None and self.endpoint_url.startswith("http:"):
            problems["ca_file"] = "has no effect without TLS; write endpoint_url with https://"
        refuse(problems)
        return self


class LocalStoreConfig(Section):
    """A directory, best on another disk or a network mount."""

    type: Literal["local"] = Field(description="Kind of store.")
    path: FilePath = Field(
        description="The directory; made when missing. A relative path starts at this file's folder."
    )
    max_bandwidth: Bandwidth | None = Field(default=None, description="Most bytes a second, both ways together.")


class EncryptionConfig(Section):
    """Encryption of every part by drd, before it leaves this machine (age, X25519)."""

    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1)] = Field(
        description="Public keys, age1…; the holder of any one identity can restore. See drd keygen."
    )
    identity: Annotated[
        tuple[SecretField, ...],
        BeforeValidator(_one_or_more),
        WithJsonSchema({"anyOf": [SECRET_SCHEMA, {"type": "array", "items": SECRET_SCHEMA}]}),
    ] = Field(
        default=(), description="Secret key (or a list of them) for restore and verify --deep. Backing up needs none."
    )
    accept_clear_before: Moment | None = Field(
        default=None,
        description="Backups in the clear count too if made, and put into the store, before this time (with its zone).",
    )


class SigningConfig(Section):
    """Signatures on manifests, so that nobody who may write to the store can plant or alter a backup unnoticed."""

    private_key: SecretField | None = Field(
        default=None, description="Ed25519 key in PEM that signs new backups. See drd keygen --signing."
    )
    public_keys: tuple[PublicKey, ...] = Field(
        default=(),
        description="Whose backups count, ed25519:…; with any key here, all others are refused. Empty: not checked.",
    )
    accept_unsigned_before: Moment | None = Field(
        default=None,
        description="Unsigned backups count too if made, and put into the store, before this time (with its zone).",
    )
    repository: Text | None = Field(
        default=None,
        description="Only backups of the repository with this id count (drd check shows it). Default: of any.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> SigningConfig:
        problems: dict[str, str] = {}
        if self.private_key is None and not self.public_keys:
            problems["public_keys"] = "required: signing needs a private_key, public_keys, or both"
        for name in ("accept_unsigned_before", "repository"):
            if getattr(self, name) is not None and not self.public_keys:
                problems[name] = "has no effect without public_keys"
        refuse(problems)
        return self


class PipelineConfig(Section):
    """How streams are cut, compressed and moved."""

    compression: Literal["zstd"] = Field(default="zstd", description="Codec of every part.")
    level: Annotated[Count, Field(ge=1, le=19)] = Field(
        default=1, description="Zstandard level, 1 (fast, and good on dumps) to 19 (small, slow)."
    )
    part_size: Annotated[Size, size_between(MIB, 32 * MIB)] = Field(
        default=8 * MIB,
        description="Plain size of the first parts of a stream, 1MiB to 32MiB; in long streams it grows fourfold. "
        "Table data is cut at rows, from a quarter of it on, so that unchanged parts need not be stored again.",
    )
    workers: AutoOrCount = Field(
        default="auto", description="Threads that compress, encrypt and move parts; auto: by CPU."
    )
    memory: Annotated[Size, size_between(8 * MIB, 64 << 30)] = Field(
        default=96 * MIB, description="Most memory that parts on their way may hold together."
    )

    @model_validator(mode="after")
    def _holds_two_parts(self) -> PipelineConfig:
        if self.memory < 2 * self.part_size:
            refuse({"memory": f"got {format_size(self.memory)}; allowed: at least twice part_size"})
        return self


class SpoolConfig(Section):
    """Local disk that a dump passes through on its way to the store."""

    dir: FilePath | None = Field(default=None, description="Folder for it. Default: the system's temporary folder.")
    limit: Annotated[Size, size_between(16 * MIB, 1 << 40)] = Field(
        default=192 * MIB,
        description="Most space one backup may use there; the dump is paused while it is full. On a busy machine it "
        "may be passed by what pg_dump writes in some hundredths of a second.",
    )


StoreConfig: TypeAlias = Annotated[S3StoreConfig | LocalStoreConfig, Field(discriminator="type")]
SourceName: TypeAlias = Annotated[str, AfterValidator(_source_name)]


class Config(Section):
    """Configuration of drd."""

    store: StoreConfig = Field(description="Where backups live.")
    encryption: EncryptionConfig | None = Field(
        default=None, description="Encryption by drd. Without it, whoever reads the store reads your data."
    )
    signing: SigningConfig | None = Field(
        default=None, description="Signatures on manifests. Without it, whoever writes to the store can plant a backup."
    )
    pipeline: PipelineConfig = Field(default_factory=its_defaults, description="Speed, size and memory.")
    spool: SpoolConfig = Field(default_factory=its_defaults, description="Local disk for dumps under way.")
    incremental: IncrementalConfig = Field(
        default_factory=its_defaults,
        description="When drd backup now builds on the backup before it, for sources without keys of their own.",
    )
    retention: RetentionConfig = Field(
        default_factory=its_defaults, description="What drd prune keeps of every source without rules of its own."
    )
    drill_history: DrillHistoryConfig = Field(
        default_factory=its_defaults, description="What drd prune keeps of the reports of each drill."
    )
    oddness: OddnessConfig = Field(
        default_factory=its_defaults, description="When a backup is oddly small, for sources that do not say."
    )
    sources: dict[SourceName, SourceConfig] = Field(
        default_factory=dict,
        description="The databases, each under a name that also names its folder in the store.",
        json_schema_extra={"propertyNames": {"pattern": f"^{SOURCE_NAME_PATTERN}$"}},
    )
    schedules: dict[SourceName, ScheduleConfig] = Field(
        default_factory=dict,
        description="What drd daemon does again and again: backups, prune, verify. Drills have their times themselves.",
    )
    drills: dict[SourceName, DrillConfig] = Field(
        default_factory=dict, description="Restore drills, each under a name that also names its folder in the store."
    )
    scratch: ScratchConfig = Field(
        default_factory=its_defaults,
        description="Where the scratch servers of drills live and what they are.",
    )
    alertmanager: AlertmanagerConfig | None = Field(
        default=None, description="Who is told how backups and drills went. Default: nobody."
    )

    daemon: DaemonConfig = Field(default_factory=its_defaults, description="The daemon itself.")

    metrics: MetricsConfig = Field(
        default_factory=its_defaults,
        description="Where verbs leave their metrics when no daemon is there to be asked.",
    )

    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _schedules_name_sources(self) -> Config:
        allowed = f"allowed: {', '.join(self.sources) or 'none, as no source is configured'}"
        refuse(
            {
                f"schedules.{name}.sources": f"no source is called {source}; {allowed}"
                for name, schedule in self.schedules.items()
                for source in schedule.sources
                if source not in self.sources
            }
        )
        return self

    @model_validator(mode="after")
    def _lock_has_a_length(self) -> Config:
        store = self.store
        if isinstance(store, S3StoreConfig) and store.object_lock is not None and self.lock_days < 1:
            refuse(
                {"store.object_lock.days": "keep_within has no length: set retention.keep_within, or a number of days"}
            )
        return self

    @property
    def lock_days(self) -> int:
        """For how many days objects of a backup are locked; 0 for not at all."""
        lock = self.store.object_lock if isinstance(self.store, S3StoreConfig) else None
        if lock is None:
            return 0
        if lock.days != "keep_within":
            return lock.days
        rules = [self.retention, *(source.retention for source in self.sources.values() if source.retention)]
        longest = max((rule.keep_within for rule in rules if rule.keep_within), default=timedelta(0))
        return -(-longest // timedelta(days=1))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that is allowed but unwise, set by :func:`drd.config.load`."""
        return self._warnings
