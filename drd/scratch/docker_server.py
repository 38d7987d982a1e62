"""One running scratch server in a container."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.model import ScratchEndpoint, ScratchSpec, Secret
from drd.scratch.commands import OUTPUT_BYTES
from drd.scratch.docker_engine import Client, Container, mapped
from drd.scratch.docker_labels import KEPT, remove
from drd.scratch.marking import NAME
from drd.scratch.ready import last_words
from drd.scratch.recipes.recipe import NotReady, Place, Recipe
from drd.wording import size

_MEASURE_EVERY_S = 2.0


class DockerServer:
    """A server in a container; see :class:`~drd.protocols.ScratchServer`."""

    endpoint: ScratchEndpoint

    def __init__(
        self,
        client: Client,
        recipe: Recipe,
        spec: ScratchSpec,
        place: Place,
        container: Container,
        server_id: str,
        host: str | None,
    ) -> None:
        self._client = client
        self._docker = f"docker --host {host}" if host else "docker"
        self._recipe = recipe
        self._spec = spec
        self._place = place
        self._container = container
        self._id = server_id
        self._kept = False
        self._why = ""
        self._death = ""
        self._done = threading.Event()

    def _address(self) -> str:
        networks = self._container.attrs["NetworkSettings"]["Networks"]
        return next((str(network["IPAddress"]) for network in networks.values()), "")

    def ask(self) -> str:
        """Return the version that the server answers with; raises NotReady."""
        if not (address := self._address()):
            with mapped("inspect the scratch container"):
                self._container.reload()
            raise NotReady("the container has no address yet")
        return self._recipe.ask(address, self._place.ports[0], self._place.password)

    def describe(self, version: str, image: str, digest: str) -> None:
        """Make the endpoint, once the server has answered, and begin to watch its disk."""
        spec, host, port = self._spec, self._address(), self._place.ports[0]
        name = self._container.name
        self.endpoint = ScratchEndpoint(
            engine=spec.engine,
            name=name,
            url=self._recipe.url(host, port),
            password=Secret(self._place.password),
            version=version,
            environment={
                "runtime": "docker",
                "image": image,
                "image digest": digest,
                "version": version,
                "memory": size(spec.memory_bytes),
                "processors": f"{spec.cpus:g}",
                "threads and processes": str(spec.pids),
                "disk": size(spec.disk_bytes),
                "network": "internal: this host alone",
            },
            connect=(self._recipe.connect(host, port, f"{self._docker} exec {name} printenv DRD_SCRATCH_PASSWORD"),),
            listen_host=self._place.host,
        )
        threading.Thread(target=self._watch_disk, name=f"disk of {name}", daemon=True).start()

    def _watch_disk(self) -> None:
        """Kill the container when its data outgrow the limit; ends with it."""
        while not self._done.wait(_MEASURE_EVERY_S):
            try:
                with mapped("measure the scratch container"):
                    code, said = self._container.exec_run(["du", "-sk", str(self._place.data)])
            except ScratchError:
                return  # the container is gone, and death() says why
            words = said.split()
            if code or not words or not words[0].isdigit():
                continue  # a file vanished while it was looked at
            used = int(words[0]) * 1024
            if used > self._spec.disk_bytes:
                self._why = f"it used {size(used)} of disk, its limit is {size(self._spec.disk_bytes)}"
                with suppress(ScratchError), mapped("stop the scratch container"):
                    self._container.kill()
                return

    def death(self) -> str:
        """Say why the server has ended; empty while it runs."""
        if self._death:
            return self._death
        import docker.errors

        try:
            with mapped("inspect the scratch container"):
                try:
                    self._container.reload()
                except docker.errors.NotFound:
                    return "its container was removed"
        except ScratchError as error:
            return error.message
        state = self._container.attrs["State"]
        if state["Running"] or state["Status"] == "created":
            return ""
        if self._why:
            how = f"stopped by drd: {self._why}"
        elif state["OOMKilled"]:
            how = f"killed for its memory limit of {size(self._spec.memory_bytes)}"
        elif state.get("Error"):
            how = f"exit code {state['ExitCode']}: {state['Error']}"
        else:
            how = f"exit code {state['ExitCode']}"
        self._death = f"{how}; its last words: {last_words(self.log(), hide=self._place.password) or 'none'}"
        return self._death

    def log(self, limit_bytes: int = 8192) -> str:
        """Return the end of what the container wrote; nothing once it is gone."""
        with suppress(ScratchError), mapped("read the log of the scratch container"):
            said = self._container.logs(tail=max(1, limit_bytes // 40))
            return bytes(said)[-limit_bytes:].decode("utf-8", "replace")
        return ""

    def run(self, argv: Sequence[str], cancel: CancelToken) -> tuple[int, str]:
        """Run a command in the container; one that is cancelled ends with the container."""
        url = self._recipe.url("127.0.0.1", self._place.ports[0])
        api = self._client.api
        environment = {"DRD_SCRATCH_URL": url, "DRD_SCRATCH_PASSWORD": self._place.password}
        with mapped(f"run {argv[0]} in the scratch container"):
            job = api.exec_create(self._container.id, list(argv), environment=environment)["Id"]
        kept = bytearray()
        failed: list[ScratchError] = []

        def read() -> None:
            try:
                with mapped(f"run {argv[0]} in the scratch container"):
                    for piece in api.exec_start(job, stream=True):
                        kept.extend(piece[: OUTPUT_BYTES - len(kept)])
            except ScratchError as error:
                failed.append(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while reader.is_alive():
            cancel.raise_if_cancelled()
            reader.join(0.05)
        if failed:
            raise failed[0]
        with mapped(f"run {argv[0]} in the scratch container"):
            code = api.exec_inspect(job)["ExitCode"]
        return int(code), kept.decode("utf-8", "replace")

    def keep(self) -> None:
        """Leave it to the reaper: an empty volume beside it says so, since labels cannot change."""
        if dead := self.death():
            raise ScratchError(f"cannot keep the scratch server {self._container.name}: {dead}")
        with mapped("keep the scratch container"):
            self._client.volumes.create(f"{KEPT}{self._id}", labels=self._container.labels)
        self._kept = True
        self._done.set()

    def close(self) -> None:
        """Remove container, network and volume, unless they are kept; raises ScratchError when something is left."""
        if self._kept:
            return
        self._done.set()
        if hasattr(self, "endpoint"):
            self.death()  # the last chance to learn of it
        remove(self._client, self._id)


def name_of(server_id: str) -> str:
    """Return the name of a server's container, network and volume."""
    return f"{NAME}{server_id}"
