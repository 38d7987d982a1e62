"""Images of what stands around the platform in compose.yaml: S3 store, Prometheus, Alertmanager, a mail catcher.

As in :mod:`devstack.images`: the official ones where they can be had, else stand-ins from this machine's own programs,
which keep the official images' contract as far as compose.yaml leans on it. Grafana has none: no registry of packages
carries it.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import docker

from devstack import obtain
from devstack.errors import ServiceMissing
from devstack.images import Made, is_there, official_or, pulled, web_client
from devstack.rootfs import Rootfs, below

_HERE = Path(__file__).resolve().parent
_PULL_S = 120
_MAIL_NEEDS = ("aiosmtpd", "attr", "public")
"""aiosmtpd and what it imports, all of it plain Python."""
_MAILPIT = """#!/bin/sh
if [ "${{1:-}}" = readyz ]; then
    exec wget -q -O /dev/null http://127.0.0.1:8025/readyz
fi
exec {python} -I -B /opt/mail/mail_standin.py
"""
_TEMPLATES = Path("/usr/share/prometheus/alertmanager")
"""Where Debian's Alertmanager has what others carry inside."""


def _seaweedfs() -> Made:
    rootfs = Rootfs(
        files=[web_client()],
        placed={"usr/bin/weed": obtain.weed()},
        texts={"entrypoint.sh": (_HERE / "image" / "seaweedfs-entrypoint.sh").read_text(encoding="utf-8")},
        users={"seaweed": 1000},
        folders={"data": ("seaweed", 0o755)},
    )
    return Made(rootfs, ("VOLUME /data", "WORKDIR /data", 'ENTRYPOINT ["/entrypoint.sh"]'))


def _prometheus() -> Made:
    program = obtain.prometheus()
    return _watcher("prometheus", {"prometheus": program, "promtool": program.with_name("promtool")})


def _alertmanager() -> Made:
    program = obtain.alertmanager()
    programs = {"alertmanager": program, "amtool": program.with_name("amtool")}
    return _watcher("alertmanager", programs, _TEMPLATES if _TEMPLATES.is_dir() else None)


def _watcher(name: str, programs: dict[str, Path], folder: Path | None = None) -> Made:
    rootfs = Rootfs(
        files=[web_client(), *(below(folder) if folder else [])],
        placed={f"usr/bin/{called}": program for called, program in programs.items()},
        users={"nobody": 65534},
        folders={name: ("nobody", 0o755), f"etc/{name}": ("nobody", 0o755)},
    )
    changes = (f"VOLUME /{name}", f"WORKDIR /{name}", "USER nobody", f'ENTRYPOINT ["/bin/{name}"]')
    return Made(rootfs, changes)


def _mail() -> Made:
    python = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib") / python.name
    left_out = ("/__pycache__/", "/test/", "/idlelib/", "/tkinter/", "/ensurepip/", "_tkinter")
    placed = {"opt/mail/mail_standin.py": _HERE / "mail_standin.py"}
    for package in _MAIL_NEEDS:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise ServiceMissing(f"a stand-in for the mail catcher needs {package}: pip install {obtain.AIOSMTPD_PYPI}")
        folder = Path(found.origin).parent
        files = [file for file in below(folder, without=("/__pycache__/", "/tests/")) if file.suffix == ".py"]
        placed |= {f"opt/mail/{package}/{file.relative_to(folder)}": file for file in files}
    texts = {"mailpit": _MAILPIT.format(python=python)}
    rootfs = Rootfs(files=[python, *below(library, without=left_out), web_client()], placed=placed, texts=texts)
    return Made(rootfs, ('ENTRYPOINT ["/mailpit"]',))


_MADE: dict[str, Callable[[], Made]] = {
    "seaweedfs": _seaweedfs,
    "prometheus": _prometheus,
    "alertmanager": _alertmanager,
    "mail": _mail,
}


def can_be_had(host: str, official: str) -> bool:
    """Whether an image is at the engine at ``host`` or can be pulled there."""
    with contextlib.closing(docker.DockerClient(base_url=host, timeout=_PULL_S)) as client:
        return is_there(client, official) or pulled(client, official)


def service_image(host: str, service: str, official: str) -> str:
    """Return ``official`` where it is or can be pulled at the engine at ``host``, else a stand-in for the service."""
    return official_or(host, official, service, _MADE[service])
