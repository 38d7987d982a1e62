"""Run drd from its own image, as a platform would: no root, any user id, nothing writable but what is mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.support.drd_site import Running, Site

UID = 1_000_650_000  # what OpenShift hands out looks like this
CLIENT = Path("/usr/bin/docker")


class ContainerSite(Site):
    """A site whose runs are containers of ``image`` on the engine at ``host``.

    The root file system is read-only; the site's folder is mounted where it is on this machine, the spool is a tmpfs.
    """

    def __init__(self, site: Site, image: str, host: str) -> None:
        super().__init__(site.folder, site.config, env=site.env, secrets=site.secrets)
        self.image = image
        self.host = host
        self.identity_file = site.identity_file
        self.config.pop("spool", None)
        self.options: list[str] = []
        for path in (site.folder, *site.folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o644)

    def start(self, *args: str, write_config: bool = True, argv: Iterable[str] = ()) -> Running:
        """Start a container that runs drd with these arguments; ``argv`` are more options of ``docker run``."""
        self._runs += 1
        if write_config:
            self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        paths = [self.folder / f"run-{self._runs:03d}.{kind}" for kind in ("out", "err")]
        with paths[0].open("wb") as out, paths[1].open("wb") as err:
            process = subprocess.Popen(
                [*self.docker("run"), *self.run_options, *argv, self.image, *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **self.env},
            )
        return Running(args, process, paths[0], paths[1], self)

    @property
    def run_options(self) -> list[str]:
        """What every container is started with; secrets are passed by the name of their variable."""
        return [
            *("--rm", "--network=host", "--read-only", f"--user={UID}:0"),
            *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=512m"),
            *("--tmpfs=/var/spool/drd:mode=1777", "--tmpfs=/var/lib/drd:mode=1777"),
            f"--volume={self.folder}:{self.folder}",
            f"--workdir={self.folder}",
            f"--env=DRD_CONFIG={self.config_file}",
            *(f"--env={name}" for name in self.env),
            *self.options,
        ]

    def docker(self, *words: str) -> list[str]:
        """Return the command line of the Docker client."""
        return [str(CLIENT) if CLIENT.exists() else "docker", f"--host={self.host}", *words]

    def ask(self, *words: str) -> str:
        """Run a command of the Docker client and return what it printed."""
        return subprocess.run(self.docker(*words), check=True, capture_output=True, text=True).stdout.strip()

    def inside(self, *words: str) -> subprocess.CompletedProcess[Any]:
        """Run a program of the image instead of drd."""
        options = [*self.run_options, f"--entrypoint={words[0]}"]
        return subprocess.run(
            [*self.docker("run"), *options, self.image, *words[1:]], check=False, capture_output=True, text=True
        )
