"""What ``drd backup now`` and ``drd check`` tell an Alertmanager, and that nothing of it changes an outcome."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from devstack.alertmanager import Alertmanager, Mailbox
from devstack.ports import free_port
from tests.e2e.conftest import MakeSite
from tests.support.daemons import RunningDaemon, job_of, timed, wait_until
from tests.support.drd_site import Site
from tests.support.drill_site import with_drills
from tests.support.trading_site import REDIS

pytestmark = pytest.mark.e2e


def alert_names(alertmanager: Alertmanager, site_label: str) -> list[str]:
    """Return the names of the alerts of one site that fire."""
    return sorted(a["labels"]["alertname"] for a in alertmanager.alerts() if a["labels"].get("site") == site_label)


def test_a_failed_backup_fires_and_a_good_one_ends_it(
    make_site: MakeSite, alertmanager: Alertmanager, mailbox: Mailbox
) -> None:
    """With the mail of each; the JSON document counts what was told; check names the peer with its version."""
    site = make_site(REDIS)
    site.config["alertmanager"] = {"urls": [alertmanager.url], "labels": {"site": "backups"}}
    right = site.sources[REDIS]["url"]
    site.sources[REDIS]["url"] = f"redis://127.0.0.1:{free_port()}"
    failed = site("backup", "now", "--json")
    assert failed.rc == 13, failed.described
    assert failed.json["notified"]["events"] == 1
    assert failed.json["notified"]["failed"] == 0
    assert alert_names(alertmanager, "backups") == ["DrdBackupFailed"]
    mail = mailbox.wait(lambda m: f"backups: the backup of {REDIS} failed" in m["Subject"])
    site.demand_no_secret(mail.as_string(), "the mail")
    site.sources[REDIS]["url"] = right
    good = site("backup", "now", "--json").succeeds().json
    assert [peer["outcome"] for peer in good["notified"]["peers"]] == ["ok"]
    assert alert_names(alertmanager, "backups") == []
    mailbox.wait(lambda m: f"backups: resolved: {REDIS} is backed up: {good['backups'][0]['id']}" in m["Subject"])
    items = {item["name"]: item for item in site("check", "--json").succeeds().json["items"]}
    assert items[f"alertmanager {alertmanager.url}"]["outcome"] == "ok"


def test_a_run_that_cannot_begin_is_a_failed_backup(make_site: MakeSite, alertmanager: Alertmanager) -> None:
    """A password that is not set at night is told of; a source that nobody configured is not."""
    site = make_site(REDIS)
    site.config["alertmanager"] = {"urls": [alertmanager.url], "labels": {"site": "cannot-begin"}}
    assert site("backup", "now", "no-such-source").rc == 2
    assert alert_names(alertmanager, "cannot-begin") == []
    site.sources[REDIS]["password"] = {"env": "NOBODY_SETS_THIS"}
    assert site("backup", "now").rc == 2
    assert alert_names(alertmanager, "cannot-begin") == ["DrdBackupFailed"]


def test_an_alertmanager_that_is_away_changes_nothing_and_is_visible(make_site: MakeSite) -> None:
    """Exit 0 and a backup; a warning with the reason on standard error, a count in the document, a failed check."""
    site = make_site(REDIS)
    url = f"http://127.0.0.1:{free_port()}"
    site.env["AM_TOKEN"] = "am-token-5d1e9f"
    site.secrets.add("am-token-5d1e9f")
    site.config["alertmanager"] = {
        "urls": [url],
        "timeout": "1s",
        "patience": "1s",
        "credentials": {"env": "AM_TOKEN"},
    }
    run = site("backup", "now", "--json").succeeds()
    assert run.json["outcome"] == "ok"
    assert run.json["notified"]["failed"] == 1
    assert f"drd: warning: {url} was not told" in run.err
    assert "Connection refused" in run.err
    text = site("backup", "now").succeeds()
    assert "1 of 1 source backed up" in text.out
    check = site("check")
    assert check.rc == 2, check.described
    assert f"✗ alertmanager {url}" in check.out


def test_a_drill_is_mailed_with_what_it_found(
    copied: Site, alertmanager: Alertmanager, mailbox: Mailbox, tmp_path
) -> None:
    """A drill that cannot be carried out exits 22 all the same, and its mail says why."""
    site = with_drills(copied, tmp_path / "scratch", unverifiable={"sources": [REDIS], "runtime": "process"})
    site.config["alertmanager"] = {"urls": [alertmanager.url], "labels": {"site": "drills"}}
    site.config["encryption"].pop("identity", None)
    run = site("drill", "now", "--json")
    assert run.rc == 22, run.described
    assert run.json["notified"] == {
        "events": 2,
        "failed": 0,
        "peers": [{"peer": alertmanager.url, "outcome": "ok", "attempts": 1, "message": ""}],
    }
    mail = mailbox.wait(lambda m: "drills: drill unverifiable could not be carried out" in m["Subject"])
    body = mail.get_body(("plain",))
    assert body is not None
    assert run.json["runs"][0]["run"] in body.get_content()
    assert "DrdDrillNotPassed" in alert_names(alertmanager, "drills")


def test_a_drill_that_is_killed_is_told_of_by_the_daemon(
    copied: Site, alertmanager: Alertmanager, mailbox: Mailbox, scratch_root: Path
) -> None:
    """By mail and as a state of its source, with the signal; the state is over with the next drill that passes."""
    site = timed(with_drills(copied, scratch_root, killed={"sources": [REDIS], "runtime": "process", "interval": "1h"}))
    site.config["alertmanager"] = {"urls": [alertmanager.url], "labels": {"site": "killed"}}
    site.env["NOBODY_SETS_THIS"] = "no-database-is-asked"
    with RunningDaemon(site) as daemon:
        os.kill(job_of(daemon), signal.SIGKILL)
        ended = daemon.wait("job.ended", job="drill/killed", outcome="failed")
        assert ended["message"] == "the job's process ended by signal 9, without a report"
        mail = mailbox.wait(lambda m: "killed: drill killed could not be carried out: the job" in m["Subject"])
        body = mail.get_body(("plain",))
        assert body is not None
        assert "out-of-memory" in body.get_content()
        page = mail.get_body(("html",))
        assert page is not None
        assert "<b>Next:</b> look at its last lines" in page.get_content()
        assert "The evidence in full" not in page.get_content(), "there is none"
        daemon.wait("job.ended", job="drill/killed", outcome="ok", timeout_s=60)
        wait_until("the state to be over", lambda: "DrdDrillNotPassed" not in alert_names(alertmanager, "killed"))
        mailbox.wait(lambda m: f"killed: resolved: drill killed of {REDIS} passed" in m["Subject"])
        daemon.end().succeeds()
