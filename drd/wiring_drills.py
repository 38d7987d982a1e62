"""What drills need of a configuration: their plans, scratch runtimes, and engines bound to scratch servers alone.

No function here takes a URL or reads one, or a password, of a configured source: an engine of a drill is bound to the
endpoint that a scratch runtime made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from drd import wording
from drd.config import Config
from drd.config_drills import DrillConfig, RuntimeName
from drd.config_suite import load_suite
from drd.drills.suite import DEFAULT_NAME, Drill, Suite
from drd.errors import ConfigError, ScratchError
from drd.model import Backup, CheckItem, EngineKind, ScratchEndpoint
from drd.ops.trial import Bind, Bound

if TYPE_CHECKING:  # runtimes are imported when a drill wants one
    from drd.protocols import ScratchRuntime

SCRATCH_FOLDER = "drd-scratch"


def plans(config: Config, names: Sequence[str], stored: Sequence[str]) -> list[tuple[Drill, RuntimeName]]:
    """Return the configured drills, or those named, each with its runtime; the default one where none is configured.

    ``stored`` are the sources that the store knows: what is drilled where the configuration names none. Raises
    ConfigError for a drill or a source that is not there, and for a suite that is not right.
    """
    configured = dict(config.drills) or {DEFAULT_NAME: DrillConfig()}
    for name in names:
        if name not in configured:
            raise ConfigError(f"no drill is called {name}", subject=name, hint=f"drills: {', '.join(configured)}")
    everything = tuple(config.sources) or tuple(stored)
    out: list[tuple[Drill, RuntimeName]] = []
    for name in dict.fromkeys(names or configured):
        settings = configured[name]
        suite = load_suite(settings.suite) if settings.suite else Suite()
        drill = settings.drill(name, everything, suite)
        for source in (*drill.sources, *suite.by_source):
            if source not in {*config.sources, *stored}:
                where = "sources" if source in drill.sources else "suite"
                known = ", ".join([*config.sources, *(s for s in stored if s not in config.sources)]) or "none"
                raise ConfigError(
                    f"drills.{name}.{where}: no source is called {source}", subject=name, hint=f"sources: {known}"
                )
        out.append((drill, settings.runtime))
    return out


def scratch_runtime(config: Config, name: RuntimeName) -> ScratchRuntime:
    """Return a runtime; ``auto`` is pods where drd runs in one, else docker where an engine answers, else processes."""
    if name == "docker":
        return _docker(config)
    if name == "kubernetes":
        return _kubernetes(config)
    if name == "auto":
        from drd.scratch.kubernetes_api import in_a_pod

        if in_a_pod():
            return _kubernetes(config)
        docker = _docker(config)
        if docker.check()[0].outcome == "ok":
            return docker
    from drd.scratch.process import ProcessRuntime

    return ProcessRuntime(
        config.scratch.dir or Path(tempfile.gettempdir()) / SCRATCH_FOLDER,
        now=lambda: datetime.now(UTC),
        programs=dict(config.scratch.programs),
        run_as=config.scratch.user,
    )


def clean_scratch(config: Config, only: RuntimeName | None) -> list[str]:
    """Remove kept scratch servers, and what killed drds left, of one runtime or of all; return a line for each.

    Raises ScratchError; an engine that is not there has nothing, unless it was asked for or a drill wants it.
    """
    lines: list[str] = []
    asked = {only} if only else {settings.runtime for settings in config.drills.values()}
    for name in ("process", "docker"):
        if only not in {None, "auto", name}:
            continue
        try:
            lines += scratch_runtime(config, name).reap(kept=True)
        except ScratchError:
            if name in asked:
                raise
    return lines


def check_scratch(config: Config) -> list[CheckItem]:
    """Say whether every configured drill could be run from here: its suite, and servers for the kinds of sources."""
    items: list[CheckItem] = []
    for name, settings in config.drills.items():
        try:
            suite = load_suite(settings.suite) if settings.suite else Suite()
        except ConfigError as error:
            items.append(CheckItem(f"drill {name}", "failed", error.message, error.hint))
            continue
        count = sum(map(len, (*suite.by_source.values(), *suite.by_engine.values())))
        own = f"{wording.plural(count, 'check')} of {settings.suite}" if settings.suite else "no suite of its own"
        items.append(CheckItem(f"drill {name}", "ok", own))
    wanted = {source.type for source in config.sources.values()} or set(get_args(EngineKind))
    unwanted = tuple(f" {kind}" for kind in get_args(EngineKind) if kind not in wanted)
    seen: set[str] = set()
    for name in dict.fromkeys(settings.runtime for settings in config.drills.values()):
        runtime = scratch_runtime(config, name)
        if runtime.name not in seen:
            seen.add(runtime.name)
            items += [item for item in runtime.check() if not item.name.endswith(unwanted)]
    return items


def _docker(config: Config) -> ScratchRuntime:
    from drd.scratch.docker import DockerRuntime

    settings = config.scratch.docker
    return DockerRuntime(
        now=lambda: datetime.now(UTC), host=settings.host, images=dict(settings.images), pull=settings.pull
    )


def _kubernetes(config: Config) -> ScratchRuntime:
    from drd.scratch.kubernetes import KubernetesRuntime
    from drd.scratch.kubernetes_objects import PodChoices

    settings = config.scratch.kubernetes
    return KubernetesRuntime(
        now=lambda: datetime.now(UTC),
        namespace=settings.namespace,
        context=settings.context,
        kubeconfig=settings.kubeconfig,
        images=dict(settings.images),
        choices=PodChoices(
            pull_policy=settings.pull_policy,
            pull_secrets=settings.pull_secrets,
            node_selector=dict(settings.node_selector),
            tolerations=settings.tolerations,
            priority_class=settings.priority_class,
            users=dict(settings.users),
        ),
        reach=settings.reach,
        own_address=settings.own_address,
    )


def binder(config: Config) -> Bind:
    """Return what makes engine and examiner for a scratch server; of the configuration it takes folders of tools."""

    def bind(endpoint: ScratchEndpoint, backup: Backup) -> Bound:
        if endpoint.engine != backup.engine:
            raise ScratchError(f"a {endpoint.engine} server was made for a {backup.engine} backup")
        if backup.engine == "postgres":
            return _postgres(config, endpoint, backup)
        if backup.engine == "redis":
            return _redis(config, endpoint, backup)
        return _clickhouse(endpoint)

    return bind


def _tools_dir(config: Config, backup: Backup) -> Path | None:
    """Return where the configuration keeps the client tools for backups of this source."""
    tools_dir: Path | None = getattr(config.sources.get(backup.source), "tools_dir", None)
    return tools_dir


def _postgres(config: Config, endpoint: ScratchEndpoint, backup: Backup) -> Bound:
    from drd.engines.postgres.engine import PostgresEngine
    from drd.engines.postgres.examine import PostgresExaminer
    from drd.engines.postgres.settings import ALL_DATABASES, PostgresSettings

    settings = PostgresSettings(
        endpoint.url, endpoint.password, databases=ALL_DATABASES, tools_dir=_tools_dir(config, backup)
    )
    return Bound(PostgresEngine(settings), PostgresExaminer(settings))


def _redis(config: Config, endpoint: ScratchEndpoint, backup: Backup) -> Bound:
    from drd.engines.redis.engine import RedisEngine
    from drd.engines.redis.examine import RedisExaminer
    from drd.engines.redis.settings import RedisSettings

    settings = RedisSettings(
        endpoint.url,
        password=endpoint.password,
        topology="standalone",
        holder_listen=endpoint.listen_host or "127.0.0.1",
        restore_via="auto" if endpoint.listen_host else "keys",
        tools_dir=_tools_dir(config, backup),
    )
    return Bound(RedisEngine(settings), RedisExaminer(settings))


def _clickhouse(endpoint: ScratchEndpoint) -> Bound:
    from drd.engines.clickhouse.engine import ClickHouseEngine
    from drd.engines.clickhouse.examine import ClickHouseExaminer
    from drd.engines.clickhouse.settings import ClickHouseSettings

    settings = ClickHouseSettings(
        endpoint.url,
        endpoint.password,
        mode="gateway",  # also for what a server wrote to the bucket itself: the scratch gets no keys to the store
        gateway_listen=f"{endpoint.listen_host}:0",
        merges_after_restore="stopped",
        outside="cut_off",
    )
    return Bound(ClickHouseEngine(settings), ClickHouseExaminer(settings))
