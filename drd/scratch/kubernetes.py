"""Scratch servers in pods of a Kubernetes cluster, where no Docker socket exists.

A server is a pod, a secret with its password, and a network policy, all in one namespace. They go with the drill; with
drd's own pod, where it runs in one (owner references); by a reaper, or at last by the pod's own deadline.

By its address a pod is reached from within the cluster, and it reaches drd, whose address the policy names. From
outside, a port is forwarded through the API server: enough for what drd asks and sends, not for a ClickHouse, which
fetches.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Literal

from drd.cancel import CancelToken
from drd.errors import DrdError, ScratchError
from drd.model import CheckItem, EngineKind, ScratchSpec
from drd.protocols import Clock, ScratchServer
from drd.scratch import kubernetes_objects as objects
from drd.scratch.images import image_name
from drd.scratch.kubernetes_api import KINDS, Cluster, Missing, Object, connect
from drd.scratch.kubernetes_forward import Forward
from drd.scratch.kubernetes_server import KubernetesServer, remove
from drd.scratch.lending import lent
from drd.scratch.owners import Owner
from drd.scratch.prologue import prologue
from drd.scratch.ready import wait_ready
from drd.scratch.recipes import RECIPES
from drd.scratch.recipes.recipe import NotReady, Place, Recipe, numbers
from drd.scratch.sizes import without_room

Reach = Literal["auto", "pod", "forward"]
RIGHTS = (
    *((verb, "pods") for verb in ("create", "get", "list", "patch", "delete")),
    ("get", "pods/log"),
    ("create", "pods/exec"),
    ("list", "events"),
    *((verb, "secrets") for verb in ("create", "patch", "delete")),
    *((verb, "networkpolicies") for verb in ("create", "patch", "delete")),
)
"""What the identity must be allowed in the namespace; ``pods/portforward`` besides, from outside the cluster."""
_FORWARD_RIGHT = ("create", "pods/portforward")
_UNLIMITED = 1 << 62


class KubernetesRuntime:
    """Starts pods in ``namespace`` (None: drd's own, or the context's).

    ``images`` replaces the official image of an engine, ``{release}`` standing for the release that is wanted.
    ``own_address`` is where pods find drd; None: its own pod's address, where it runs in one.
    """

    name = "kubernetes"

    def __init__(
        self,
        *,
        now: Clock,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: Path | None = None,
        images: Mapping[EngineKind, str] | None = None,
        choices: objects.PodChoices | None = None,
        reach: Reach = "auto",
        own_address: str | None = None,
        ready_timeout_s: float = 300.0,
    ) -> None:
        self._now = now
        self._namespace = namespace
        self._context = context
        self._kubeconfig = kubeconfig
        self._images = dict(images or {})
        self._choices = choices or objects.PodChoices()
        self._reach = reach
        self._own_address = own_address
        self._ready_timeout_s = ready_timeout_s

    @contextmanager
    def start(self, spec: ScratchSpec, cancel: CancelToken) -> Iterator[ScratchServer]:
        """Start a server; leaving the block removes its pod, secret and policy."""
        recipe = RECIPES[spec.engine]
        without_room(spec, _UNLIMITED, "")
        with self._connected() as cluster:
            _reap(cluster, self._now())
            with lent(self._launch(cluster, recipe, spec, cancel)) as server:
                yield server

    def reap(self, *, kept: bool = False) -> Sequence[str]:
        """Remove what drds that are gone left in the namespace, and what has expired; with ``kept``, what was kept."""
        with self._connected() as cluster:
            return _reap(cluster, self._now(), kept_too=kept)

    def check(self) -> Sequence[CheckItem]:
        """Ask the API server for its version and for this identity's rights; name the images."""
        title = "scratch kubernetes"
        try:
            with self._connected() as cluster:
                version = cluster.version()
                wanted = RIGHTS if self._by_pod(cluster) else (*RIGHTS, _FORWARD_RIGHT)
                lacking = [f"{verb} {resource}" for verb, resource in wanted if not cluster.may(verb, resource)]
        except DrdError as error:
            return [CheckItem(title, "failed", error.message, error.hint)]
        where = f"Kubernetes {version}, namespace {cluster.namespace}"
        if lacking:
            hint = "the chart's Role grants them (drills.kubernetes.enabled); see docs/drills-kubernetes.md"
            return [CheckItem(title, "failed", f"{where}: this identity may not {', '.join(lacking)}", hint)]
        lines = [CheckItem(title, "ok", where)]
        for engine, recipe in RECIPES.items():
            name = self._images.get(engine, recipe.image)
            lines.append(CheckItem(f"{title} {engine}", "ok", f"{name}, which the node pulls when a drill needs it"))
        return lines

    @contextmanager
    def _connected(self) -> Iterator[Cluster]:
        cluster = connect(self._context, self._kubeconfig, self._namespace)
        try:
            yield cluster
        finally:
            cluster.close()

    def _by_pod(self, cluster: Cluster) -> bool:
        return self._reach == "pod" or (self._reach == "auto" and (cluster.inside or self._own_address is not None))

    def _launch(self, cluster: Cluster, recipe: Recipe, spec: ScratchSpec, cancel: CancelToken) -> KubernetesServer:
        image = image_name(recipe, spec, self._images)
        holder = _own_pod(cluster)
        mine = self._own_address or (objects.address(holder) if holder else "")
        by_pod = self._by_pod(cluster)
        if by_pod and not mine:
            raise ScratchError(
                "drd does not know its own address, which scratch pods connect back to",
                hint="set scratch.kubernetes.own_address, or reach: forward",
            )
        if not by_pod and spec.engine == "clickhouse":
            raise ScratchError(
                "a ClickHouse in a pod fetches its backup from drd, and cannot reach one outside the cluster",
                hint="run this drill in the cluster, or set scratch.kubernetes.own_address to one that pods reach",
            )
        server_id = secrets.token_hex(6)
        place = Place(
            PurePosixPath(objects.FILES),
            PurePosixPath(objects.DATA) / "drd-scratch",
            "0.0.0.0",  # noqa: S104  # of the pod, whose network is its own
            recipe.ports,
            mine if by_pod else "127.0.0.1",
            secrets.token_urlsafe(24),
            numbers(spec.version),
            spec.memory_bytes,
            spec.cpus,
        )
        try:
            server = self._create(cluster, recipe, spec, place, image, server_id, holder)
            version = self._ready(cluster, server, recipe, image, place, cancel, by_pod=by_pod)
            recipe.demand(version, numbers(spec.version), image)
        except BaseException:
            remove(cluster, objects.name_of(server_id))
            raise
        server.describe(version, image)
        return server

    def _create(
        self,
        cluster: Cluster,
        recipe: Recipe,
        spec: ScratchSpec,
        place: Place,
        image: str,
        server_id: str,
        holder: Object | None,
    ) -> KubernetesServer:
        until = self._now() + timedelta(seconds=spec.expires_s)
        meta = objects.metadata(server_id, Owner.current(), until, spec.labels, holder)
        script, files = prologue(place, recipe)
        values = {**files, "DRD_SCRATCH_PASSWORD": place.password, "CLICKHOUSE_WATCHDOG_ENABLE": "0"}
        cluster.create("secrets", objects.secret(meta, values))
        cluster.create("networkpolicies", objects.policy(meta, place.host if place.host != "127.0.0.1" else None))
        program = next((name for name in recipe.programs if name.partition("-")[0] in image), recipe.programs[0])
        argv = ["/bin/sh", "-c", script, "drd-scratch", *recipe.command(place, program)]
        pod = cluster.create("pods", objects.pod(meta, spec, place, image, argv, self._choices))
        for kind in KINDS[1:]:  # the cluster removes them with the pod, whoever deletes that
            cluster.patch(kind, meta["name"], {"metadata": {"ownerReferences": [objects.owned_by(pod)]}})
        return KubernetesServer(cluster, recipe, spec, place, pod)

    def _ready(
        self,
        cluster: Cluster,
        server: KubernetesServer,
        recipe: Recipe,
        image: str,
        place: Place,
        cancel: CancelToken,
        *,
        by_pod: bool,
    ) -> str:
        def ask() -> str:
            if not by_pod and server.forward is None:
                server.forward = Forward(cluster, server.name, place.ports[0])
            try:
                return server.ask()
            except NotReady:
                cancel.sleep(0.2)  # every question is a request to the API server
                raise

        try:
            return wait_ready(
                ask,
                title=recipe.title,
                death=server.death,
                log=server.log,
                cancel=cancel,
                patience_s=self._ready_timeout_s,
                hint=f"the image is {image}; kubectl -n {cluster.namespace} get events tells more",
            )
        except BaseException:
            if server.forward is not None:
                server.forward.close()
            raise


def _reap(cluster: Cluster, now: datetime, *, kept_too: bool = False) -> list[str]:
    lines: list[str] = []
    for pod in cluster.pods(objects.SELECTOR):
        name = str(pod["metadata"]["name"])
        if pod["metadata"].get("deletionTimestamp"):
            continue
        if why := objects.why_remove(pod, now, kept_too=kept_too):
            remove(cluster, name)
            lines.append(f"removed the pod {name}: {why}")
    return lines


def _own_pod(cluster: Cluster) -> Object | None:
    """Return the pod that drd runs in; None outside a cluster, or where its name is not the host's."""
    if not cluster.inside:
        return None
    with suppress(Missing):
        return cluster.pod(socket.gethostname())
    return None
