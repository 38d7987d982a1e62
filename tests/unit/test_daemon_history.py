"""The jobs' history at rest: strict, bounded, and kept while the store is away."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.daemon.history import History, NewerRecord, dump, parse, stored_text
from drd.daemon.model import Job, JobRun, Plan
from drd.daemon.notebook import Notebook
from drd.daemon.planning import MAX_RUNS, Record, Retry
from drd.errors import StoreForbidden, StoreUnavailable
from drd.repository.fields import Malformed
from drd.stores.memory import MemoryStore
from drd.timing import Timing

AT = datetime(2026, 11, 23, 4, 10, 0, 123456, tzinfo=UTC)
JOB = "backup/hourly/trading-postgres"
RUN = JobRun(
    job=JOB,
    kind="backup",
    subject="trading-postgres",
    planned_at=AT,
    started_at=AT + timedelta(seconds=1),
    finished_at=AT + timedelta(seconds=5),
    outcome="failed",
    attempt=2,
    exit_code=13,
    message="no connection",
    hint="is it up? prüfen",
)
RECORD = Record(runs=(RUN,), failures=2, retry=Retry(tries=1, not_before=AT + timedelta(minutes=2), planned_at=AT))


def test_what_is_written_is_read() -> None:
    """A record survives the store."""
    history = History(MemoryStore())
    history.save(JOB, RECORD)
    assert history.of(JOB) == RECORD
    assert history.of("drill/nightly") == Record()


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=3000), st.text(max_size=50))
def test_any_message_can_be_kept(message: str, hint: str) -> None:
    """Whatever an error says, its line of history can be written and read again."""
    run = replace(RUN, message=stored_text(message), hint=stored_text(hint))
    assert parse(dump(JOB, Record(runs=(run,))), JOB).runs == (run,)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "drd-other"},
        {"job": "backup/hourly/other"},
        {"failures": -1},
        {"more": 1},
        {"retry": {"tries": 1}},
        {"runs": [{}]},
        {"runs": [{"outcome": "well"}]},
        {"runs": [{"backup": "../../etc"}]},
        {"runs": [{"planned_at": "yesterday"}]},
    ],
)
def test_what_no_drd_writes_is_not_believed(change: dict[str, Any]) -> None:
    """Each field has its type and bounds, and none may be unknown."""
    document = json.loads(dump(JOB, RECORD))
    for name, value in change.items():
        document[name] = [document["runs"][0] | item for item in value] if name == "runs" and value[0] else value
    with pytest.raises(Malformed):
        parse(json.dumps(document).encode(), JOB)


def test_a_newer_record_is_said_to_be_newer() -> None:
    """It is not mistaken for damage, which would be replaced."""
    document = json.loads(dump(JOB, RECORD)) | {"version": 2, "unheard": "of"}
    with pytest.raises(NewerRecord, match="version 2"):
        parse(json.dumps(document).encode(), JOB)


def test_a_record_is_bounded() -> None:
    """It stays small however long the daemon runs."""
    run = replace(RUN, message="x" * 1000, hint="y" * 1000)
    assert len(dump(JOB, Record(runs=(run,) * MAX_RUNS))) < 300_000


class _Store(MemoryStore):
    """A store that fails as it is told."""

    refuses: Exception | None = None

    def put(self, key: str, data: Any, *, if_absent: bool = False) -> None:
        if self.refuses:
            raise self.refuses
        super().put(key, data, if_absent=if_absent)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if isinstance(self.refuses, StoreForbidden):
            raise self.refuses
        return super().get(key, start=start, length=length)


def world(store: MemoryStore) -> Any:
    job = Job(name=JOB, kind="backup", schedule="hourly", subject="trading-postgres", longest_gap_s=3600)
    plan = Plan(job=job, timing=Timing(interval_s=60), deadline_s=60)
    return SimpleNamespace(
        plans=(plan,), ports=SimpleNamespace(store=store), plan_of=lambda name: plan if name == JOB else None
    )


def test_history_waits_for_a_store_that_is_away() -> None:
    """What could not be written is kept, said, and written when the store is back; reading anew does not lose it."""
    store, notebook = _Store(), Notebook()
    store.refuses = StoreUnavailable("the store is away")
    notebook.put(JOB, RECORD)
    notebook.save(world(store), JOB)
    assert "the store is away" in notebook.problem
    notebook.take({JOB: Record()})
    assert notebook.of(JOB) == RECORD
    store.refuses = None
    notebook.flush(world(store))
    assert notebook.problem == ""
    assert History(store).of(JOB) == RECORD


def test_a_role_that_may_not_read_works_on_and_says_so() -> None:
    """Nothing is known of the past, and that is on the board."""
    store, notebook = _Store(), Notebook()
    store.refuses = StoreForbidden("this role may not read")
    notebook.take(notebook.read(world(store)))
    assert notebook.of(JOB) == Record()
    assert "may not read" in notebook.problem


def test_a_newer_record_is_left_as_it_is_and_a_damaged_one_is_not() -> None:
    """An older drd beside a newer one does not take its history away; damage is overcome."""
    store, notebook = MemoryStore(), Notebook()
    newer = dump(JOB, RECORD).replace(b'"version": 1', b'"version": 9')
    for stored, kept in ((newer, True), (b"{damage", False)):
        store.put(f"jobs/{JOB}.json", stored)
        notebook.take(notebook.read(world(store)))
        assert notebook.of(JOB) == Record()
        notebook.put(JOB, RECORD)
        notebook.save(world(store), JOB)
        assert (store.get(f"jobs/{JOB}.json") == stored) == kept


def test_what_a_replica_did_while_another_led_is_not_lost_and_takes_nothing_away() -> None:
    """Runs known here alone and runs that the new leader wrote are one history, newest first."""
    store, notebook = MemoryStore(), Notebook()
    later = replace(RUN, planned_at=AT + timedelta(hours=1), finished_at=AT + timedelta(hours=1), outcome="ok")
    notebook.put(JOB, RECORD)
    notebook.keep(JOB)
    History(store).save(JOB, Record(runs=(later,)))
    notebook.take(notebook.read(world(store)))
    notebook.flush(world(store))
    assert History(store).of(JOB) == Record(runs=(later, RUN), failures=0, retry=None)
    assert notebook.problem == ""
