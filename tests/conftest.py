"""Real servers for tests, each started on first use and once a session; all of it goes away with pytest.

Shared, one a session: ``postgres``, ``redis_source``, ``redis_target``, ``clickhouse_source``, ``clickhouse_target``,
``s3``, ``redis_cluster``, ``redis_sentinel``, ``alertmanager`` with its ``mailbox``; ``aws_cli``, a program;
``docker_host``, a Docker Engine. Fresh, one a test: ``pg_database``, ``awkward``, ``empty_redis_source``,
``empty_redis_target``, ``clickhouse_database``, ``bucket``. For tests that break a server: the factories
``start_postgres``, ``start_redis``, ``start_clickhouse``, ``start_s3``, whose servers end with the test.

A service that is missing skips its tests on a developer's machine and fails them where ``CI=true``.
``python -m devstack obtain`` gets them all.
"""

from __future__ import annotations

import fcntl
import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest
from hypothesis import settings

from devstack import ledger, obtain
from devstack.alertmanager import Alertmanager, Mailbox
from devstack.awkward import Awkward, drop_awkward, make_awkward
from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.redis_groups import RedisCluster, RedisSentinel
from devstack.s3 import SeaweedS3
from devstack.server import Server
from devstack.workspace import Workspace
from tests.support import server_room
from tests.support.services import present

YOUNG_OBJECTS = 50_000
"""How many new objects are looked through for cycles at once, as in drd itself."""

ServerT = TypeVar("ServerT", bound=Server)

StartPostgres: TypeAlias = Callable[..., Postgres]
StartRedis: TypeAlias = Callable[..., Redis]
StartClickHouse: TypeAlias = Callable[..., ClickHouse]
StartS3: TypeAlias = Callable[..., SeaweedS3]


# How long one example takes says more of what else the machine does than of the code.
settings.register_profile("drd", deadline=None)
settings.load_profile("drd")


def pytest_configure() -> None:
    """Choose where servers have their data, for this process and all that it starts, and waste no time on cycles.

    Thousands of tests and what they import stay to the end; with Python's own 700 the collector looks through them
    again and again, for a third of the time that collecting takes.
    """
    server_room.choose(os.environ)
    gc.set_threshold(YOUNG_OBJECTS)


def pytest_report_header() -> list[str]:
    """Say which services this run has."""
    return [f"devstack: {line}" for line in (*obtain.inventory(), server_room.described())]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Let tests that wait for the same thing wait on one worker."""
    from tests.support.side_by_side import SideBySide  # pytest-xdist is there when this is called

    return SideBySide(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def workspace() -> Iterator[Workspace]:
    """Give the folder in which the session's servers live."""
    ledger.reap_abandoned()
    with Workspace.create() as made:
        yield made


@pytest.fixture(scope="session")
def postgres(workspace: Workspace) -> Postgres:
    """Give the session's PostgreSQL."""
    with present():
        return Postgres(workspace).start()


@pytest.fixture(scope="session")
def redis_source(workspace: Workspace) -> Redis:
    """Give the session's Redis to back up."""
    with present():
        return Redis(workspace, name="redis-source").start()


@pytest.fixture(scope="session")
def redis_target(workspace: Workspace) -> Redis:
    """Give the session's Redis to restore into."""
    with present():
        return Redis(workspace, name="redis-target").start()


@pytest.fixture(scope="session")
def clickhouse_source(workspace: Workspace) -> ClickHouse:
    """Give the session's ClickHouse to back up."""
    with present():
        return ClickHouse(workspace, name="clickhouse-source").start()


@pytest.fixture(scope="session")
def clickhouse_target(workspace: Workspace, clickhouse_source: ClickHouse) -> ClickHouse:
    """Give the session's ClickHouse to restore into; its ``backups`` disk is the source's."""
    with present():
        return ClickHouse(workspace, name="clickhouse-target", backups_dir=clickhouse_source.backups_dir).start()


@pytest.fixture(scope="session")
def s3(workspace: Workspace) -> SeaweedS3:
    """Give the session's S3 store."""
    with present():
        return SeaweedS3(workspace).start()


@pytest.fixture(scope="session")
def redis_cluster(workspace: Workspace) -> RedisCluster:
    """Give the session's cluster of three primaries; tests flush it before use."""
    with present():
        return RedisCluster(workspace).start()


@pytest.fixture(scope="session")
def redis_sentinel(workspace: Workspace) -> RedisSentinel:
    """Give the session's primary, replica and sentinel; tests that fail it over start their own."""
    with present():
        return RedisSentinel(workspace).start()


@pytest.fixture(scope="session")
def mailbox(workspace: Workspace) -> Mailbox:
    """Give the session's mail server; tests look for mails of their own names in it."""
    with present():
        return Mailbox(workspace).start()


@pytest.fixture(scope="session")
def alertmanager(workspace: Workspace, mailbox: Mailbox) -> Alertmanager:
    """Give the session's Alertmanager, with the configuration that drd ships."""
    with present():
        return Alertmanager(workspace, mailbox).start()


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """Give the address of a Docker Engine; one that the devstack started ends soon after its last user."""
    from devstack import docker  # the library is an extra: only who asks for an engine needs it

    with ExitStack() as stack:
        with present():
            host = stack.enter_context(docker.engine())
        yield host


@pytest.fixture(autouse=True)
def _alone_with_the_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run tests in containers one at a time on this machine: some of them remove the scratch servers of everybody."""
    by_name = "docker_host" in request.fixturenames
    parameters = getattr(getattr(request.node, "callspec", None), "params", {}).values()
    by_parameter = "docker" in parameters or "kubernetes" in parameters
    if not (by_name or by_parameter):
        yield
        return
    with (Path(tempfile.gettempdir()) / "drd-tests-docker.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def aws_cli() -> Path:
    """Give the path of the AWS command line."""
    with present():
        return obtain.aws_cli()


@pytest.fixture
def pg_database(postgres: Postgres) -> Iterator[str]:
    """Give the name of a new empty database on ``postgres``."""
    name = postgres.fresh_database()
    yield name
    postgres.drop_database(name)


@pytest.fixture
def awkward(postgres: Postgres) -> Iterator[Awkward]:
    """Give a database on ``postgres`` with everything that a careless tool loses; its roles go with the test."""
    made = make_awkward(postgres)
    yield made
    drop_awkward(postgres, made)


@pytest.fixture
def empty_redis_source(redis_source: Redis) -> Redis:
    """Give ``redis_source`` without keys."""
    redis_source.flush()
    return redis_source


@pytest.fixture
def empty_redis_target(redis_target: Redis) -> Redis:
    """Give ``redis_target`` without keys."""
    redis_target.flush()
    return redis_target


@pytest.fixture
def clickhouse_database(request: pytest.FixtureRequest, clickhouse_source: ClickHouse) -> Iterator[str]:
    """Give a database name that is on neither ClickHouse; what was made of it is dropped on both."""
    name = clickhouse_source.fresh_database()
    yield name
    clickhouse_source.query(f"DROP DATABASE IF EXISTS {name} SYNC")
    if "clickhouse_target" in request.fixturenames:
        target: ClickHouse = request.getfixturevalue("clickhouse_target")
        target.query(f"DROP DATABASE IF EXISTS {name} SYNC")


@pytest.fixture
def bucket(s3: SeaweedS3) -> Iterator[str]:
    """Give the name of a new empty bucket on ``s3``."""
    name = s3.fresh_bucket()
    yield name
    s3.drop_bucket(name)


def _factory(workspace: Workspace, kind: type[ServerT]) -> Iterator[Callable[..., ServerT]]:
    """Give a function that starts private servers with the class's own options; they end with the test."""
    started: list[ServerT] = []

    def start(**options: Any) -> ServerT:
        with present():
            server = kind(workspace, **options)
        started.append(server)
        return server.start()

    yield start
    for server in reversed(started):
        server.remove()


@pytest.fixture
def start_postgres(workspace: Workspace) -> Iterator[StartPostgres]:
    """Give a starter of private PostgreSQL servers: ``start_postgres(settings={...}, major=15)``."""
    yield from _factory(workspace, Postgres)


@pytest.fixture
def start_redis(workspace: Workspace) -> Iterator[StartRedis]:
    """Give a starter of private Redis servers: ``start_redis(append_only=False, options={...})``."""
    yield from _factory(workspace, Redis)


@pytest.fixture
def start_clickhouse(workspace: Workspace) -> Iterator[StartClickHouse]:
    """Give a starter of private ClickHouse servers."""
    yield from _factory(workspace, ClickHouse)


@pytest.fixture
def start_s3(workspace: Workspace) -> Iterator[StartS3]:
    """Give a starter of private S3 stores."""
    yield from _factory(workspace, SeaweedS3)
