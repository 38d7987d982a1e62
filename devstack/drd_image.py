"""Build drd's own image with the project's Dockerfile, once for each state of what goes into it."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import docker
import docker.errors

from devstack.base_image import base_image
from devstack.errors import DevstackError

ROOT = Path(__file__).resolve().parent.parent
_INPUTS = ("Dockerfile", ".dockerignore", "pyproject.toml", "requirements.lock", "README.md", "LICENSE")
_FOLDERS = ("drd", "image", "restore_drills")
_BUILD_S = 1800


def drd_image(host: str) -> str:
    """Return the name of the image, built on the Docker Engine at ``host`` unless it is there."""
    base = base_image(host)
    name = f"drd-under-test:{_digest(base)}"
    with contextlib.closing(docker.DockerClient(base_url=host, timeout=_BUILD_S)) as client:
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.get(name)
            return name
        try:
            # The machine's own network: its names and ways to the package registries are what works here.
            client.images.build(
                path=str(ROOT), tag=name, buildargs={"BASE": base}, network_mode="host", rm=True, forcerm=True
            )
        except docker.errors.BuildError as error:
            said = "".join(str(line.get("stream") or line.get("error") or "") for line in error.build_log)
            raise DevstackError(f"the image cannot be built: {said[-1500:]}") from error
    return name


def _digest(base: str) -> str:
    """Return a name for what goes into the image."""
    digest = hashlib.sha256(base.encode())
    files = [ROOT / name for name in _INPUTS]
    files += [f for folder in _FOLDERS for f in sorted((ROOT / folder).rglob("*")) if f.is_file()]
    for file in files:
        if "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(ROOT)} {file.stat().st_mode & 0o111}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
