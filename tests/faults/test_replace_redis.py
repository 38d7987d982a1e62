"""``restore --replace`` of Redis: reads go on, writes wait or are refused, the old data is a backup; and faults."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from devstack.redis import Redis
from devstack.workspace import Workspace
from tests.support.drd_site import ROOT
from tests.support.redis_world import ChangedRedis
from tests.support.replace_site import DIED, hurt, reading, replace_site

pytestmark = pytest.mark.faults

REPLACE_PAGE = ROOT / "docs" / "replace.md"


class World(ChangedRedis):
    """A Redis that was backed up and changed since, and its site."""

    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.site("restore", "list", "--json").succeeds().json["restores"]
        return found


@pytest.fixture(scope="module")
def server(workspace: Workspace, redis_source: Redis) -> Iterator[Redis]:
    """Give a Redis of its own, append-only file on (``redis_source`` is asked for so that a missing one skips)."""
    made = Redis(workspace, name="redis-replace", options={"enable-debug-command": "local"}).start()
    yield made
    made.remove()


@pytest.fixture
def world(server: Redis, tmp_path: Path) -> World:
    """Give the server, filled, backed up, and changed after that."""
    with server.client() as client:
        client.replicaof("NO", "ONE")
    site = replace_site(tmp_path, "cache", {"type": "redis", "url": server.url}, server.password)
    return World(server, site, keys=40)


def test_replace_undo_and_drop(world: World) -> None:
    """A reader sees the old data, then the new; settings stay; undo brings the old back; drop-old unpins it."""
    before = world.settings()
    with world.server.client() as client, reading(lambda: client.get("who")) as reader:
        (line,) = world.site(*world.replace, "--json").succeeds().json["restores"]
    assert reader.seen == [b"changed", None]
    assert reader.failed == []
    assert world.state() == world.backed_up
    assert world.settings() == before
    (kept,) = line["replaced"]["old"]
    assert (world.site.store_dir / "pins" / "cache" / f"{kept}.json").exists()
    assert kept in [one["id"] for one in world.site("list", "--json").succeeds().json["backups"]]
    world.server.client().set("written", "after")

    undone = world.site("restore", "undo", line["replaced"]["restore"], "--json").succeeds().json
    assert world.state() == world.changed
    assert undone["state"] == "undone"
    (newer,) = undone["kept_as"]
    assert newer not in {kept, line["backup"]}
    assert world.settings() == before
    assert "like any other" in world.site("restore", "drop-old", line["replaced"]["restore"]).succeeds().out
    assert list((world.site.store_dir / "pins").rglob("*.json")) == []


def test_writes_meanwhile_are_never_lost(world: World) -> None:
    """What a client was told is written is in the old data's backup; nothing is taken between it and the swap."""
    written = []

    def write() -> None:
        with world.server.client() as client:
            client.set(f"n:{len(written)}", "x")
            written.append(len(written))

    with reading(write) as writer:
        (line,) = world.site(*world.replace, "--json").succeeds().json["restores"]
    assert written
    assert all(isinstance(error, redis.exceptions.ReadOnlyError) for error in writer.failed), writer.failed
    after = {int(key[2:]) for key in world.server.client().scan_iter("n:*")}
    world.site("restore", "undo", line["replaced"]["restore"]).succeeds()
    saved = {int(key[2:]) for key in world.server.client().scan_iter("n:*")}
    assert saved | after == set(written)


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("differ", "after:fingerprint"),
        ("fail", "drd.engines.redis.swap:compare_fingerprints:1"),
        ("fail", "drd.engines.redis.swap:wait_for_connection:1"),
    ],
)
def test_a_failure_changes_nothing(world: World, how: str, where: str) -> None:
    """A refusal, or a snapshot that is not what it was: the data, settings and role are as before."""
    before = world.settings()
    done = hurt(world.site, how, where, *world.replace)
    assert done.returncode == (20 if how == "differ" else 13), done.stdout + done.stderr
    assert world.state() == world.changed
    assert world.settings() == before
    assert world.records()[0]["state"] == "failed"
    assert list((world.site.store_dir / "pins").rglob("*.json")) == []


@pytest.mark.parametrize(
    "where", ["before:swap", "drd.engines.redis.swap:wait_for_connection:1", "drd.engines.redis.swap:wait_for_load:1"]
)
def test_killed_in_the_swap(world: World, where: str) -> None:
    """Killed: the server holds all of one data set; the next run gives it back its role and settings."""
    before = world.settings()
    assert hurt(world.site, "kill", where, *world.replace).returncode == DIED
    assert world.state() in {world.changed, world.backed_up}
    (record,) = world.records()
    assert record["interrupted"]
    world.site("restore", "undo", record["restore"]).succeeds()
    assert world.state() == world.changed
    assert world.settings() == before
    world.site(*world.replace).succeeds()
    assert world.state() == world.backed_up


def test_killed_after_the_load(world: World) -> None:
    """Killed when the new data is in: it is known to be in, and undo brings the old data back."""
    assert hurt(world.site, "kill", "drd.engines.redis.swap:promote:1", *world.replace).returncode == DIED
    assert world.state() == world.backed_up
    (record,) = world.records()
    run = world.site("restore", "undo", record["restore"]).succeeds()
    assert "had put its data in place" in run.out
    assert world.state() == world.changed


def test_interrupted_before_the_load(world: World) -> None:
    """Interrupted while the way back of an earlier restore is pinned: all is as it was, and nothing is left over."""
    world.site(*world.replace).succeeds()
    pins = list((world.site.store_dir / "pins").rglob("*.json"))
    done = hurt(world.site, "interrupt", "drd.engines.redis.swap:wait_for_connection:1", *world.replace)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "could not" not in done.stdout
    assert world.state() == world.backed_up
    assert [record["state"] for record in world.records()] == ["replaced", "failed"]
    assert list((world.site.store_dir / "pins").rglob("*.json")) == pins


def test_interrupted_after_the_load(world: World) -> None:
    """Interrupted when the new data is in: that is what is said, with the way back, and not that it was undone."""
    done = hurt(world.site, "interrupt", "drd.engines.redis.swap:wait_for_append_only_file:1", *world.replace)
    assert done.returncode == 130, done.stdout + done.stderr
    assert world.state() == world.backed_up
    (record,) = world.records()
    assert (record["state"], record["interrupted"]) == ("replaced", False)
    assert f"to go back: drd restore undo {record['restore']}" in done.stdout
    assert "had taken its place" in done.stdout
    assert "has been undone" not in done.stdout
    world.site("restore", "undo", record["restore"]).succeeds()
    assert world.state() == world.changed


def test_a_login_with_least_rights(world: World) -> None:
    """All that a login lacks is named before a client waits; the rights that the documentation names suffice."""
    rule = next(
        line for line in REPLACE_PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("ACL SETUSER")
    )
    rights = rule.replace("PASSWORD", world.server.password).split()[2:]
    backing_up = [
        right for right in rights if right in {"+ping", "+info", "+select", "+psync", "+replconf", "+restore"}
    ]
    site = world.site.at(world.site.folder / "least")
    site.sources["cache"]["username"] = "drd"
    with world.server.client() as client:
        client.execute_command("ACL", "SETUSER", "drd", "reset", *rights[1:3], "~cache:*", *backing_up)
        site(*world.replace).fails(13, "may not touch every key", hint="ACL SETUSER drd ~*")
        client.execute_command("ACL", "SETUSER", "drd", "~*", "+client|pause")
        lacking = "CONFIG GET, CONFIG SET, REPLICAOF, FUNCTION LIST, DUMP, which"
        site(*world.replace, "--dry-run").fails(13, lacking, hint="+replicaof +function|list")
        assert world.state() == world.changed
        client.execute_command("ACL", "SETUSER", "drd", "reset", *rights[1:])
    restore = site(*world.replace, "--json").succeeds().json["restores"][0]["replaced"]["restore"]
    assert world.state() == world.backed_up
    site("restore", "undo", restore).succeeds()
    assert world.state() == world.changed


def test_a_writable_replica_is_refused(world: World) -> None:
    """A server that would take writes in the swap, and lose them, is refused untouched."""
    with world.server.client() as client:
        client.config_set("replica-read-only", "no")
        try:
            world.site(*world.replace).fails(13, "takes writes while it is a replica", hint="replica-read-only yes")
        finally:
            client.config_set("replica-read-only", "yes")
    assert world.state() == world.changed


def test_a_cluster_is_refused(redis_cluster: Any, tmp_path: Path) -> None:
    """A cluster takes no primary from outside: refused, untouched; the commands of the refusal go there and back."""
    redis_cluster.flush()
    client = redis_cluster.client()
    client.set("k", "v")
    first = redis_cluster.addresses[0]
    site = replace_site(tmp_path, "cluster", {"type": "redis", "url": f"redis://{first}"}, redis_cluster.password)
    at = site("backup", "now", "--json").succeeds().json["backups"][0]["recovery_point"]
    client.set("k", "changed")
    refused = site("restore", "--at", at, "--replace").fails(13, "cannot be replaced in place", hint="drd backup now")
    assert client.get("k") == b"changed"
    saved = site("backup", "now", "--json").succeeds().json["backups"][0]["recovery_point"]
    for to, value in ((at, b"v"), (saved, b"changed")):
        for command in (["FLUSHALL"], ["FUNCTION", "FLUSH"]):
            called = ["--cluster", "call", first, *command, "--cluster-only-masters"]
            assert f"redis-cli --cluster call {first} FLUSHALL --cluster-only-masters" in refused.hint
            subprocess.run(
                [str(redis_cluster.nodes[0].program.with_name("redis-cli")), *called],
                env={"REDISCLI_AUTH": redis_cluster.password, "PATH": "/usr/bin:/bin"},
                check=True,
                capture_output=True,
            )
        site("restore", "--at", to).succeeds()
        assert client.get("k") == value
    client.close()
    redis_cluster.flush()
