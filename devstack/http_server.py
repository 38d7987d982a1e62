"""Servers of Prometheus' family, which say over HTTP whether they are ready."""

from __future__ import annotations

import http.client

from devstack.errors import DevstackError
from devstack.server import Server


class HttpServer(Server):
    """A server whose ``/-/ready`` answers 200 when it is; ``path`` is what all its addresses begin with."""

    path = ""

    def probe(self) -> str | None:
        """Ask whether it is ready."""
        try:
            self.get("/-/ready")
        except (OSError, http.client.HTTPException, DevstackError) as error:
            return str(error)
        return None

    def get(self, path: str) -> bytes:
        """Return what a path answers; raises DevstackError for anything but 200, with the answer's beginning."""
        connection = http.client.HTTPConnection(self.host, self.ports["port"], timeout=10)
        try:
            connection.request("GET", self.path + path)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise DevstackError(f"{path} answered {answer.status}: {data[:500].decode('utf-8', 'replace')}")
        return data
