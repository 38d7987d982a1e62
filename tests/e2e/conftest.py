"""The trading platform on real servers, and sites from which the ``drd`` command backs it up and restores it.

``platform`` is the session's stack with a little data, which tests read and never change. ``make_site`` makes a folder
with a ``drd.yaml``, an age key pair and a fresh store; every run of it is searched for secrets. ``backed_up`` is a
local store with one backup of each source, made once; ``copied`` is a test's own copy of it. ``targets`` are where to
restore into, empty at the start of a test and emptied after it. ``scratch_root`` is where scratch servers of
drills live; nothing may be left there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pyrage
import pytest

from devstack import truth
from devstack.postgres import Postgres
from devstack.s3 import Identity
from devstack.server import private_file
from devstack.stack import Stack
from devstack.workspace import Workspace
from tests.support.drd_site import Site
from tests.support.drill_site import left_behind
from tests.support.services import present
from tests.support.trading_site import BackedUp, Platform, Targets

MakeSite: TypeAlias = Callable[..., Site]


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
    folder = Path(tempfile.mkdtemp(prefix="drd-drill-test-"))
    folder.chmod(0o711)
    yield folder / "scratch"
    left = left_behind(folder / "scratch")
    shutil.rmtree(folder)
    assert left == []
