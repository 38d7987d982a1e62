"""Ctrl-C and SIGTERM: drd stops, undoes what it had begun, says so in one line, and ends with 130."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MakeSite, RestoreSite, slow_down, spools
from tests.faults.subjects import (
    ClickHouseSubject,
    PostgresSubject,
    Subject,
    family,
    names_of,
    parts_in_store,
    wait_for,
)
from tests.support.drd_site import Run, Site

pytestmark = pytest.mark.faults

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
PROMPT_S = 15.0
UNDONE = "interrupted; what was under way has been undone"


def leases(site: Site) -> list[dict[str, Any]]:
    """Read every lease object of a local store."""
    return [json.loads(path.read_text()) for path in (site.store_dir / "leases").rglob("*.json")]


def demand_interrupted(run: Run, number: signal.Signals) -> None:
    """The run ended as interrupted, with one line that says so."""
    assert run.rc == 130, run.described
    assert [failure.headline.split(": ", 1)[1] for failure in run.failures] == [UNDONE], run.described
    assert "Traceback" not in run.text
    assert f"drd: {number.name}: stopping and undoing" in run.err


@SIGNALS
def test_interrupted_backup(make_site: MakeSite, subject: Subject, number: signal.Signals) -> None:
    """The backup is undone: nothing listed or stored, no child, no job on the server, lease released, spool gone."""
    site = make_site(subject)
    slow_down(site)
    running = site.start("backup", "now")
    wait_for("two parts", lambda: parts_in_store(site, subject.name) > 1, running=running)
    children = family(running)
    sent = time.monotonic()
    running.process.send_signal(number)
    run = running.finish()
    assert time.monotonic() - sent < PROMPT_S
    demand_interrupted(run, number)
    assert names_of(children) == []
    wait_for("the server to be left alone", lambda: subject.leftovers() == [])
    assert parts_in_store(site, subject.name) == 0
    assert spools(site) == []
    assert [lease["released"] for lease in leases(site)] == [True]
    assert site("list", "--json").succeeds().json == {"backups": []}


@SIGNALS
def test_interrupted_restore(restore_site: RestoreSite, subject: Subject, number: signal.Signals) -> None:
    """The restore is undone: the target is as empty and as independent as before, no child and no job is left."""
    site = restore_site(subject)
    slow_down(site)
    running = site.start("restore", "--at", "now", "--source", subject.name, *subject.into())
    wait_for("the target to receive data", subject.restoring, running=running)
    children = family(running)
    sent = time.monotonic()
    running.process.send_signal(number)
    run = running.finish()
    assert time.monotonic() - sent < PROMPT_S
    demand_interrupted(run, number)
    assert names_of(children) == []
    assert subject.target_digest() is None
    wait_for("the servers to be left alone", lambda: subject.leftovers() == [])
    assert spools(site) == []


def test_interrupted_export_leaves_no_folder(restore_site: RestoreSite, pg: PostgresSubject, tmp_path: Path) -> None:
    """Interrupted while it writes a backup's files, drd leaves none of them."""
    site = restore_site(pg)
    slow_down(site)
    running = site.start("restore", "--at", "now", "--source", pg.name, "--into", str(tmp_path / "out"))
    wait_for("a file", lambda: any(path.is_file() for path in (tmp_path / "out").rglob("*")), running=running)
    running.process.send_signal(signal.SIGINT)
    demand_interrupted(running.finish(), signal.SIGINT)
    assert list((tmp_path / "out").iterdir()) == []


def test_second_interrupt_ends_at_once(make_site: MakeSite, clickhouse: ClickHouseSubject) -> None:
    """While the first Ctrl-C waits for a server that stands still, a second one ends drd at once; a rerun works."""
    site = make_site(clickhouse)
    slow_down(site)
    running = site.start("backup", "now")
    wait_for("two parts", lambda: parts_in_store(site, clickhouse.name) > 1, running=running)
    clickhouse.server.pause()
    try:
        running.process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert running.process.poll() is None, "it should be waiting for the server"
        sent = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        run = running.finish()
        assert time.monotonic() - sent < 2
        assert run.rc == 130
        assert "stopped at once" in run.err
    finally:
        clickhouse.server.resume()
    clickhouse.clear()
    slow_down(site, None)
    rerun = site("backup", "now", "--json").succeeds().json["backups"][0]
    assert "swept" in {warning["code"] for warning in rerun["warnings"]}
    assert spools(site) == []
