"""The base of drd's own image: the official one where it can be pulled, else the same Debian made by debootstrap.

A stand-in brings along what a build needs of this machine to reach package registries: apt's sources, pip's settings
and the certificate authorities that this machine trusts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker

from devstack import obtain
from devstack.errors import DevstackError, ServiceMissing
from devstack.images import is_there, load, pulled

OFFICIAL = "debian:bookworm-slim"
STANDIN = "drd-standin-debian:bookworm-1"
_SUITE = "bookworm"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_TRUSTED = "/etc/ssl/machine.crt"
_PULL_S = 60


def base_image(host: str) -> str:
    """Return the name of an image to build drd's on, made if it must be; as root only in that case."""
    with contextlib.closing(docker.DockerClient(base_url=host, timeout=_PULL_S)) as client:
        for name in (OFFICIAL, STANDIN):
            if is_there(client, name):
                return name
        if pulled(client, OFFICIAL):
            return OFFICIAL
        _make(client)
        return STANDIN


def _make(client: docker.DockerClient) -> None:
    program = shutil.which("debootstrap", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None or os.geteuid() != 0:
        raise ServiceMissing(f"{OFFICIAL} cannot be pulled; to make its like: be root, and apt-get install debootstrap")
    with tempfile.TemporaryDirectory(prefix="drd-base-", dir=obtain.cache_dir()) as folder:
        root, tar = Path(folder) / "root", Path(folder) / "root.tar"
        _run(program, "--variant=minbase", _SUITE, str(root))
        _settle(root)
        _run("tar", "-C", str(root), "--exclude=./var/cache/apt/archives/*.deb", "-cf", str(tar), ".")
        load(client, tar, STANDIN, ["CMD bash", f"ENV PIP_CERT={_TRUSTED}"])


def _settle(root: Path) -> None:
    for place in ("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/pip.conf"):
        source, target = Path(place), root / place.lstrip("/")
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)
    if Path("/etc/apt/sources.list.d").is_dir() and any(Path("/etc/apt/sources.list.d").iterdir()):
        (root / "etc/apt/sources.list").unlink(missing_ok=True)  # debootstrap's own names the same again
    if _AUTHORITIES.is_file():
        (root / _TRUSTED.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_AUTHORITIES, root / _TRUSTED.lstrip("/"))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise DevstackError(f"{command[0]} failed: {tail}")
