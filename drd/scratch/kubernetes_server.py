"""One running scratch server in a pod."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.model import ScratchEndpoint, ScratchSpec, Secret
from drd.scratch import kubernetes_objects as objects
from drd.scratch.commands import OUTPUT_BYTES
from drd.scratch.kubernetes_api import KINDS, Cluster, Missing, Object, mapped
from drd.scratch.kubernetes_forward import Forward
from drd.scratch.marking import MARK
from drd.scratch.ready import last_words
from drd.scratch.recipes.recipe import NotReady, Place, Recipe
from drd.wording import size

_LOOK_EVERY_S = 0.5
_EVENTS = 3


class KubernetesServer:
    """A server in a pod; see :class:`~drd.protocols.ScratchServer`.

    ``forward`` reaches it through the API server instead of by the pod's address.
    """

    endpoint: ScratchEndpoint

    def __init__(self, cluster: Cluster, recipe: Recipe, spec: ScratchSpec, place: Place, pod: Object) -> None:
        self._cluster = cluster
        self._recipe = recipe
        self._spec = spec
        self._place = place
        self._pod = pod
        self.name = str(pod["metadata"]["name"])
        self._looked_at = 0.0
        self._kept = False
        self._death = ""
        self.forward: Forward | None = None

    def _look(self) -> Object:
        """Return the pod, as it was at most half a second ago; raises ScratchError."""
        if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._pod = self._cluster.pod(self.name)
            self._looked_at = time.monotonic()
        return self._pod

    def _address(self) -> tuple[str, int]:
        if self.forward is not None:
            return "127.0.0.1", self.forward.port
        return objects.address(self._pod), self._place.ports[0]

    def ask(self) -> str:
        """Return the version that the server answers with; raises NotReady, with what the cluster waits for."""
        pod = self._look()
        if waits := objects.waits_for(pod):
            raise NotReady(waits)
        host, port = self._address()
        if not host:
            raise NotReady("the pod has no address yet")
        return self._recipe.ask(host, port, self._place.password)

    def describe(self, version: str, image: str) -> None:
        """Make the endpoint, once the server has answered."""
        spec, namespace, name = self._spec, self._cluster.namespace, self.name
        host, port = self._address()
        pod_port = self._place.ports[0]
        password = (
            f"kubectl -n {namespace} get secret {name} -o 'jsonpath={{.data.DRD_SCRATCH_PASSWORD}}' | base64 --decode"
        )
        reach = f"kubectl -n {namespace} port-forward pod/{name} {pod_port}"
        self.endpoint = ScratchEndpoint(
            engine=spec.engine,
            name=name,
            url=self._recipe.url(f"[{host}]" if ":" in host else host, port),
            password=Secret(self._place.password),
            version=version,
            environment={
                "runtime": "kubernetes",
                "image": image,
                "image digest": objects.image_digest(self._pod),
                "version": version,
                "namespace": namespace,
                "node": str(self._pod.get("spec", {}).get("nodeName") or "unknown"),
                "memory": size(spec.memory_bytes),
                "processors": f"{spec.cpus:g}",
                "threads and processes": "the node's limit for a pod",
                "disk": size(spec.disk_bytes),
                "network": "a policy lets it reach drd alone, where the cluster's network enforces policies",
            },
            connect=(reach, self._recipe.connect("127.0.0.1", pod_port, password)),
            listen_host=self._place.host if self.forward is None else "",
        )

    def death(self) -> str:
        """Say why the server has ended, with what the cluster said of it last; empty while it runs."""
        if self._death:
            return self._death
        try:
            how = objects.death(self._look(), self._spec)
        except Missing:
            how = "its pod was deleted"
        except ScratchError as error:
            return error.message
        if how:
            words = last_words(self.log(), hide=self._place.password) or "none"
            self._death = f"{how}; its last words: {words}{self._events()}"
        return self._death

    def _events(self) -> str:
        with suppress(ScratchError):
            said = self._cluster.events(str(self._pod["metadata"]["uid"]))[-_EVENTS:]
            return f"; events: {last_words(chr(10).join(said))}" if said else ""
        return ""

    def log(self, limit_bytes: int = 8192) -> str:
        """Return the end of what the server wrote; nothing once its pod is gone."""
        with suppress(ScratchError):
            return self._cluster.log(self.name, limit_bytes)
        return ""

    def run(self, argv: Sequence[str], cancel: CancelToken) -> tuple[int, str]:
        """Run a command in the pod; one that is cancelled ends with the pod.

        ``DRD_SCRATCH_PASSWORD`` is in the environment of the container, and so in the command's.
        """
        url = self._recipe.url("127.0.0.1", self._place.ports[0])
        channel = self._cluster.open_exec(self.name, ["env", f"DRD_SCRATCH_URL={url}", *argv])
        kept = bytearray()
        with mapped(f"run {argv[0]} in pods/{self.name}"):
            try:
                while channel.is_open():
                    cancel.raise_if_cancelled()
                    channel.update(timeout=0.1)
                    _take(channel, kept)
                _take(channel, kept)
                code = channel.returncode
            finally:
                channel.close()
        if code is None:
            raise ScratchError(f"{argv[0]} in pods/{self.name} ended without an exit code: {self.death() or 'unknown'}")
        return int(code), kept.decode("utf-8", "replace")

    def keep(self) -> None:
        """Leave it to the reaper and to the pod's own deadline; drd's pod no longer takes it along."""
        if dead := self.death():
            raise ScratchError(f"cannot keep the scratch server {self.name}: {dead}")
        change = {"metadata": {"annotations": {f"{MARK}.kept": "1"}, "ownerReferences": None}}
        self._cluster.patch("pods", self.name, change)
        self._kept = True

    def close(self) -> None:
        """Remove pod, secret and policy, unless they are kept; raises ScratchError when something is left."""
        if self.forward is not None:
            self.forward.close()
        if self._kept:
            return
        if hasattr(self, "endpoint"):
            self.death()  # the last chance to learn of it
        remove(self._cluster, self.name)


def remove(cluster: Cluster, name: str) -> None:
    """Remove all that belongs to one server; what is gone already is fine. Raises ScratchError for what is left."""
    left: ScratchError | None = None
    for kind in KINDS:
        try:
            cluster.delete(kind, name)
        except ScratchError as error:
            left = left or error
    if left is not None:
        raise left


def _take(channel: Any, kept: bytearray) -> None:
    for said in (channel.read_stdout(timeout=0), channel.read_stderr(timeout=0)):
        if said and len(kept) < OUTPUT_BYTES:
            data = said if isinstance(said, bytes) else str(said).encode("utf-8", "surrogateescape")
            kept.extend(data[: OUTPUT_BYTES - len(kept)])
