"""The composition root: from configuration to adapters to the ports that operations take.

The only importer of adapters; each is imported when the configuration asks for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from drd.cancel import CancelToken
from drd.config import Config
from drd.config_model import S3StoreConfig
from drd.config_sources import ChainedSource, PostgresConfig, SourceConfig
from drd.config_values import SecretRef
from drd.counts import StoreCounts, StoreOperation
from drd.errors import ConfigError
from drd.model import Backup, EngineKind, Progress, Secret
from drd.ops.ports import Chaining, Ports, Source, Tuning
from drd.ops.runbook import FolderLocation, S3Location
from drd.protocols import Format, Store
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.lease import Holder
from drd.repository.repository import Repository
from drd.repository.retention import Policy
from drd.repository.sealing import Sealing
from drd.repository.signing import Signing, Trust
from drd.selection import EVERYTHING, Selection
from drd.wiring_engines import engine_of, replacer_of, resolved

MAX_AUTO_WORKERS = 8
DEFAULT_PATIENCE_S = 120.0
UNTHROTTLED_BYTES = 4 << 10
"""A lease is half a kilobyte; only the smallest manifests and tables are of this size."""
_OPERATIONS: dict[str, StoreOperation] = {
    "write": "put",
    "read": "get",
    "look at": "stat",
    "list": "list",
    "delete": "delete",
}
_SCHEMES: dict[str, EngineKind] = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "redis": "redis",
    "rediss": "redis",
    "http": "clickhouse",
    "https": "clickhouse",
}


def engine_kind_of(url: str) -> EngineKind | None:
    """Say which kind of database a URL names, or None when it is no URL drd knows."""
    return _SCHEMES.get(urlsplit(url).scheme) if "://" in url else None


class Services:
    """The wired program: ports, sources and targets of one configuration. Close it when done.

    ``on_retry`` is told, from any thread, of each call to the store that failed and is tried again; ``counts`` counts
    all of them.
    """

    def __init__(
        self,
        config: Config,
        *,
        cancel: CancelToken,
        progress: Callable[[Progress], None],
        on_retry: Callable[[str], None] | None = None,
        counts: StoreCounts | None = None,
    ) -> None:
        self.config = config
        self._cancel = cancel
        store = _store(config, cancel, on_retry, counts)
        self.ports = Ports(
            store=store,
            codec=_codec(config),
            repository=Repository(store, config.signing.repository if config.signing else None),
            catalog=Catalog(store, _signing(config)),
            formats=backup_format,
            tuning=_tuning(config),
            holder=Holder.of_this_process(),
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            cancel=cancel,
            progress=progress,
        )

    @property
    def location(self) -> S3Location | FolderLocation:
        """Where the repository lies, in the words of stock tools."""
        store = self.config.store
        if isinstance(store, S3StoreConfig):
            in_path = store.addressing_style == "path" or (
                store.addressing_style == "auto" and store.endpoint_url is not None
            )
            ca_file = str(store.ca_file) if store.ca_file else None
            return S3Location(store.bucket, store.prefix, store.endpoint_url, store.region, in_path, ca_file)
        return FolderLocation(str(store.path))

    def sources(self, names: Sequence[str] = ()) -> list[Source]:
        """Return the configured sources, or those named; raises ConfigError for one that is not configured."""
        return [self._source(name, self.config.sources[name]) for name in self._chosen(names)]

    def _chosen(self, names: Sequence[str]) -> list[str]:
        configured = self.config.sources
        for name in names:
            if name not in configured:
                known = ", ".join(configured) or "none"
                raise ConfigError(f"no source is called {name}", subject=name, hint=f"configured sources: {known}")
        if not configured:
            raise ConfigError(
                "the configuration names no source", hint="add one below sources: see config/drd.example.yaml"
            )
        return list(dict.fromkeys(names or configured))

    def _chaining(self, config: SourceConfig) -> Chaining | None:
        """Say when backups of a source build on each other; None where they never do."""
        if isinstance(config, ChainedSource):
            return Chaining(*self.config.incremental.of(config), config.builds_on)
        return None

    def _source(self, name: str, config: SourceConfig, selection: Selection = EVERYTHING) -> Source:
        jobs = config.jobs if isinstance(config, PostgresConfig) else "auto"
        engine = engine_of(config, self.config, self.ports.now, selection)
        return Source(
            name=name,
            engine=engine,
            deadline_s=config.deadline.total_seconds(),
            jobs=None if jobs == "auto" else jobs,
            labels=dict(config.labels),
            replacer=replacer_of(config, self.config),
            odd_fall=self.odd_fall(name),
            chaining=self._chaining(config),
            narrowed=None if selection.everything else engine.narrowed,
        )

    def odd_fall(self, source: str) -> float | None:
        """Return by what share rows or bytes of a source may fall before a backup is odd; None: it never is."""
        config = self.config.sources.get(source)
        return ((config and config.oddness) or self.config.oddness).fall

    def policies(self, names: Sequence[str] = ()) -> dict[str, Policy]:
        """Return what to keep of each configured source, or of those named; needs no secret of theirs."""
        general = self.config.retention
        return {name: (self.config.sources[name].retention or general).policy() for name in self._chosen(names)}

    def target(self, source: str, backup: Backup, selection: Selection = EVERYTHING) -> Source:
        """Return the configured source itself, as a restore target for a backup or a part of it."""
        if source not in self.config.sources:
            raise ConfigError(
                f"{source} is in the store but not in the configuration, so drd does not know where to restore it",
                subject=source,
                hint=f"add it below sources, or say where: drd restore --at … --source {source} --into URL",
            )
        config = self.config.sources[source]
        if config.type != backup.engine:
            raise ConfigError(
                f"{source} is {config.type} in the configuration but its backup {backup.id} is {backup.engine}",
                subject=source,
                hint="restore it elsewhere with --into URL",
            )
        return self._source(source, config, selection)

    def target_at(
        self, url: str, source: str, backup: Backup, password: Secret | None, selection: Selection = EVERYTHING
    ) -> Source:
        """Return a target at ``url``; what the URL does not say is taken from the configured source."""
        kind = engine_kind_of(url)
        if kind != backup.engine:
            raise ConfigError(
                f"{source} is a {backup.engine} backup and cannot go into {url.split('://', maxsplit=1)[0]}://…",
                subject=source,
                hint=f"use a {'/'.join(s for s, k in _SCHEMES.items() if k == backup.engine)} URL or a directory",
            )
        return self._source(source, self._config_at(url, source, kind, password), selection)

    def _config_at(self, url: str, source: str, kind: EngineKind, password: Secret | None) -> SourceConfig:
        from pydantic import TypeAdapter, ValidationError

        known = self.config.sources.get(source)
        values: dict[str, Any] = {}
        if known is not None and known.type == kind:
            values = {name: getattr(known, name) for name in known.model_fields_set}
        values |= {"type": kind, "url": url}
        values.pop("databases", None)
        if kind == "postgres" and urlsplit(url).path in {"", "/"}:
            values["databases"] = "all"
        if password is not None:
            values["password"] = SecretRef("inline", password.reveal(), {})
        try:
            return TypeAdapter(SourceConfig).validate_python(values)
        except ValidationError as error:
            text = "; ".join(
                str(item["msg"]).removeprefix("Value error, ") for item in error.errors(include_input=False)
            )
            raise ConfigError(
                f"--into: {text}", hint="give the password by --password-env or --password-file"
            ) from None

    def close(self) -> None:
        """Release connections; idempotent."""
        self.ports.store.close()


def backup_format(kind: str) -> Format:
    """Return what knows backups of this kind at rest."""
    if kind == "postgres":
        from drd.engines.postgres.format import PostgresFormat

        return PostgresFormat()
    if kind == "redis":
        from drd.engines.redis.format import RedisFormat

        return RedisFormat()
    from drd.engines.clickhouse.format import ClickHouseFormat

    return ClickHouseFormat()


def _store(
    config: Config, cancel: CancelToken, on_retry: Callable[[str], None] | None, counts: StoreCounts | None
) -> Store:
    """Stack the wrappers around the store, in the one place that knows their order."""
    from drd.stores.times import ignore_skew
    from drd.stores.wrappers.retry import Retry, RetryPolicy, RetryStore

    settings = config.store
    store: Store
    on_skew: Callable[[float], None] = ignore_skew if counts is None else counts.skewed
    if counts is not None:
        counts.skewed(None)  # after a reload it is another store, perhaps
    if isinstance(settings, S3StoreConfig):
        from drd.stores.s3 import S3Settings, S3Store
        from drd.stores.s3_settings import ObjectLock

        lock = settings.object_lock

        store = S3Store(
            S3Settings(
                bucket=settings.bucket,
                prefix=settings.prefix,
                endpoint_url=settings.endpoint_url,
                region=settings.region,
                access_key_id=resolved(settings.access_key_id),
                secret_access_key=resolved(settings.secret_access_key),
                session_token=resolved(settings.session_token),
                addressing_style=settings.addressing_style,
                ca_file=settings.ca_file,
                server_side_encryption=settings.server_side_encryption,
                kms_key_id=settings.kms_key_id,
                storage_class=settings.storage_class,
                object_lock=ObjectLock(lock.mode, config.lock_days) if lock else None,
                connect_timeout_s=settings.connect_timeout.total_seconds(),
                read_timeout_s=settings.read_timeout.total_seconds(),
                max_connections=32,
            ),
            on_skew=on_skew,
        )
        patience_s = settings.patience.total_seconds()
    else:
        from drd.stores.local import LocalStore

        store, patience_s = LocalStore(settings.path, on_skew=on_skew), DEFAULT_PATIENCE_S
    if counts is not None:
        from drd.stores.wrappers.metered import MeteredStore

        store = MeteredStore(store, counts)
    if settings.max_bandwidth:
        from drd.stores.wrappers.throttle import ThrottleStore

        store = ThrottleStore(store, settings.max_bandwidth, cancel=cancel, small_bytes=UNTHROTTLED_BYTES)

    def told(retry: Retry) -> None:
        if counts is not None:
            counts.retry(_OPERATIONS[retry.operation])
        if on_retry is not None:
            on_retry(f"{retry.error.message}; trying again for up to {patience_s:.0f} s")

    return RetryStore(store, cancel=cancel, policy=RetryPolicy(patience_s=patience_s), on_retry=told)


def _codec(config: Config) -> Codec:
    level = config.pipeline.level
    if config.encryption is None:
        return Codec(level)
    references = config.encryption.identity

    def identities() -> tuple[Secret, ...]:
        """Read the identity files when something is to be decrypted; backing up needs none of them."""
        return tuple(
            Secret(line.strip())
            for reference in references
            for line in reference.resolve().reveal().splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        )

    return Codec(level, config.encryption.recipients, identities if references else ())


def _signing(config: Config) -> Signing:
    settings, sealing = config.signing, None
    if config.encryption is not None:
        sealed = frozenset(name for name, source in config.sources.items() if not source.writes_in_the_clear)
        sealing = Sealing(config.encryption.accept_clear_before, sealed)
    if settings is None:
        return Signing(sealing=sealing)
    trust = Trust(
        public_keys=settings.public_keys,
        accept_unsigned_before=settings.accept_unsigned_before,
        repository_id=settings.repository,
    )
    private_key = settings.private_key
    return Signing(private_key.resolve if private_key else None, trust if settings.public_keys else None, sealing)


def _tuning(config: Config) -> Tuning:
    workers = config.pipeline.workers
    return Tuning(
        workers=min(max(os.cpu_count() or 1, 2), MAX_AUTO_WORKERS) if workers == "auto" else workers,
        part_size_bytes=config.pipeline.part_size,
        memory_limit_bytes=config.pipeline.memory,
        spool_root=config.spool.dir,
        spool_limit_bytes=config.spool.limit,
        jobs=min(max(os.cpu_count() or 1, 2), MAX_AUTO_WORKERS),
        lease_ttl_s=config.daemon.lease.total_seconds(),
    )
