"""What every scratch runtime promises, on real servers of every engine."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from devstack.workspace import Workspace
from drd.cancel import CancelToken
from drd.errors import Cancelled, ScratchError
from drd.model import EngineKind
from tests.support.scratch_clients import Refused, listener, login, query, reach_out, redis_client
from tests.support.scratch_sites import ENGINES, DockerSite, KubernetesSite, ProcessSite, same_release, spec
from tests.support.services import present

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
Site = ProcessSite | DockerSite | KubernetesSite


@pytest.fixture(scope="module")
def process_site(workspace: Workspace) -> ProcessSite:
    """Give the site of plain processes."""
    folder = workspace.directory("scratch")
    folder.chmod(0o711)  # the servers' own users pass through
    with present():
        return ProcessSite(folder / "root")


@pytest.fixture(scope="module")
def docker_site(docker_host: str) -> DockerSite:
    """Give the site of containers."""
    with present():
        return DockerSite(docker_host)


@pytest.fixture(scope="module")
def kubernetes_site(docker_host: str, workspace: Workspace) -> Iterator[KubernetesSite]:
    """Give the site of pods."""
    with present():
        found = KubernetesSite(docker_host, workspace.directory("kubernetes"))
    yield found
    found.api.close()


@pytest.fixture(params=["process", "docker", "kubernetes"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Give each runtime's site in turn, and see that a test leaves nothing behind."""
    found: Site = request.getfixturevalue(f"{request.param}_site")
    yield found
    left = found.leftovers()
    found.runtime(later_s=1e6).reap()  # so that one failure stays one
    assert left == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_lives_as_long_as_its_block(site: Site, engine: EngineKind):
    """It answers to its password alone, in the version asked for, says its limits, runs commands, and is gone."""
    with site.runtime().start(spec(engine), CancelToken()) as server:
        endpoint = server.endpoint
        password = endpoint.password.reveal()
        assert (endpoint.engine, same_release(engine, endpoint.version)) == (engine, True)
        assert login(engine, endpoint.url, password) == "2"
        for wrong in ("", "wrong"):
            with pytest.raises(Refused):
                login(engine, endpoint.url, wrong)
        assert password not in repr(endpoint)
        assert endpoint.environment["memory"] == "1.0 GiB"
        assert endpoint.environment["runtime"] == site.name
        assert endpoint.connect
        code, said = server.run(["sh", "-c", 'echo "$DRD_SCRATCH_URL $DRD_SCRATCH_PASSWORD"; exit 3'], CancelToken())
        assert (code, said.split()[1]) == (3, password)
        assert urlsplit(said.split()[0]).scheme == urlsplit(endpoint.url).scheme
        assert server.death() == ""
        assert server.log() != ""
    with pytest.raises((Refused, OSError)):
        login(engine, endpoint.url, password)


def test_a_container_reaches_this_host_and_nobody_else(docker_site: DockerSite):
    """Its network is internal: a neighbour on another network is out of reach, and drd's own listener is not."""
    with (
        docker_site.runtime().start(spec("redis"), CancelToken()) as server,
        docker_site.runtime().start(spec("redis"), CancelToken()) as neighbour,
    ):
        assert docker_site.is_internal(server.endpoint.name)
        with listener(server.endpoint.listen_host) as (port, came):
            reach_out(server.endpoint, server.endpoint.listen_host, port)
        assert came != []
        client = redis_client(neighbour.endpoint.url, neighbour.endpoint.password.reveal())
        before = client.info("stats")["total_connections_received"]
        reach_out(server.endpoint, str(urlsplit(neighbour.endpoint.url).hostname), 6379)
        assert client.info("stats")["total_connections_received"] == before


def test_clickhouse_reads_from_drd_and_keeps_expired_rows(site: Site):
    """It reaches a listener of drd's; TTL merges are off; an external engine comes back from a backup as nothing."""
    with site.runtime().start(spec("clickhouse"), CancelToken()) as server:
        url, password = server.endpoint.url, server.endpoint.password.reveal()
        with listener(server.endpoint.listen_host) as (port, came):
            reach_out(server.endpoint, server.endpoint.listen_host, port)
        assert came != []
        number = "SELECT value FROM system.merge_tree_settings WHERE name = 'max_number_of_merges_with_ttl_in_pool'"
        assert query(url, password, number) == "0"
        query(url, password, "CREATE DATABASE d")
        query(url, password, "CREATE TABLE d.far (l String) ENGINE = URL('http://192.0.2.254/', 'LineAsString')")
        query(url, password, "BACKUP DATABASE d TO Memory('b')")
        query(url, password, "RESTORE DATABASE d AS e FROM Memory('b')")
        assert query(url, password, "SELECT engine FROM system.tables WHERE database = 'e'") == "Null"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_version_that_cannot_be_had_is_named(site: Site, engine: EngineKind):
    """The error names the release that is wanted, and says what to do."""
    with pytest.raises(ScratchError) as caught, site.runtime().start(spec(engine, version="99.9.1"), CancelToken()):
        pass
    assert "99" in caught.value.message
    assert caught.value.hint


def test_a_place_without_programs_is_named(site: Site):
    """An image, or folder of programs, that does not exist is an error that names it."""
    nowhere = "no-such-place.invalid/nothing:1"
    with pytest.raises(ScratchError) as caught, site.runtime().start(spec("redis", image=nowhere), CancelToken()):
        pass
    assert nowhere in caught.value.message


def test_a_start_that_fails_shows_the_servers_words(site: Site):
    """Whoever reads the error learns what the server said last."""
    with pytest.raises(ScratchError) as caught, site.runtime().start(spec("redis", image=site.broken()), CancelToken()):
        pass
    assert "the disk of this house is on fire" in caught.value.message


def test_an_exception_in_the_block_removes_the_server(site: Site):
    """A drill that fails leaves nothing, and its own error is what comes out."""
    with pytest.raises(ZeroDivisionError), site.runtime().start(spec("redis"), CancelToken()):
        raise ZeroDivisionError


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.6])
def test_an_interrupted_start_leaves_nothing(site: Site, after_s: float):
    """A person who gives up while the server starts gets their terminal back, and a clean machine."""
    cancel = CancelToken()
    timer = threading.Timer(after_s, cancel.cancel)
    timer.start()
    with pytest.raises(Cancelled), site.runtime().start(spec("postgres"), cancel):
        cancel.sleep(30)  # on a quick machine it was there already
    timer.join()


def test_a_cancelled_command_ends_at_once(site: Site):
    """A command beside the server does not outlive the wish to stop."""
    cancel = CancelToken()
    with site.runtime().start(spec("redis"), CancelToken()) as server:
        threading.Timer(0.3, cancel.cancel).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            server.run(["sleep", "60"], cancel)
        assert time.monotonic() - began < 10


def test_the_output_of_a_command_is_bounded(site: Site):
    """A command that never stops talking fills neither memory nor the report."""
    with site.runtime().start(spec("redis"), CancelToken()) as server:
        code, said = server.run(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"], CancelToken())
        assert (code, len(said)) == (0, 64 * 1024)


def start_owner(site: Site, *words: str) -> tuple[subprocess.Popen[bytes], list[tuple[str, str, str]]]:
    """Start another drd, as it were, that owns servers; return it and what it owns."""
    process = subprocess.Popen(
        [*site.owner(), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, json.loads(line)


def test_what_a_killed_drd_left_is_reaped(site: Site):
    """After ``kill -9`` of drd the next one removes its servers, and lets those of a drd that lives alone."""
    owner, owned = start_owner(site, *ENGINES)
    try:
        site.runtime().reap()
        for engine, (url, password, _) in zip(ENGINES, owned, strict=True):
            assert login(engine, url, password) == "2"
    finally:
        owner.kill()
        owner.wait()
    site.runtime().reap()
    assert site.leftovers() == []
    for engine, (url, password, _) in zip(ENGINES, owned, strict=True):
        with pytest.raises((Refused, OSError)):
            login(engine, url, password)


def test_a_kept_server_stays_until_it_expires(site: Site):
    """A person may look inside after drd has gone; the reaper takes it once its time is over."""
    owner, [(url, password, name)] = start_owner(site, "redis", "keep")
    assert owner.wait(30) == 0
    assert site.runtime().reap() == []
    assert login("redis", url, password) == "2"
    lines = site.runtime(later_s=601).reap()
    assert len(lines) == 1
    assert name in lines[0]
    assert "expired" in lines[0]
    with pytest.raises(Refused):
        login("redis", url, password)


def test_too_much_memory_ends_the_server_and_is_named(site: Site):
    """A restore that outgrows its memory is told apart from a damaged backup."""
    with site.runtime().start(spec("redis", memory_bytes=64 << 20), CancelToken()) as server:
        client = redis_client(server.endpoint.url, server.endpoint.password.reveal())
        client.config_set("maxmemory", 0)  # as for a replica, which does not mind it
        with pytest.raises(redis.ConnectionError):
            fill_redis(client)
        assert wait_for_death(server.death).count("memory")


def test_too_much_disk_ends_the_server_and_is_named(site: Site):
    """A restore does not fill the disk of the host."""
    with site.runtime().start(spec("postgres", disk_bytes=200 << 20), CancelToken()) as server:
        with pytest.raises(psycopg.OperationalError):
            fill_postgres(server.endpoint.url, server.endpoint.password.reveal())
        assert wait_for_death(server.death).count("disk")


def test_a_backup_that_cannot_fit_is_refused_before_the_start(site: Site):
    """Nobody waits an hour to learn that the disk was too small."""
    with (
        pytest.raises(ScratchError, match="cannot fit"),
        site.runtime().start(spec("postgres", size_bytes=3 << 30), CancelToken()),
    ):
        pass


def test_the_check_says_what_could_be_started(site: Site):
    """Every engine has a line, and here all of them are well."""
    items = site.runtime().check()
    assert {item.outcome for item in items} == {"ok"}, items
    assert all(any(engine in item.name for item in items) for engine in ENGINES)


def fill_redis(client: redis.Redis) -> None:
    """Write 200 MB, at a pace that a watch can follow."""
    for number in range(200):
        client.set(f"k{number}", os.urandom(1 << 20))
        time.sleep(0.01)


def fill_postgres(url: str, password: str) -> None:
    """Write 2 GB, at a pace that a watch can follow."""
    with psycopg.connect(url, password=password) as connection:
        for number in range(100):
            text = f"CREATE TABLE t{number} AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 20000) i"
            connection.execute(text)
            time.sleep(0.05)


def wait_for_death(death, within_s: float = 15.0) -> str:
    """Return why the server died, once somebody has noticed."""
    until = time.monotonic() + within_s
    while not (said := death()) and time.monotonic() < until:
        time.sleep(0.05)
    return said
