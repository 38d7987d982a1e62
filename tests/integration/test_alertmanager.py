"""The shipped configuration and mails, with the real Alertmanager and a real SMTP server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from html.parser import HTMLParser

import pytest
import yaml

from devstack.alertmanager import SHIPPED, Alertmanager, Mailbox
from devstack.workspace import Workspace
from drd.cancel import CancelToken
from drd.events import Event
from drd.notify.alertmanager import AlertmanagerNotifier, AlertmanagerSettings
from drd.notify.peer import Access
from drd.ops.announce_drill import drill_events
from tests.support.drill_summaries import failed, passed
from tests.support.services import present

pytestmark = pytest.mark.integration

SETTLED_S = 4.0
"""Longer than the waits and intervals of the groups here: what is not mailed by then never is."""


def notifier(*urls: str, site: str = "") -> AlertmanagerNotifier:
    """Make a notifier with a link; states of a site of its own are mailed apart from those that other tests left."""
    settings = AlertmanagerSettings(
        urls,
        Access(5.0),
        patience_s=15.0,
        link="https://reports.example.net/{run}",
        labels={"site": site} if site else {},
    )
    return AlertmanagerNotifier(settings, now=lambda: datetime.now(UTC), cancel=CancelToken())


def about(*words: str) -> Callable[[EmailMessage], bool]:
    """Want a mail whose subject holds these words."""
    return lambda mail: all(word in mail["Subject"] for word in words)


def count(mailbox: Mailbox, *words: str) -> int:
    """Count mails with these words in the subject."""
    return sum(map(about(*words), mailbox.mails()))


def part(mail: EmailMessage, kind: str) -> str:
    """Return the text of a mail's plain or html part."""
    found = mail.get_body((kind,))
    assert found is not None, f"the mail has no {kind} part"
    text: str = found.get_content()
    return text


class Page(HTMLParser):
    """Reads a mail as a client does: texts, links, and every tag closed in its order."""

    VOID = frozenset({"meta", "br", "img", "link", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"] and data.strip():
            self.texts.append(" ".join(data.split()))


def test_a_drill_is_mailed_at_once_and_once_as_page_and_text(alertmanager: Alertmanager, mailbox: Mailbox) -> None:
    """Verdict, tables, objectives and link are in both parts; nothing is markup that came from data; one mail."""
    told = notifier(alertmanager.url)
    assert told.notify(drill_events(failed("mail-both", "pg", "ch"), "run-1")).failures == ()
    mail = mailbox.wait(about("drill mail-both FAILED"))
    html, text = part(mail, "html"), part(mail, "plain")
    page = Page(html)
    for words in ("✗ failed", "pg", "ch", "39 min 5 s of 30 min", "✗ over the objective", "✓ within the objective"):
        assert words in page.texts, words
    for words in ("✗ ch: FAILED", "✓ pg: passed", "39 min 5 s of 30 min – over the objective"):
        assert words in text, words
    assert 'ticks: 3 of 101 parts differ <by hash> & "more"' in page.texts
    assert 'ticks: 3 of 101 parts differ <by hash> & "more"' in text
    assert "by" not in page.tags
    assert set(page.links) == {"https://reports.example.net/20261123T040059Z-bbbbbb"}
    assert "https://reports.example.net/20261123T040059Z-bbbbbb" in text
    assert "drd drill show 20261123T040059Z-bbbbbb --html report.html" in page.texts
    assert "<" not in text.replace("<by hash>", "")
    assert "prefers-color-scheme: dark" in html
    assert html.count("http") == 1  # no external resource
    assert len(mail["Subject"]) < 160
    time.sleep(SETTLED_S)
    assert count(mailbox, "drill mail-both FAILED: ") == 1
    told.notify(drill_events(failed("mail-both", "pg", "ch"), "run-2"))
    mailbox.wait(lambda _: count(mailbox, "drill mail-both FAILED: ") == 2)


def test_a_state_is_mailed_repeated_not_and_resolved_by_the_next_pass(
    alertmanager: Alertmanager, mailbox: Mailbox
) -> None:
    """A first pass says nothing of states; a failure is told once, also when it fails again; a pass ends it."""
    told = notifier(alertmanager.url)
    states = ("of mail-state-ch",)
    told.notify(drill_events(passed("mail-states", "mail-state-pg", "mail-state-ch"), "states-1")[1:])
    told.notify(drill_events(failed("mail-states", "mail-state-pg", "mail-state-ch"), "states-2")[1:])
    mail = mailbox.wait(about("drill mail-states of mail-state-ch FAILED"))
    page = Page(part(mail, "html"))
    assert "✗ 1 thing needs you" in page.texts
    assert not any("mail-state-pg" in text for text in page.texts), "an end without a beginning"
    assert "https://reports.example.net/" in part(mail, "plain")
    told.notify(drill_events(failed("mail-states", "mail-state-pg", "mail-state-ch"), "states-3")[1:])
    time.sleep(SETTLED_S)
    assert count(mailbox, *states) == 1
    told.notify(drill_events(passed("mail-states", "mail-state-pg", "mail-state-ch"), "states-4")[1:])
    over = mailbox.wait(about("resolved", *states))
    assert "✓ Over" in Page(part(over, "html")).texts
    assert "Resolved: drill mail-states of mail-state-ch passed" in part(over, "plain")
    assert [a for a in alertmanager.alerts() if a["labels"].get("drill") == "mail-states"] == []
    told.notify(drill_events(passed("mail-states", "mail-state-pg", "mail-state-ch"), "states-5")[1:])
    time.sleep(SETTLED_S)
    assert count(mailbox, *states) == 2


def state(name: str, source: str) -> Event:
    """Return a state of a source, which its summary names."""
    return Event(
        name=name,
        nature="state",
        severity="warning",
        at=datetime.now(UTC),
        labels={"source": source, "engine": "redis"},
        annotations={"summary": f"{name} of {source}"},
    )


def test_a_shrunken_backup_is_no_news_while_backups_fail(alertmanager: Alertmanager, mailbox: Mailbox) -> None:
    """The warning is inhibited by the failure of the same source, and of no other."""
    told = notifier(alertmanager.url, site="mail-shrunken")
    told.notify([state("DrdBackupFailed", "mail-a")])
    told.notify([state("DrdBackupShrunken", "mail-a"), state("DrdBackupShrunken", "mail-b")])
    mailbox.wait(about("mail-shrunken: DrdBackupFailed of mail-a"))
    mailbox.wait(about("mail-shrunken: DrdBackupShrunken of mail-b"))
    time.sleep(SETTLED_S)
    assert not any("DrdBackupShrunken of mail-a" in part(mail, "plain") for mail in mailbox.mails())


def test_a_state_that_joins_others_of_its_kind_is_named_in_the_subject(
    alertmanager: Alertmanager, mailbox: Mailbox
) -> None:
    """A second source fails while the first one still does: a mail about both, and its subject is the second."""
    told = notifier(alertmanager.url, site="mail-joins")
    told.notify([state("DrdBackupFailed", "mail-first")])
    mailbox.wait(about("mail-joins: DrdBackupFailed of mail-first"))
    told.notify([state("DrdBackupFailed", "mail-second")])
    mail = mailbox.wait(about("mail-joins: DrdBackupFailed of mail-second (and others, 2 in all)"))
    assert "DrdBackupFailed of mail-first" in part(mail, "plain")
    assert "2 things need you" in " ".join(Page(part(mail, "html")).texts)


def test_a_report_survives_an_outage_of_the_mail_server(workspace: Workspace) -> None:
    """The mail server is away when the drill ends: the mail comes when it is back."""
    with present():
        mailbox = Mailbox(workspace, name="smtp-away")
        server = Alertmanager(workspace, mailbox, name="alertmanager-away")
    with mailbox, server:
        mailbox.stop()
        assert notifier(server.url).notify(drill_events(passed("outage", "pg"), "outage-1")).failures == ()
        time.sleep(2.5)
        mailbox.start()
        mailbox.wait(about("drill outage passed"), 30.0)
    server.remove()
    mailbox.remove()


@pytest.fixture
def cluster(workspace: Workspace) -> Iterator[tuple[Mailbox, Alertmanager, Alertmanager]]:
    """Give two Alertmanagers that know each other, below a path, and their mailbox."""
    with present():
        mailbox = Mailbox(workspace, name="smtp-cluster")
        one = Alertmanager(workspace, mailbox, name="alertmanager-one", clustered=True, path="/am")
        two = Alertmanager(workspace, mailbox, name="alertmanager-two", peer=one, path="/am")
    with mailbox, one, two:
        yield mailbox, one, two
    for server in (two, one, mailbox):
        server.remove()


def test_a_cluster_is_told_at_every_peer_and_mails_once(cluster: tuple[Mailbox, Alertmanager, Alertmanager]) -> None:
    """Both peers hold the alerts, one mail comes; with one peer dead, the other is told and mails."""
    mailbox, one, two = cluster
    told = notifier(one.url, two.url)
    deadline = time.monotonic() + 20
    while not all("2 in its cluster" in item.detail for item in told.check()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert told.notify(drill_events(passed("cluster", "pg"), "cluster-1")).failures == ()
    for server in (one, two):
        assert [alert["labels"]["run"] for alert in server.alerts()] == ["cluster-1"]
    mailbox.wait(about("drill cluster passed"))
    time.sleep(SETTLED_S + 2)
    assert count(mailbox, "drill cluster passed") == 1
    one.kill()
    delivery = AlertmanagerNotifier(
        AlertmanagerSettings((one.url, two.url), Access(2.0), patience_s=0.5),
        now=lambda: datetime.now(UTC),
        cancel=CancelToken(),
    ).notify(drill_events(passed("half-cluster", "pg"), "cluster-2"))
    assert [peer.outcome for peer in delivery.peers] == ["failed", "ok"]
    mailbox.wait(about("drill half-cluster passed"), 30.0)


def amtool(alertmanager: Alertmanager) -> str:
    """Return Alertmanager's tool, which lies beside it."""
    beside = alertmanager.program.with_name("amtool")
    return str(beside) if beside.exists() else "amtool"


def test_the_shipped_configuration_is_valid_and_routes_as_it_says(alertmanager: Alertmanager) -> None:
    """It is taken by amtool as it is; reports, states and the rest go to receivers of their own."""
    config = SHIPPED / "alertmanager.yml"
    done = subprocess.run([amtool(alertmanager), "check-config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for labels, receiver in (
        (["drd=report", "run=x"], "drd-report"),
        (["drd=state"], "drd-state"),
        (["drd=watchdog"], "drd-watchdog"),
        (["alertname=Else"], "others"),
    ):
        argv = [amtool(alertmanager), "config", "routes", "test", f"--config.file={config}", *labels]
        routed = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert routed.stdout.strip() == receiver


def test_every_template_that_is_named_is_there() -> None:
    """That is what amtool check-config does not notice; such a mail would fail at night."""
    config = yaml.safe_load((SHIPPED / "alertmanager.yml").read_text(encoding="utf-8"))
    templates = (SHIPPED / "drd.tmpl").read_text(encoding="utf-8")
    named = [
        str(value).split('"')[1]
        for receiver in config["receivers"]
        for mail in receiver.get("email_configs", [])
        for value in (mail.get("html"), mail.get("text"), mail.get("headers", {}).get("Subject"))
        if value
    ]
    assert len(named) == 6
    for name in named:
        assert f'{{{{ define "{name}" }}}}' in templates
