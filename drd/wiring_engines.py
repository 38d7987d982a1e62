"""The engines that a configuration asks for, each imported only then: the part of wiring that knows databases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from drd.config import Config
from drd.config_model import S3StoreConfig
from drd.config_sources import ClickHouseConfig, PostgresConfig, RedisConfig, SourceConfig
from drd.config_values import SecretRef
from drd.errors import ConfigError
from drd.model import Fingerprint, Secret
from drd.protocols import ArtifactReader, Clock, Engine, Replacer, WorkContext
from drd.selection import EVERYTHING, Selection

if TYPE_CHECKING:  # adapters are imported where they are configured
    from drd.engines.clickhouse.settings import ClickHouseSettings, DirectAccess
    from drd.engines.postgres.settings import PostgresSettings
    from drd.engines.redis.settings import RedisSettings


_OPTIONS = {"databases": "--database", "schemas": "--schema", "tables": "--tables", "keys": "--keys"}
_SELECTABLE = {
    "postgres": ("databases", "schemas", "tables"),
    "redis": ("keys",),
    "clickhouse": ("databases", "tables"),
}


class PartialEngine(Engine, Protocol):
    """An engine that can restore a part of a backup."""

    def narrowed(self, expected: Fingerprint, artifacts: ArtifactReader, ctx: WorkContext) -> Fingerprint:
        """Return what of a backup's fingerprint the part to restore must be equal to."""


def engine_of(config: SourceConfig, whole: Config, clock: Clock, selection: Selection = EVERYTHING) -> PartialEngine:
    """Return the engine bound to the server of a source, which restores no more of a backup than ``selection``."""
    _require_selectable(config, selection)
    if isinstance(config, PostgresConfig):
        from drd.engines.postgres.engine import PostgresEngine

        return PostgresEngine(replace(_postgres(config), selection=selection))
    if isinstance(config, RedisConfig):
        from drd.engines.redis.engine import RedisEngine

        return RedisEngine(replace(_redis(config), selection=selection))
    from drd.engines.clickhouse.engine import ClickHouseEngine

    return ClickHouseEngine(replace(_clickhouse(config, whole), selection=selection), clock=clock)


def _require_selectable(config: SourceConfig, selection: Selection) -> None:
    """Raise ConfigError for a bound that has no meaning for this kind of database."""
    may = _SELECTABLE[config.type]
    for name, option in _OPTIONS.items():
        if getattr(selection, name) and name not in may:
            options = ", ".join(_OPTIONS[known] for known in may)
            raise ConfigError(f"{option} means nothing for {config.type}", op="restore", hint=f"it knows: {options}")


def replacer_of(config: SourceConfig, whole: Config) -> Replacer:
    """Return what puts a backup in the place of the data of this source."""
    if isinstance(config, PostgresConfig):
        from drd.engines.postgres.swap import PostgresReplacer

        return PostgresReplacer(_postgres(config))
    if isinstance(config, RedisConfig):
        from drd.engines.redis.swap import RedisReplacer

        return RedisReplacer(_redis(config))
    from drd.engines.clickhouse.swap import ClickHouseReplacer

    return ClickHouseReplacer(_clickhouse(config, whole))


def resolved(reference: SecretRef | None) -> Secret | None:
    """Return the secret that is meant."""
    return None if reference is None else reference.resolve()


def _names(databases: Sequence[str] | str | None) -> tuple[str, ...]:
    if databases is None:
        return ()
    return ("*",) if databases == "all" else tuple(databases)


def _postgres(config: PostgresConfig) -> PostgresSettings:
    from drd.engines.postgres.settings import PostgresSettings

    return PostgresSettings(
        url=config.url,
        password=resolved(config.password),
        databases=_names(config.databases),
        tools_dir=config.tools_dir,
        lock_timeout_s=config.lock_timeout.total_seconds(),
        connect_timeout_s=config.connect_timeout.total_seconds(),
        read_changed=config.read == "changed",
    )


def _redis(config: RedisConfig) -> RedisSettings:
    from drd.engines.redis.settings import RedisSettings

    return RedisSettings(
        url=config.url,
        username=config.username,
        password=resolved(config.password),
        ca_file=config.ca_file,
        cert_file=config.cert_file,
        key_file=config.key_file,
        topology=config.topology,
        sentinels=config.sentinels,
        sentinel_master=config.sentinel_master,
        sentinel_username=config.sentinel_username,
        sentinel_password=resolved(config.sentinel_password),
        prefer=config.prefer,
        restore_via=config.restore_via,
        holder_listen=config.holder.listen,
        holder_advertise=config.holder.advertise,
        tools_dir=config.tools_dir,
        timeout_s=config.timeout.total_seconds(),
    )


def _clickhouse(config: ClickHouseConfig, whole: Config) -> ClickHouseSettings:
    from drd.engines.clickhouse.settings import ClickHouseSettings

    return ClickHouseSettings(
        url=config.url,
        password=resolved(config.password),
        databases=() if config.databases == "all" else tuple(config.databases),
        mode=config.mode,
        gateway_listen=config.gateway.listen,
        gateway_advertise=config.gateway.advertise,
        direct=_direct_access(config, whole),
        disk_name=config.disk.name if config.disk else "backups",
        disk_path=config.disk.path if config.disk else None,
        ca_file=config.ca_file,
        connect_timeout_s=config.connect_timeout.total_seconds(),
        stall_timeout_s=config.stall_timeout.total_seconds(),
        s3_retry_attempts=config.s3_retry_attempts,
        bandwidth_bytes_per_s=config.bandwidth,
    )


def _direct_access(config: ClickHouseConfig, whole: Config) -> DirectAccess | None:
    """Say how the ClickHouse server reaches the repository in the bucket; drd's own way where nothing is said.

    Given whenever it can be: a backup taken in mode direct is restored so, whatever the mode is now.
    """
    from drd.engines.clickhouse.settings import DirectAccess

    store, direct = whole.store, config.direct
    if not isinstance(store, S3StoreConfig):
        if config.mode == "direct":
            raise ConfigError(
                "mode direct needs a store of type s3: the server writes to the bucket itself", hint="use mode: gateway"
            )
        return None
    access = resolved(direct.access_key_id or store.access_key_id)
    secret = resolved(direct.secret_access_key or store.secret_access_key)
    if access is None or secret is None:
        if config.mode == "direct":
            hint = "set direct.access_key_id and direct.secret_access_key"
            raise ConfigError("mode direct needs access keys for the server", hint=hint)
        return None
    if store.session_token is not None and direct.access_key_id is None:
        if config.mode == "direct":
            raise ConfigError(
                "mode direct cannot hand temporary keys (store.session_token) to the server",
                hint="set direct.access_key_id and direct.secret_access_key to keys of its own, or use mode: gateway",
            )
        return None
    base = direct.url or f"{store.endpoint_url or f'https://s3.{store.region}.amazonaws.com'}/{store.bucket}"
    url = f"{base.rstrip('/')}/{store.prefix}" if store.prefix else base.rstrip("/")
    return DirectAccess(url=url, access_key_id=access, secret_access_key=secret)
