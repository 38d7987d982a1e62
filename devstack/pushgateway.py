"""A Pushgateway of Prometheus, to be pushed to by what ends before it is scraped."""

from __future__ import annotations

from collections.abc import Sequence

from devstack import obtain
from devstack.http_server import HttpServer
from devstack.workspace import Workspace


class Pushgateway(HttpServer):
    """A Pushgateway that keeps what it has in memory; :meth:`metrics` is what a Prometheus would scrape."""

    kind = "pushgateway"

    def __init__(self, workspace: Workspace, *, name: str | None = None, ready_timeout_s: float = 30.0) -> None:
        self.program = obtain.pushgateway()
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)

    @property
    def url(self) -> str:
        """Where to push to."""
        return f"http://{self.host}:{self.port}"

    def prepare(self) -> None:
        """Need nothing."""

    def argv(self) -> Sequence[str]:
        """Return the server's command line."""
        return [str(self.program), f"--web.listen-address={self.host}:{self.port}"]

    def metrics(self) -> str:
        """Return all that was pushed, in the text format."""
        return self.get("/metrics").decode("utf-8")
