"""The history of a job as version 1 wrote it is read for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from drd.daemon.history import dump, parse
from drd.daemon.model import JobRun
from drd.daemon.planning import Record, Retry

FILE = Path(__file__).parent / "v1" / "jobs" / "backup" / "hourly" / "trading-postgres.json"
JOB = "backup/hourly/trading-postgres"


def at(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2026, 11, 22, hour, minute, second, tzinfo=UTC)


def run(hour: int, **values: object) -> JobRun:
    shared = {"job": JOB, "kind": "backup", "subject": "trading-postgres", "planned_at": at(hour, 0)}
    times = {"started_at": at(hour, 0, 2), "finished_at": at(hour, 0, 9)}
    return JobRun(**{**shared, **times, **values})  # type: ignore[arg-type]


RECORD = Record(
    runs=(
        run(19, outcome="failed", attempt=1, exit_code=13, message="no connection to the server", hint="is it up?"),
        run(18, outcome="ok", backup="20261122T180002Z-gqqden"),
        run(17, outcome="cancelled", exit_code=130, message="interrupted"),
    ),
    failures=1,
    retry=Retry(tries=1, not_before=at(19, 1, 9), planned_at=at(19, 0)),
)


def test_version_1_is_read_and_still_written() -> None:
    """What lies in buckets means what it meant, and a drd of that version reads what this one writes."""
    assert parse(FILE.read_bytes(), JOB) == RECORD
    assert dump(JOB, RECORD) == FILE.read_bytes()
