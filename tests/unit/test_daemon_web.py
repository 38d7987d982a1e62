"""The daemon's HTTP server, asked over real connections: probes, metrics, page, reports, control; who may what."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drd.counts import StoreCounts
from drd.daemon.metrics import DrdCollector, registry_of
from drd.daemon.model import Board
from drd.daemon.numbers import Numbers
from drd.daemon.readiness import conditions
from drd.daemon.web import app as web
from drd.daemon.web import server as serving
from drd.daemon.web.app import Shown, application
from drd.daemon.web.gate import NOTHING_POLICY, Access, hosts_of
from drd.daemon.web.page import content_security_policy, render
from drd.daemon.web.server import Place, WebServer
from drd.drills.history import History, RecordedRun
from drd.errors import ConfigError, StoreUnavailable
from drd.model import Secret
from tests.support.certificates import self_signed
from tests.support.overview_site import OverviewSite, board_of, job_view
from tests.support.web_client import ask, raw

TOKEN, CONTROL = "reading-is-what-it-is-for", "changing-is-what-it-is-for"


class Recorder:
    """Controls that write down what they were asked; knows one job."""

    def __init__(self, site: OverviewSite) -> None:
        self.site = site
        self.asked: list[str] = []

    def board(self) -> Board:
        assert self.site.board is not None
        return self.site.board

    def run_now(self, job: str) -> None:
        if job != "backup/hourly/shop":
            raise ConfigError(f"no job is called {job}", hint="see the page for their names")
        self.asked.append(job)

    def pause(self, *, paused: bool) -> None:
        self.asked.append("pause" if paused else "resume")


class Served:
    """A running server over a repository in memory, and what can be turned about it."""

    def __init__(self, folder: Path) -> None:
        self.site = OverviewSite(folder)
        self.site.board = board_of(job_view("backup", "shop"))
        self.overviews = self.site.overviews("shop")
        self.controls = Recorder(self.site)
        self.access = Access(hosts=hosts_of("127.0.0.1", ()))
        self.store_error = ""
        self.pages = 0
        self.find: Callable[[str], RecordedRun] = History(self.site.store, self.site.ports.catalog.signing).find
        self.servers: list[WebServer] = []

    def start(self, place: Place | None = None) -> Place:
        """Serve, and return where."""
        server = WebServer(application(self.shown()), place or Place(port=0))
        self.servers.append(server)
        server.start()
        return server.place

    def shown(self) -> Shown:
        return Shown(
            overview=self.overviews.now,
            page=self._page,
            policy=content_security_policy,
            report=self._report,
            status=lambda overview: {"sources": [view.name for view in overview.sources]},
            conditions=self._conditions,
            registry=registry_of(DrdCollector(self.overviews.now, Numbers(StoreCounts())), process=True),
            controls=self.controls,
            access=lambda: self.access,
            now=lambda: self.site.now,
        )

    def _page(self, overview, now):  # type: ignore[no-untyped-def]
        self.pages += 1
        return render(overview, now)

    def _report(self, run: str) -> RecordedRun:
        return self.find(run)

    def _conditions(self):  # type: ignore[no-untyped-def]
        silent_s = None if self.store_error else 0.0
        return conditions(self.site.board, silent_s=silent_s, store_error=self.store_error, heartbeat_s=60)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Give a server that is not started yet."""
    found = Served(tmp_path)
    found.site.backup("shop")
    found.overviews.refresh()
    yield found
    for server in found.servers:
        server.close()


def test_probes_answer_whoever_asks(served: Served) -> None:
    """Alive is always 200; ready says in JSON what is not as it should be, with 503."""
    place = served.start()
    for path in ("/healthz", "/health"):
        assert (ask(place, path).status, ask(place, path).json) == (200, {"status": "ok"})
    for path in ("/readyz", "/ready"):
        good = {name: {"ok": True} for name in ("configuration", "store", "scheduler")}
        assert (ask(place, path).status, ask(place, path).json) == (200, {"ready": True, **good})
    served.store_error = "no answer from http://s3.internal"
    assert ask(place, "/readyz").status == 503
    assert ask(place, "/readyz").json["store"] == {"ok": False, "reason": "no answer from http://s3.internal"}
    served.store_error = ""
    assert served.site.board is not None
    served.site.board = dataclasses.replace(served.site.board, state="draining", reload_error="sources.x: no such key")
    found = ask(place, "/ready").json
    assert found["scheduler"] == {"ok": False, "reason": "it is draining"}
    assert found["configuration"] == {"ok": False, "reason": "sources.x: no such key"}
    assert ask(place, "/healthz", host="10.1.2.3:8088").status == 200
    assert ask(place, "/readyz", method="HEAD").body == b""


def test_metrics_come_in_both_formats(served: Served) -> None:
    """The format is the one that the scraper prefers, and says so."""
    place = served.start()
    text = ask(place, "/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert 'drd_backups{source="shop"} 1.0' in text.text
    newer = ask(place, "/metrics", accept="application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1")
    assert newer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert newer.text.endswith("# EOF\n")
    assert "process_resident_memory_bytes" in text.text


def test_the_page_and_a_report_are_shown(served: Served) -> None:
    """The page is the real one, under a policy that allows nothing from elsewhere; a report by its id."""
    run = served.site.drill("shop")
    served.overviews.refresh()
    place = served.start()
    page = ask(place, "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"drills/{run.id}" in page.text
    assert page.headers["content-security-policy"] == content_security_policy()
    expected = {
        "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }  # fmt: skip
    assert expected.items() <= page.headers.items()
    assert {"server", "access-control-allow-origin", "set-cookie"}.isdisjoint(page.headers)
    report = ask(place, f"/drills/{run.id}")
    assert (report.status, "Drill passed" in report.text) == (200, True)
    assert ask(place, "/api/status").json == {"sources": ["shop"]}


def test_a_page_is_made_once_for_many(served: Served) -> None:
    """Twenty clients in the same moment cost one page."""
    place = served.start()
    threads = [threading.Thread(target=ask, args=(place, "/")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served.pages <= 3


def test_long_answers_are_packed_for_those_who_take_it(served: Served) -> None:
    """Page and metrics are gzipped for clients that take it, whole for others, and short answers stay as they are."""
    place = served.start()
    for path in ("/", "/metrics"):
        whole = ask(place, path)
        short = ask(place, path, accept_encoding="br, gzip;q=0.5")
        assert "content-encoding" not in whole.headers
        assert (short.headers["content-encoding"], short.headers["vary"]) == ("gzip", "accept-encoding")
        assert len(short.body) < len(whole.body) / 2
        assert gzip.decompress(short.body)[:100] == whole.body[:100]
    for refused in ("gzip;q=0", "identity, *;q=0", "gzip;q=x", "br"):
        assert "content-encoding" not in ask(place, "/", accept_encoding=refused).headers, refused
    assert "content-encoding" not in ask(place, "/healthz", accept_encoding="gzip").headers


def test_a_page_that_takes_long_holds_up_no_probe(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many wait for a page that is not made yet, probes are answered."""
    made = threading.Event()
    monkeypatch.setattr(served, "_page", lambda *_: str(made.wait(20)))
    place = served.start()
    asking = [threading.Thread(target=ask, args=(place, "/")) for _ in range(12)]
    for thread in asking:
        thread.start()
    try:
        for path in ("/healthz", "/readyz"):
            assert ask(place, path).status == 200
        assert all(thread.is_alive() for thread in asking)
    finally:
        made.set()
        for thread in asking:
            thread.join(20)


def test_what_is_not_there_is_said_in_json(served: Served) -> None:
    """Unknown addresses, ids and methods; a store that is away while a report is read; ids that leave the folder."""
    place = served.start()
    assert ask(place, "/nothing").status == 404
    assert ask(place, "/drills/20261122T181455Z-k3f9qa").json["error"]["code"] == "no_such_backup"
    for run in ("x", "..%2f..%2fdrd", "20261122T181455Z-k3f9qa%00"):
        assert ask(place, f"/drills/{run}").status == 404

    def away(_run: str) -> RecordedRun:
        raise StoreUnavailable("no answer")

    served.find = away
    assert ask(place, "/drills/20261122T181455Z-k3f9qa").status == 503
    assert ask(place, "/metrics", method="DELETE").status == 403
    found = ask(place, "/nothing", method="HEAD")
    assert (found.status, found.headers["content-security-policy"]) == (404, NOTHING_POLICY)


def test_a_store_that_hangs_holds_up_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that never come time out, and meanwhile everything else is answered."""
    monkeypatch.setattr(web, "PATIENCE_S", 1.0)
    hang = threading.Event()

    def hanging(_run: str) -> RecordedRun:
        hang.wait(20)
        raise StoreUnavailable("too late")

    served.find = hanging
    place = served.start()
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(place, "/drills/20261122T181455Z-k3f9qa").status))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for path in ("/healthz", "/metrics", "/"):
        assert ask(place, path).status == 200
    for thread in threads:
        thread.join()
    hang.set()
    assert answers == [503] * 5


def test_reading_may_need_a_token(served: Served) -> None:
    """As bearer, or as the password of any user, since that is what a browser can ask a person for."""
    served.access = dataclasses.replace(served.access, token=Secret(TOKEN), control_token=Secret(CONTROL))
    place = served.start()

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    for path in ("/", "/metrics", "/api/status", "/drills/20261122T181455Z-k3f9qa", "/nothing"):
        refused = ask(place, path)
        assert (refused.status, "Basic" in refused.headers["www-authenticate"]) == (401, True)
        assert TOKEN not in refused.text
    good = [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f"me:{TOKEN}"), basic(f":{TOKEN}"), f"Bearer {CONTROL}"]
    assert [ask(place, "/metrics", authorization=value).status for value in good] == [200] * len(good)
    bad = [
        "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", basic(TOKEN), basic(f"{TOKEN}:"),
        basic(f"me:{CONTROL}"), "Basic %%%", f"Token {TOKEN}",
    ]  # fmt: skip
    assert [ask(place, "/metrics", authorization=value).status for value in bad] == [401] * len(bad)
    assert ask(place, "/healthz").status == 200
    served.store_error = "no answer from http://s3.internal"
    assert ask(place, "/readyz").json["store"] == {"ok": False}
    assert "reason" in ask(place, "/readyz", authorization=f"Bearer {TOKEN}").json["store"]


def test_changing_is_off_unless_configured(served: Served) -> None:
    """Without a control token nobody changes anything, whatever they send."""
    served.access = dataclasses.replace(served.access, token=Secret(TOKEN))
    place = served.start()
    for path in ("/api/pause", "/api/resume", "/api/jobs/backup/hourly/shop/run"):
        assert ask(place, path, method="POST", authorization=f"Bearer {TOKEN}").status == 403
    assert served.controls.asked == []


def test_changing_takes_the_control_token_as_bearer(served: Served) -> None:
    """Another token, a password, another site's page or a simple form cannot; a program with the token can."""
    served.access = dataclasses.replace(served.access, token=Secret(TOKEN), control_token=Secret(CONTROL))
    place = served.start()
    run = "/api/jobs/backup/hourly/shop/run"
    good = {"authorization": f"Bearer {CONTROL}"}
    password = "Basic " + base64.b64encode(f"me:{CONTROL}".encode()).decode()
    assert ask(place, run, method="POST").status == 401
    assert ask(place, run, method="POST", authorization=f"Bearer {TOKEN}").status == 401
    assert ask(place, run, method="POST", authorization=password).status == 401
    for strange in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"},
                    {"origin": f"http://127.0.0.1:{place.port + 1}"}, {"sec_fetch_site": "same-site"}):  # fmt: skip
        assert ask(place, run, method="POST", **good, **strange).status == 403
    assert ask(place, run, method="GET", **good).status == 405
    assert served.controls.asked == []
    found = ask(place, run, method="POST", **good)
    assert (found.status, found.json) == (202, {"outcome": "planned", "job": "backup/hourly/shop"})
    own = {"origin": f"http://127.0.0.1:{place.port}", "sec_fetch_site": "same-origin"}
    assert ask(place, "/api/pause", method="POST", **good, **own).json == {"outcome": "paused"}
    assert ask(place, "/api/resume", method="POST", **good).json == {"outcome": "resumed"}
    assert served.controls.asked == ["backup/hourly/shop", "pause", "resume"]
    unknown = ask(place, "/api/jobs/backup/hourly/nothing/run", method="POST", **good)
    assert (unknown.status, unknown.json["error"]["hint"]) == (404, "see the page for their names")
    assert (
        ask(place, "/", method="OPTIONS", origin="https://evil.example")
        .headers.keys()
        .isdisjoint({"access-control-allow-origin", "access-control-allow-headers"})
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200), ("localhost", 200), ("LOCALHOST.:80", 200), ("[::1]:8088", 200), ("drd.lan", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example:8088", 421), ("", 421), ("localhost.evil.example", 421),
    ],
)  # fmt: skip
def test_another_name_is_refused_on_loopback(served: Served, host: str, status: int) -> None:
    """A name that an attacker controls may point to this machine, and a browser would send it along."""
    served.access = Access(hosts=hosts_of("127.0.0.1", ["drd.lan"]))
    place = served.start()
    assert ask(place, "/metrics", host=host).status == status


def test_names_are_checked_where_it_matters() -> None:
    """On loopback always, elsewhere only when names are configured: probes and scrapers come by address there."""
    assert hosts_of("0.0.0.0", ()) is None  # noqa: S104
    assert hosts_of("::", ["drd.lan"]) == {"::", "drd.lan", "localhost", "127.0.0.1", "::1"}
    assert hosts_of("127.0.0.9", ()) == {"127.0.0.9", "localhost", "127.0.0.1", "::1"}
    assert hosts_of("[::1]", ()) == {"localhost", "127.0.0.1", "::1"}


def test_requests_are_bounded(served: Served) -> None:
    """No body of any size, no endless head, no chunks; nonsense is refused."""
    place = served.start()
    assert ask(place, "/api/pause", method="POST", body=b"x" * 2000).status == 413
    assert ask(place, "/", method="GET", content_length="99999999999").status == 413
    assert ask(place, "/", content_length="-1").status in {400, 413}
    chunked, _ = raw(place, b"POST /api/pause HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b" 413 " in chunked.split(b"\r\n")[0]
    endless, _ = raw(place, b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
    assert endless == b"" or b" 400 " in endless.split(b"\r\n")[0]
    nonsense, _ = raw(place, b"\x16\x03\x01 hello\r\n\r\n")
    assert nonsense == b"" or b" 400 " in nonsense.split(b"\r\n")[0]
    assert ask(place, "/" + "x" * 10_000).status == 404


@pytest.mark.parametrize("path", ["/healthz", "/", "/nothing"])
@pytest.mark.parametrize("where", ["header", "headers", "query", "path"])
def test_a_long_head_is_refused_also_when_it_comes_at_once(served: Served, where: str, path: str) -> None:
    """Sixteen kilobytes are enough for what is asked here, in however many pieces and fields they come."""
    place = served.start()
    more = {"header": [f"X: {'x' * 30_000}"], "headers": [f"X-{n}: {n}" for n in range(3000)]}.get(where, [])
    target = path + {"query": f"?{'q' * 30_000}", "path": "/" + "p" * 30_000}.get(where, "")
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *more, "", ""])
    answer, _ = raw(place, head.encode())
    assert b" 431 " in answer.split(b"\r\n")[0] or b" 400 " in answer.split(b"\r\n")[0]
    assert b"connection: close" in answer.lower()
    assert ask(place, "/healthz", x="x" * 8_000).status == 200


def test_nothing_leads_elsewhere(served: Served) -> None:
    """A slash too many is no address: no answer repeats the host that the client named, and none redirects."""
    served.access = Access()
    place = served.start()
    for path in ("/healthz/", "/metrics/", "/api/status/", "//healthz", "/drills/", "//evil.example/healthz/"):
        found = ask(place, path, host="evil.example")
        assert (found.status, "location" in found.headers, b"evil.example:" in found.body) == (404, False, False), path
        assert ask(place, path, method="HEAD", host="evil.example").status == 404


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "CONNECT", "PROPFIND", "get"])
def test_other_methods_do_nothing(served: Served, method: str) -> None:
    """Nor do they repeat what was sent, or tell what is allowed."""
    place = served.start()
    for path in ("/", "/healthz", "/api/pause", "*"):
        answer, _ = raw(
            place, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX: repeated\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.split(b" ")[1] in {b"400", b"403", b"404", b"405"}, (path, answer)
        assert b"repeated" not in answer
    assert served.controls.asked == []


def test_what_follows_a_good_head_and_is_no_http_breaks_nothing(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken body, bytes that no header may hold, an origin that is none: refused or cut off, and not logged."""
    served.access = dataclasses.replace(served.access, token=Secret(TOKEN), control_token=Secret(CONTROL))
    place = served.start()
    for method in ("GET", "HEAD", "POST"):
        head = f"{method} /healthz HTTP/1.1\r\nHost: localhost\r\n"
        answer, took_s = raw(place, f"{head}Transfer-Encoding: chunked\r\n\r\nhello".encode())
        assert (answer[:8] in {b"", b"HTTP/1.1"}, took_s < 5) == (True, True)
    secret, _ = raw(
        place, b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic \xe9\xff\r\nConnection: close\r\n\r\n"
    )
    assert b" 401 " in secret.split(b"\r\n")[0]
    for origin in ("http://[", "http://]/", "null"):
        assert ask(place, "/api/pause", method="POST", authorization=f"Bearer {CONTROL}", origin=origin).status == 403
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert served.controls.asked == []


def drip(connection: socket.socket) -> int:
    """Send a letter twenty times a second until the other side has enough; return how many it took."""
    for count in range(100):
        try:
            connection.sendall(b"G")
        except OSError:
            return count
        time.sleep(0.05)
    return 100


def drain(connection: socket.socket) -> int:
    """Read to the end, however it comes, and return how much there was."""
    got = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            got += len(piece)
    return got


def test_slow_clients_are_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing, one that drips a head, and one that does not read: each loses its connection in time."""
    monkeypatch.setattr(serving, "HEAD_S", 0.6)
    monkeypatch.setattr(serving, "EXCHANGE_S", 1.2)
    place = served.start()
    _, silent_s = raw(place, b"")
    assert 0.4 < silent_s < 3
    with socket.create_connection((place.host, place.port), timeout=10) as dripping:
        began = time.monotonic()
        assert drip(dripping) < 100
        assert time.monotonic() - began < 3
    _, waiting_s = raw(place, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
    assert waiting_s < 3
    page = "x" * 30_000_000
    served._page = lambda *_: page  # type: ignore[method-assign]  # more than the system's buffers hold
    other = served.start()
    with socket.create_connection((other.host, other.port), timeout=10) as unread:
        unread.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(2.2)
        assert drain(unread) < len(page)
    assert ask(place, "/healthz").status == 200


def test_many_idle_connections_leave_room(served: Served) -> None:
    """Hundreds of clients that say nothing, or half a word, do not keep a probe from being answered."""
    place = served.start()
    idle = [socket.create_connection((place.host, place.port)) for _ in range(400)]
    for connection in idle[::2]:
        with contextlib.suppress(OSError):  # cut off already, to make room
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
    try:
        for _ in range(5):
            assert ask(place, "/healthz").status == 200
    finally:
        for connection in idle:
            connection.close()


def test_a_unix_socket_is_for_owner_and_group(served: Served, tmp_path: Path) -> None:
    """It answers, is not for everybody, replaces what a dead process left, and is gone afterwards."""
    path = tmp_path / "drd.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    place = served.start(Place(unix=path))
    assert ask(place, "/metrics").status == 200
    assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(ConfigError, match="cannot listen"):
        WebServer(application(served.shown()), Place(unix=path))
    served.servers[0].close()
    assert not path.exists()


def test_tls_and_a_renewed_certificate(served: Served, tmp_path: Path) -> None:
    """Only TLS is spoken; a renewed certificate is taken for new connections, a broken one is not."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        self_signed(folder)
    used = tmp_path / "used.pem"
    used.write_bytes((first / "server.pem").read_bytes())
    place = served.start(Place(port=0, cert_file=used, key_file=used))
    assert str(place).startswith("https://127.0.0.1:")
    assert ask(place, "/healthz", trust=first / "server.pem").status == 200
    assert raw(place, b"GET /healthz HTTP/1.0\r\n\r\n")[0][:5] != b"HTTP/"
    (server,) = served.servers
    assert server.renew_certificate() is False
    used.write_bytes((second / "server.pem").read_bytes())
    assert server.renew_certificate() is True
    assert ask(place, "/healthz", trust=second / "server.pem").status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(place, "/healthz", trust=first / "server.pem")
    used.write_bytes(b"nothing of use, and longer")
    with pytest.raises(ConfigError, match="cannot be used"):
        server.renew_certificate()
    assert ask(place, "/healthz", trust=second / "server.pem").status == 200


def test_an_address_that_is_taken_is_said_at_once(served: Served, tmp_path: Path) -> None:
    """The error names the address and the key to change; so does one of a certificate that is none."""
    place = served.start()
    with pytest.raises(ConfigError, match=f"cannot listen on http://127.0.0.1:{place.port}") as caught:
        WebServer(application(served.shown()), Place(port=place.port))
    assert "daemon.listen" in caught.value.hint
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(ConfigError, match=r"daemon\.tls: .*nothing\.pem"):
        WebServer(application(served.shown()), Place(port=0, cert_file=nothing, key_file=nothing))


def test_a_reload_changes_tokens_at_once(served: Served) -> None:
    """The next request is judged by the configuration in force."""
    place = served.start()
    assert ask(place, "/metrics").status == 200
    served.access = dataclasses.replace(served.access, token=Secret(TOKEN))
    assert ask(place, "/metrics").status == 401
