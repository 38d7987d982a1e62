"""Groups of Redis servers: a three-node cluster, and a primary with a replica and sentinels."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import redis

from devstack.errors import DevstackError
from devstack.redis import Redis
from devstack.server import private_file
from devstack.workspace import Workspace

_READY_TIMEOUT_S = 30.0


class ClusterNode(Redis):
    """One node of a cluster; its bus has a port of its own choice, unlike the usual 10000 above."""

    port_names: ClassVar[tuple[str, ...]] = ("port", "bus")

    def prepare(self) -> None:
        """Add what a node needs to redis.conf."""
        self.options |= {
            "cluster-enabled": "yes",
            "cluster-port": str(self.ports["bus"]),
            "cluster-node-timeout": "2000",
            "cluster-config-file": str(self.dir / "nodes.conf"),
        }
        super().prepare()


class RedisCluster:
    """Redis Cluster with ``nodes`` primaries (at least 3) and no replicas; one password for all."""

    def __init__(self, workspace: Workspace, *, nodes: int = 3, append_only: bool = True) -> None:
        self.password = secrets.token_urlsafe(18)
        self.nodes = [
            ClusterNode(workspace, name=f"redis-node-{number}", password=self.password, append_only=append_only)
            for number in range(1, nodes + 1)
        ]

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of every node."""
        return [f"{node.host}:{node.port}" for node in self.nodes]

    def client(self) -> redis.RedisCluster:
        """Return a client that follows the slots; it answers bytes."""
        return redis.RedisCluster(host=self.nodes[0].host, port=self.nodes[0].port, password=self.password)

    def start(self) -> RedisCluster:
        """Start the nodes, join them with ``redis-cli --cluster create`` and wait until every one says ok."""
        for node in self.nodes:
            node.start()
        program = self.nodes[0].program.with_name("redis-cli")
        done = subprocess.run(
            [str(program), "--cluster", "create", *self.addresses, "--cluster-replicas", "0", "--cluster-yes"],
            env={**os.environ, "REDISCLI_AUTH": self.password},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise DevstackError(f"redis-cli --cluster create ended with {done.returncode}: {done.stdout[-800:]}")
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not all(self._is_ok(node) for node in self.nodes):
            if time.monotonic() > deadline:
                raise DevstackError(
                    f"the cluster was not ok after {_READY_TIMEOUT_S:.0f} s\n{self.nodes[0].log_tail()}"
                )
            time.sleep(0.1)
        return self

    def _is_ok(self, node: Redis) -> bool:
        with node.client() as client:
            state = client.cluster("INFO")
        return isinstance(state, dict) and state.get("cluster_state") == "ok"

    def flush(self) -> None:
        """Empty every node."""
        for node in self.nodes:
            node.flush()

    def remove(self) -> None:
        """End all nodes and remove their folders."""
        for node in self.nodes:
            node.remove()


class SentinelNode(Redis):
    """One sentinel, which watches ``primary`` under ``service``; it rewrites its own configuration file."""

    def __init__(self, workspace: Workspace, *, name: str, primary: Redis, service: str, quorum: int) -> None:
        super().__init__(workspace, name=name, password="")
        self._primary = primary
        self._service = service
        self._quorum = quorum

    def prepare(self) -> None:
        """Write the first configuration; what the sentinel learned is kept over a restart."""
        path = self.dir / "sentinel.conf"
        if path.exists() and f"port {self.port}\n" in path.read_text(encoding="utf-8"):
            return
        service, primary = self._service, self._primary
        lines = [
            f"bind {self.host}",
            f"port {self.port}",
            f"dir {self.dir}",
            "protected-mode no",
            f"sentinel monitor {service} {primary.host} {primary.port} {self._quorum}",
            f"sentinel auth-pass {service} {primary.password}",
            f"sentinel down-after-milliseconds {service} 1000",
            f"sentinel failover-timeout {service} 5000",
        ]
        private_file(path, "\n".join(lines) + "\n")

    def argv(self) -> Sequence[str]:
        """Return the sentinel's command line."""
        return [str(self.program), str(self.dir / "sentinel.conf"), "--sentinel"]


class RedisSentinel:
    """A primary, its replicas and sentinels that agree on who is primary, under the name ``service``."""

    def __init__(
        self, workspace: Workspace, *, replicas: int = 1, sentinels: int = 1, service: str = "trading-redis"
    ) -> None:
        self.service = service
        self.password = secrets.token_urlsafe(18)
        self._workspace = workspace
        self.primary = Redis(workspace, name="redis-primary", password=self.password)
        self.replicas = [
            Redis(workspace, name=f"redis-replica-{number}", password=self.password)
            for number in range(1, replicas + 1)
        ]
        self.sentinels = [
            SentinelNode(
                workspace,
                name=f"redis-sentinel-{number}",
                primary=self.primary,
                service=service,
                quorum=sentinels // 2 + 1,
            )
            for number in range(1, sentinels + 1)
        ]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every sentinel."""
        return [(node.host, node.port) for node in self.sentinels]

    def start(self) -> RedisSentinel:
        """Start all and return when every replica is in sync and every sentinel knows primary and replicas."""
        self.primary.start()
        for replica in self.replicas:
            replica.options["replicaof"] = f"{self.primary.host} {self.primary.port}"
            replica.start()
        self._wait(self._in_sync, "the replicas were not in sync")
        for sentinel in self.sentinels:
            sentinel.start()
        self._wait(self._all_known, "the sentinels did not find all servers")
        return self

    def current_primary(self) -> tuple[str, int]:
        """Ask the first sentinel who is primary now."""
        with self.sentinels[0].client() as client:
            found = client.sentinel_get_master_addr_by_name(self.service)
        return found[0].decode() if isinstance(found[0], bytes) else found[0], int(found[1])

    def _in_sync(self) -> bool:
        return all(replica.client().info("replication").get("master_link_status") == "up" for replica in self.replicas)

    def _all_known(self) -> bool:
        for sentinel in self.sentinels:
            state = sentinel.client().info("sentinel")["master0"]
            if (state["status"], state["slaves"], state["sentinels"]) != (
                "ok",
                len(self.replicas),
                len(self.sentinels),
            ):
                return False
        return True

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise DevstackError(f"{complaint} after {_READY_TIMEOUT_S:.0f} s\n{self.primary.log_tail()}")
            time.sleep(0.1)

    def remove(self) -> None:
        """End all servers and remove their folders."""
        for node in (*self.sentinels, *self.replicas, self.primary):
            node.remove()
