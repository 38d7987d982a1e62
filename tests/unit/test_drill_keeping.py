"""Which drill reports stay: the laws, over any history, and the deed over a memory store."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drd.drills.keeping import Decision, Guard, Policy, Report, decide
from drd.drills.report import DrillRun
from drd.drills.suite import Objectives
from drd.errors import StoreRefused
from drd.model import ObjectInfo
from drd.ops.backup import back_up
from drd.ops.drill import runs_of
from drd.ops.ports import Ports, Source
from drd.ops.prune import PruneReport, prune
from drd.ops.prune_drills import prune_reports
from drd.repository import layout, retention
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from tests.support.engine import DictEngine
from tests.support.ports import make_ports

BASE = datetime(2026, 1, 1, tzinfo=UTC)
BACKUPS = ("b1", "b2", "b3", None)
NOTHING_PRUNED = PruneReport(applied=False, sources=(), left_alone=())
LAST_ONE = Policy(1, timedelta(0))


def report_id(hour: int) -> str:
    return f"{BASE + timedelta(hours=hour):%Y%m%dT%H%M%SZ}-aaaaaa"


REPORTS = st.lists(
    st.builds(
        Report,
        drill=st.sampled_from(["nightly", "weekly"]),
        id=st.integers(0, 2000).map(report_id),
        source=st.sampled_from(["shop", "till"]),
        backup=st.sampled_from(BACKUPS),
        readable=st.booleans(),
        proof=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda report: (report.drill, report.id),
)
POLICIES = st.builds(Policy, st.integers(1, 5), st.integers(0, 40).map(lambda days: timedelta(days=days)))


def proven(reports: list[Report], existing: set[str]) -> set[str | None]:
    return {r.backup for r in reports if r.readable and r.proof and r.backup in existing}


def newest(reports: list[Report]) -> dict[str, str]:
    readable = [r for r in reports if r.readable]
    return {source: max(r.id for r in readable if r.source == source) for source in {r.source for r in readable}}


@given(REPORTS, st.sets(st.sampled_from(["b1", "b2", "b3"])), POLICIES)
def test_the_laws(reports: list[Report], existing: set[str], policy: Policy) -> None:
    """Each report is decided once; what proves a backup, the last of a source and what cannot be read all stay."""
    decision = decide(reports, existing, policy)
    kept = {(item.drill, item.id) for item in decision.keep}
    gone = {(item.drill, item.id) for item in decision.remove}
    assert kept | gone == {(r.drill, r.id) for r in reports}
    assert not kept & gone
    left = [r for r in reports if (r.drill, r.id) in kept]
    assert proven(left, existing) == proven(reports, existing)
    assert newest(left) == newest(reports)
    assert all((r.drill, r.id) in kept for r in reports if not r.readable)
    for drill in ("nightly", "weekly"):
        ids = sorted((r.id for r in reports if r.drill == drill), reverse=True)
        assert {(drill, run_id) for run_id in ids[: policy.keep_last]} <= kept
        edge = layout.backup_time(ids[0]) - policy.keep_within if ids else BASE
        assert all((drill, run_id) in kept for run_id in ids if layout.backup_time(run_id) >= edge)
    assert decide(left, existing, policy).remove == ()  # once is enough


@given(REPORTS, POLICIES)
def test_more_backups_never_remove_more(reports: list[Report], policy: Policy) -> None:
    """What stays while some backups exist stays when more of them do."""
    fewer, more = decide(reports, {"b1"}, policy), decide(reports, {"b1", "b2"}, policy)
    assert {item.id for item in more.remove} <= {item.id for item in fewer.remove}


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    return make_ports(MemoryStore(), tmp_path)


def record(ports: Ports, day: int, backup: str | None, verdict: str = "passed") -> str:
    """Keep a report of a run on that day; return its id."""
    at = BASE + timedelta(days=day)
    run_id = layout.new_backup_id(at)
    runs_of(ports).record(
        DrillRun(
            id=run_id, drill="nightly", source="shop", how="latest", backup=backup, engine="postgres",
            verdict=verdict, started_at=at, finished_at=at, recovery_point=None, newest_data=None,  # type: ignore[arg-type]
            phases={}, checks=(), objectives=Objectives(),
        )
    )  # fmt: skip
    return run_id


def take(ports: Ports, days_ago: int = 0) -> str:
    """Back up; return the id."""
    at = ports.now() - timedelta(days=days_ago)
    backup = back_up(ports, [Source("shop", DictEngine({"t": b"1\n"}, at=at), 60.0)]).sources[0].backup
    assert backup is not None
    return backup.id


def test_a_plan_changes_nothing_and_the_deed_is_the_plan(ports: Ports) -> None:
    """The proof of a backup that exists stays though it is the oldest; the others go, each with its signature."""
    backup = take(ports)
    proof = record(ports, 1, backup)
    old = [record(ports, day, "20200101T000000Z-aaaaaa") for day in (2, 3)]
    last = record(ports, 9, None, "unverified")
    ports.store.put(layout.drill_key("nightly", old[0]) + ".sig", b"x")
    before = {info.key for info in ports.store.list("")}
    planned = prune_reports(ports, NOTHING_PRUNED, LAST_ONE, apply=False)
    assert {info.key for info in ports.store.list("")} == before
    assert sorted(item.id for item in planned.decision.remove) == old
    reasons = {item.id: item.reasons for item in planned.decision.keep}
    assert Guard.PROOF.value in reasons[proof]
    assert reasons[last][0] == "last 1 of 1"
    done = prune_reports(ports, NOTHING_PRUNED, LAST_ONE, apply=True)
    assert sorted(done.removed) == old
    left = {info.key for info in ports.store.list("drills/")}
    assert left == {layout.drill_key("nightly", run_id) for run_id in (proof, last)}
    assert runs_of(ports).proven("shop") == {backup}


def test_a_proof_goes_with_its_backup(ports: Ports) -> None:
    """The plan speaks of the reports that go once the backups that go are gone."""
    older, newer = take(ports, 3), take(ports)
    proof = record(ports, 1, older, "failed")
    record(ports, 9, newer)
    pruned = prune(ports, {"shop": retention.Policy(keep_last=1)}, apply=False)
    assert [item.id for item in pruned.sources[0].decision.remove] == [older]
    for apply in (False, True):
        pruned = prune(ports, {"shop": retention.Policy(keep_last=1)}, apply=apply)
        found = prune_reports(ports, pruned, LAST_ONE, apply=apply)
        assert [item.id for item in found.decision.remove] == [proof]


def test_some_sources_alone(ports: Ports) -> None:
    """Asked for one source, the reports of others stay."""
    record(ports, 1, None)
    record(ports, 9, None)
    assert prune_reports(ports, NOTHING_PRUNED, LAST_ONE, apply=True, sources=["till"]).decision.remove == ()
    assert len(prune_reports(ports, NOTHING_PRUNED, LAST_ONE, apply=True, sources=["shop"]).removed) == 1


class LockedStore(MemoryStore):
    """Holds every report for a day more."""

    def stat(self, key: str) -> ObjectInfo:
        return dataclasses.replace(super().stat(key), locked_until=datetime.now(UTC) + timedelta(days=1))


def test_what_the_store_holds_or_refuses_is_said(tmp_path: Path) -> None:
    """A locked report is named with its time, and is no failure; a store that refuses is one, and removes nothing."""
    ports = make_ports(LockedStore(), tmp_path)
    old = record(ports, 1, None)
    record(ports, 9, None)
    found = prune_reports(ports, NOTHING_PRUNED, LAST_ONE, apply=True)
    assert [item.id for item in found.locked] == [old]
    assert (found.removed, found.error) == ((), None)
    fault = Fault("delete", key_contains="drills/", error=lambda: StoreRefused("read only"))
    ports = make_ports(FaultyStore(MemoryStore(), [fault]), tmp_path / "other")
    record(ports, 1, None)
    record(ports, 9, None)
    found = prune_reports(ports, NOTHING_PRUNED, LAST_ONE, apply=True)
    assert found.removed == ()
    assert found.error is not None
    assert found.error.subject == "drill reports"
    assert isinstance(found.decision, Decision)
