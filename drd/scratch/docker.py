"""Scratch servers in containers: an image of the right release, a network of their own, limits, and nothing left.

The network is ``internal``: a container reaches this host and nobody else, and drd reaches it by its own address, so
the engine must run on this machine (not on another, not in a virtual machine's rootless namespace).
Sources: Docker Engine API v1.41, ``POST /containers/create`` and ``/networks/create``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import PurePosixPath

from drd.cancel import CancelToken
from drd.errors import DrdError
from drd.model import CheckItem, EngineKind, ScratchSpec
from drd.protocols import Clock, ScratchServer
from drd.scratch import docker_labels
from drd.scratch.docker_engine import Client, connect, mapped
from drd.scratch.docker_server import DockerServer, name_of
from drd.scratch.images import Image, data_folder, have_image, image_name, program_and_user
from drd.scratch.lending import lent
from drd.scratch.marking import marks
from drd.scratch.owners import Owner
from drd.scratch.prologue import prologue
from drd.scratch.ready import wait_ready
from drd.scratch.recipes import RECIPES
from drd.scratch.recipes.recipe import Place, Recipe, numbers
from drd.scratch.sizes import without_room

_FILES = PurePosixPath("/drd")
_NO_NAMES = "240.0.0.1"  # a reserved address (RFC 1112): the engine's own resolver would look names up for a container
_FIRST_VICTIM = 800  # of the kernel's OOM killer, before the databases beside it
_UNLIMITED = 1 << 62
_IN_MEMORY = {
    "/drd": "rw,noexec,nosuid,nodev,size=1m,mode=1777",
    "/tmp": "rw,nosuid,nodev,size=64m,mode=1777",  # noqa: S108 # the container's own
}


class DockerRuntime:
    """Starts containers on the engine at ``host`` (None: as the docker command finds it).

    ``images`` replaces the official image of an engine, ``{release}`` in it standing for the release that is wanted
    (15, 7.2, 25.8); ``pull`` allows to fetch one that is absent.
    """

    name = "docker"

    def __init__(
        self,
        *,
        now: Clock,
        host: str | None = None,
        images: Mapping[EngineKind, str] | None = None,
        pull: bool = True,
        ready_timeout_s: float = 120.0,
    ) -> None:
        self._now = now
        self._host = host
        self._images = dict(images or {})
        self._pull = pull
        self._ready_timeout_s = ready_timeout_s

    @contextmanager
    def start(self, spec: ScratchSpec, cancel: CancelToken) -> Iterator[ScratchServer]:
        """Start a server; leaving the block removes its container, network and volume."""
        recipe = RECIPES[spec.engine]
        without_room(spec, _UNLIMITED, "")
        client = connect(self._host)
        try:
            docker_labels.reap(client, self._now())
            name = image_name(recipe, spec, self._images)
            image = have_image(client, name, pull=self._pull, cancel=cancel)
            with lent(self._launch(client, recipe, spec, name, image, cancel)) as server:
                yield server
        finally:
            client.close()

    def reap(self, *, kept: bool = False) -> Sequence[str]:
        """Remove what drds that are gone left on the engine, and what has expired; with ``kept``, what was kept too."""
        client = connect(self._host)
        try:
            return docker_labels.reap(client, self._now(), kept_too=kept)
        finally:
            client.close()

    def check(self) -> Sequence[CheckItem]:
        """Ask the engine for its version, and look for the images that are configured."""
        try:
            client = connect(self._host)
        except DrdError as error:
            return [CheckItem("scratch docker", "failed", error.message, error.hint)]
        try:
            with mapped("ask the Docker Engine for its version"):
                items = [CheckItem("scratch docker", "ok", f"Docker Engine {client.version()['Version']}")]
            for engine, recipe in RECIPES.items():
                items.append(self._check_image(client, engine, recipe))
        except DrdError as error:
            return [CheckItem("scratch docker", "failed", error.message, error.hint)]
        finally:
            client.close()
        return items

    def _check_image(self, client: Client, engine: EngineKind, recipe: Recipe) -> CheckItem:
        name = self._images.get(engine, recipe.image)
        repository = name.partition("{release}")[0].rstrip(":")
        with mapped(f"look for images of {repository}"):
            here = sorted(tag for image in client.images.list(name=repository) for tag in image.tags)
        if here:
            return CheckItem(f"scratch docker {engine}", "ok", ", ".join(here))
        if self._pull:
            return CheckItem(f"scratch docker {engine}", "ok", f"{name}, to be pulled when a drill needs it")
        hint = f"docker pull {name}"
        return CheckItem(f"scratch docker {engine}", "failed", f"no {name} here, and pulling is off", hint)

    def _launch(
        self, client: Client, recipe: Recipe, spec: ScratchSpec, name: str, image: Image, cancel: CancelToken
    ) -> DockerServer:
        server_id = secrets.token_hex(6)
        try:
            server = self._create(client, recipe, spec, name, image, server_id)
            version = wait_ready(
                server.ask,
                title=recipe.title,
                death=server.death,
                log=server.log,
                cancel=cancel,
                patience_s=self._ready_timeout_s,
                hint=f"the image is {name}; more memory or another image may help",
            )
            recipe.demand(version, numbers(spec.version), name)
        except BaseException:
            docker_labels.remove(client, server_id)
            raise
        digests = image.attrs.get("RepoDigests") or [image.id]
        server.describe(version, name, str(digests[0]).rpartition("@")[2])
        return server

    def _create(
        self, client: Client, recipe: Recipe, spec: ScratchSpec, name: str, image: Image, server_id: str
    ) -> DockerServer:
        until = self._now() + timedelta(seconds=spec.expires_s)
        labels = marks(server_id, Owner.current(), until, spec.labels)
        own = name_of(server_id)
        volume = data_folder(image, name)
        program, user = program_and_user(image, recipe)
        with mapped("make the network and volume of a scratch container", "docker network prune may help"):
            network = client.networks.create(own, driver="bridge", internal=True, labels=labels)
            network.reload()
            client.volumes.create(own, labels=labels)
        place = Place(
            _FILES,
            PurePosixPath(volume) / "drd-scratch",
            "0.0.0.0",  # noqa: S104 # of the container, whose network is its own
            recipe.ports,
            str(network.attrs["IPAM"]["Config"][0]["Gateway"]).partition("/")[0],
            secrets.token_urlsafe(24),
            numbers(spec.version),
            spec.memory_bytes,
            spec.cpus,
        )
        script, files = prologue(place, recipe)
        with mapped(f"start a container of {name}"):
            container = client.containers.create(
                image.id,
                name=own,
                labels=labels,
                entrypoint=["/bin/sh", "-c", script, "drd-scratch"],
                command=recipe.command(place, program),
                user=user,
                environment={**files, "DRD_SCRATCH_PASSWORD": place.password, "CLICKHOUSE_WATCHDOG_ENABLE": "0"},
                network=own,
                dns=[_NO_NAMES],
                volumes={own: {"bind": volume, "mode": "rw"}},
                tmpfs=_IN_MEMORY,
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                mem_limit=spec.memory_bytes,
                memswap_limit=spec.memory_bytes,
                shm_size=spec.memory_bytes // 2,
                nano_cpus=int(spec.cpus * 1_000_000_000),
                pids_limit=spec.pids,
                oom_score_adj=_FIRST_VICTIM,
                log_config={"type": "json-file", "config": {"max-size": "10m", "max-file": "1"}},
            )
            container.start()
            container.reload()
        return DockerServer(client, recipe, spec, place, container, server_id, self._host)
