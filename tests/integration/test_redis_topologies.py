"""Redis over TLS, behind Sentinel and as a cluster; and the runbook, run with stock tools."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from contextlib import ExitStack

import pytest

from devstack.ports import free_port
from devstack.redis_groups import RedisCluster, RedisSentinel
from drd.engines.redis import RedisEngine, RedisFormat, RedisSettings
from drd.errors import SourceRefused, SourceUnreachable, TargetError
from drd.model import Secret, compare_fingerprints
from tests.support.bare_shell import BareShell, decoded
from tests.support.redis_world import LIBRARY, Taken, digest, engine, fill

pytestmark = pytest.mark.integration
DEBUG = {"enable-debug-command": "local"}


def fill_cluster(cluster: RedisCluster, keys: int = 3000) -> None:
    """Write keys of several types to all slots, some with a time to live, some that belong together."""
    with cluster.client() as client:
        for n in range(keys // 10):
            client.set(f"user:{n}", f"name {n}")
            client.set(f"{{account:{n}}}:balance", n, ex=3600)
            client.hset(f"{{account:{n}}}:facts", mapping={"n": n, "text": "x" * n})
        client.zadd("rank", {f"m{n}": n for n in range(500)})
    for node in cluster.nodes:
        with node.client() as client:
            client.function_load(LIBRARY, replace=True)


def cluster_engine(cluster: RedisCluster, **settings: object) -> RedisEngine:
    return RedisEngine(
        RedisSettings(
            url=f"redis://{cluster.addresses[0]}", password=Secret(cluster.password), timeout_s=20, **settings
        )
    )


@pytest.fixture
def clusters(workspace, redis_cluster):
    """The session's cluster, empty, and a second one of another shape."""
    redis_cluster.flush()
    for node in redis_cluster.nodes:
        with node.client() as client:
            client.function_flush()
    other = RedisCluster(workspace, nodes=4)
    try:
        yield redis_cluster, other.start()
    finally:
        other.remove()


def test_a_cluster_goes_into_a_cluster_of_another_shape_and_into_one_server(clusters, start_redis, tmp_path):
    """Three shards come back as four and as one: every key, expiry and library; the slot map is in the backup."""
    source, other = clusters
    fill_cluster(source)
    taken = Taken(cluster_engine(source), tmp_path)
    assert {"shard-0/dump.rdb", "shard-1/dump.rdb", "shard-2/dump.rdb", "cluster.json"} <= set(taken.artifacts)
    assert taken.result.rows == 901
    assert RedisFormat().verify(taken.backup, taken.reader, taken.context) == []
    into = cluster_engine(other)
    assert into.inspect(taken.backup, taken.reader).description.startswith("cluster of 4 primaries")
    into.restore(taken.backup, taken.reader, taken.context)
    assert (
        compare_fingerprints(taken.result.fingerprint, into.fingerprint(taken.result.fingerprint, taken.context)) == []
    )
    with other.client() as client:
        assert client.get("user:17") == b"name 17"
        assert 3500 < client.ttl("{account:5}:balance") <= 3600
        assert client.fcall("answer", 0) == 42
    single = start_redis(name="single")
    alone = engine(single)
    result = alone.restore(taken.backup, taken.reader, taken.context)
    assert "restored_key_by_key" in {n.code for n in result.notices}
    assert (
        compare_fingerprints(taken.result.fingerprint, alone.fingerprint(taken.result.fingerprint, taken.context)) == []
    )
    assert cluster_engine(other).check()[0].detail.startswith("cluster, 4 primaries")
    state = into.inspect(taken.backup, taken.reader)
    assert not state.empty
    other.flush()
    for node in other.nodes:
        node.client().function_flush()
    with pytest.raises(TargetError, match="does not replicate from outside"):
        cluster_engine(other, restore_via="replication").restore(taken.backup, taken.reader, taken.context)


def test_a_cluster_that_lacks_a_node_is_not_half_saved(workspace, tmp_path):
    """With one primary gone the backup fails; nothing looks like a backup."""
    cluster = RedisCluster(workspace, nodes=3, append_only=False).start()
    try:
        fill_cluster(cluster, keys=100)
        cluster.nodes[2].kill()
        with pytest.raises(SourceUnreachable):
            Taken(cluster_engine(cluster), tmp_path)
    finally:
        cluster.remove()


@pytest.fixture
def sentinel(workspace):
    """A private primary with a replica and a sentinel, to be failed over."""
    group = RedisSentinel(workspace)
    try:
        yield group.start()
    finally:
        group.remove()


def test_sentinel_before_and_after_a_failover(sentinel, start_redis, tmp_path):
    """The primary and its replica are found through Sentinel; after a failover the new primary is."""
    host, port = sentinel.addresses[0]

    def behind(**settings):
        return RedisEngine(
            RedisSettings(
                url=f"redis://{host}:{port}",
                password=Secret(sentinel.password),
                sentinel_master=sentinel.service,
                sentinels=("127.0.0.1:1",),
                timeout_s=10,
                **settings,
            )
        )

    fill(sentinel.primary, keys=40)
    deadline = time.monotonic() + 20
    with sentinel.primary.client() as primary, sentinel.replicas[0].client() as replica:
        while primary.dbsize() != replica.dbsize() and time.monotonic() < deadline:
            time.sleep(0.05)
    taken = Taken(behind(), tmp_path)
    assert taken.result.facts["topology"] == "sentinel"
    assert taken.result.facts["shards"][0]["role"] == "replica"
    sentinel.primary.kill()
    while sentinel.current_primary()[1] == sentinel.primary.port and time.monotonic() < deadline + 20:
        time.sleep(0.1)
    with sentinel.replicas[0].client() as promoted:
        while promoted.info("replication")["role"] != "master" and time.monotonic() < deadline + 20:
            time.sleep(0.1)
        after = Taken(behind(), tmp_path)
        assert compare_fingerprints(taken.result.fingerprint, after.result.fingerprint) == []
        promoted.flushall()
        promoted.function_flush()
    result = behind().restore(taken.backup, taken.reader, taken.context)
    assert "restored_key_by_key" in {n.code for n in result.notices}
    found = behind().fingerprint(taken.result.fingerprint, taken.context)
    assert compare_fingerprints(taken.result.fingerprint, found) == []
    wrong = RedisEngine(RedisSettings(url=f"redis://{host}:{port}", sentinel_master="nobody"))
    with pytest.raises(SourceRefused, match="no primary named nobody"):
        wrong.probe()


@pytest.fixture
def tls_options(tmp_path):
    """A certificate for 127.0.0.1 signed by itself, as server options and as the file clients trust."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    options = {
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
    }
    return options, certificate


@pytest.mark.parametrize("tls_replication", ["no", "yes"])
def test_tls(start_redis, tmp_path, tls_options, tls_replication):
    """Backup and restore over TLS; a certificate that is not trusted and a port without TLS are told apart."""
    options, certificate = tls_options
    ports = [free_port(), free_port()]
    source, target = (
        start_redis(
            name=f"tls-{n}", options=options | DEBUG | {"tls-port": str(port), "tls-replication": tls_replication}
        )
        for n, port in enumerate(ports)
    )
    fill(source, keys=40)

    def over_tls(server, port, **settings):
        settings.setdefault("ca_file", certificate)
        return RedisEngine(
            RedisSettings(url=f"rediss://127.0.0.1:{port}", password=Secret(server.password), timeout_s=10, **settings)
        )

    taken = Taken(over_tls(source, ports[0]), tmp_path)
    result = over_tls(target, ports[1]).restore(taken.backup, taken.reader, taken.context)
    assert ("restored_key_by_key" in {n.code for n in result.notices}) is (tls_replication == "yes")
    assert digest(target) == digest(source)
    with pytest.raises((SourceUnreachable, SourceRefused), match=r"certificate|CERTIFICATE"):
        over_tls(source, ports[0], ca_file=None).probe()
    with pytest.raises(SourceUnreachable):
        over_tls(source, source.port).probe()


def test_the_runbook_restores(start_redis, tmp_path):
    """The runbook's lines, run by a shell with stock tools, bring everything back, and it survives a restart."""
    source = start_redis(name="src", options=DEBUG)
    fill(source, keys=100)
    taken = Taken(engine(source), tmp_path)
    port = free_port()
    script, environment = decoded(taken.backup, taken.artifacts, RedisFormat(), tmp_path)
    environment |= {"REDIS_DIR": str(tmp_path / "data"), "REDIS_PORT": str(port)}
    try:
        BareShell(tmp_path / "bare").run(script, environment).succeeds()
        said = subprocess.run(
            ["redis-cli", "-p", str(port), "--json", "fcall", "answer", "0"], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == "42"
        restored = RedisEngine(RedisSettings(url=f"redis://127.0.0.1:{port}"))
        found = restored.fingerprint(taken.result.fingerprint, taken.context)
        assert compare_fingerprints(taken.result.fingerprint, found) == []
    finally:
        subprocess.run(["redis-cli", "-p", str(port), "shutdown", "nosave"], capture_output=True, check=False)


def free_ports_in_a_row(count: int) -> int:
    """Return the first of ``count`` ports that are free, as are those 10000 above, where cluster nodes talk."""
    for _ in range(200):
        base = random.randrange(12000, 20000)
        with ExitStack() as taken:
            try:
                for port in (base + n + up for n in range(count) for up in (0, 10000)):
                    taken.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


def test_the_runbook_of_a_cluster_restores(redis_cluster, tmp_path):
    """The runbook of a cluster makes a cluster of as many servers that owns every slot and holds every key."""
    redis_cluster.flush()
    fill_cluster(redis_cluster, keys=500)
    taken = Taken(cluster_engine(redis_cluster), tmp_path)
    port = free_ports_in_a_row(3)
    script, environment = decoded(taken.backup, taken.artifacts, RedisFormat(), tmp_path)
    environment |= {"REDIS_DIR": str(tmp_path / "data"), "REDIS_PORT": str(port)}
    try:
        BareShell(tmp_path / "bare").run(script, environment).succeeds()
        restored = RedisEngine(RedisSettings(url=f"redis://127.0.0.1:{port}"))
        found = restored.fingerprint(taken.result.fingerprint, taken.context)
        assert compare_fingerprints(taken.result.fingerprint, found) == []
    finally:
        for node in range(3):
            subprocess.run(
                ["redis-cli", "-p", str(port + node), "shutdown", "nosave"], capture_output=True, check=False
            )
