"""drd's own image, built by its Dockerfile and run by a real Docker Engine beside the platform's real servers."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devstack.ports import free_port
from drd.scratch.marking import MARK
from tests.e2e.conftest import MakeSite
from tests.support.container_site import UID, ContainerSite
from tests.support.drd_site import ROOT
from tests.support.services import present
from tests.support.system_calls import allowed_calls, seccomp_profile
from tests.support.trading_site import SOURCES, Targets

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]  # a first build fetches packages


@pytest.fixture(scope="session")
def image(docker_host: str) -> str:
    """Give the name of the image, built from this tree."""
    from devstack.drd_image import drd_image

    with present():
        return drd_image(docker_host)


@pytest.fixture
def contained(make_site: MakeSite, image: str, docker_host: str) -> ContainerSite:
    """Give a site whose drd runs in containers."""
    return ContainerSite(make_site(), image, docker_host)


def test_the_platform_is_backed_up_restored_and_drilled_from_inside(
    contained: ContainerSite, targets: Targets, docker_host: str
) -> None:
    """With a user id that nobody knows and a read-only root, every source goes out, back, in place, and is proven."""
    from tests.support.scratch_sites import DockerSite

    checked = contained("check").succeeds()
    assert "pg_dump" in checked.out
    contained("backup", "now").succeeds()
    for source in SOURCES:
        contained("restore", "--at", "now", "--source", source, "--into", targets.url(source)).succeeds()
        assert targets.found(source) == targets.expected(source)

    live = contained.config["sources"]
    contained.config["sources"] = targets.sources()
    for line in contained("restore", "--at", "now", "--replace", "--json").succeeds().json["restores"]:
        assert line["replaced"], line
        assert targets.found(line["source"]) == targets.expected(line["source"])
        contained("restore", "drop-old", line["replaced"]["restore"]).succeeds()
    contained.config["sources"] = live

    engine = DockerSite(docker_host)
    socket = Path(urlsplit(docker_host).path)
    contained.options = [f"--volume={socket}:{socket}", f"--group-add={socket.stat().st_gid}"]
    contained.config["scratch"] = {"docker": {"host": docker_host, "images": dict(engine.images), "pull": False}}
    contained.config["drills"] = {"nightly": {"runtime": "docker", "limits": {"memory": "1GiB"}}}
    document = contained("drill", "now", "--json").succeeds().json
    assert [(run["source"], run["verdict"]) for run in document["runs"]] == [(name, "passed") for name in SOURCES]
    for run in document["runs"]:
        assert contained.ask("ps", "--all", "--quiet", f"--filter=label={MARK}.label.run={run['run']}") == ""


def test_it_holds_what_is_needed_and_nothing_to_build_with(contained: ContainerSite) -> None:
    """No root, no compiler, no pip, no Perl modules; the tools that drd and its runbooks call are there and run."""
    assert contained.inside("id", "-u").stdout.strip() == str(UID)
    assert contained.ask("image", "inspect", "--format={{.Config.User}}", contained.image) == "10001:0"
    for tool in ("pg_dump", "psql", "pg_restore", "redis-server", "redis-check-rdb", "age", "zstd", "tini"):
        assert contained.inside(tool, "--version").returncode == 0, tool
    for absent in (
        "gcc",
        "cc",
        "make",
        "pip",
        "pip3",
        "/opt/drd/bin/pip",
        "curl",
        "/usr/bin/perl5.36-x86_64-linux-gnu",
    ):
        assert contained.inside("sh", "-c", f"command -v {absent}").returncode != 0, absent
    assert contained.inside("touch", "/opt/drd/x").returncode != 0
    assert contained.inside("find", "/", "-xdev", "-perm", "/6000", "-user", "0", "-path", "/opt/*").stdout == ""
    labels = contained.ask("image", "inspect", "--format={{json .Config.Labels}}", contained.image)
    assert "org.opencontainers.image.licenses" in labels
    stopped = contained("--version").succeeds()
    assert stopped.out.startswith("drd ")


def test_the_system_calls_that_the_service_may_make_are_enough(contained: ContainerSite) -> None:
    """What config/systemd lets drd call, enforced by the kernel, does for a backup of each source; less is named."""
    with present():
        allowed = allowed_calls(ROOT / "config" / "systemd" / "drd.service")
    assert "capset" in allowed
    assert not {"setuid", "mount", "chroot", "bpf"} & allowed
    contained.options = [f"--security-opt=seccomp={seccomp_profile(contained.folder, allowed)}"]
    contained("backup", "now").succeeds()
    contained.options = [f"--security-opt=seccomp={seccomp_profile(contained.folder, allowed - {'capset'})}"]
    contained("backup", "now", "trading-postgres").fails(13, "cannot be run", "Operation not permitted")


def test_a_container_that_is_stopped_undoes_what_it_began(contained: ContainerSite) -> None:
    """SIGTERM reaches drd through the init process: exit 130, no backup, and nothing left in the store."""
    contained.config["store"]["max_bandwidth"] = "64KiB"
    name = f"drd-under-test-{time.time_ns()}"
    running = contained.start("backup", "now", "trading-postgres", argv=[f"--name={name}"])
    parts = contained.store_dir / "backups" / "trading-postgres"
    until = time.monotonic() + 60
    while not list(parts.rglob("*.age")):
        assert running.process.poll() is None, running.finish().described
        assert time.monotonic() < until
        time.sleep(0.05)
    contained.ask("stop", "--time=30", name)
    run = running.finish()
    assert run.rc == 130, run.described
    assert not list(parts.rglob("manifest.json"))
    assert not list(parts.rglob("*.age"))
    contained.config["store"].pop("max_bandwidth")
    contained("backup", "now", "trading-postgres").succeeds()
    shutil.rmtree(contained.store_dir)


def test_the_daemon_lives_in_a_container(contained: ContainerSite) -> None:
    """It takes a backup by its schedule, is found alive by the image's own health check, and ends well when stopped."""
    port = free_port()
    contained.config["schedules"] = {"often": {"interval": "5s", "sources": ["trading-redis"]}}
    contained.config["daemon"] = {"listen": f"127.0.0.1:{port}"}
    name = f"drd-under-test-{time.time_ns()}"
    running = contained.start("daemon", argv=[f"--name={name}", f"--env=DRD_DAEMON__LISTEN=127.0.0.1:{port}"])
    backups = contained.store_dir / "backups" / "trading-redis"
    until = time.monotonic() + 90
    while not list(backups.rglob("manifest.json")):
        assert running.process.poll() is None, running.finish().described
        assert time.monotonic() < until
        time.sleep(0.1)
    check = contained.ask("image", "inspect", "--format={{json .Config.Healthcheck.Test}}", contained.image)
    kind, command = json.loads(check)
    assert kind == "CMD-SHELL"
    assert contained.ask("exec", name, "sh", "-c", command) == "alive"
    contained.ask("stop", "--time=60", name)
    run = running.finish()
    assert run.rc == 0, run.described
    assert "trading-redis" in contained("list").succeeds().out
    shutil.rmtree(contained.store_dir)
