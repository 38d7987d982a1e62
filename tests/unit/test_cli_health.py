"""The health check of containers: a real HTTP server that answers, one that does not, and none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from devstack.ports import free_port
from drd.cli import health


class _Daemon(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def port() -> Iterator[int]:
    """Give the port of a server that answers as a daemon does."""
    with HTTPServer(("127.0.0.1", 0), _Daemon) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "0.0.0.0:{}", ":{}", "http://127.0.0.1:{}/healthz"])
def test_a_daemon_that_answers_is_alive(port: int, address: str) -> None:
    """Whatever way its address is written, also one that is only listened on."""
    assert health.main([address.format(port)]) == 0


def test_a_daemon_that_is_not_well_or_not_there_is_not_alive(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An error, a closed port, a socket that is missing and nonsense all give exit 1 and a line that says so."""
    monkeypatch.setattr(_Daemon, "status", 500)
    assert health.main([f"127.0.0.1:{port}"]) == 1
    assert "500" in capsys.readouterr().out
    for address in (f"127.0.0.1:{free_port()}", f"unix:{tmp_path}/none", "nonsense", "127.0.0.1:notaport"):
        assert health.main([address]) == 1
        assert address in capsys.readouterr().err
