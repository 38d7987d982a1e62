"""A Prometheus with the rules that drd ships, which scrapes what it is told to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from devstack import obtain
from devstack.http_server import HttpServer
from devstack.workspace import Workspace

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "prometheus"


def promtool() -> Path:
    """Return Prometheus' tool, which lies beside it."""
    return obtain.prometheus().with_name("promtool")


class Prometheus(HttpServer):
    """Prometheus with the shipped configuration: its rules, its scrape job and its external labels.

    ``targets`` are what the job ``drd`` scrapes (``host:port``), ``token_file`` the bearer token for them or None,
    ``alertmanager`` a ``host:port`` to tell or None. It scrapes and evaluates each ``interval``.
    """

    kind = "prometheus"

    def __init__(
        self,
        workspace: Workspace,
        targets: Sequence[str],
        *,
        name: str | None = None,
        token_file: Path | None = None,
        alertmanager: str | None = None,
        interval: str = "1s",
        ready_timeout_s: float = 30.0,
    ) -> None:
        self.program = obtain.prometheus()
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)
        self.targets = list(targets)
        self.token_file = token_file
        self.alertmanager = alertmanager
        self.interval = interval

    @property
    def url(self) -> str:
        """The URL of its API."""
        return f"http://{self.host}:{self.port}"

    def prepare(self) -> None:
        """Write the shipped configuration with these targets in it, and the rules beside it."""
        config: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] |= {
            "scrape_interval": self.interval,
            "scrape_timeout": self.interval,
            "evaluation_interval": self.interval,
        }
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": self.targets}]
        if self.token_file is None:
            del job["authorization"]
        else:
            job["authorization"]["credentials_file"] = str(self.token_file)
        told = [self.alertmanager] if self.alertmanager else []
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": told}]}]
        for rules in config["rule_files"]:
            shutil.copy(SHIPPED / rules, self.dir)
        (self.dir / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def argv(self) -> Sequence[str]:
        """Return the server's command line."""
        return [
            str(self.program),
            f"--config.file={self.dir / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.dir / 'data'}",
            f"--web.listen-address={self.host}:{self.port}",
            "--storage.tsdb.retention.time=1d",
            f"--rules.alert.resend-delay={self.interval}",  # it finds its Alertmanager after its first alerts
        ]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression is now: samples with ``metric`` and ``value``; raises for one that is wrong."""
        data = self.api("query", {"query": expression})
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def api(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Return ``data`` of what the API answers below ``/api/v1/``."""
        text = self.get(f"/api/v1/{path}?{urlencode(parameters or {})}")
        return json.loads(text)["data"]
