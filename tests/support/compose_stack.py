"""Bring up compose.yaml as a person would, by Docker Compose itself, in a copy with host ports of its own.

Images that can neither be found nor pulled are replaced by stand-ins (:mod:`devstack.service_images`), what has none is
left out and named; nothing else of the file is changed, but for names that would collide and a limit that the machine
may not allow.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import shutil
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from devstack import images, obtain, service_images
from devstack.ports import free_port
from tests.support.container_site import CLIENT
from tests.support.drd_site import ROOT

PORT = re.compile(r'"127\.0\.0\.1:(\d+):(\d+)"')
STANDINS = {"s3": "seaweedfs", "s3-bucket": "seaweedfs", "prometheus": "prometheus", "alertmanager": "alertmanager"}
STANDINS["mail"] = "mail"
ENGINES = ("postgres", "redis", "clickhouse")
TIMEOUT_S = 300.0


class ComposeStack:
    """The services of compose.yaml on the engine at ``host``, laid out in ``folder``, drd's from the image ``drd``."""

    def __init__(self, folder: Path, host: str, drd: str) -> None:
        self.folder = folder
        self.project = f"drd-test-{os.getpid()}-{time.time_ns() % 10**6}"
        self.ports: dict[int, int] = {}
        """From a port in its container to where it is published."""
        self.absent: list[str] = []
        """Services whose image cannot be had."""
        self._compose = [str(obtain.docker_compose()), "-p", self.project, "-f", "compose.yaml", "-f", "test.yaml"]
        self._host = host
        programs = folder / "bin"
        programs.mkdir()
        (programs / "docker").symlink_to(CLIENT)
        # No drd among the programs: the keys are made by its image.
        self._env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "DOCKER_HOST": host, "DRD_IMAGE": drd}
        self._lay_out()

    def _lay_out(self) -> None:
        text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
        for _, inside in PORT.findall(text):
            self.ports[int(inside)] = free_port()
        text = PORT.sub(lambda found: f'"127.0.0.1:{self.ports[int(found[2])]}:{found[2]}"', text)
        (self.folder / "compose.yaml").write_text(text, encoding="utf-8")
        shutil.copytree(ROOT / "config", self.folder / "config")
        (self.folder / "test.yaml").write_text(self._changes(yaml.safe_load(text)["services"]), encoding="utf-8")
        self.run(["config/compose/make-secrets"])

    def _changes(self, services: dict[str, Any]) -> str:
        """Return what is laid over compose.yaml; text, as YAML's own libraries do not know Compose's ``!reset``."""
        lines = [f"networks: {{default: {{name: {self.project}}}}}", "services:"]
        for name, service in services.items():
            changes = []
            if name in ENGINES:
                changes.append(f'image: "{images.image(self._host, name, service["image"])}"')
            elif name in STANDINS:
                found = service_images.service_image(self._host, STANDINS[name], service["image"])
                changes.append(f'image: "{found}"')
            elif name != "drd" and not service_images.can_be_had(self._host, service["image"]):
                self.absent.append(name)
                changes.append("profiles: [cannot-be-had]")
            if "container_name" in service:
                changes.append("container_name: !reset null")
            wanted = service.get("ulimits", {}).get("nofile", {}).get("hard", 0)
            if wanted > resource.getrlimit(resource.RLIMIT_NOFILE)[1]:
                changes.append("ulimits: !reset {}")
            lines.append(f"  {name}: {{{', '.join(changes)}}}")
        return "\n".join(lines) + "\n"

    def run(self, argv: list[str], *, rc: int | None = 0, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, which must end with ``rc`` (None: with any code)."""
        stdin = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            argv,
            cwd=self.folder,
            env=self._env,
            text=True,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
            **stdin,
        )
        assert rc is None or done.returncode == rc, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def compose(self, *words: str, rc: int | None = 0, given: str | None = None) -> str:
        """Run ``docker compose`` with these words and return its output."""
        return self.run([*self._compose, *words], rc=rc, given=given).stdout

    def drd(self, *words: str, rc: int = 0) -> str:
        """Run ``docker compose exec drd drd`` with these words."""
        return self.compose("exec", "-T", "drd", "drd", *words, rc=rc)

    def containers(self) -> dict[str, tuple[str, str]]:
        """Return state and health of the container of each service."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        found = [one for line in lines for one in _listed(json.loads(line))]
        return {one["Service"]: (one["State"], one["Health"]) for one in found}

    def left(self) -> str:
        """Return what the engine still has of this project."""
        named = f"label=com.docker.compose.project={self.project}"
        asked = (["ps", "--all"], ["volume", "ls"], ["network", "ls"])
        return "".join(self.run(["docker", *words, "--quiet", f"--filter={named}"]).stdout for words in asked)

    def secret(self, name: str) -> str:
        """Return a secret that the shipped script has made."""
        return (self.folder / "secrets" / name).read_text(encoding="utf-8")

    def get(self, port: int, path: str, *, user: str = "", password: str = "", data: str | None = None) -> Any:
        """Ask a service by its published port; return what it says, of JSON the content; None if nothing."""
        status, said = self._ask(port, path, user, password, data)
        if status != http.HTTPStatus.OK:
            return None
        return json.loads(said) if said.startswith(("{", "[")) else said

    def status(self, port: int, path: str) -> int:
        """Return the status with which a service answers, 0 where it does not."""
        return self._ask(port, path, "", "", None)[0]

    def _ask(self, port: int, path: str, user: str, password: str, data: str | None) -> tuple[int, str]:
        asked = {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"} if password else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=10)
        try:
            connection.request("GET" if data is None else "POST", path, body=data, headers=asked)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):  # not there yet, or just going
            return 0, ""
        finally:
            connection.close()


def _listed(found: Any) -> list[dict[str, Any]]:
    return found if isinstance(found, list) else [found]


def until(found: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Return what ``found`` gives once that is something; fails after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"no {what} in {timeout_s:.0f} s"
        time.sleep(0.2)
    return value
