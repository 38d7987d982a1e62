"""Posting to Alertmanager: every peer, patience with bounds, secrets that stay, failures that are results."""

from __future__ import annotations

import base64
import json
import random
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from drd.cancel import CancelToken
from drd.config import load
from drd.errors import ConfigError
from drd.events import Event
from drd.model import Secret
from drd.notify.alertmanager import AlertmanagerNotifier, AlertmanagerSettings
from drd.notify.null import NullNotifier
from drd.notify.peer import Access
from drd.wiring_notify import notifier_of
from tests.support.certificates import self_signed
from tests.support.scripted_http import Scripted, scripted

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
FIRING = Event(name="DrdBackupFailed", nature="state", severity="critical", at=NOW, labels={"source": "shop"})
ENDED = Event(
    name="DrdBackupFailed", nature="state", severity="critical", at=NOW, firing=False, labels={"source": "shop"}
)
REPORT = Event(name="DrdDrillReport", nature="report", severity="info", at=NOW, run="R1", labels={"run": "x"})
GONE = "http://127.0.0.1:1"


def notifier(*urls, timeout_s=2.0, cancel=None, credentials=None, username=None, ca_file=None, **settings):
    """Make a notifier that jitters the same way each time."""
    access = Access(timeout_s, ca_file=ca_file, username=username, credentials=credentials)
    return AlertmanagerNotifier(
        AlertmanagerSettings(urls, access, **{"patience_s": 3.0, **settings}),
        now=lambda: NOW,
        cancel=cancel or CancelToken(),
        rng=random.Random(1),
    )


def test_an_alert_says_what_it_is_and_how_long_it_lasts():
    """Labels, own labels, severity, times, the link in place; a report and a state each with its own length."""
    with scripted(Scripted()) as server:
        told = notifier(server.url + "/am/", labels={"site": "fra1"}, link="https://r/{run}")
        delivery = told.notify([FIRING, REPORT])
    assert delivery.events == 2
    assert [(p.outcome, p.attempts) for p in delivery.peers] == [("ok", 1)]
    assert server.seen[0].path == "/am/api/v2/alerts"
    state, report = json.loads(server.seen[0].body)
    assert state["labels"] == {
        "site": "fra1",
        "source": "shop",
        "alertname": "DrdBackupFailed",
        "drd": "state",
        "severity": "critical",
    }
    assert state["startsAt"] == "2026-11-23T03:00:00.000Z"
    assert datetime.fromisoformat(state["endsAt"]) - NOW == timedelta(days=14)
    assert datetime.fromisoformat(report["endsAt"]) - NOW == timedelta(hours=6)
    assert (report["generatorURL"], report["annotations"]["link"]) == ("https://r/R1", "https://r/R1")
    assert "generatorURL" not in state


@pytest.mark.parametrize("held", [True, False])
def test_the_end_of_a_state_goes_to_who_holds_it(held):
    """Otherwise a mail would tell of an end without a beginning."""
    labels = {"source": "shop", "alertname": "DrdBackupFailed", "drd": "state", "severity": "critical"}
    have = [{"labels": labels}] if held else [{"labels": labels | {"source": "another"}}]
    with scripted(Scripted(body=json.dumps(have).encode()), Scripted()) as server:
        assert notifier(server.url).notify([ENDED]).failures == ()
    assert [seen.method for seen in server.seen] == ["GET", "POST"] if held else ["GET"]
    if held:
        (alert,) = json.loads(server.seen[1].body)
        assert alert["startsAt"] == alert["endsAt"] == "2026-11-23T03:00:00.000Z"


def test_every_peer_is_told_and_one_that_fails_stops_no_other():
    """The bad one is named with the reason; the order is the configured one."""
    with scripted(Scripted()) as one, scripted(Scripted()) as two:
        delivery = notifier(one.url, GONE, two.url, patience_s=0.2).notify([FIRING])
    assert [p.outcome for p in delivery.peers] == ["ok", "failed", "ok"]
    assert delivery.failures[0].peer == GONE
    assert "cannot be reached: Connection refused" in delivery.failures[0].message
    assert len(one.seen) == len(two.seen) == 1


@pytest.mark.parametrize("first", [Scripted(503, b"busy"), Scripted(429), Scripted(hang_up=True)])
def test_what_may_pass_is_tried_again(first):
    """Overload and broken connections pass; the number of tries is told."""
    with scripted(first, Scripted()) as server:
        (peer,) = notifier(server.url).notify([FIRING]).peers
    assert (peer.outcome, peer.attempts) == ("ok", 2)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Scripted(400, b'"bad labels"'), "answered 400: bad labels"),
        (Scripted(401), "set alertmanager.username and credentials"),
        (Scripted(404, b"not found"), "--web.route-prefix"),
        (Scripted(302, b"", {"Location": "http://127.0.0.1:1/"}), "answered 302"),
    ],
)
def test_what_will_not_pass_is_tried_once(answer, words):
    """A refusal is final, its words are bounded and come with what to do; no redirect is followed."""
    with scripted(answer) as server:
        (peer,) = notifier(server.url).notify([FIRING]).peers
    assert (peer.outcome, peer.attempts, len(server.seen)) == ("failed", 1, 1)
    assert words in peer.message


def test_patience_ends():
    """A peer that is always busy is given up when the time is over, and not much later."""
    with scripted(Scripted(503)) as server:
        started = time.monotonic()
        (peer,) = notifier(server.url, patience_s=1.0).notify([FIRING]).peers
    assert time.monotonic() - started < 2.5
    assert peer.outcome == "failed"
    assert peer.attempts >= 2


def test_a_peer_that_never_answers_is_given_up():
    """It accepts the connection and is silent: the timeout counts, and another peer is told all the same."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent, scripted(Scripted()) as server:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        bad, good = notifier(url, server.url, timeout_s=0.5, patience_s=0.8).notify([FIRING]).peers
    assert time.monotonic() - started < 3
    assert (bad.outcome, good.outcome) == ("failed", "ok")
    assert "no answer within" in bad.message


def test_an_interruption_ends_the_waiting():
    """Each peer has had its try; the back-off is not waited out."""
    cancel = CancelToken()
    timer = threading.Timer(0.2, cancel.cancel)
    timer.start()
    started = time.monotonic()
    (peer,) = notifier(GONE, cancel=cancel, patience_s=60.0).notify([FIRING]).peers
    timer.join()
    assert peer.outcome == "failed"
    assert time.monotonic() - started < 5
    (peer,) = notifier(GONE, cancel=cancel, patience_s=60.0).notify([FIRING]).peers
    assert peer.attempts == 1


@pytest.mark.parametrize(
    ("username", "expected"), [(None, "Bearer s3cr3t"), ("drd", "Basic " + base64.b64encode(b"drd:s3cr3t").decode())]
)
def test_credentials_go_into_the_header_alone(username, expected):
    """As a token, or with a user; a refusal does not repeat them."""
    with scripted(Scripted(403, b"no")) as server:
        delivery = notifier(server.url, username=username, credentials=lambda: Secret("s3cr3t")).notify([FIRING])
    assert server.seen[0].headers["authorization"] == expected
    assert "s3cr3t" not in server.seen[0].path + str(delivery)


def missing():
    """Be a secret that is not there."""
    raise ConfigError("alertmanager.credentials: environment variable X is not set", hint="export X=…")


@pytest.mark.parametrize(
    ("credentials", "words"), [(missing, "X is not set"), (lambda: Secret("a\r\nb: c"), "credentials cannot be sent")]
)
def test_a_secret_that_cannot_be_had_or_sent_is_a_failure_to_tell(credentials, words):
    """And nothing else: no exception, no request, no secret in the words."""
    with scripted(Scripted()) as server:
        (peer,) = notifier(server.url, credentials=credentials).notify([FIRING]).peers
    assert server.seen == []
    assert words in peer.message
    assert "b: c" not in peer.message


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:1", "http://" + "x" * 80 + ".invalid:1", "http://no-such.invalid:1"]
)
def test_no_address_raises(url):
    """TLS to nobody, a name that cannot be, a name that nobody has: all are results."""
    (peer,) = notifier(url, patience_s=0.1).notify([FIRING]).peers
    assert peer.outcome == "failed"
    assert peer.message


def test_tls_to_a_plain_server_is_named():
    """The words point at https:// and the certificate authority."""
    with scripted(Scripted()) as server:
        (peer,) = notifier(server.url.replace("http:", "https:")).notify([FIRING]).peers
    assert "ca_file" in peer.message


def test_tls_trusts_the_configured_authority_alone(tmp_path):
    """With its certificate the peer is told; without, nothing is sent; a file that is none is named."""
    pem = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    (tmp_path / "none.pem").write_text("not a certificate", encoding="utf-8")
    with scripted(Scripted(), tls=context) as server:
        outcomes = {
            ca: notifier(server.url, ca_file=ca and tmp_path / ca).notify([FIRING]).peers[0]
            for ca in (None, "none.pem", "missing.pem", pem.name)
        }
    assert [peer.outcome for peer in outcomes.values()] == ["failed", "failed", "failed", "ok"]
    assert len(server.seen) == 1
    assert "ca_file" in outcomes[None].message
    assert "it holds no certificate" in outcomes["none.pem"].message
    assert "No such file" in outcomes["missing.pem"].message


def test_a_check_asks_and_tells_nothing():
    """A peer with its version; one away is a warning beside one that answers, and a failure when none does."""
    status = {"versionInfo": {"version": "0.25.0"}, "cluster": {"status": "ready", "peers": [{}, {}]}}
    with scripted(Scripted(body=json.dumps(status).encode())) as server:
        good, bad = notifier(server.url, GONE).check()
    assert (good.outcome, good.detail) == ("ok", "version 0.25.0, cluster ready, 2 in its cluster")
    assert bad.outcome == "warning"
    assert bad.hint
    assert [seen.method for seen in server.seen] == ["GET"]
    assert [item.outcome for item in notifier(GONE).check()] == ["failed"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"cluster": 3}', b""])
def test_something_that_is_no_alertmanager_is_named(body):
    """A web server that says 200 to everything does not pass for one."""
    with scripted(Scripted(body=body)) as server:
        (item,) = notifier(server.url).check()
    assert item.outcome == "failed"
    assert "Alertmanager" in item.hint


def test_nobody_configured_is_nobody_told():
    """There is no receiver among the results and no line in a check."""
    delivery = NullNotifier().notify([FIRING])
    assert (delivery.events, delivery.peers, delivery.failures) == (1, (), ())
    assert NullNotifier().check() == ()
    assert notifier(GONE).notify([]).peers == ()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{urls: []}", "alertmanager.urls: got an empty list"),
        ("{urls: ['http://drd@am:9093']}", "allowed: a URL without user"),
        ("{urls: ['http://drd:hunter2@am:9093']}", "holds a password"),
        ("{urls: ['am:9093']}", "alertmanager.urls[0]: got"),
        ("{urls: ['http://a', 'http://a']}", "alertmanager.urls: a peer is named twice"),
        ("{urls: ['http://a'], username: drd}", "alertmanager.credentials: required: the password of username"),
        ("{urls: ['http://a'], ca_file: x.pem}", "alertmanager.ca_file: has no effect without TLS"),
        ("{urls: ['http://a'], labels: {run: x}}", "drd sets this label itself"),
        ("{urls: ['http://a'], labels: {a-b: x}}", "names of letters, digits and underscore"),
        ("{urls: ['http://a'], report_for: 1m}", "alertmanager.report_for: allowed: at least 5m"),
        ("{urls: ['http://a'], timeout: 1m}", "alertmanager.patience: allowed: at least timeout"),
        ("{urls: ['http://a'], link: 'javascript:x'}", "alertmanager.link: got"),
    ],
)
def test_a_section_that_cannot_work_is_refused(section, words, tmp_path):
    """By path, with what is allowed, and without the password of a URL."""
    path = tmp_path / "drd.yaml"
    path.write_text(f"store: {{type: local, path: x}}\nalertmanager: {section}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_configuration_becomes_a_notifier_that_reads_no_secret_yet(tmp_path):
    """A host that cannot read the token still backs up; what is told then is that."""
    path = tmp_path / "drd.yaml"
    text = "store: {type: local, path: x}\nalertmanager: {urls: ['http://127.0.0.1:1'], credentials: {env: NOT_SET}}\n"
    path.write_text(text, encoding="utf-8")
    (peer,) = notifier_of(load(path, {}), CancelToken()).notify([FIRING]).peers
    assert "environment variable NOT_SET is not set" in peer.message
    path.write_text("store: {type: local, path: x}\n", encoding="utf-8")
    assert notifier_of(load(path, {}), CancelToken()).notify([FIRING]).peers == ()
