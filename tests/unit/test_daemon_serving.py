"""The server beside the daemon comes back by itself: from an address that is taken, and from a thread that died."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from drd.counts import StoreCounts
from drd.daemon.numbers import Numbers
from drd.daemon.web import serving
from drd.daemon.web.serving import Serving
from drd.daemon.web.settings import Place, WebSettings
from tests.support.overview_site import OverviewSite, board_of
from tests.support.web_client import ask


def stage(folder: Path, settings: WebSettings) -> SimpleNamespace:
    """Make what a server needs of a daemon."""
    site = OverviewSite(folder)
    site.backup("shop")
    overviews = site.overviews("shop")
    overviews.refresh()
    return SimpleNamespace(
        overview=overviews.now,
        desk=SimpleNamespace(board=board_of),
        world=SimpleNamespace(web=settings, ports=site.ports, heartbeat_s=60.0),
        heart=SimpleNamespace(store_error="", silent_s=None),
    )


def test_it_moves_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is taken is refused and the old one kept; where that is taken too, it is tried again."""
    monkeypatch.setattr(serving, "_AGAIN_EVERY_S", 0.0)
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        taken, own = first.getsockname()[1], second.getsockname()[1]
        first.listen()
        second.close()
        daemon = stage(tmp_path, WebSettings(place=Place(port=own)))
        with Serving(daemon, Numbers(StoreCounts()), lambda _: {}) as shown:  # type: ignore[arg-type]
            daemon.world.web = WebSettings(place=Place(port=taken))
            assert "cannot listen" in shown.adopt()
            assert ask(shown.place, "/healthz").status == 200
            assert shown.place.port == own
            shown._server.close()
            with socket.create_server(("127.0.0.1", own)):
                shown.tick()
                shown.tick()
                assert not shown._server.alive
            shown.tick()
            assert ask(shown.place, "/healthz").status == 200
            shown._server._server.should_exit = True  # as if its loop had died
            shown._server._thread.join(5)
            shown.tick()
            assert ask(shown.place, "/readyz").status == 503


def test_rows_are_made_before_anybody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page that is made for nobody leaves its rows to who asks next; the next such page has no old ones."""
    daemon = stage(tmp_path, WebSettings(place=Place(port=0)))
    with Serving(daemon, Numbers(StoreCounts()), lambda _: {}) as shown:  # type: ignore[arg-type]
        first = shown._kept
        shown.tick()
        made = shown._kept
        assert made is not first
        shown.tick()
        assert shown._kept is made
        assert "shop" in ask(shown.place, "/").text
        monkeypatch.setattr(serving, "_ROWS_EVERY_S", 0.0)
        shown._rows_due_s = 0.0
        shown.tick()
        assert shown._kept is not made


def test_the_textfile_is_kept_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written while the daemon runs, and a folder that is missing is said once and tried again."""
    monkeypatch.setattr(serving, "_TEXTFILE_EVERY_S", 0.0)
    path = tmp_path / "later" / "drd.prom"
    daemon = stage(tmp_path, WebSettings(place=Place(port=0), textfile=path))
    with Serving(daemon, Numbers(StoreCounts()), lambda _: {}) as shown:  # type: ignore[arg-type]
        shown.tick()
        assert not path.exists()
        path.parent.mkdir()
        shown.tick()
        assert 'drd_backups{source="shop"} 1.0' in path.read_text()
        written = path.stat().st_mtime_ns
        time.sleep(0.01)
        shown.tick()
        assert path.stat().st_mtime_ns > written
