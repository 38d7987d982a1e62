"""What an S3 store needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from drd.errors import ConfigError, IntegrityError
from drd.model import Secret
from drd.stores.keys import check_key

_MAX_PREFIX_BYTES = 1024 - 900 - 1  # S3's limit, less the longest key and a slash


@dataclass(frozen=True, slots=True)
class ObjectLock:
    """How long each object of a backup cannot be deleted or overwritten; the bucket must have object lock enabled.

    In mode ``governance`` a right of its own lifts it (s3:BypassGovernanceRetention), in ``compliance`` nobody can.
    """

    mode: Literal["governance", "compliance"]
    days: int


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where a bucket is and how to speak to it; raises :class:`~drd.errors.ConfigError` for what cannot work.

    Without ``endpoint_url`` it is Amazon S3. Without both keys, boto3's own chain finds credentials (environment,
    shared file, instance or pod role). ``ca_file`` is a PEM bundle for a private authority; certificates are always
    verified. ``storage_class`` and ``kms_key_id`` are sent with every put. Timeouts in seconds.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str = "us-east-1"
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    ca_file: Path | None = None
    server_side_encryption: Literal["none", "AES256", "aws:kms"] = "none"
    kms_key_id: str | None = None
    storage_class: str | None = None
    object_lock: ObjectLock | None = None
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    max_connections: int = 16

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work, before a connection is tried."""
        if not self.bucket or "/" in self.bucket:
            raise ConfigError(
                f"store.bucket is not a bucket's name: {self.bucket!r}", hint="no slash; see store.prefix"
            )
        self._check_prefix()
        self._check_endpoint()
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError(
                "store.access_key_id and store.secret_access_key go together, and one of them is missing",
                hint="give both, or neither to use the environment or the machine's role",
            )
        if self.session_token is not None and self.access_key_id is None:
            raise ConfigError("store.session_token needs store.access_key_id and store.secret_access_key")
        if self.kms_key_id is not None and self.server_side_encryption != "aws:kms":
            raise ConfigError("store.kms_key_id needs store.server_side_encryption: aws:kms")
        if self.object_lock is not None and self.object_lock.days < 1:
            raise ConfigError("store.object_lock.days must be at least 1")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ConfigError(f"store.ca_file is not a file: {self.ca_file}", hint="give the path of a PEM bundle")
        if min(self.connect_timeout_s, self.read_timeout_s) <= 0 or self.max_connections < 1:
            raise ConfigError("store timeouts and store.max_connections must be positive")

    def _check_prefix(self) -> None:
        folder = self.folder
        try:
            if folder:
                check_key(folder[:-1])
        except IntegrityError as error:
            raise ConfigError(
                f"store.prefix cannot be used: {self.prefix!r}", hint="plain names and slashes"
            ) from error
        if len(folder.encode("utf-8")) > _MAX_PREFIX_BYTES + 1:
            raise ConfigError(f"store.prefix is longer than {_MAX_PREFIX_BYTES} bytes")

    def _check_endpoint(self) -> None:
        if self.endpoint_url is None:
            return
        try:
            parts = urlsplit(self.endpoint_url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError("store.endpoint_url is not a URL", hint="such as https://s3.example.com:9000")
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                "store.endpoint_url holds a user or password",
                hint="S3 takes store.access_key_id and store.secret_access_key instead",
            )

    @property
    def folder(self) -> str:
        """The prefix as it stands before each key: empty, or with a slash at its end."""
        bare = self.prefix.strip("/")
        return f"{bare}/" if bare else ""

    @property
    def endpoint(self) -> str:
        """The endpoint in words."""
        return self.endpoint_url or f"Amazon S3 ({self.region})"

    @property
    def lists_in_order(self) -> bool:
        """Whether the service is known to list by key: Amazon S3 does, but for its directory buckets."""
        return self.endpoint_url is None and not self.bucket.endswith("--x-s3")
