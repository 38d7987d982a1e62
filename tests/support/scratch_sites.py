"""Where the contract suite of scratch runtimes plays: one site a runtime, which knows its leftovers from outside."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
import tarfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker

from devstack import images, standins
from drd.cancel import CancelToken
from drd.model import EngineKind, ScratchSpec
from drd.protocols import ScratchRuntime
from drd.scratch.docker import DockerRuntime
from drd.scratch.process import ProcessRuntime
from drd.scratch.recipes import RECIPES
from drd.scratch.recipes.recipe import numbers
from tests.support.drill_site import SESSION

ENGINES: tuple[EngineKind, ...] = ("postgres", "redis", "clickhouse")
VERSIONS: dict[EngineKind, str] = {"postgres": "15.3", "redis": "7.0.1", "clickhouse": standins.CLICKHOUSE_VERSION}
_BROKEN = """#!/bin/sh
if [ "$1" = --version ]; then echo "Redis server v=7.0.15"; exit 0; fi
echo "1:C 22 Nov 2026 # the disk of this house is on fire" >&2
exit 3
"""


def spec(engine: EngineKind, **changes: Any) -> ScratchSpec:
    """Return a small server of the engine that this machine has."""
    values: dict[str, Any] = {
        "engine": engine,
        "version": VERSIONS[engine],
        "size_bytes": 1 << 20,
        "memory_bytes": 1 << 30,
        "cpus": 2.0,
        "pids": 4000,
        "disk_bytes": 2 << 30,
        "expires_s": 600.0,
        "labels": {"drill": f"contract-{SESSION}", "run": "r1"},
    }
    return ScratchSpec(**{**values, **changes})


class ProcessSite:
    """Processes below a folder."""

    name = "process"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs: dict[EngineKind, Path] = {"clickhouse": standins.clickhouse_programs()}

    def runtime(self, *, later_s: float = 0.0, **options: Any) -> ScratchRuntime:
        """Return the runtime, its clock set forward by ``later_s`` seconds."""
        return ProcessRuntime(
            self.root, now=lambda: datetime.now(UTC) + timedelta(seconds=later_s), programs=self.programs, **options
        )

    def leftovers(self) -> list[str]:
        """Return folders, and processes that run in or from them."""
        found = [str(path) for path in self.root.glob("*")]
        for entry in Path("/proc").iterdir():
            try:
                if (
                    entry.name.isdigit()
                    and str(self.root) in f"{(entry / 'cmdline').read_text()} {(entry / 'cwd').readlink()}"
                ):
                    found.append(f"process {entry.name}: {(entry / 'cmdline').read_text()[:200]!r}")
            except OSError:
                continue
        return found

    def broken(self) -> str:
        """Return an ``image`` whose Redis says why it cannot start."""
        return self.program("broken", _BROKEN)

    def program(self, name: str, script: str) -> str:
        """Return a folder whose ``redis-server`` is this script."""
        folder = self.root.parent / name
        folder.mkdir(exist_ok=True)
        program = folder / "redis-server"
        program.write_text(script)
        for path in (folder, program):
            path.chmod(0o755)
        return str(folder)

    def owner(self) -> list[str]:
        """Return the command of a process that starts a server of every engine and waits; see :func:`own`."""
        programs = {engine: str(path) for engine, path in self.programs.items()}
        return [sys.executable, __file__, json.dumps({"site": "process", "root": str(self.root), "programs": programs})]


class DockerSite:
    """Containers on an engine."""

    name = "docker"

    def __init__(self, host: str) -> None:
        self.host = host
        self.images: dict[EngineKind, str] = {engine: images.image(host, engine) for engine in ENGINES}

    def runtime(self, *, later_s: float = 0.0, **options: Any) -> ScratchRuntime:
        """Return the runtime, its clock set forward by ``later_s`` seconds."""
        return docker_runtime(self.host, self.images, later_s=later_s, **options)

    def leftovers(self) -> list[str]:
        """Return containers, networks and volumes of this session's scratch servers, and volumes without a name.

        Other sessions may use the same engine: what is theirs says so by the label of its drill.
        """
        with closing(docker.DockerClient(base_url=self.host)) as client:
            containers = {thing.name: thing.labels for thing in client.containers.list(all=True, ignore_removed=True)}
            others = [*client.networks.list(), *client.volumes.list()]
            unnamed = [volume.name for volume in client.volumes.list(filters={"dangling": True})]
        things = [*containers.items(), *((thing.name, thing.attrs.get("Labels") or {}) for thing in others)]
        drills = ((name, labels.get("drd.scratch.label.drill", SESSION)) for name, labels in things)
        mine = [name for name, drill in drills if name.startswith(("drd-scratch-", "drd-kept-")) and SESSION in drill]
        return mine + [name for name in unnamed if re.fullmatch("[0-9a-f]{64}", name)]

    def remove(self, name: str) -> None:
        """Remove a container by force, as a person might."""
        with closing(docker.DockerClient(base_url=self.host)) as client:
            client.containers.get(name).remove(force=True)

    def is_internal(self, name: str) -> bool:
        """Whether the network of that name is without a way out."""
        with closing(docker.DockerClient(base_url=self.host)) as client:
            return bool(client.networks.list(names=[name])[0].attrs["Internal"])

    def broken(self) -> str:
        """Return an ``image`` whose Redis says why it cannot start."""
        recipe = f"FROM {self.images['redis']}\nCOPY redis-server /usr/bin/redis-server\n"
        tag = f"drd-broken:{hashlib.sha256((recipe + _BROKEN).encode()).hexdigest()[:12]}"
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, text in (("Dockerfile", recipe), ("redis-server", _BROKEN)):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(text), 0o755
                archive.addfile(info, io.BytesIO(text.encode()))
        with closing(docker.DockerClient(base_url=self.host)) as client:
            client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag=tag, rm=True)
        return tag

    def owner(self) -> list[str]:
        """Return the command of a process that starts a server of every engine and waits; see :func:`own`."""
        order = {"site": "docker", "host": self.host, "images": self.images}
        return [sys.executable, __file__, json.dumps(order)]


class KubernetesSite:
    """Pods of a small API server whose node is a Docker Engine; see :mod:`tests.support.kube_api`."""

    name = "kubernetes"

    def __init__(self, host: str, folder: Path) -> None:
        from tests.support.kube_api import KubeApi
        from tests.support.kube_node import Node

        self._docker = DockerSite(host)
        self.images = self._docker.images
        self.api = KubeApi(Node(host, folder, "node-1"), folder)
        self.own_address = self.api.node.gateway

    def runtime(self, *, later_s: float = 0.0, **options: Any) -> ScratchRuntime:
        """Return the runtime, its clock set forward by ``later_s`` seconds."""
        return kubernetes_runtime(self.order(), later_s=later_s, **options)

    def order(self) -> dict[str, Any]:
        """Return what another process needs to use the same cluster."""
        where = {"kubeconfig": str(self.api.kubeconfig), "own_address": self.own_address}
        return {"site": "kubernetes", "images": self.images, **where}

    def leftovers(self) -> list[str]:
        """Return objects of the cluster, and containers of its node, which follows what is deleted within seconds."""
        until = time.monotonic() + 15
        while (left := self.api.node.left()) and time.monotonic() < until and not self.api.objects:
            time.sleep(0.1)
        return [f"{kind}/{name}" for kind, name in self.api.objects] + left

    def broken(self) -> str:
        """Return an ``image`` whose Redis says why it cannot start."""
        return self._docker.broken()

    def owner(self) -> list[str]:
        """Return the command of a process that starts a server of every engine and waits; see :func:`own`."""
        return [sys.executable, __file__, json.dumps(self.order())]


def kubernetes_runtime(order: Mapping[str, Any], *, later_s: float = 0.0, **options: Any) -> ScratchRuntime:
    """Return a runtime of the cluster that an order names."""
    from drd.scratch.kubernetes import KubernetesRuntime

    values = {"kubeconfig": Path(order["kubeconfig"]), "images": order["images"], "own_address": order["own_address"]}
    return KubernetesRuntime(now=lambda: datetime.now(UTC) + timedelta(seconds=later_s), **{**values, **options})


def docker_runtime(host: str, names: dict[EngineKind, str], *, later_s: float = 0.0, **options: Any) -> ScratchRuntime:
    """Return a runtime with these images."""
    now = lambda: datetime.now(UTC) + timedelta(seconds=later_s)  # noqa: E731
    return DockerRuntime(now=now, host=host, images=names, pull=False, **options)


def own(order: Mapping[str, Any]) -> None:
    """Start a server of every engine, say so, and wait to be killed; or keep one and leave, for the word ``keep``."""
    runtime: ScratchRuntime
    if order["site"] == "process":
        programs = {engine: Path(path) for engine, path in order["programs"].items()}
        runtime = ProcessRuntime(Path(order["root"]), now=lambda: datetime.now(UTC), programs=programs)
    elif order["site"] == "kubernetes":
        runtime = kubernetes_runtime(order)
    else:
        runtime = docker_runtime(order["host"], order["images"])
    engines = [engine for engine in ENGINES if engine in sys.argv[2:]]
    with ExitStack() as stack:
        servers = [stack.enter_context(runtime.start(spec(engine), CancelToken())) for engine in engines]
        if "keep" in sys.argv:
            servers[0].keep()
        found = [(s.endpoint.url, s.endpoint.password.reveal(), s.endpoint.name) for s in servers]
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        if "keep" not in sys.argv:
            sys.stdin.read()


def same_release(engine: EngineKind, version: str) -> bool:
    """Whether a version is of the release that the suite asks for."""
    return RECIPES[engine].fits(numbers(version), numbers(VERSIONS[engine]))


if __name__ == "__main__":
    own(json.loads(sys.argv[1]))
