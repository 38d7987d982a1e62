"""``restore --replace`` of a primary that Sentinels watch: they wait, whatever happens, and watch on as before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.redis_groups import RedisSentinel
from devstack.workspace import Workspace
from tests.support.daemons import wait_until
from tests.support.drd_site import Site
from tests.support.redis_world import ChangedRedis, digest
from tests.support.replace_site import DIED, hurt, replace_site
from tests.support.services import present

pytestmark = pytest.mark.faults

INFO_MS = 500
"""How often the Sentinels ask for INFO: so they take a primary that plays a replica for failed after two seconds."""


class World(ChangedRedis):
    """A primary, its replica and three Sentinels that are quick to fail over; backed up, and changed since."""

    def __init__(self, group: RedisSentinel, site: Site) -> None:
        self.group = group
        super().__init__(group.primary, site, keys=20)

    def as_before(self, settings: dict[str, str]) -> None:
        """Demand that nobody failed over, and that every Sentinel is as quick to do it as it was."""
        assert self.settings() == settings
        for node in self.group.sentinels:
            with node.client() as client:
                state = client.sentinel_master(self.group.service)
            assert (state["port"], state["down-after-milliseconds"]) == (self.group.primary.port, 1000)
            assert not state["is_sdown"]
            assert "+switch-master" not in node.log_path.read_text(encoding="utf-8")
        wait_until("the replica to follow", lambda: digest(self.group.replicas[0]) == self.state())


@pytest.fixture(scope="module")
def group(workspace: Workspace) -> Iterator[RedisSentinel]:
    """Give a group that may be hurt."""
    with present():
        made = RedisSentinel(workspace, replicas=1, sentinels=3)
        for server in (made.primary, *made.replicas):
            server.options["enable-debug-command"] = "local"
        made.start()
    for node in made.sentinels:
        with node.client() as client:
            client.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", INFO_MS)
    yield made
    made.remove()


@pytest.fixture
def world(group: RedisSentinel, tmp_path: Path) -> World:
    """Give the group, filled, backed up, and changed after that."""
    host, port = group.addresses[0]
    source = {"type": "redis", "url": f"redis://{host}:{port}", "sentinel_master": group.service}
    return World(group, replace_site(tmp_path, "cache", source, group.password))


def test_a_long_swap_is_no_failure(world: World) -> None:
    """Writes held and a replica's role for longer than the Sentinels have patience: no failover; undo goes back."""
    before = world.settings()
    assert "have 3 sentinel(s) wait" in world.site(*world.replace, "--dry-run").succeeds().out
    done = hurt(world.site, "wait", "drd.engines.redis.swap:wait_for_load:1", *world.replace, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.state() == world.backed_up
    world.as_before(before)
    restore = world.site("restore", "list", "--json").succeeds().json["restores"][0]["restore"]
    done = hurt(world.site, "wait", "drd.ops.replace:back_up_under:1", "restore", "undo", restore)
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.state() == world.changed
    world.as_before(before)


def test_killed_in_the_swap(world: World) -> None:
    """Killed: the Sentinels wait for who comes next, who gives the primary its role and them their haste again."""
    before = world.settings()
    assert hurt(world.site, "kill", "drd.engines.redis.swap:wait_for_load:1", *world.replace).returncode == DIED
    time.sleep(3)  # longer than the Sentinels would wait
    (record,) = world.site("restore", "list", "--json").succeeds().json["restores"]
    world.site("restore", "undo", record["restore"]).succeeds()
    assert world.state() == world.changed
    world.as_before(before)


def test_a_sentinel_that_does_not_answer(world: World) -> None:
    """One that is away might fail the primary over: refused by name, untouched."""
    before = world.settings()
    away = world.group.sentinels[2]
    away.kill()
    try:
        world.site(*world.replace).fails(13, f"{away.host}:{away.port}", hint="every Sentinel of this primary")
        assert (world.state(), world.settings()) == (world.changed, before)
    finally:
        away.start()
