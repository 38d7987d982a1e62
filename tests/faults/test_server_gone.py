"""Database servers that die, stand still or never answer while drd works with them."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import MakeSite, slow_down, spools
from tests.faults.subjects import PostgresSubject, RedisSubject, Subject, family, names_of, parts_in_store, wait_for
from tests.support.drd_site import Site

pytestmark = pytest.mark.faults


def test_server_killed_during_a_backup(make_site: MakeSite, subject: Subject) -> None:
    """A server that dies makes the backup fail with 13 in one line; nothing is stored, and a rerun succeeds."""
    site = make_site(subject)
    slow_down(site)
    running = site.start("backup", "now")
    wait_for("two parts", lambda: parts_in_store(site, subject.name) > 1, running=running)
    children = family(running)
    subject.source_server.kill()
    try:
        running.finish(60).fails(13, f"backup {subject.name}")
    finally:
        subject.source_server.start()
    assert names_of(children) == []
    assert parts_in_store(site, subject.name) == 0
    assert spools(site) == []
    assert site("list", "--json").succeeds().json == {"backups": []}
    slow_down(site, None)
    site("backup", "now").succeeds()
    site("verify", "--deep").succeeds()


def test_deadline_of_a_source_that_stands_still(make_site: MakeSite, subject: Subject) -> None:
    """A server that stands still in the middle of a backup is given up at the source's deadline, with that reason."""
    site = make_site(subject)
    site.sources[subject.name]["deadline"] = "3s"
    slow_down(site)
    running = site.start("backup", "now")
    wait_for("a part", lambda: parts_in_store(site, subject.name) > 0, running=running)
    children = family(running)
    subject.source_server.pause()
    began = time.monotonic()
    try:
        running.finish(60).fails(13, f"backup {subject.name}", "not done within its deadline of 3 s")
        took = time.monotonic() - began
    finally:
        subject.source_server.resume()
    assert took < 45  # with the time that is given to end a job on the server
    assert names_of(children) == []
    assert parts_in_store(site, subject.name) == 0
    if subject.name != "clickhouse":  # its job cannot be ended while it stands still; the error says to look there
        wait_for("the server to be left alone", lambda: subject.leftovers() == [])
    subject.clear()


def test_source_that_never_answers(make_site: MakeSite, subject: Subject) -> None:
    """A server that accepts connections and never answers is given up at the source's deadline at the latest."""
    site = make_site(subject)
    site.sources[subject.name]["deadline"] = "2s"
    given_up(site, subject)


@pytest.mark.parametrize(("fixture", "option"), [("pg", "connect_timeout"), ("redis_pair", "timeout")])
def test_source_that_does_not_answer_in_time(
    make_site: MakeSite, request: pytest.FixtureRequest, fixture: str, option: str
) -> None:
    """Long before the deadline, a connect timeout of two seconds gives up."""
    subject: Subject = request.getfixturevalue(fixture)
    site = make_site(subject)
    site.sources[subject.name][option] = "2s"
    given_up(site, subject)


def given_up(site: Site, subject: Subject) -> None:
    """Back up from a server that stands still and demand a quick and clear end."""
    subject.source_server.pause()
    began = time.monotonic()
    try:
        site("backup", "now").fails(13, f"backup {subject.name}")
        took = time.monotonic() - began
    finally:
        subject.source_server.resume()
    assert took < 20
    assert site("list", "--json").succeeds().json == {"backups": []}


def test_other_sources_go_on(make_site: MakeSite, pg: PostgresSubject, redis_pair: RedisSubject) -> None:
    """With one server dead, the other source is backed up and the exit code says partly."""
    site = make_site(pg, redis_pair)
    redis_pair.server.kill()
    try:
        site("backup", "now").fails(13, "backup redis", rc=3)
    finally:
        redis_pair.server.start()
    assert [b["source"] for b in site("list", "--json").succeeds().json["backups"]] == ["pg"]


def test_two_backups_of_one_source_at_once(make_site: MakeSite, pg: PostgresSubject) -> None:
    """The second one is refused with 11 and names the process that holds the source; the first one is not disturbed."""
    site = make_site(pg)
    slow_down(site)  # slow enough for a second drd to start meanwhile on a busy machine
    first = site.start("backup", "now", "--json")
    wait_for("a part", lambda: parts_in_store(site, pg.name) > 0, running=first)
    site("backup", "now").fails(11, "another drd works on", f"process {first.pid},", hint="wait for it")
    assert first.finish().succeeds().json["outcome"] == "ok"
    assert len(site("list", "--json").succeeds().json["backups"]) == 1
