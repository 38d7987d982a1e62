"""Drills over a memory store, a dictionary engine and a stand-in runtime: selection, verdicts, evidence, proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.drills import report as reports
from drd.drills.checks import SuiteChecks
from drd.drills.history import RecordedRun
from drd.drills.page import page
from drd.drills.report import DrillRun
from drd.drills.suite import Budgets, Drill, Expectation, Objectives, Suite, SuiteCheck
from drd.errors import IntegrityError, QuestionError, ScratchError, StoreRefused
from drd.model import Answer, Cell, Question
from drd.ops.backup import back_up
from drd.ops.drill import DrillReport, Request, Tick, drill, runs_of
from drd.ops.ports import Ports, Source
from drd.ops.prune import prune
from drd.ops.status import status
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.retention import Guard, Policy
from drd.repository.signing import Signing, Trust, generate_signing_key
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from tests.support.engine import DictEngine
from tests.support.ports import make_ports
from tests.support.scratch_standin import StandinBinder, StandinRuntime

TABLES = {"orders": b"1\n2\n3\n", "users": b"1\n"}
COUNT = Question("sql", ("orders",))


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    return make_ports(MemoryStore(), tmp_path)


def take(ports: Ports, *, hours_ago: float = 0.0, source: str = "shop") -> str:
    """Back up; return the id."""
    at = ports.now() - timedelta(hours=hours_ago)
    taken = back_up(ports, [Source(source, DictEngine(TABLES, at=at), 60.0)])
    backup = taken.sources[0].backup
    assert backup is not None
    return backup.id


def run(
    ports: Ports,
    plan: Drill | None = None,
    *,
    runtime: StandinRuntime | None = None,
    bind: StandinBinder | None = None,
    request: Request | None = None,
    tell: Callable[[Tick], None] = lambda _tick: None,
) -> DrillReport:
    return drill(
        ports,
        plan or Drill("nightly", ("shop",)),
        runtime or StandinRuntime(),
        bind or StandinBinder(),
        request or Request(),
        tell,
    )


def suite_of(*checks: SuiteCheck, show_rows: bool = False) -> Suite:
    return Suite(by_source={"shop": checks}, show_rows=show_rows)


def test_a_good_backup_is_proven_and_remembered(ports: Ports) -> None:
    """Every phase is passed, every check made, the report reads back as it was, and the server is gone."""
    backup_id = take(ports)
    runtime, ticks = StandinRuntime(), list[Tick]()
    plan = Drill("nightly", ("shop",), suite=suite_of(SuiteCheck("rows", COUNT, Expectation("equals", 3))))
    (one,) = run(ports, plan, runtime=runtime, tell=ticks.append).runs
    assert (one.verdict, one.backup, one.error) == ("passed", backup_id, None)
    assert [c.name for c in one.checks] == ["server starts", "restored", "stored bytes", "content", "shape", "rows"]
    assert [t.phase for t in ticks if t.kind == "phase"] == ["choose", "provision", "fetch", "restore", "check"]
    assert runtime.running == 0
    (kept,) = runs_of(ports).newest_first()
    assert kept.run is not None
    assert reports.dump(kept.run) == reports.dump(one)
    assert status(ports, [("shop", None)]).proven_at == one.finished_at


def test_what_differs_fails(ports: Ports) -> None:
    """A table that came back otherwise is named with what was expected and found."""
    take(ports)
    bind = StandinBinder()
    bind.corrupt = True
    (one,) = run(ports, bind=bind).runs
    assert one.verdict == "failed"
    (content,) = [check for check in one.checks if check.name == "content"]
    assert "orders: sha256" in content.detail
    assert status(ports, [("shop", None)]).proven_at is None


def test_verdicts_of_what_goes_wrong(ports: Ports, tmp_path: Path) -> None:
    """No server, a lost server, a wrong question: unverified; no backup: unverified; missing data: failed."""
    assert run(ports).runs[0].error.code == "catalog"  # type: ignore[union-attr]
    assert run(ports).verdict == "unverified"
    take(ports)
    runtime, bind = StandinRuntime(), StandinBinder()
    runtime.refuse = "no server of that version"
    assert run(ports, runtime=runtime).verdict == "unverified"
    plan = Drill("nightly", ("shop",), suite=suite_of(SuiteCheck("rows", COUNT, Expectation("equals", 3))))
    for raised, verdict in (
        (QuestionError("syntax error"), "unverified"),
        (IntegrityError("no table"), "failed"),
        (ScratchError("gone"), "unverified"),
    ):
        bind.raising = raised
        assert run(ports, plan, bind=bind).verdict == verdict
    over = Drill("nightly", ("shop",), budgets=Budgets(fetched_bytes=1))
    assert run(ports, over).verdict == "unverified"


def test_objectives_are_said_and_only_fail_where_strict(ports: Ports) -> None:
    """An old backup is over its RPO: a warning, or a failure where the drill says so."""
    take(ports, hours_ago=3)
    for strict, verdict in ((False, "passed"), (True, "failed")):
        (one,) = run(ports, Drill("nightly", ("shop",), objectives=Objectives(60, 3600, strict))).runs
        assert (one.verdict, one.over_objective) == (verdict, ("rpo",))
        assert one.rpo_s == pytest.approx(3 * 3600, abs=60)


def test_selection(ports: Ports) -> None:
    """Latest, oldest, one by name, one by time; and random takes what was not proven yet."""
    first, second, third = (take(ports, hours_ago=hours) for hours in (9, 5, 1))
    chosen = {how: run(ports, Drill("d", ("shop",), select=(how,))).runs[0].backup for how in ("latest", "oldest")}  # type: ignore[arg-type]
    assert chosen == {"latest": third, "oldest": first}
    assert run(ports, Drill("d", ("shop",), select=("random",))).runs[0].backup == second
    assert run(ports, request=Request(backup=first)).runs[0].backup == first
    at = ports.now() - timedelta(hours=4)
    assert run(ports, request=Request(at=at)).runs[0].backup == second
    both = run(ports, Drill("d", ("shop",), select=("latest", "longest-chain"))).runs
    assert len(both) == 1  # the same backup is not drilled twice


def test_a_server_is_kept_when_asked_for(ports: Ports) -> None:
    """Whether the backup is proven or not, for a person who wants to look inside; else never."""
    take(ports)
    for corrupt in (False, True):
        runtime, bind = StandinRuntime(), StandinBinder()
        bind.corrupt = corrupt
        assert run(ports, runtime=runtime, bind=bind, request=Request(keep=True)).connect[0][1] == ("look here",)
        assert runtime.server is not None
        assert runtime.server.kept
    runtime = StandinRuntime()
    assert run(ports, runtime=runtime).connect == ()
    assert runtime.server is not None
    assert not runtime.server.kept


def test_only_scratch_endpoints_are_bound(ports: Ports) -> None:
    """Whatever a drill is told, engines are bound to what the runtime made, and to nothing else."""
    take(ports)
    bind = StandinBinder()
    run(ports, bind=bind)
    assert [endpoint.url for endpoint in bind.endpoints] == ["dict://scratch"]
    fields = {field.name for kind in (Drill, Request, Suite, SuiteCheck) for field in dataclasses.fields(kind)}
    assert not fields & {"url", "target", "into", "host", "password", "endpoint"}


def test_prune_keeps_the_newest_proven_backup(ports: Ports) -> None:
    """An old backup that passed a drill stays although no rule keeps it; one that failed does not count."""
    old = take(ports, hours_ago=9)
    newer = take(ports, hours_ago=5)
    take(ports, hours_ago=1)
    bind = StandinBinder()
    bind.corrupt = True
    run(ports, bind=bind, request=Request(backup=newer))
    run(ports, request=Request(backup=old))
    (decided,) = prune(ports, {"shop": Policy(keep_last=1)}, apply=False).sources
    assert {kept.id: kept.reasons for kept in decided.decision.keep}[old] == (Guard.NEWEST_PROVEN.value,)
    assert [removed.id for removed in decided.decision.remove] == [newer]


def signed_ports(ports: Ports) -> tuple[Ports, str]:
    private, public = generate_signing_key()
    signing = Signing(lambda: private, Trust((public,)))
    return dataclasses.replace(ports, catalog=Catalog(ports.store, signing)), public


def test_reports_are_signed_and_only_those_are_proof(ports: Ports) -> None:
    """The signature is of the very bytes; a changed report is no proof; keys that are not trusted neither."""
    signing_ports, public = signed_ports(ports)
    backup_id = take(signing_ports)
    (one,) = run(signing_ports).runs
    key = layout.drill_key("nightly", one.id)
    data, signature = ports.store.get(key), ports.store.get(f"{key}.sig")
    assert len(signature) == 64
    assert signing_ports.catalog.signing.signer_of(data, signature) == public
    assert runs_of(signing_ports).proven("shop") == {backup_id}
    ports.store.put(key, data.replace(b'"rows": 4', b'"rows": 5'))
    (found,) = runs_of(signing_ports).newest_first()
    assert (found.signed, found.signer) == (True, None)
    assert runs_of(signing_ports).proven("shop") == set()


def test_a_report_that_cannot_be_kept_is_said(ports: Ports) -> None:
    """The run passed and the store refuses the report: that is in the answer, not lost."""
    take(ports)
    fault = Fault("put", key_contains="drills/", error=lambda: StoreRefused("read only"))
    refusing = FaultyStore(ports.store, [fault])
    found = run(dataclasses.replace(ports, store=refusing))
    assert found.runs[0].verdict == "passed"
    assert found.unrecorded is not None


def a_run(**changes: object) -> DrillRun:
    at = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
    values: dict[str, object] = {
        "id": "20261122T180000Z-k3f9qa", "drill": "nightly", "source": "shop", "how": "latest", "backup": None,
        "engine": None, "verdict": "unverified", "started_at": at, "finished_at": at, "recovery_point": None,
        "newest_data": None, "phases": {"choose": 0.5}, "checks": (), "objectives": Objectives(),
    }  # fmt: skip
    return DrillRun(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"schema_version": 1', b'"schema_version": 2', "schema version 2"),
        (b'"verdict": "unverified"', b'"verdict": "great"', "verdict"),
        (b'"chain": []', b'"chain": [], "more": 1', "unknown field"),
        (b'"restore": 0', b'"restore": -1', "restore"),
        (b'"drd-drill-run"', b'"something"', "kind"),
        (b"{", b"[", "JSON"),
    ],
)
def test_a_report_is_read_strictly(old: bytes, new: bytes, words: str) -> None:
    """A newer version is refused by name; an unknown field, a bad value, another kind, no JSON are refused too."""
    data = reports.dump(a_run())
    assert reports.parse(data, "k") == reports.parse(data, "k")
    with pytest.raises(IntegrityError, match=words):
        reports.parse(data.replace(old, new, 1), "k")


def test_the_page_escapes_everything() -> None:
    """Names and texts come from databases and suites: none of them becomes markup."""
    evil = '<script>alert(1)</script>"'
    check = reports.Finding(evil, "failed", evil, evil, evil)
    error = reports.RunError("scratch", evil, evil, "check")
    shown = page(RecordedRun("d", "i", a_run(source=evil, how=evil, checks=(check,), error=error), None))
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    ("comparison", "wanted", "value", "outcome"),
    [
        ("equals", 3, 3.0, "passed"),
        ("equals", "a", "b", "failed"),
        ("not_equals", 3, 4, "passed"),
        ("at_least", 3, 2, "failed"),
        ("at_most", 3, 3, "passed"),
        ("above", 3, 3, "failed"),
        ("below", 3, 2, "passed"),
        ("above", 3, "text", "unverified"),
        ("at_least", 1, None, "failed"),
        ("within", 60, "1970-01-01T00:00:00Z", "failed"),
        ("within", 60, None, "failed"),
        ("within", 60, "soon", "unverified"),
        ("within", None, "1970-01-01T00:00:00Z", "unverified"),
        ("no_rows", None, 1, "failed"),
    ],
)
def test_expectations(ports: Ports, comparison: str, wanted: Cell, value: Cell, outcome: str) -> None:
    """Each comparison, with what it holds for and what it does not; what cannot be compared is unverified."""
    check = SuiteCheck("c", COUNT, Expectation(comparison, wanted))  # type: ignore[arg-type]
    checks = SuiteChecks(
        suite_of(), Objectives(), lambda _q: Answer(((value,),)), None, started_at=ports.now(), cancel=ports.cancel  # type: ignore[arg-type]
    )  # fmt: skip
    found = checks.make(check)
    assert found.outcome == outcome
    assert "text" not in found.found + found.detail.replace("ISO 8601 text", "")
