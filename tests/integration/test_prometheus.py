"""The shipped rules and configuration with the real Prometheus, its tool, and the real Alertmanager behind it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devstack.alertmanager import Alertmanager, Mailbox
from devstack.prometheus import SHIPPED, Prometheus, promtool
from devstack.workspace import Workspace
from drd.cancel import CancelToken
from drd.events import Event
from drd.notify.alertmanager import AlertmanagerNotifier, AlertmanagerSettings
from drd.notify.peer import Access
from tests.support.services import present

pytestmark = pytest.mark.integration


@pytest.fixture
def tool() -> Path:
    """Give the path of promtool."""
    with present():
        return promtool()


@pytest.fixture
def prometheus(workspace: Workspace, alertmanager: Alertmanager) -> Iterator[Prometheus]:
    """Give a Prometheus that finds no drd and tells the session's Alertmanager."""
    with present():
        server = Prometheus(workspace, [], alertmanager=f"{alertmanager.host}:{alertmanager.port}")
    with server:
        yield server
    server.remove()


def run(*argv: str | Path) -> str:
    """Run a program in the folder of the shipped files; return what it said, which must be good."""
    done = subprocess.run(argv, cwd=SHIPPED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_configuration_are_valid(tool: Path) -> None:
    """Prometheus' own tool takes the rules, and the configuration that loads them."""
    assert "rules found" in run(tool, "check", "rules", "drd_rules.yml")
    assert "is valid" in run(tool, "check", "config", "--syntax-only", "prometheus.yml")


def test_each_alert_fires_and_stays_quiet_as_its_cases_say(tool: Path) -> None:
    """Every case of both files holds, with exactly the labels that it names."""
    run(tool, "test", "rules", "drd_rules_test.yml", "drd_rules_slow_test.yml")


def test_the_watchdog_travels_to_alertmanager(prometheus: Prometheus, alertmanager: Alertmanager) -> None:
    """A Prometheus with the shipped rules and labels loads them whole, and its watchdog arrives at its receiver."""
    groups = prometheus.api("rules")["groups"]
    assert sum(len(group["rules"]) for group in groups) == (SHIPPED / "drd_rules.yml").read_text().count("- alert:")
    deadline = time.monotonic() + 20
    while True:
        found = [a for a in alertmanager.alerts() if a["labels"]["alertname"] == "DrdWatchdog"]
        if found or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    (watchdog,) = found
    assert watchdog["labels"] == {"alertname": "DrdWatchdog", "drd": "watchdog", "severity": "none", "site": "fra1"}
    assert [receiver["name"] for receiver in watchdog["receivers"]] == ["drd-watchdog"]
    for group in prometheus.api("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] in {"ok", "unknown"}, (rule["name"], rule.get("lastError"))


def test_what_drd_said_itself_is_not_said_again_by_prometheus(alertmanager: Alertmanager, mailbox: Mailbox) -> None:
    """A rule's alert of a failed backup is inhibited by drd's own; of another source it is mailed, with its runbook."""

    def event(name: str, source: str) -> Event:
        notes = {"summary": f"{name} of {source}", "runbook_url": "docs/runbooks/backup-failing.md"}
        return Event(
            name=name,
            nature="state",
            severity="critical",
            at=datetime.now(UTC),
            labels={"source": source},
            annotations=notes,
        )

    settings = AlertmanagerSettings((alertmanager.url,), Access(5.0), patience_s=15.0, labels={"site": "fra1"})
    told = AlertmanagerNotifier(settings, now=lambda: datetime.now(UTC), cancel=CancelToken())
    told.notify([event("DrdBackupFailed", "rules-a")])
    told.notify([event("DrdBackupFailing", "rules-a"), event("DrdBackupFailing", "rules-b")])
    mail = mailbox.wait(lambda mail: "DrdBackupFailing of rules-b" in mail["Subject"])
    html, text = mail.get_body(("html",)), mail.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "Runbook: docs/runbooks/backup-failing.md" in html.get_content()
    assert "Runbook: docs/runbooks/backup-failing.md" in text.get_content()
    states = {
        a["labels"]["source"]: a["status"]
        for a in alertmanager.alerts()
        if a["labels"]["alertname"] == "DrdBackupFailing"
    }
    assert states["rules-a"]["state"] == "suppressed"
    assert states["rules-a"]["inhibitedBy"]
    assert states["rules-b"]["state"] == "active"
