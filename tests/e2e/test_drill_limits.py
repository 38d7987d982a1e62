"""What a scratch server runs out of, and who is away: each is named, and a drill that could not go on is unverified."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.e2e.conftest import HEAVY, MARK, MakeDrill
from tests.support.drd_site import Site
from tests.support.drill_site import (
    Door,
    Runtime,
    details,
    judge,
    judged,
    recorded,
    settings_of,
    until_said,
    with_drills,
)
from tests.support.small_disk import small_disk
from tests.support.trading_site import REDIS

pytestmark = pytest.mark.faults

HeavyDrill: TypeAlias = Callable[..., Site]


@pytest.fixture
def heavy_drill(heavy: Site, scratch_root: Path, tmp_path: Path) -> HeavyDrill:
    """Give ``heavy_drill(source, runtime, **settings)``: a site over the heavy backups."""

    def make(source: str, runtime: Runtime, **settings: Any) -> Site:
        site = with_drills(heavy.at(tmp_path / "heavy"), scratch_root)
        return runtime.use(site, sources=[source], **settings)

    return make


@contextmanager
def deaf_host() -> Iterator[str]:
    """Give an address where somebody takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_memory_that_is_too_small_is_named(heavy_drill: HeavyDrill, process_runtime: Runtime) -> None:
    """The data cannot fit into the server's memory: unverified, with both sizes, as nothing is wrong with the data."""
    run = judged(heavy_drill(HEAVY[1], process_runtime, limits={"memory": "128MiB"}), "unverified", 22)
    assert "301 MiB of memory; maxmemory" in details(run)


def test_memory_that_runs_out_is_named(make_drill: MakeDrill, runtime: Runtime) -> None:
    """A server is killed for its memory in the middle of the checks: unverified, the limit named as the cause."""
    grow = (
        'export REDISCLI_AUTH=$DRD_SCRATCH_PASSWORD; say() { redis-cli -u "$DRD_SCRATCH_URL" "$@"; }; '
        "say config set maxmemory 0; for n in $(seq 40); do "
        "say eval \"for i=1,20 do redis.call('setrange',ARGV[1]..i,1000000,'x') end\" 0 \"big:$n:\"; done"
    )
    site = make_drill(REDIS, {"name": "grow it", "command": ["sh", "-c", grow]}, limits={"memory": "256MiB"})
    run = judged(runtime.use(site), "unverified", 22)
    assert run["error"]["code"] == "scratch"
    assert "the scratch server ended in the phase check, at grow it" in run["error"]["message"], details(run)
    assert "memory" in run["error"]["message"], details(run)
    assert "256 MiB" in run["error"]["message"], details(run)
    assert "limits.memory" in run["error"]["hint"]


def test_disk_that_runs_out_is_named(heavy_drill: HeavyDrill, runtime: Runtime) -> None:
    """PostgreSQL outgrows its budget of disk: unverified, the budget is named, and no row stands in the report."""
    run = judged(heavy_drill(HEAVY[0], runtime, budgets={"disk": "160MiB"}), "unverified", 22)
    assert "of disk, its limit is 160 MiB" in details(run)
    assert MARK not in str(run)


def test_a_disk_that_is_full_is_named(heavy_drill: HeavyDrill, process_runtime: Runtime, scratch_root: Path) -> None:
    """The disk below the scratch server is full: unverified with the server's own words, and no row is among them."""
    site = heavy_drill(HEAVY[0], process_runtime)
    running = site.start("drill", "now", "--json", argv=small_disk(scratch_root, "180m"))
    run = judge(site, running.finish(), "unverified", 22)
    assert "No space left on device" in details(run)
    assert MARK not in str(run)


def test_a_check_that_never_ends_uses_up_the_budget(make_drill: MakeDrill, runtime: Runtime) -> None:
    """A command hangs, with a child that left its session: unverified, the check named, and all of it ended."""
    hang = "setsid sh -c 'while :; do sleep 1; done' & sleep 3600"
    site = make_drill(REDIS, {"name": "for ever", "command": ["sh", "-c", hang]}, budgets={"time": "8s"})
    run = judged(runtime.use(site), "unverified", 22)
    assert "the budget of 8.0 s was used up in the phase check, at for ever" in details(run)
    assert run["rto_s"] < 15


def test_an_engine_that_is_down_is_named(make_drill: MakeDrill, tmp_path: Path) -> None:
    """No Docker Engine, or one that was stopped and left its socket: unverified; where it was sought, what to do."""
    stopped = tmp_path / "stopped.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(stopped))
    site = make_drill(REDIS)
    for where in (tmp_path / "never.sock", stopped):
        Runtime("docker", {"docker": {"host": f"unix://{where}"}}, list).use(site)
        run = judged(site, "unverified", 22)
        assert run["error"]["phase"] == "provision"
        assert f"cannot reach the Docker Engine at unix://{where}" in run["error"]["message"]
        assert "systemctl start docker" in run["error"]["hint"]
    settings_of(site)["runtime"] = "auto"  # then plain processes do
    assert judged(site, "passed", 0)["environment"]["runtime"] == "process"


def test_an_engine_that_dies_in_a_drill(make_drill: MakeDrill, docker_runtime: Runtime, tmp_path: Path) -> None:
    """The Docker Engine goes away under a running drill: unverified; what stays is named, the next drill takes it."""
    site = make_drill(REDIS, {"name": "take a while", "command": ["sleep", "30"]})
    door = Door(tmp_path / "door.sock", docker_runtime.settings["docker"]["host"])
    docker_runtime.use(site)
    site.config["scratch"]["docker"] = {**docker_runtime.settings["docker"], "host": door.address}
    running = site.start("drill", "now")
    until_said(running, "every key:")
    door.shut()
    assert running.finish().rc == 22
    run = recorded(site)
    assert (run["verdict"], run["error"]["code"]) == ("unverified", "scratch")
    assert "the Docker Engine does not answer" in details(run)
    assert f"cannot remove the scratch container {docker_runtime.left()[0]}" in run["error"]["hint"]
    del settings_of(site)["suite"]
    judged(docker_runtime.use(site), "passed", 0)
    assert docker_runtime.left() == []


def test_an_image_that_cannot_be_had_is_named(make_drill: MakeDrill, docker_runtime: Runtime) -> None:
    """Absent and not to be pulled, or in a registry that refuses, or never answers: unverified, the image named."""
    site = docker_runtime.use(make_drill(REDIS))
    with deaf_host() as deaf:
        for image, pull, words in (
            ("nobody/has-this:{release}", False, "the image nobody/has-this:7.0 is not here, and pulling is off"),
            ("127.0.0.1:1/away:{release}", True, "cannot pull the image 127.0.0.1:1/away:7.0"),
            (f"{deaf}/deaf:1", True, "the budget of 4.0 s was used up in the phase provision"),
        ):
            site.config["scratch"]["docker"] |= {"images": {"redis": image}, "pull": pull}
            settings_of(site)["budgets"] = {"time": "4s"}
            run = judged(site, "unverified", 22)
            assert run["rto_s"] < 15
            assert (run["error"]["code"], run["error"]["phase"]) == ("scratch", "provision")
            assert words in run["error"]["message"]
            assert run["error"]["hint"]


def test_an_identity_of_somebody_else(make_drill: MakeDrill, tmp_path: Path) -> None:
    """What is stored cannot be opened with the identity at hand: unverified, since the bytes may well be right."""
    site = make_drill(REDIS)
    other = tmp_path / "other.txt"
    site("keygen", "--output", str(other)).succeeds()
    site.config["encryption"]["identity"] = {"file": str(other)}
    run = judged(site, "unverified", 22)
    assert "identity" in details(run)
