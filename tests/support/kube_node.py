"""A node for :mod:`tests.support.kube_api`: pods become containers of a real Docker Engine, as a kubelet would have it.

Real here: images, programs, users, memory limits and the OOM killer, read-only roots, the address of a pod, logs, exec.
Not here: a scheduler, a network that enforces policies, admission, a container runtime of Kubernetes' own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import docker.errors

MARK = "drd-tests-kube"
_LOOK_S = 0.2
_NETWORK = 0x40000000  # CLONE_NEWNET, setns(2)


class Node:
    """Runs pods on the engine at ``host``; their folders lie below ``folder``. ``cluster`` is told of their states."""

    def __init__(self, host: str, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._client = docker.DockerClient(base_url=host, timeout=120)
        self._containers: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._label = f"{MARK}={os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._remove_forgotten()
        self.gateway = str(self._client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])

    def run(self, pod: dict[str, Any], cluster: Any) -> None:
        """Bring a pod to life and report its state until it ends or is deleted."""
        uid = pod["metadata"]["uid"]
        spec = pod["spec"]
        container_spec = spec["containers"][0]
        began = time.monotonic()
        try:
            self._client.images.get(container_spec["image"])
        except (docker.errors.ImageNotFound, docker.errors.NullResource):
            message = f'Back-off pulling image "{container_spec["image"]}"'
            cluster.event(pod, "Failed", f'Failed to pull image "{container_spec["image"]}": not found')
            cluster.report(uid, _waiting(container_spec, "ErrImagePull", "not found"))
            time.sleep(_LOOK_S)
            cluster.report(uid, _waiting(container_spec, "ImagePullBackOff", message))
            return
        except docker.errors.APIError as error:
            cluster.report(uid, _waiting(container_spec, "InvalidImageName", str(error.explanation)))
            return
        while (environment := cluster.environment(container_spec)) is None:
            cluster.report(uid, _waiting(container_spec, "CreateContainerConfigError", "secret not found"))
            if not cluster.has(uid):
                return
            time.sleep(0.05)
        container, data = self._create(pod, environment)
        with self._lock:
            self._containers[uid] = container
        if not cluster.has(uid):
            self.remove(uid)
            return
        with contextlib.suppress(docker.errors.APIError):
            container.start()
        cluster.event(pod, "Started", f"Started container {container_spec['name']}")
        limit = int(next(v for v in spec["volumes"] if v["name"] == "data")["emptyDir"]["sizeLimit"])
        while cluster.has(uid):
            try:
                container.reload()
            except docker.errors.APIError:
                return
            if container.attrs["State"]["Running"]:
                if used(data) > limit:
                    with contextlib.suppress(docker.errors.APIError):
                        container.kill()
                    text = f'Usage of EmptyDir volume "data" exceeds the limit "{limit}".'
                    cluster.report(uid, {"phase": "Failed", "reason": "Evicted", "message": text})
                    return
                if time.monotonic() - began > spec["activeDeadlineSeconds"]:
                    container.kill()
                    cluster.report(uid, {"phase": "Failed", "reason": "DeadlineExceeded"})
                    return
            status = _status(container, container_spec)
            cluster.report(uid, status)
            if status["phase"] == "Failed":
                return
            time.sleep(_LOOK_S)

    def _create(self, pod: dict[str, Any], environment: dict[str, str]) -> tuple[Any, Path]:
        spec = pod["spec"]
        wanted = spec["containers"][0]
        user = spec["securityContext"]
        folder = self._folder / pod["metadata"]["uid"]
        tmpfs, binds = {}, {}
        volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
        for mount in wanted["volumeMounts"]:
            volume = volumes[mount["name"]]
            if volume.get("medium") == "Memory":
                size = volume["sizeLimit"].replace("Mi", "m")
                if mount["mountPath"] != "/dev/shm":
                    tmpfs[mount["mountPath"]] = f"rw,nosuid,nodev,size={size},mode=1777"
            else:
                folder.mkdir(parents=True)
                shutil.chown(folder, user["runAsUser"], user["fsGroup"])
                folder.chmod(0o2770)
                binds[str(folder)] = {"bind": mount["mountPath"], "mode": "rw"}
        limits = wanted["resources"]["limits"]
        return self._client.containers.create(
            wanted["image"],
            name=f"{MARK}-{pod['metadata']['name']}",
            labels=dict([self._label.split("=")]),
            entrypoint=wanted["command"],
            environment=environment,
            user=f"{user['runAsUser']}:{user['runAsGroup']}",
            read_only=wanted["securityContext"]["readOnlyRootFilesystem"],
            cap_drop=wanted["securityContext"]["capabilities"]["drop"],
            security_opt=["no-new-privileges"],
            mem_limit=int(limits["memory"]),
            memswap_limit=int(limits["memory"]),
            nano_cpus=int(limits["cpu"].removesuffix("m")) * 1_000_000,
            shm_size=int(volumes["shm"]["sizeLimit"]),
            tmpfs=tmpfs,
            volumes=binds,
            dns=spec["dnsConfig"]["nameservers"],
        ), folder

    def remove(self, uid: str) -> None:
        """End a pod's container and remove its folder."""
        with self._lock:
            container = self._containers.pop(uid, None)
        if container is not None:
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
        shutil.rmtree(self._folder / uid, ignore_errors=True)

    def log(self, uid: str, lines: int) -> bytes:
        """Return the end of what a pod's container wrote."""
        container = self._containers.get(uid)
        return bytes(container.logs(tail=lines)) if container is not None else b""

    def execute(self, uid: str, argv: list[str]) -> tuple[Iterator[tuple[bytes | None, bytes | None]], Any]:
        """Run a command; return its output as it comes, and what tells the exit code afterwards."""
        container = self._containers[uid]
        job = self._client.api.exec_create(container.id, argv)["Id"]
        output = self._client.api.exec_start(job, stream=True, demux=True)
        return output, lambda: self._client.api.exec_inspect(job)["ExitCode"]

    def connect(self, uid: str, port: int) -> socket.socket:
        """Return a connection to a port of a pod, made within its network as a kubelet makes it: from its localhost."""
        container = self._containers[uid]
        container.reload()
        namespace = os.open(f"/proc/{container.attrs['State']['Pid']}/ns/net", os.O_RDONLY)

        def inside() -> socket.socket:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _NETWORK) != 0:  # of this thread alone
                raise OSError(ctypes.get_errno(), "setns")
            return socket.create_connection(("127.0.0.1", port), timeout=10)

        try:
            with ThreadPoolExecutor(1) as alone:
                found = alone.submit(inside).result()
        finally:
            os.close(namespace)
        found.settimeout(None)
        return found

    def left(self) -> list[str]:
        """Return containers of this kind of node that are still there."""
        found = {"label": self._label}
        return [c.name for c in self._client.containers.list(all=True, filters=found, ignore_removed=True)]

    def _remove_forgotten(self) -> None:
        """Remove what test runs that were killed left on the engine."""
        for container in self._client.containers.list(all=True, filters={"label": MARK}, ignore_removed=True):
            pid = container.labels[MARK].partition("-")[0]
            if not Path("/proc", pid).exists():
                with contextlib.suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)

    def close(self) -> None:
        """Remove all containers."""
        for uid in list(self._containers):
            self.remove(uid)
        self._client.close()


def used(folder: Path) -> int:
    """Return the bytes on disk below a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


def _waiting(container: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": container["name"], "ready": False, "state": state}]}


def _status(container: Any, spec: dict[str, Any]) -> dict[str, Any]:
    state = container.attrs["State"]
    address = next(iter(container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
    now = datetime.now(UTC).isoformat()
    if state["Running"]:
        found: dict[str, Any] = {"running": {"startedAt": now}}
        phase = "Running"
    elif state["Status"] == "created":
        found = {"waiting": {"reason": "ContainerCreating"}}
        phase = "Pending"
    else:
        reason = "OOMKilled" if state["OOMKilled"] else "Error"
        found = {"terminated": {"exitCode": state["ExitCode"], "reason": reason, "finishedAt": now}}
        phase = "Failed"
    digest = container.attrs["Image"]
    one = {"name": spec["name"], "ready": state["Running"], "state": found, "imageID": f"docker://x@{digest}"}
    return {"phase": phase, "podIP": address, "containerStatuses": [one]}
