"""The trading platform on real servers, and sites from which the ``drd`` command backs it up and restores it.

``platform`` is the session's stack with a little data, which tests read and never change. ``make_site`` makes a folder
with a ``drd.yaml``, an age key pair and a fresh store; every run of it is searched for secrets. ``backed_up`` is a
local store with one backup of each source, made once; ``copied`` is a test's own copy of it. ``targets`` are where to
restore into, empty at the start of a test and emptied after it. ``scratch_root`` is where scratch servers of
drills live; nothing may be left there. ``runtime`` is each scratch runtime in turn, ``docker_runtime`` the one of
containers; ``make_drill`` makes a site with one drill. ``heavy`` is a backup whose data grow when they are restored.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pyrage
import pytest
import yaml

from devstack import ledger, truth
from devstack.postgres import Postgres
from devstack.s3 import Identity
from devstack.server import private_file
from devstack.stack import Stack
from devstack.workspace import Workspace
from tests.support.drd_site import Site
from tests.support.drill_site import ONE, Runtime, left_behind, with_drills
from tests.support.services import present
from tests.support.trading_site import BackedUp, Platform, Targets

MakeSite: TypeAlias = Callable[..., Site]
MakeDrill: TypeAlias = Callable[..., Site]
HEAVY, MARK = ("heavy-postgres", "heavy-redis"), "a-row-nobody-may-see"


@pytest.fixture(scope="session")
def platform(workspace: Workspace) -> Platform:
    """Give the trading platform on servers of its own, at a fiftieth of its size."""
    with present():
        stack = Stack.start(workspace)
    stack.load(0.02)
    return Platform(stack, truth.of(stack))


@pytest.fixture(scope="session")
def postgres_17(workspace: Workspace) -> Postgres:
    """Give a PostgreSQL of a newer major version than the client tools that are installed."""
    with present():
        return Postgres(workspace, name="postgres-17", major=17).start()


def new_key(folder: Path) -> tuple[str, str]:
    """Write a new age identity to ``identity.txt`` in the folder; return its recipient and itself."""
    identity = pyrage.x25519.Identity.generate()
    folder.mkdir(parents=True, exist_ok=True)
    private_file(folder / "identity.txt", f"{identity}\n")
    return str(identity.to_public()), str(identity)


@pytest.fixture
def make_site(platform: Platform, tmp_path: Path) -> Iterator[MakeSite]:
    """Give ``make_site(*sources, store="local" or "s3", identity=None)``: a site of its own, with a fresh store."""
    buckets: list[str] = []

    def make(*sources: str, store: str = "local", identity: Identity | None = None, name: str = "site") -> Site:
        folder = tmp_path / name
        if store == "s3":
            buckets.append(platform.s3.fresh_bucket("e2e"))
            where = platform.s3_store(buckets[-1], identity)
        else:
            where = {"type": "local", "path": str(folder / "store")}
        return platform.site(folder, where, sources, new_key(folder))

    yield make
    for bucket in buckets:
        platform.s3.drop_bucket(bucket)


@pytest.fixture(scope="session")
def backed_up(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> BackedUp:
    """Give a local store with one encrypted backup of each source, taken once a session."""
    folder = tmp_path_factory.mktemp("backed-up")
    site = platform.site(folder, {"type": "local", "path": str(folder / "store")}, (), new_key(folder))
    run = site("backup", "now", "--json").succeeds()
    return BackedUp(site, run, {line["source"]: line["id"] for line in run.json["backups"]})


@pytest.fixture
def copied(backed_up: BackedUp, tmp_path: Path) -> Site:
    """Give a site of the test's own whose store is a copy of ``backed_up``'s."""
    return backed_up.copy(tmp_path / "copied")


@pytest.fixture
def targets(platform: Platform) -> Iterator[Targets]:
    """Give the places to restore into, empty; they are emptied afterwards."""
    made = Targets(platform)
    made.empty()
    yield made
    made.empty()


@pytest.fixture
def scratch_root() -> Iterator[Path]:
    """Give a folder that unprivileged users can pass through; nothing may be left in it."""
    folder = Path(tempfile.mkdtemp(prefix="drd-drill-test-", dir=ledger.base_dir()))
    folder.chmod(0o711)
    yield folder / "scratch"
    left = left_behind(folder / "scratch")
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def make_drill(copied: Site, scratch_root: Path) -> MakeDrill:
    """Give ``make_drill(source, *checks, **settings)``: a site whose only drill is of one source, with such a suite."""

    def make(source: str, *checks: dict[str, Any], **settings: Any) -> Site:
        if checks:
            settings["suite"] = write_suite(copied, source, *checks)
        return with_drills(copied, scratch_root, **{ONE: {"sources": [source], "runtime": "process", **settings}})

    return make


def write_suite(site: Site, source: str, *checks: dict[str, Any], **more: Any) -> str:
    """Write a suite of checks of one source into the site's folder; return its path."""
    suite = site.folder / "suite.yaml"
    document = {"version": 1, "sources": {source: list(checks)}, **more}
    suite.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(suite)


@pytest.fixture
def process_runtime(scratch_root: Path) -> Runtime:
    """Give the runtime of plain processes."""
    return Runtime("process", {}, lambda: left_behind(scratch_root))


@pytest.fixture(scope="session")
def docker_runtime(docker_host: str) -> Runtime:
    """Give the runtime of containers, with images that are here."""
    from tests.support.scratch_sites import DockerSite  # its library is an extra

    with present():
        containers = DockerSite(docker_host)
    settings = {"docker": {"host": docker_host, "images": dict(containers.images), "pull": False}}
    return Runtime("docker", settings, containers.leftovers)


@pytest.fixture(params=["process", "docker"])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """Give each scratch runtime in turn; nothing of a test may be left in it."""
    found: Runtime = request.getfixturevalue(f"{request.param}_runtime")
    yield found
    assert found.left() == []


@pytest.fixture(scope="session")
def heavy(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a site with backups of a few MB that need hundreds of them once they are restored; copy, do not change it.

    PostgreSQL: a generated column that was short when the rows were written and is long now. Redis: long runs of one
    byte, which a snapshot compresses.
    """
    folder = tmp_path_factory.mktemp("heavy")
    database = platform.postgres.fresh_database()
    with platform.postgres.connect(database) as session:
        session.execute("CREATE FUNCTION pad(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT '' $$")
        session.execute("CREATE TABLE heavy (id int, name text, pad text GENERATED ALWAYS AS (pad(id)) STORED)")
        session.execute("ALTER TABLE heavy ALTER pad SET STORAGE EXTERNAL")
        session.execute("INSERT INTO heavy SELECT n, %s || n FROM generate_series(1, 25000) n", (MARK,))
        long = "SELECT pg_catalog.repeat(pg_catalog.md5($1::pg_catalog.text), 200)"
        session.execute(f"CREATE OR REPLACE FUNCTION pad(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ {long} $$")
    with platform.redis_target.client() as client:
        for number in range(300):
            client.setrange(f"heavy:{number}", 1_000_000, b"x")
    config = platform.sources()
    site = platform.site(folder, {"type": "local", "path": str(folder / "store")}, (), new_key(folder))
    site.config["sources"] = {
        HEAVY[0]: {**config["trading-postgres"], "url": platform.postgres.url(database)},
        HEAVY[1]: {**config["trading-redis"], "url": platform.redis_target.url},
    }
    site("backup", "now").succeeds()
    platform.redis_target.flush()
    yield site
    platform.postgres.drop_database(database)
