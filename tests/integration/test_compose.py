"""compose.yaml and all that it mounts: valid to Docker Compose and to each program's own tool, and closed to others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import obtain
from devstack.ports import free_port
from devstack.prometheus import promtool
from drd.config import load
from tests.support import dashboard
from tests.support.services import present

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "config" / "compose"
ONCE = {"s3-bucket"}
"""Services that do their work and end."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which the shipped script has made the secrets, twice: the second time changes nothing."""
    folder = tmp_path_factory.mktemp("compose")
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    made = []
    for _ in range(2):
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [FOLDER / "make-secrets", folder], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        made.append({file.name: file.read_text() for file in [*(folder / "secrets").iterdir(), folder / ".env"]})
    assert made[0] == made[1]
    assert all(text.strip() for text in made[0].values())
    return folder


@pytest.fixture(scope="module")
def recipient(place: Path) -> str:
    """Give the public key that the script made."""
    return (place / ".env").read_text().strip().removeprefix("DRD_RECIPIENT=")


@pytest.fixture(scope="module")
def project(recipient: str) -> dict[str, Any]:
    """Give compose.yaml as Docker Compose itself understands it."""
    with present():
        compose = obtain.docker_compose()
    argv = [compose, "-f", ROOT / "compose.yaml", "config", "--format", "json"]
    environment = {**os.environ, "DRD_RECIPIENT": recipient}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_compose_refuses_to_begin_without_keys() -> None:
    """Without the public key in .env it says what to run first, instead of backing up in the clear."""
    with present():
        compose = obtain.docker_compose()
    argv = [compose, "-f", ROOT / "compose.yaml", "--project-directory", "/nonexistent", "config", "-q"]
    environment = {name: value for name, value in os.environ.items() if name != "DRD_RECIPIENT"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "config/compose/make-secrets" in done.stderr


def test_every_service_is_pinned_watched_and_on_loopback(project: dict[str, Any]) -> None:
    """Images have a version, ports are bound to 127.0.0.1, what keeps running has a health check and comes back."""
    assert set(project["services"]) >= {"postgres", "redis", "clickhouse", "s3", "drd", "prometheus", "alertmanager"}
    for name, service in project["services"].items():
        image, _, tag = service["image"].partition(":")
        assert tag not in {"", "latest"}, name
        assert image == "drd" or re.search(r"\d", tag), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert not service.get("privileged"), name
        if name not in ONCE:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_drd_may_do_little_and_secrets_are_files(project: dict[str, Any], place: Path) -> None:
    """drd: not root, nothing writable but its volumes, no capability; no service has a secret in its environment."""
    drd = project["services"]["drd"]
    assert drd["user"] == "10001:0"
    assert drd["read_only"] is True
    assert drd["cap_drop"] == ["ALL"]
    assert drd["security_opt"] == ["no-new-privileges:true"]
    assert drd["stop_grace_period"] == "1m30s"
    assert drd["build"]["context"] == str(ROOT)
    assert {mount["type"] for mount in drd["volumes"] if not mount.get("read_only")} == {"volume"}
    for service in project["services"].values():
        for key in service.get("environment", {}):
            assert not re.search(r"(PASSWORD|SECRET|TOKEN|KEY)$", key), key
    files = {Path(secret["file"]).relative_to(ROOT / "secrets").as_posix() for secret in project["secrets"].values()}
    assert files == {file.name for file in (place / "secrets").iterdir()}
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/.env"} <= set(ignored)
    values = [file.read_text().strip() for file in (place / "secrets").iterdir() if file.name != "s3-config"]
    assert len(set(values)) == len(values)
    assert not any(value in json.dumps(project) for value in values)


def test_every_file_that_is_mounted_is_there(project: dict[str, Any]) -> None:
    """A missing file would be made by Docker as an empty folder, owned by root."""
    mounted = [
        Path(mount["source"])
        for service in project["services"].values()
        for mount in service.get("volumes", [])
        if mount["type"] == "bind"
    ]
    assert len(mounted) >= 8
    assert [file for file in mounted if not file.is_file()] == []


def test_drd_takes_its_configuration(place: Path, recipient: str, tmp_path: Path) -> None:
    """The shipped drd.yaml is valid whole, every secret that it names among what the script makes."""
    text = (FOLDER / "drd.yaml").read_text(encoding="utf-8").replace("/run/secrets", str(place / "secrets"))
    file = tmp_path / "drd.yaml"
    file.write_text(text, encoding="utf-8")
    environment = {"DRD_ENCRYPTION__RECIPIENTS": f'["{recipient}"]', "DRD_DAEMON__LISTEN": "0.0.0.0:8088"}
    config = load(file, environment, check_references=True)
    assert sorted(config.sources) == ["market-data", "trading-postgres", "trading-redis"]
    assert all(config.sources[name].rpo for name in config.sources)


def test_prometheus_and_alertmanager_take_theirs(place: Path, tmp_path: Path) -> None:
    """Both tools accept the mounted files; but for mail server and site they say what config/ says."""
    with present():
        tool, amtool = promtool(), obtain.alertmanager().with_name("amtool")
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets", str(place / "secrets")), encoding="utf-8")
    (tmp_path / "drd_rules.yml").symlink_to(ROOT / "config" / "prometheus" / "drd_rules.yml")
    mails = (FOLDER / "alertmanager.yml").read_text(encoding="utf-8")
    (tmp_path / "alertmanager.yml").write_text(mails, encoding="utf-8")
    (tmp_path / "drd.tmpl").symlink_to(ROOT / "config" / "alertmanager" / "drd.tmpl")
    for argv in ([tool, "check", "config", "prometheus.yml"], [amtool, "check-config", "alertmanager.yml"]):
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    shipped = yaml.safe_load((ROOT / "config" / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8"))
    here = yaml.safe_load(mails)
    assert {**here, "global": shipped["global"]} == shipped
    site = yaml.safe_load(text)["global"]["external_labels"]["site"]
    drd = yaml.safe_load((FOLDER / "drd.yaml").read_text(encoding="utf-8"))
    assert drd["alertmanager"]["labels"] == {"site": site}


def test_grafana_finds_data_source_and_dashboard(project: dict[str, Any]) -> None:
    """What is provisioned leads to Prometheus' service, by the name that the dashboard begins with, and to its file."""
    (source,) = yaml.safe_load((FOLDER / "grafana" / "datasources.yml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    variables = {one["name"]: one for one in dashboard.load()["templating"]["list"]}
    assert variables["datasource"]["current"] == {"text": source["name"], "value": source["uid"]}
    (provider,) = yaml.safe_load((FOLDER / "grafana" / "dashboards.yml").read_text(encoding="utf-8"))["providers"]
    mounts = {mount["target"]: mount["source"] for mount in project["services"]["grafana"]["volumes"]}
    assert mounts[f"{provider['options']['path']}/drd.json"] == str(dashboard.FILE)


def test_redis_gets_its_password_where_nobody_reads_it(project: dict[str, Any], place: Path, tmp_path: Path) -> None:
    """The service's own command, run here: the server asks for the password, and no command line shows it."""
    with present():
        obtain.redis_server()
    service = project["services"]["redis"]
    port = free_port()
    (script,) = service["command"]
    script = script.replace("$$", "$").replace("/run/secrets", str(place / "secrets"))
    script = script.replace("bind * -::*", f"bind 127.0.0.1\nport {port}").replace("/data", str(tmp_path))
    password = (place / "secrets" / "redis-password").read_text()
    server = subprocess.Popen([*service["entrypoint"], script], stdout=subprocess.DEVNULL)
    try:
        ask = ["redis-cli", "-p", str(port), "ping"]
        deadline = time.monotonic() + 10
        while True:
            bare = subprocess.run(ask, capture_output=True, text=True, check=False)
            if "NOAUTH" in bare.stdout or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert "NOAUTH" in bare.stdout, bare.stdout + bare.stderr
        known = subprocess.run(
            ask, env={**os.environ, "REDISCLI_AUTH": password}, capture_output=True, text=True, check=True
        )
        assert known.stdout.strip() == "PONG"
        assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert password not in Path(f"/proc/{server.pid}/environ").read_text()
    finally:
        server.terminate()
        server.wait(10)
