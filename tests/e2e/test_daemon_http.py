"""A real daemon asked over HTTP while it works; and no secret in anything that it, or any verb, ever says or keeps."""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path
from urllib.parse import quote

import pytest

from drd.daemon.web.settings import Place
from drd.model import Secret
from drd.wiring_daemon import place_of
from tests.e2e.conftest import MakeSite
from tests.support.daemons import RunningDaemon, wait_until
from tests.support.drd_site import Site
from tests.support.trading_site import POSTGRES, REDIS, Targets
from tests.support.web_client import Answer, ask

pytestmark = pytest.mark.e2e

TOKEN, CONTROL, ALERTS = "read-me-0123456789abcdef", "change-me-fedcba9876543210", "alerts-me-55aa55aa55aa"


class Asked:
    """A running daemon with its HTTP server; remembers all that it answered."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self.daemon = daemon
        told: str = daemon.wait("http.started")["place"]
        self.place: Place = place_of(told.removeprefix("http://"), None)
        self.answers: list[Answer] = []

    def __call__(self, path: str, method: str = "GET", token: str = TOKEN, **headers: str) -> Answer:
        answer = ask(self.place, path, method=method, authorization=f"Bearer {token}", **headers)
        self.answers.append(answer)
        return answer

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a metric's value."""
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        start = f"{name}{{{wanted}}} " if wanted else f"{name} "
        lines = self("/metrics").text.splitlines()
        return next((float(line.removeprefix(start)) for line in lines if line.startswith(start)), None)


def with_daemon(site: Site, *, heartbeat: str = "1s", **schedules: dict[str, object]) -> Site:
    """Configure the daemon, with both tokens, on a free port."""
    site.env |= {"DRD_TOKEN": TOKEN, "DRD_CONTROL": CONTROL}
    site.secrets = [*site.secrets, TOKEN, CONTROL]
    site.config["schedules"] = schedules
    site.config["daemon"] = {
        "listen": "127.0.0.1:0", "heartbeat": heartbeat, "lease": "5s", "grace": "5s",
        "token": {"env": "DRD_TOKEN"}, "control_token": {"env": "DRD_CONTROL"},
    }  # fmt: skip
    return site


def test_a_day_of_a_daemon_in_some_seconds(make_site: MakeSite, scratch_root: Path, tmp_path: Path) -> None:
    """What a person and Prometheus see agrees with what was done: before, during and after; jobs run on demand."""
    site = with_daemon(make_site(REDIS), yearly={"cron": "0 0 1 1 *"}, tidy={"do": "prune", "cron": "0 0 1 1 *"},
                       sample={"do": "verify", "sample": "100%", "cron": "0 0 1 1 *"})  # fmt: skip
    textfile = tmp_path / "drd.prom"
    site.config["daemon"]["textfile"] = str(textfile)
    site.config["scratch"] = {"dir": str(scratch_root)}
    site.config["drills"] = {"proof": {"runtime": "process", "cron": "0 0 1 1 *"}}
    with RunningDaemon(site) as daemon:
        asked = Asked(daemon)
        wait_until("readiness", lambda: asked("/readyz").status == 200, said=daemon.said)
        wait_until("an overview", lambda: asked.metric("drd_backups", source=REDIS) == 0, said=daemon.said)
        assert asked.metric("drd_backup_last_success_timestamp_seconds", source=REDIS) is None
        for number, job in enumerate(
            (f"backup/yearly/{REDIS}", "drill/proof", f"verify/sample/{REDIS}", f"prune/tidy/{REDIS}"), 1
        ):
            assert asked(f"/api/jobs/{job}/run", "POST", CONTROL).status == 202
            daemon.wait("job.ended", job=job, outcome="ok")
            kind = job.split("/")[0]
            assert asked.metric("drd_job_runs_total", kind=kind, outcome="ok") == 1, number
        backup = daemon.of("job.ended", job=f"backup/yearly/{REDIS}")[0]["backup"]
        run = daemon.of("job.ended", job="drill/proof")[0]["run"]
        wait_until(
            "the proof", lambda: asked.metric("drd_drill_verdict", drill="proof", source=REDIS, verdict="passed")
        )
        assert asked.metric("drd_backups", source=REDIS) == 1
        assert asked.metric("drd_backup_rows", source=REDIS) == daemon.of("backup.finished")[0]["rows"]
        assert asked.metric("drd_prune_kept_backups", source=REDIS) == 1
        assert (asked.metric("drd_store_bytes_total", direction="put") or 0) > 1000
        assert asked.metric("drd_verify_last_success_timestamp_seconds", source=REDIS)
        assert asked.metric("drd_leader") == 1
        assert asked.metric("drd_store_clock_skew_seconds") == 0
        (source,) = asked("/api/status").json["sources"]
        assert (source["newest"]["id"], source["last_drill"]["run"]) == (backup, run)
        assert source["next_run"].startswith("20")
        page = asked("/").text
        assert f"drills/{run}" in page
        assert "Passed: trading-redis" in asked(f"/drills/{run}").text
        wait_until(
            "the textfile", lambda: textfile.exists() and f'drd_backups{{source="{REDIS}"}} 1.0' in textfile.read_text()
        )
        assert "process_" not in textfile.read_text()
        assert asked("/api/pause", "POST", CONTROL).status == 200
        assert asked.metric("drd_scheduler_paused") == 1
        assert asked("/api/resume", "POST", CONTROL).status == 200
        assert ask(asked.place, "/metrics").status == 401
        check_reload(site, daemon, asked)
        daemon.end().succeeds()
    assert daemon.of("backup.finished")[0]["job"] == f"backup/yearly/{REDIS}"


def check_reload(site: Site, daemon: RunningDaemon, asked: Asked) -> None:
    """A new token holds from the reload on; a bad configuration changes nothing and makes the daemon unready."""
    good = site.config_file.read_text()
    newer = "another-token-0123456789"
    site.secrets = [*site.secrets, newer]
    site.config_file.write_text(good.replace("token:\n    env: DRD_TOKEN", f"token: {newer}"))
    daemon.signal(signal.SIGHUP)
    daemon.wait("config.reloaded")
    wait_until("the new token", lambda: ask(asked.place, "/metrics", authorization=f"Bearer {newer}").status == 200)
    assert asked("/metrics").status == 401
    site.config_file.write_text(good + "nonsense: true\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait("config.refused")
    refused = ask(asked.place, "/readyz", authorization=f"Bearer {newer}")
    assert (refused.status, "nonsense" in refused.json["configuration"]["reason"]) == (503, True)
    site.config_file.write_text(good)
    daemon.signal(signal.SIGHUP)
    daemon.wait("config.reloaded", times=2)
    wait_until("readiness", lambda: asked("/readyz").status == 200)
    site.config_file.write_text(good.replace("127.0.0.1:0", "192.0.2.1:1"))  # an address of nobody (RFC 5737)
    daemon.signal(signal.SIGHUP)
    assert "192.0.2.1" in daemon.wait("http.refused")["reason"]
    asked.place = place_of(daemon.wait("http.started", times=2)["place"].removeprefix("http://"), None)
    wait_until("the refusal", lambda: "daemon.listen" in asked("/readyz").json["configuration"].get("reason", ""))
    path = site.folder / "drd.sock"
    site.config_file.write_text(good.replace("127.0.0.1:0", f"unix:{path}"))
    daemon.signal(signal.SIGHUP)
    daemon.wait("http.started", place=f"unix:{path}")
    asked.place = Place(unix=path)
    wait_until("readiness", lambda: asked("/readyz").status == 200)


def test_no_secret_in_anything_that_is_said_or_kept(make_site: MakeSite, scratch_root: Path, targets: Targets) -> None:
    """Backup, restore, drill and a daemon with every kind of secret: none in logs, answers, files or the store."""
    site = with_daemon(make_site(REDIS, POSTGRES), often={"interval": "5s", "sources": [REDIS, POSTGRES]},
                       sample={"do": "verify", "sample": "10%", "interval": "20s", "sources": [REDIS]})  # fmt: skip
    site.env["DRD_ALERTS"] = ALERTS
    site.secrets = [*site.secrets, ALERTS]
    site.config["alertmanager"] = {
        "urls": ["http://127.0.0.1:1"], "username": "drd", "credentials": {"env": "DRD_ALERTS"}, "patience": "1s",
        "timeout": "1s",
    }  # fmt: skip
    site.config["scratch"] = {"dir": str(scratch_root)}
    site.config["drills"] = {"proof": {"runtime": "process", "sources": [REDIS], "interval": "5s"}}
    log = ("--log-format", "json")
    runs = [site("backup", "now", "--json", *log)]
    runs += [site("restore", "--at", "now", "--source", REDIS, "--into", targets.url(REDIS), *log)]
    runs += [site("drill", "now", "--json", *log), site("verify", *log), site("prune", "--apply", *log), site("status")]
    events = {json.loads(line)["event"] for run in runs for line in run.err.splitlines() if line.startswith("{")}
    assert events >= {"backup.started", "backup.finished", "restore.finished", "drill.finished", "verify.finished",
                      "prune.finished", "notify.failed"}  # fmt: skip
    assert [run.rc for run in runs] == [0] * len(runs), [run.described for run in runs if run.rc]
    with RunningDaemon(site, *log) as daemon:
        asked = Asked(daemon)
        daemon.wait("job.ended", outcome="ok", times=3, timeout_s=60)
        run = daemon.wait("drill.finished", timeout_s=60)["run"]
        for path in ("/", "/metrics", "/api/status", f"/drills/{run}", "/readyz", "/nothing"):
            asked(path)
        asked(f"/api/jobs/backup/often/{POSTGRES}/run", "POST", CONTROL)
        daemon.end().succeeds()
    said = [run.text for run in runs] + [daemon.said()] + [answer.text for answer in asked.answers]
    kept = [
        path for path in site.folder.rglob("*") if path.is_file() and path not in {site.config_file, site.identity_file}
    ]
    assert any(path.name == "manifest.json" for path in kept)
    assert any("/jobs/" in str(path) for path in kept)
    for secret in spellings(site):
        for text in said:
            assert secret not in text
        for path in kept:
            assert secret.encode() not in path.read_bytes(), path


def spellings(site: Site) -> set[str]:
    """Return every secret as it stands, as a URL and as basic authentication would spell it."""
    plain = {Secret(text).reveal() for text in site.secrets if len(text) >= 6}
    return plain | {quote(text, safe="") for text in plain} | {
        base64.b64encode(text.encode()).decode().rstrip("=") for text in plain
    }  # fmt: skip
