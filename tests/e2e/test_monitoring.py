"""What watches drd, on the real thing: Prometheus scrapes a daemon at work, and the dashboard has data everywhere."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.ports import free_port
from devstack.prometheus import Prometheus
from devstack.server import private_file
from devstack.workspace import Workspace
from tests.e2e.conftest import MakeSite
from tests.support import dashboard
from tests.support.daemons import RunningDaemon
from tests.support.drd_site import Site
from tests.support.services import present
from tests.support.trading_site import POSTGRES, REDIS

pytestmark = pytest.mark.e2e

TOKEN = "a-token-that-only-prometheus-has"
FILLED = {"job": ".*", "source": ".*", "drill": ".*", "__rate_interval": "20s", "__range": "60s"}


@pytest.fixture
def site(make_site: MakeSite, scratch_root: Path, tmp_path: Path) -> Site:
    """Give a site of two sources with everything that a daemon can be told to do, for one of them every few seconds."""
    made = make_site(POSTGRES, REDIS)
    for source in made.sources.values():
        source["rpo"] = "1h"
    token = private_file(tmp_path / "token", TOKEN + "\n")
    made.secrets.add(TOKEN)
    made.config |= {
        "schedules": {
            "often": {"interval": "5s", "sources": [REDIS]},
            "rarely": {"interval": "1h", "sources": [POSTGRES]},
            "tidy": {"do": "prune", "interval": "4s", "sources": [REDIS]},
            "sample": {"do": "verify", "sample": "5%", "interval": "6s", "sources": [REDIS]},
        },
        "retention": {"keep_last": 2, "keep_within": None, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0},
        "drills": {
            "again": {
                "interval": "7s",
                "sources": [REDIS],
                "runtime": "process",
                "objectives": {"rto": "5m", "rpo": "1h"},
            }
        },
        "scratch": {"dir": str(scratch_root)},
        "daemon": {
            "listen": f"127.0.0.1:{free_port()}",
            "heartbeat": "1s",
            "lease": "5s",
            "concurrency": 4,
            "token": {"file": str(token)},
        },
    }
    return made


@pytest.fixture
def prometheus(site: Site, workspace: Workspace, tmp_path: Path) -> Iterator[Prometheus]:
    """Give a Prometheus with the shipped rules that scrapes the site's daemon with its token."""
    with present():
        server = Prometheus(workspace, [site.config["daemon"]["listen"]], token_file=tmp_path / "token")
    with server:
        yield server
    server.remove()


def is_empty(prometheus: Prometheus, query: dashboard.Query) -> bool:
    """Whether a query gives no number at all."""
    values = [float(sample["value"][1]) for sample in prometheus.query(query.filled(**FILLED))]
    return all(math.isnan(value) for value in values)


def test_every_query_of_the_dashboard_has_data_of_a_daemon_at_work(site: Site, prometheus: Prometheus) -> None:
    """No panel is blank, each variable finds values, every rule is healthy, and nothing alarms without a reason."""
    site("backup", "now").succeeds()
    with RunningDaemon(site) as daemon:
        for job in (f"backup/often/{REDIS}", f"prune/tidy/{REDIS}", f"verify/sample/{REDIS}", "drill/again"):
            daemon.wait("job.ended", job=job, outcome="ok", timeout_s=90)
        deadline = time.monotonic() + 60
        # Alerts are marked in time, and none is there to be marked.
        empty = [query for query in dashboard.queries() if not query.panel.startswith("annotation")]
        while empty and time.monotonic() < deadline:
            empty = [query for query in empty if is_empty(prometheus, query)]
            time.sleep(0.5)
        assert [(query.panel, query.ref) for query in empty] == []
        for variable in dashboard.load()["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
                assert prometheus.api(f"label/{label}/values", {"match[]": metric.replace("$job", ".*")}), variable[
                    "name"
                ]
        rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
        assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == ["DrdWatchdog"]
        daemon.end().succeeds()
