"""Drills that are interrupted, killed, or lose the store: what they leave behind, and what they say."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeDrill
from tests.support.drd_site import ROOT, Site
from tests.support.drill_site import Runtime, details, judge, judged, settings_of, until_said
from tests.support.trading_site import CLICKHOUSE, POSTGRES, REDIS, SOURCES

pytestmark = pytest.mark.faults

SLEEP = {"name": "take a while", "command": ["sleep", "30"]}


def slowed(site: Site, rate: str = "64KiB") -> Site:
    """Let the store give no more than so much a second, so that there is time to act."""
    site.config["store"]["max_bandwidth"] = rate
    return site


@pytest.mark.parametrize("phase", ["choose", "provision", "fetch", "restore", "check"])
def test_interrupted_in_each_phase(make_drill: MakeDrill, runtime: Runtime, phase: str) -> None:
    """Ctrl-C: exit 130 within seconds, and no server, folder, network, volume, spool, lease or report of it is left."""
    site = slowed(runtime.use(make_drill(REDIS, SLEEP)), "8MiB" if phase == "check" else "64KiB")
    running = site.start("drill", "now")
    until_said(running, "every key:" if phase == "check" else f"{REDIS}  {phase} …")
    sent = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    run = running.finish()
    assert time.monotonic() - sent < 30
    assert run.rc == 130, run.described
    assert "Traceback" not in run.text
    assert runtime.left() == []
    assert not list((site.store_dir / "drills").rglob("*.json"))
    assert not list(Path(site.config["spool"]["dir"]).glob("*"))


@pytest.mark.parametrize("source", [POSTGRES, CLICKHOUSE])
def test_a_question_without_end(make_drill: MakeDrill, process_runtime: Runtime, source: str) -> None:
    """The server is busy with what a suite asks for: Ctrl-C ends it, and nothing is left."""
    sql = {POSTGRES: "SELECT pg_sleep(3600)", CLICKHOUSE: "SELECT max(number) FROM system.numbers"}[source]
    site = make_drill(source, {"name": "first", "command": ["true"]}, {"name": "for ever", "sql": sql, "no_rows": True})
    running = process_runtime.use(site).start("drill", "now")
    until_said(running, "first:")
    time.sleep(0.3)
    running.process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    assert running.finish().rc == 130
    assert time.monotonic() - sent < 15
    assert process_runtime.left() == []


def test_killed_and_run_again(make_drill: MakeDrill, runtime: Runtime) -> None:
    """After ``kill -9`` the next run is not kept out by the lease, removes what was left, and passes."""
    site = runtime.use(make_drill(REDIS, SLEEP))
    running = site.start("drill", "now")
    until_said(running, "every key:")
    running.process.kill()
    assert running.finish().rc == -signal.SIGKILL
    del settings_of(site)["suite"]
    judged(site, "passed", 0)
    assert runtime.left() == []


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("how", ["away", "gone"])
def test_a_store_that_fails_in_the_middle(
    make_drill: MakeDrill, process_runtime: Runtime, source: str, how: str
) -> None:
    """A read of the restore fails: the store's own words, and unverified; an object that is gone is damage."""
    site = process_runtime.use(make_drill(source))
    program = [str(ROOT / "tests" / "e2e" / "failing_drd.py"), how, "4" if source == POSTGRES else "0"]
    run = site.start("drill", "now", "--json", program=program).finish()
    found = judge(site, run, *(("unverified", 22) if how == "away" else ("failed", 21)))
    assert found["error"]["phase"] == "restore", details(found)
    code, words = {"away": ("store_refused", "the lights are out"), "gone": ("integrity", "is missing")}[how]
    assert found["error"]["code"] == code, details(found)
    assert words in found["error"]["message"]
