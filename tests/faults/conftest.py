"""Databases whose data takes a while to move, and sites with a slow store: work that can be hit in its middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pyrage
import pytest

from devstack.clickhouse import ClickHouse
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.server import private_file
from devstack.workspace import Workspace
from tests.faults.subjects import ClickHouseSubject, PostgresSubject, RedisSubject, Subject
from tests.support.drd_site import Site

MakeSite: TypeAlias = Callable[..., Site]
RestoreSite: TypeAlias = Callable[[Subject], Site]
MEGABYTES = 16.0
SLOW = "2MiB"


@pytest.fixture(scope="package")
def pg(workspace: Workspace, postgres: Postgres) -> Iterator[PostgresSubject]:
    """Give the PostgreSQL subject, on a server of its own (``postgres`` is asked for so that a missing one skips)."""
    server = Postgres(workspace, name="postgres-faults", settings={"shared_buffers": "32MB"}).start()
    subject = PostgresSubject(server)
    subject.fill(2 * MEGABYTES)  # more than drd buffers, as the spool comes on top
    yield subject
    server.remove()


@pytest.fixture(scope="package")
def redis_pair(workspace: Workspace, redis_source: Redis) -> Iterator[RedisSubject]:
    """Give the Redis subject, on servers of its own (``redis_source`` is asked for so that a missing Redis skips)."""
    servers = [Redis(workspace, name=name).start() for name in ("redis-faults", "redis-faults-target")]
    subject = RedisSubject(*servers)
    subject.fill(MEGABYTES)
    yield subject
    for server in servers:
        server.remove()


@pytest.fixture(scope="package")
def clickhouse(workspace: Workspace, clickhouse_target: ClickHouse) -> Iterator[ClickHouseSubject]:
    """Give the ClickHouse subject, on a server of its own."""
    server = ClickHouse(workspace, name="clickhouse-faults").start()
    subject = ClickHouseSubject(server, clickhouse_target)
    subject.fill(MEGABYTES)
    yield subject
    subject.clear()
    server.remove()


@pytest.fixture(params=["pg", "redis", "clickhouse"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Give each subject in turn, its target empty before and after."""
    wanted: Subject = request.getfixturevalue("redis_pair" if request.param == "redis" else request.param)
    if isinstance(wanted, RedisSubject):
        wanted.refill(MEGABYTES)  # others kill that server, or give it less
    wanted.clear()
    yield wanted
    wanted.clear()


def new_site(folder: Path, *subjects: Subject, store: dict[str, object] | None = None) -> Site:
    """Make a site with an age key and a local store, unless told another, in small parts."""
    folder.mkdir(parents=True, exist_ok=True)
    key = pyrage.x25519.Identity.generate()
    private_file(folder / "identity.txt", f"{key}\n")
    config = {
        "store": store or {"type": "local", "path": str(folder / "store")},
        "encryption": {"recipients": [str(key.to_public())], "identity": {"file": str(folder / "identity.txt")}},
        "pipeline": {"part_size": "1MiB", "memory": "8MiB", "workers": 2},
        "spool": {"dir": str(folder / "spool"), "limit": "16MiB"},
        "sources": {subject.name: subject.source() for subject in subjects},
    }
    env = {name: value for subject in subjects for name, value in subject.environment().items()}
    return Site(folder, config, env=env, secrets=[*env.values(), str(key)])


@pytest.fixture
def make_site(tmp_path: Path) -> MakeSite:
    """Give ``make_site(*subjects, store=None)``: a site with a key and an empty store."""

    def make(*subjects: Subject, store: dict[str, object] | None = None, name: str = "site") -> Site:
        return new_site(tmp_path / name, *subjects, store=store)

    return make


@pytest.fixture(scope="package")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Subject], Site]:
    """Give a function that returns a site with one backup of a subject, taken once; tests only restore from it."""
    sites: dict[str, Site] = {}

    def of(subject: Subject) -> Site:
        if subject.name not in sites:
            sites[subject.name] = new_site(tmp_path_factory.mktemp(subject.name), subject)
            sites[subject.name]("backup", "now").succeeds()
        return sites[subject.name]

    return of


@pytest.fixture
def restore_site(backed_up: Callable[[Subject], Site], tmp_path: Path) -> Callable[[Subject], Site]:
    """Give a function that returns a site of the test's own over the store with one backup of a subject."""

    def of(subject: Subject) -> Site:
        return backed_up(subject).at(tmp_path / "restore", spool={"dir": str(tmp_path / "spool"), "limit": "16MiB"})

    return of


FASTER = "8MiB"


def slow_down(site: Site, rate: str | None = SLOW) -> None:
    """Limit the store's bandwidth from the next run on; None takes the limit away."""
    site.config["store"].pop("max_bandwidth", None)
    if rate:
        site.config["store"]["max_bandwidth"] = rate


def spools(site: Site) -> list[str]:
    """Return the names of what lies in the site's spool folder."""
    folder = Path(site.config["spool"]["dir"])
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.fixture
def small_redis(redis_source: Redis, redis_target: Redis) -> RedisSubject:
    """Give the session's Redis with half a megabyte: a backup that takes no time."""
    subject = RedisSubject(redis_source, redis_target)
    subject.fill(0.5)
    return subject
