"""Images for scratch servers in tests: the official ones where they can be had, else stand-ins from this machine.

A stand-in keeps what drd leans on: the program on the PATH, the user, the declared volume, the entry point's contract.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors

from devstack import obtain, standins
from devstack.errors import DevstackError, ServiceMissing
from devstack.rootfs import Rootfs, below

_SCRIPTS = Path(__file__).with_name("image")
_PULL_S = 120


@dataclass(frozen=True)
class Made:
    """A stand-in: what it is made of, and its configuration in the words of a Dockerfile."""

    rootfs: Rootfs
    changes: tuple[str, ...]


def _postgres() -> Made:
    major = obtain.POSTGRES_APT_MAJOR
    program = obtain.postgres_bin(major)
    if not str(program).startswith("/usr/lib/postgresql/"):
        raise ServiceMissing(f"a stand-in image needs Debian's PostgreSQL: apt-get install postgresql-{major}")
    folders = (
        Path(f"/usr/lib/postgresql/{major}"),
        Path(f"/usr/share/postgresql/{major}"),
        Path("/usr/share/zoneinfo"),
    )
    left_out = ("llvmjit", "/bitcode/", "/man/", "/pgxs/", "/right/", "/posix/")
    locale = Path("/usr/lib/locale/C.utf8")
    rootfs = Rootfs(
        files=below(*folders, *([locale] if locale.is_dir() else []), without=left_out),
        texts=_entrypoint("postgres"),
        users={"postgres": 999},
        folders={
            "var/lib/postgresql": ("postgres", 0o1777),
            "var/lib/postgresql/data": ("postgres", 0o1777),
            "var/run/postgresql": ("postgres", 0o1777),
        },
    )
    data = "/var/lib/postgresql/data"
    path = f"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{program}"
    return Made(rootfs, (f"ENV {path} PGDATA={data}", f"VOLUME {data}", *_start("postgres")))


def _redis() -> Made:
    beside = obtain.redis_server().parent
    names = ("redis-server", "redis-cli", "redis-check-rdb", "redis-check-aof")
    rootfs = Rootfs(
        files=[beside / name for name in names if (beside / name).exists()],
        texts=_entrypoint("redis"),
        users={"redis": 999},
        folders={"data": ("redis", 0o755)},
    )
    return Made(rootfs, ("VOLUME /data", "WORKDIR /data", *_start("redis-server")))


def _clickhouse() -> Made:
    here = standins.clickhouse_programs()
    python = Path("/usr/bin/python3").resolve()
    library = Path("/usr/lib") / python.name
    left_out = ("/__pycache__/", "/test/", "/idlelib/", "/tkinter/", "/ensurepip/", "_tkinter")
    folder = "opt/clickhouse"
    rootfs = Rootfs(
        files=[python, *below(library, without=left_out), web_client()],
        placed={f"{folder}/{name}": here / name for name in (*standins.SCRIPTS, "libchdb.so")},
        texts={
            **_entrypoint("clickhouse"),
            "usr/bin/clickhouse": standins.launcher_text(f"/{folder}", str(python)),
        },
        users={"clickhouse": 101},
        folders={"var/lib/clickhouse": ("root", 0o777), "etc/clickhouse-server": ("clickhouse", 0o755)},
    )
    return Made(rootfs, ("VOLUME /var/lib/clickhouse", 'ENTRYPOINT ["/entrypoint.sh"]'))


_MADE: dict[str, tuple[str, Callable[[], Made]]] = {
    "postgres": (f"postgres:{obtain.POSTGRES_APT_MAJOR}", _postgres),
    "redis": ("redis:7.0", _redis),
    "clickhouse": (
        f"clickhouse/clickhouse-server:{standins.CLICKHOUSE_VERSION.rpartition('.')[0].rpartition('.')[0]}",
        _clickhouse,
    ),
}


def _entrypoint(name: str) -> dict[str, str]:
    return {"entrypoint.sh": (_SCRIPTS / f"{name}-entrypoint.sh").read_text(encoding="utf-8")}


def _start(command: str) -> tuple[str, str]:
    return 'ENTRYPOINT ["/entrypoint.sh"]', f'CMD ["{command}"]'


def web_client() -> Path:
    """Return wget, by which the health checks of many official images ask."""
    if found := shutil.which("wget", path="/usr/bin:/bin"):
        return Path(found)
    raise ServiceMissing("a stand-in image needs wget: apt-get install wget")


def image(host: str, engine: str, official: str = "") -> str:
    """Return the name of an image of this engine on the Docker Engine at ``host``, made if it must be.

    ``official`` names another one than that of the stand-in's release.
    """
    same_release, make = _MADE[engine]
    return official_or(host, official or same_release, engine, make)


def official_or(host: str, official: str, engine: str, make: Callable[[], Made]) -> str:
    """Return ``official`` where it is or can be pulled, else the name of what ``make`` says.

    The same programs and scripts give the same name, so a stand-in is made once a machine.
    """
    with contextlib.closing(docker.DockerClient(base_url=host, timeout=_PULL_S)) as client:
        if is_there(client, official):
            return official
        made = make()
        name = f"drd-standin-{engine}:{_digest(made)}"
        if is_there(client, name):
            return name
        if pulled(client, official):
            return official
        with tempfile.TemporaryDirectory(prefix="drd-image-", dir=obtain.cache_dir()) as folder:
            tar = Path(folder) / "rootfs.tar"
            made.rootfs.write(tar)
            load(client, tar, name, made.changes)
        return name


def is_there(client: docker.DockerClient, name: str) -> bool:
    """Whether the engine has an image of that name."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(name)
        return True
    return False


def pulled(client: docker.DockerClient, name: str) -> bool:
    """Whether the engine could pull an image of that name from its registry."""
    with contextlib.suppress(docker.errors.DockerException, OSError):
        client.images.pull(name)
        return True
    return False


def load(client: docker.DockerClient, tar: Path, name: str, changes: Sequence[str]) -> None:
    """Make an image of the root file system in a tar; raises DevstackError where the engine will not."""
    repository, _, tag = name.partition(":")
    said = client.api.import_image_from_file(str(tar), repository=repository, tag=tag, changes=list(changes))
    if "error" in said:
        raise DevstackError(f"cannot make the image {name}: {said[-500:]}")


def _digest(made: Made) -> str:
    """Return a name for what a stand-in is made of: paths, sizes, times, texts."""
    stats = [(str(file), file.stat()) for file in sorted([*made.rootfs.files, *made.rootfs.placed.values()])]
    parts = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return hashlib.sha256(repr((parts, made.rootfs.texts, made.rootfs.folders, made.changes)).encode()).hexdigest()[:12]
