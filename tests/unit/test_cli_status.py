"""``drd status`` and ``drd list`` at the terminal: what a daemon plans, what failed, and lines that fit."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.cli.main import main
from drd.daemon.history import History
from drd.daemon.leader import Leader
from drd.daemon.model import JobRun, Plan
from drd.daemon.planning import Record, Retry
from drd.daemon.upcoming import Outlook, Upcoming, outlook
from drd.errors import StoreRefused, StoreUnavailable
from drd.ops.backup import back_up
from drd.ops.ports import Source
from drd.repository import layout
from drd.stores.local import LocalStore
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from drd.timing import Timing
from tests.support.engine import DictEngine
from tests.support.overviews import make_job, make_run
from tests.support.ports import make_ports

JOB = "backup/hourly/shop"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Give the configuration of a source that is backed up every hour, and has one backup of 20 minutes ago."""
    path = tmp_path / "drd.yaml"
    path.write_text(
        "store: {type: local, path: store}\n"
        'sources: {shop: {type: redis, url: "redis://127.0.0.1:1", rpo: 10m}}\n'
        'schedules: {hourly: {cron: "0 * * * *"}}\n'
    )
    at = datetime.now(UTC) - timedelta(minutes=20)
    back_up(
        make_ports(LocalStore(tmp_path / "store"), tmp_path), [Source("shop", DictEngine({"t": b"1\n"}, at=at), 60.0)]
    )
    return path


def failed(finished_at: datetime) -> JobRun:
    """Make an attempt that failed."""
    return make_run(
        JOB, finished_at, finished_at=finished_at, outcome="failed", message="no route to shop", hint="plug it in"
    )


def remember(tmp_path: Path, run: JobRun, retry: Retry | None = None) -> None:
    """Keep a run in the jobs' history, as a daemon does."""
    History(LocalStore(tmp_path / "store")).save(JOB, Record(runs=(run,), failures=1, retry=retry))


def test_without_a_daemon_nothing_is_going_to_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Schedules that nobody carries out are a warning, and no next run is made up."""
    assert main(["status", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "no daemon" in said.splitlines()[2]
    assert "! backups are scheduled, but no daemon runs that would take them: drd daemon" in said
    assert main(["status", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["next_run"] is None


def test_what_a_daemon_plans(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While one holds the lease: when the next backup is due, or tried again, and why the last attempt failed."""
    ports = make_ports(LocalStore(tmp_path / "store"), tmp_path)
    leader = Leader(ports, ttl_s=60, cancel=ports.cancel)
    assert leader.look()
    try:
        main(["status", "--json", "--config", str(config)])
        due = datetime.fromisoformat(json.loads(capsys.readouterr().out)["sources"][0]["next_run"])
        assert timedelta(0) < due - datetime.now(UTC) <= timedelta(hours=1)
        assert due.minute == 0
        now = datetime.now(UTC)
        remember(tmp_path, failed(now), Retry(tries=1, not_before=now + timedelta(minutes=5), planned_at=now))
        main(["status", "--config", str(config)])
        said = capsys.readouterr().out
    finally:
        leader.release()
    assert "retry in 4 min" in said.splitlines()[2]
    assert "no daemon" not in said
    assert "✗ shop is past its RPO of 10 min since" in said
    assert "! shop: the last attempt failed" in said
    assert "no route to shop\n    plug it in\n" in said


def test_a_failure_that_is_over_is_not_told(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An attempt that failed before the newest backup, and a record that cannot be read, say nothing."""
    remember(tmp_path, failed(datetime.now(UTC) - timedelta(hours=2)))
    main(["status", "--config", str(config)])
    assert "last attempt failed" not in capsys.readouterr().out
    LocalStore(tmp_path / "store").put(layout.job_key(JOB), b"no record")
    assert main(["status", "--config", str(config)]) == 0
    assert "last attempt failed" not in capsys.readouterr().out


def test_lines_fit_a_terminal_of_80_columns(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a narrow terminal the tables are laid out in more lines with the same facts; a pipe gets the whole table."""
    wide: dict[str, str] = {}
    for verb in ("status", "list"):
        main([verb, "--config", str(config)])
        wide[verb] = capsys.readouterr().out
        assert max(map(len, wide[verb].splitlines()[:3])) > 80
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    monkeypatch.setenv("NO_COLOR", "1")
    main(["list", "--config", str(config)])
    listed = capsys.readouterr().out.splitlines()
    assert listed[1] == "shop"
    assert max(map(len, listed)) <= 80
    main(["status", "--config", str(config)])
    narrow = capsys.readouterr().out
    assert "window 0.0 s, 1 backup; drill never" in narrow
    assert "next run of shop: no daemon" in narrow
    assert max(map(len, narrow.splitlines()[1:5])) <= 80


def test_a_role_that_may_not_read_the_history(tmp_path: Path) -> None:
    """What is planned is then not known, which is said; an outage is an error, as everywhere."""
    plan = Plan(job=make_job(JOB).job, timing=Timing(interval_s=3600), deadline_s=60)

    def refused() -> StoreRefused:
        return StoreRefused("no right to read jobs/")

    def away() -> StoreUnavailable:
        return StoreUnavailable("no route")

    blind = make_ports(FaultyStore(MemoryStore(), [Fault("get", key_contains="jobs/", error=refused)]), tmp_path)
    assert outlook(blind, [plan], lease_ttl_s=60) == Outlook(problem="no right to read jobs/")
    gone = make_ports(FaultyStore(MemoryStore(), [Fault("list", error=away)]), tmp_path)
    with pytest.raises(StoreUnavailable):
        outlook(gone, [plan], lease_ttl_s=60)
    fresh = outlook(make_ports(MemoryStore(), tmp_path), [plan], lease_ttl_s=60)
    assert fresh == Outlook(running=False, sources={"shop": Upcoming(next_at=None)}), "an interval counts from a start"
