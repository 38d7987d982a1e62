"""Metrics that a verb leaves: a file whole or not there, a push that says where it belongs, failures in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from drd.config import load
from drd.daemon.textfile import with_former, write_textfile
from drd.errors import ConfigError
from drd.model import Secret
from drd.notify.peer import Access, PeerFault
from drd.notify.pushgateway import Gateway
from drd.wiring_notify import gateway_of
from tests.support.scripted_http import Scripted, scripted

DATA = b'# HELP drd_backups Usable.\n# TYPE drd_backups gauge\ndrd_backups{source="a"} 2.0\n'
CONFIG = "store: {type: local, path: store}\nmetrics: {pushgateway: {url: 'http://127.0.0.1:1', job: j, timeout: 3s}}\n"


def access(**values: object) -> Access:
    """Make access with the keys that hints shall name."""
    return Access(2.0, section="metrics.pushgateway", address="metrics.pushgateway.url", **values)  # type: ignore[arg-type]


def test_a_push_goes_to_its_group() -> None:
    """POST leaves other metrics of the group alone; values with a slash, and empty ones, go as URL-safe base64."""
    with scripted(Scripted(202)) as server:
        labels = {"instance": "a/b?", "zone": "", "site": "fra 1"}
        Gateway(server.url + "/push/", access(credentials=lambda: Secret("tok")), "drd", labels).push(DATA)
    (seen,) = server.seen
    assert (seen.method, seen.body) == ("POST", DATA)
    assert seen.path == "/push/metrics/job/drd/instance@base64/YS9iPw==/zone@base64/=/site/fra%201"
    assert seen.headers["authorization"] == "Bearer tok"
    assert seen.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        (Scripted(400, b"pushed metrics are invalid"), "answered 400: pushed metrics are invalid", "the Pushgateway"),
        (Scripted(401), "answered 401", "metrics.pushgateway.username"),
        (Scripted(404, b"page not found"), "answered 404", "--web.route-prefix"),
        (Scripted(302, headers={"Location": "http://127.0.0.1:1/"}), "answered 302", "a Pushgateway"),
        (Scripted(hang_up=True), "cannot be reached", "does it run"),
    ],
)
def test_a_push_that_fails_says_why(answer: Scripted, said: str, hint: str) -> None:
    """No redirect is followed, and the hint names the key of the configuration."""
    with scripted(answer) as server, pytest.raises(PeerFault) as caught:
        Gateway(server.url, access()).push(DATA)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_the_gateway_is_the_configured_one_or_that_of_the_option(tmp_path: Path) -> None:
    """An option changes where, and leaves the group; a URL that is none is said in words."""
    (tmp_path / "drd.yaml").write_text(CONFIG)
    config = load(tmp_path / "drd.yaml", {})
    assert (gateway_of(config, None).url, gateway_of(config, None).job) == ("http://127.0.0.1:1", "j")
    other = gateway_of(config, "http://127.0.0.1:2")
    assert (other.url, other.job, other.access.timeout_s) == ("http://127.0.0.1:2", "j", 3.0)
    for wrong in ("ftp://x", "127.0.0.1:9091", "http://user@h:1", "http://u:secret@h:1"):
        with pytest.raises(ConfigError, match="--push-gateway") as caught:
            gateway_of(config, wrong)
        assert "secret" not in str(caught.value)


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    """For all to read, in one step, without traces; a folder that is missing is said and changes nothing."""
    path = tmp_path / "drd.prom"
    for data in (b"old", DATA):
        write_textfile(path, data)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (DATA, 0o644)
    assert [item.name for item in tmp_path.iterdir()] == ["drd.prom"]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_textfile(tmp_path / "none" / "drd.prom", DATA)
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_textfile(tmp_path / "folder.prom", DATA)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["drd.prom", "folder.prom"]


def test_what_was_known_before_stays_beside_what_is_new(tmp_path: Path) -> None:
    """The new value wins, what it does not speak of stays; a file that makes no sense has nothing to say."""
    path = tmp_path / "drd.prom"
    former = DATA + b'drd_backups{source="b"} 7.0\n# HELP drd_x_total X.\n# TYPE drd_x_total counter\ndrd_x_total 3.0\n'
    path.write_bytes(former.replace(b"2.0", b"1.0"))
    merged = with_former(path, DATA).decode()
    assert 'drd_backups{source="a"} 2.0' in merged
    assert 'drd_backups{source="b"} 7.0' in merged
    assert "drd_x_total 3.0" in merged
    assert merged.count('source="a"') == 1
    for nonsense in (b"\xff\xfe", b"not { a metric", b""):
        path.write_bytes(nonsense)
        assert b'drd_backups{source="a"} 2.0' in with_former(path, DATA)
    assert with_former(tmp_path / "none.prom", DATA) == DATA
