"""An Alertmanager, and the mailbox its mails go to."""

from __future__ import annotations

import json
import shutil
import smtplib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import yaml

from devstack import obtain
from devstack.errors import DevstackError
from devstack.http_server import HttpServer
from devstack.server import Server
from devstack.workspace import Workspace

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "alertmanager"


class Mailbox(Server):
    """An SMTP server (aiosmtpd) that keeps each mail as a file; a restart keeps what it has."""

    kind = "smtp"

    def __init__(self, workspace: Workspace, *, name: str | None = None, ready_timeout_s: float = 20.0) -> None:
        obtain.smtp()
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)
        self.folder = self.dir / "mails"
        self.folder.mkdir()

    def prepare(self) -> None:
        """Nothing is needed."""

    def argv(self) -> Sequence[str]:
        """Return the server's command line."""
        return [sys.executable, "-m", "devstack.mailbox", str(self.port), str(self.folder)]

    def environment(self) -> Mapping[str, str]:
        """Let the server find this very devstack."""
        return {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}

    def probe(self) -> str | None:
        """Say hello in SMTP."""
        try:
            with smtplib.SMTP(self.host, self.port, timeout=2) as client:
                client.noop()
        except (OSError, smtplib.SMTPException) as error:
            return str(error)
        return None

    def mails(self) -> list[EmailMessage]:
        """Return every mail so far, oldest first."""
        return [
            message_from_bytes(path.read_bytes(), policy=policy.default) for path in sorted(self.folder.glob("*.eml"))
        ]

    def wait(self, wanted: Callable[[EmailMessage], bool], timeout_s: float = 40.0) -> EmailMessage:
        """Return the first mail that is wanted; raises with the subjects that came when none is in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            if (found := next(filter(wanted, self.mails()), None)) is not None:
                return found
            if time.monotonic() > deadline:
                raise DevstackError(f"no such mail in {timeout_s:.0f} s, only: {[m['Subject'] for m in self.mails()]}")
            time.sleep(0.05)


class Alertmanager(HttpServer):
    """Prometheus' Alertmanager with the configuration that drd ships, its mails going to a :class:`Mailbox`.

    The groups' and the repetition's times are shortened for tests; ``path`` is a ``--web.route-prefix``. ``peer`` is
    another one of the same cluster; without it each stands alone.
    """

    kind = "alertmanager"
    port_names = ("port", "cluster_port")

    def __init__(
        self,
        workspace: Workspace,
        mailbox: Mailbox,
        *,
        name: str | None = None,
        state_wait: str = "1s",
        state_interval: str = "2s",
        path: str = "",
        clustered: bool = False,
        peer: Alertmanager | None = None,
        ready_timeout_s: float = 30.0,
    ) -> None:
        self.program = obtain.alertmanager()
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)
        self.mailbox = mailbox
        self.times = {"group_wait": state_wait, "group_interval": state_interval}
        self.path = path
        self.clustered = clustered or peer is not None
        self.peer = peer

    @property
    def url(self) -> str:
        """The URL that drd is given."""
        return f"http://{self.host}:{self.port}{self.path}"

    def prepare(self) -> None:
        """Write the shipped configuration with this mailbox in it."""
        config: dict[str, Any] = yaml.safe_load((SHIPPED / "alertmanager.yml").read_text(encoding="utf-8"))
        config["global"] = {
            "smtp_smarthost": f"{self.mailbox.host}:{self.mailbox.port}",
            "smtp_from": "drd@example.net",
            "smtp_require_tls": False,
        }
        for route in config["route"]["routes"]:
            if route["receiver"] == "drd-state":
                route.update(self.times)
            route["group_interval"] = self.times["group_interval"]
        shutil.copy(SHIPPED / "drd.tmpl", self.dir)
        (self.dir / "alertmanager.yml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def argv(self) -> Sequence[str]:
        """Return the server's command line."""
        cluster = [f"--cluster.listen-address={self.host}:{self.ports['cluster_port']}" if self.clustered else ""]
        cluster = ["--cluster.peer-timeout=2s", *cluster] if self.clustered else ["--cluster.listen-address="]
        if self.peer is not None:
            cluster.append(f"--cluster.peer={self.host}:{self.peer.ports['cluster_port']}")
        return [
            str(self.program),
            f"--config.file={self.dir / 'alertmanager.yml'}",
            f"--storage.path={self.dir / 'data'}",
            f"--web.listen-address={self.host}:{self.port}",
            f"--web.route-prefix={self.path or '/'}",
            *cluster,
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that it holds as firing."""
        found: list[dict[str, Any]] = json.loads(self.get("/api/v2/alerts"))
        return found
