"""The shipped units are right to systemd's own tool, closed by its measure, and agree with drd's defaults."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from devstack.errors import ServiceMissing
from drd.config_daemon import DaemonConfig
from drd.config_values import parse_duration
from tests.support.services import present

pytestmark = pytest.mark.integration

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "systemd"
SERVICES = ("drd.service", "drd-backup.service")
PROGRAM = "/opt/drd/bin/drd"
MOST_EXPOSED = 1.6
"""Of 10, by systemd's own measure. What is left: it reaches the network, and any address of it."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Give a folder with the units, a program that this machine has in place of drd's."""
    with present():
        if shutil.which("systemd-analyze") is None:
            raise ServiceMissing("systemd-analyze is missing: apt-get install systemd")
    for file in SHIPPED.iterdir():
        text = file.read_text(encoding="utf-8")
        (tmp_path / file.name).write_text(text.replace(PROGRAM, "/bin/true"), encoding="utf-8")
    return tmp_path


def analyze(folder: Path, *words: str) -> str:
    """Run systemd-analyze there; return what it said, which must be good."""
    done = subprocess.run(["systemd-analyze", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings(name: str) -> dict[str, list[str]]:
    """Return what a unit sets, by key, in order."""
    found: dict[str, list[str]] = {}
    for line in (SHIPPED / name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def test_systemd_finds_nothing_wrong(units: Path) -> None:
    """No unknown key, no bad value, no missing unit: it has nothing to say, and it would name a slip."""
    names = ["./drd.service", "./drd-backup.service", "./drd-backup.timer"]
    assert analyze(units, "verify", "--man=no", *names) == ""
    slip = units / "slip.service"
    slip.write_text((units / "drd.service").read_text().replace("ProtectSystem=strict", "ProtectSystem=stern"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", slip], capture_output=True, text=True, check=False)
    assert "stern" in done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little(units: Path, name: str) -> None:
    """By systemd's own measure."""
    said = analyze(units, "security", "--offline=true", f"--threshold={int(MOST_EXPOSED * 10)}", f"./{name}")
    exposed = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposed is not None
    assert float(exposed[1]) <= MOST_EXPOSED


def test_both_services_are_closed_in_the_same_way() -> None:
    """What one may not do, the other may not either, and both are given the same secrets and folders."""
    apart = {"Description", "Type", "NotifyAccess", "ExecStart", "ExecReload", "WatchdogSec", "Restart", "RestartSec"}
    apart |= {"RestartPreventExitStatus", "OOMPolicy", "WantedBy", "StartLimitIntervalSec", "TimeoutStartSec"}
    apart |= {"SuccessExitStatus", "Nice"}
    daemon, once = ({key: value for key, value in settings(name).items() if key not in apart} for name in SERVICES)
    assert daemon == once
    assert len(daemon["LoadCredential"]) == 5


def test_the_daemon_is_given_the_time_that_it_takes() -> None:
    """It is ready, alive, reloaded and stopped as the daemon does it, later than its own grace."""
    unit = settings("drd.service")
    assert unit["Type"] == ["notify"]
    assert unit["KillMode"] == ["mixed"]
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert unit["ExecStart"] == [f"{PROGRAM} --config /etc/drd/drd.yaml daemon"]
    stop = parse_duration(unit["TimeoutStopSec"][0].replace("min", "m"))
    assert stop > DaemonConfig().grace * 2
    assert parse_duration(unit["WatchdogSec"][0].replace("min", "m")) > DaemonConfig().heartbeat
