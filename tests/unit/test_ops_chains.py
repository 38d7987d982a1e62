"""Chains over a memory store: what a backup builds on, what it shares, and that nothing needed is ever deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drd.errors import CatalogError, ConfigError, DrdError, IntegrityError, StoreError
from drd.model import Backup, Notice
from drd.ops import restore as restoring
from drd.ops.backup import SourceReport, back_up
from drd.ops.ports import Chaining, Ports, Source
from drd.ops.prune import prune
from drd.ops.sampling import Budget
from drd.ops.status import status
from drd.ops.verify import verify
from drd.protocols import ArtifactSink, WorkContext
from drd.repository.codec import Codec, generate_identity
from drd.repository.layout import backup_time, owner_of
from drd.repository.lease import Holder
from drd.repository.planning import broken_chain
from drd.repository.references import References
from drd.repository.retention import Policy
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from tests.support.engine import DictEngine
from tests.support.ports import make_ports as ports_over

WEEK = Chaining(7 * 86400.0, 24)
START = datetime(2026, 3, 1, 2, tzinfo=UTC)


class Days:
    """A clock that stands at two in the morning of a day, and a source whose table grows."""

    def __init__(self, store: MemoryStore | FaultyStore, folder: Path, **more: object) -> None:
        self.day = 0
        ports = ports_over(store, folder, **more)  # type: ignore[arg-type]
        tuning = dataclasses.replace(ports.tuning, part_size_bytes=512 << 10)  # rows are cut at an eighth of a MiB
        self.ports: Ports = dataclasses.replace(ports, now=self.now, tuning=tuning)
        self.engine = DictEngine({"t": table(0)})

    def now(self) -> datetime:
        """Return the time of the day."""
        return START + timedelta(days=self.day)

    def backup(
        self, day: int, *, kind: Literal["auto", "full", "incremental"] = "auto", **more: object
    ) -> SourceReport:
        """Take the backup of a day, on which the table has grown and a row of it was changed."""
        self.day = day
        self.engine.tables = {"t": table(day)}
        self.engine.at = self.now()
        options = {"chaining": WEEK} | more
        (report,) = back_up(self.ports, [Source("shop", self.engine, 60.0, **options)], kind=kind).sources  # type: ignore[arg-type]
        return report

    def good(self, day: int, **more: object) -> Backup:
        """Take the backup of a day and demand that it succeeds."""
        report = self.backup(day, **more)  # type: ignore[arg-type]
        assert report.backup, report.error
        return report.backup

    def restored(self, at: datetime) -> dict[str, bytes]:
        """Restore to a time into an empty engine, compared with its fingerprint, and return what it holds."""
        into = DictEngine()
        planned = restoring.plan(self.ports, at, ["shop"], lambda _s, _b: Source("shop", into, 60.0))
        report = restoring.restore(self.ports, at, planned)
        if report.restores[0].error:
            raise report.restores[0].error
        return into.tables


@functools.cache
def table(day: int) -> bytes:
    """Return the table's rows on a day: more each day, one changed in the middle, all of them incompressible."""
    source = random.Random(1)
    rows = [source.randbytes(100).hex().encode() for _ in range(8_000 + 300 * day)]
    rows[4_000] = b"changed on day %d" % day
    return b"\n".join(rows) + b"\n"


@pytest.fixture
def days(tmp_path: Path) -> Days:
    return Days(MemoryStore(), tmp_path)


def own_bytes(ports: Ports, backup: Backup) -> int:
    """Return the bytes of all objects in a backup's folder but its manifest."""
    listed = ports.store.list(f"backups/shop/{backup.id}/")
    return sum(info.size_bytes for info in listed if not info.key.endswith("manifest.json"))


def test_a_week_of_backups_shares_what_did_not_change(days: Days) -> None:
    """The second backup stores little, says who its parent is, and each day restores to its own state."""
    first = days.good(0)
    second = days.good(1)
    third = days.good(2)
    assert (first.kind, first.parent) == ("full", None)
    assert (second.kind, second.parent) == ("incremental", first.id)
    assert (third.kind, third.parent) == ("incremental", second.id)
    assert second.stored_bytes == own_bytes(days.ports, second) < first.stored_bytes / 2
    assert {owner_of(part.key) for a in third.artifacts for part in a.parts} >= {first.id, third.id}
    for day, backup in enumerate((first, second, third)):
        assert days.restored(backup.recovery_point) == {"t": table(day)}
    assert verify(days.ports, [], deep=True).outcome == "ok"


def test_full_every_and_max_chain_end_a_chain_and_say_so(days: Days) -> None:
    """A full backup is taken when the last full one is old enough, or enough stand on it, with the reason."""
    days.good(0)
    days.good(3)
    report = days.backup(7)
    assert report.backup
    assert report.backup.kind == "full"
    assert "7.0 d old" in report.kind_reason
    short = Chaining(7 * 86400.0, 2)
    kinds = [days.good(day, chaining=short).kind for day in (8, 9, 10, 11)]
    assert kinds == ["incremental", "incremental", "full", "incremental"]
    assert days.good(12, chaining=Chaining(7 * 86400.0, 0)).kind == "full"


def test_what_lasts_is_told_when_it_is_new(days: Days) -> None:
    """A standing notice comes with the first backup of a chain and stays in every manifest; others come each time."""
    dump = days.engine.dump
    said = (Notice("for-long", "users are kept in files", standing=True), Notice("now", "a table went away"))
    days.engine.dump = lambda sink, ctx: dataclasses.replace(dump(sink, ctx), notices=said)  # type: ignore[method-assign]
    reports = [days.backup(day) for day in (0, 1, 2)]
    assert [[n.code for n in report.notices] for report in reports] == [["for-long", "now"], ["now"], ["now"]]
    assert {report.backup.warnings for report in reports if report.backup} == {("for-long", "now")}
    assert "for-long" in {notice.code for notice in days.backup(3, kind="full").notices}


def test_kinds_can_be_asked_for(days: Days) -> None:
    """Full is full whatever lies there; incremental is one whatever the policy says, and else an error."""
    refused = days.backup(0, kind="incremental")
    assert isinstance(refused.error, CatalogError)
    assert refused.error.exit_code == 10
    assert "no earlier backup" in refused.error.message
    assert list(days.ports.store.list("backups/")) == []
    days.good(1)
    assert days.good(2, kind="full").kind == "full"
    assert days.good(30, kind="incremental").kind == "incremental"
    always_full = days.backup(31, kind="incremental", chaining=None)
    assert isinstance(always_full.error, ConfigError)
    assert "always full" in always_full.error.message
    assert days.good(32, chaining=None).kind == "full"


def test_nothing_shared_is_a_full_backup(days: Days) -> None:
    """A backup that shares no part names no parent, so that it does not depend on one for nothing."""
    first = days.good(0)
    days.day = 1
    days.engine.tables = {"t": random.Random(7).randbytes(300_000)}
    report = back_up(days.ports, [Source("shop", days.engine, 60.0, chaining=WEEK)], kind="incremental").sources[0]
    assert report.backup
    assert report.backup.parent is None
    assert first.id in report.kind_reason


def test_a_missing_or_short_part_is_stored_again(days: Days) -> None:
    """What the store does not list in its size is not referred to: the next backup is whole all the same."""
    first = days.good(0)
    lost, short = [part.key for part in first.artifacts[0].parts[:2]]
    days.ports.store.delete([lost])
    days.ports.store.put(short, b"short")
    second = days.good(1)
    referred = {part.key for artifact in second.artifacts for part in artifact.parts}
    assert second.kind == "incremental"
    assert not {lost, short} & referred
    report = verify(days.ports, [], deep=True)
    assert {item.id: item.outcome for item in report.backups} == {first.id: "damaged", second.id: "ok"}
    assert days.restored(second.recovery_point) == {"t": table(1)}


@pytest.mark.parametrize("change", ["recipients", "no encryption", "repository", "engine", "clock"])
def test_what_cannot_be_built_on_is_named_and_a_full_backup_taken(tmp_path: Path, change: str) -> None:
    """Other keys, another repository, another database, a clock set back: full, with the reason."""
    store = MemoryStore()
    (identity, mine), (_, other) = generate_identity(), generate_identity()
    before = Days(store, tmp_path, codec=Codec(1, (mine,), (identity,)))
    before.good(5)
    codec = {"recipients": Codec(1, (mine, other), (identity,)), "no encryption": Codec(1)}.get(
        change, before.ports.codec
    )
    after = Days(store, tmp_path, codec=codec)
    if change == "repository":
        store.delete(["drd.json"])
    if change == "engine":
        after.engine.kind = "redis"
    report = after.backup(4 if change == "clock" else 6)
    assert report.backup
    assert report.backup.kind == "full"
    words = {"clock": "clock", "engine": "postgres", "repository": "repository", "no encryption": "encrypted"}
    assert words.get(change, "recipients") in report.kind_reason
    refused = after.backup(4 if change == "clock" else 6, kind="full")
    assert refused.backup


def test_lost_ancestor_is_named_with_its_effect(days: Days) -> None:
    """Verify names the manifest that is gone and what cannot be restored; restore falls back to an earlier one only."""
    zero, first = days.good(0), days.good(1, kind="full")
    second, third = days.good(2), days.good(3)
    gone = f"backups/shop/{second.id}/manifest.json"
    days.ports.store.delete([gone])
    report = {item.id: item for item in verify(days.ports, [], deep=False).backups}
    assert report[third.id].outcome == "damaged"
    (problem,) = report[third.id].problems
    assert problem.subject == gone
    assert second.id in problem.message
    assert problem.effect == f"backup {third.id} cannot be restored"
    assert days.restored(third.recovery_point) == {"t": table(1)}
    said = status(days.ports, [("shop", None)]).sources[0]
    assert said.newest
    assert (said.newest.id, said.damaged) == (first.id, 1)
    fourth = days.backup(4)
    assert fourth.backup
    assert fourth.backup.parent == first.id, "built on the newest whole one"
    assert [notice.code for notice in fourth.notices] == ["parent-unusable"]
    kept = {item.id for item in prune(days.ports, {"shop": Policy(keep_last=1)}, apply=True).sources[0].decision.keep}
    assert kept == {first.id, third.id, fourth.backup.id}
    assert zero.id not in kept
    assert list(days.ports.store.list(f"backups/shop/{second.id}/")), "a manifest still refers to these"


def test_damaged_manifest_in_a_chain_names_all_that_need_it(days: Days) -> None:
    """A manifest that cannot be read takes its descendants along, and verify says so of each."""
    made = days.good(0), days.good(1), days.good(2)
    days.ports.store.put(f"backups/shop/{made[0].id}/manifest.json", b"{")
    report = {item.id: item for item in verify(days.ports, [], deep=False).backups}
    for backup in made:
        assert report[backup.id].problems[0].effect == f"backup {backup.id} cannot be restored"
        assert made[0].id in report[backup.id].problems[0].subject


def test_lost_part_of_an_ancestor_damages_all_that_refer_to_it(days: Days) -> None:
    """A shared part that is gone is named for each backup that needs it, and its restore refuses with exit 20."""
    first, second = days.good(0), days.good(1)
    shared = next(part.key for part in second.artifacts[0].parts if owner_of(part.key) == first.id)
    days.ports.store.delete([shared])
    report = verify(days.ports, [], deep=False)
    assert [(item.outcome, {p.subject for p in item.problems}) for item in report.backups] == [
        ("damaged", {shared})
    ] * 2
    with pytest.raises(IntegrityError):
        days.restored(second.recovery_point)


@pytest.mark.parametrize("way", ["sample", "deep"])
def test_altered_part_of_an_ancestor_is_named_for_all_that_refer_to_it(days: Days, way: str) -> None:
    """Once it was read, also a later look at presence and sizes alone names it, until it is whole again."""
    first, second = days.good(0), days.good(1)
    shared = next(part.key for part in second.artifacts[0].parts if owner_of(part.key) == first.id)
    good = days.ports.store.get(shared)
    days.ports.store.put(shared, good[:-1] + bytes([good[-1] ^ 1]))
    assert verify(days.ports, [], deep=False).outcome == "ok"  # nobody looked yet
    read = verify(days.ports, [], deep=way == "deep", sample=Budget(share=1.0) if way == "sample" else None)
    for report in (read, verify(days.ports, [], deep=False)):
        found = {item.id: [(p.subject, p.effect) for p in item.problems] for item in report.backups}
        assert found == {b.id: [(shared, f"backup {b.id} cannot be restored")] for b in (first, second)}
    assert verify(days.ports, [second.id], deep=False).outcome == "damaged"
    days.ports.store.put(shared, good)
    assert verify(days.ports, [], deep=False).outcome == "ok"


def test_parent_deleted_while_building_on_it(days: Days) -> None:
    """A parent that vanishes under a running backup fails it, and leaves nothing."""
    first = days.good(0)

    class Vanishing(DictEngine):
        def dump(self, sink: ArtifactSink, ctx: WorkContext):  # type: ignore[no-untyped-def]
            assert [ancestor.backup.id for ancestor in ctx.ancestors] == [first.id]
            with ctx.ancestors[-1].open() as artifacts:
                assert "names.json" in artifacts.names()
            days.ports.store.delete([f"backups/shop/{first.id}/manifest.json"])
            return super().dump(sink, ctx)

    days.day = 1
    report = back_up(days.ports, [Source("shop", Vanishing({"t": table(1)}), 60.0, chaining=WEEK)])
    assert isinstance(report.sources[0].error, IntegrityError)
    assert days.ports.catalog.entries("shop") == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_deletion_takes_what_is_needed(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever order backups, losses of manifests, prunes and sweeps come in, what is listed as whole restores."""
    days = Days(MemoryStore(), tmp_path)
    for step in range(data.draw(st.integers(3, 9))):
        deed = data.draw(st.sampled_from(["backup", "backup", "full", "prune", "lose", "spoil", "orphan"]))
        ids = [entry.id for entry in days.ports.catalog.entries("shop")]
        if deed in {"backup", "full"} or not ids:
            days.good(step, kind="full" if deed == "full" else "auto", chaining=Chaining(7 * 86400.0, 3))
        elif deed == "prune":
            keep = Policy(keep_last=data.draw(st.integers(1, 3)))
            report = prune(days.ports, {"shop": keep}, apply=True).sources[0]
            assert report.error is None
        elif deed == "orphan":
            days.ports.store.put("backups/shop/20200101T000000Z-aaaaaa/t/000000.zst", b"x")
        else:
            key = f"backups/shop/{data.draw(st.sampled_from(ids))}/manifest.json"
            days.ports.store.put(key, b"{") if deed == "spoil" else days.ports.store.delete([key])
        entries = days.ports.catalog.entries("shop")
        there = {info.key for info in days.ports.store.list("backups/shop/")}
        for entry in entries:
            if entry.backup:
                assert {p.key for a in entry.backup.artifacts for p in a.parts} <= there
    found = {entry.id: entry.backup for entry in days.ports.catalog.entries("shop") if entry.backup}
    for backup in found.values():
        if not broken_chain(backup, found):
            day = (backup_time(backup.id) - START).days
            assert days.restored(backup.recovery_point) == {"t": table(day)}


def test_removal_of_a_needed_backup_is_refused_whoever_asks(days: Days) -> None:
    """The catalog itself deletes nothing that another backup needs, and says which that is."""
    first, second = days.good(0), days.good(1)
    references = References(days.ports.catalog.entries("shop"))
    with pytest.raises(IntegrityError, match=second.id):
        days.ports.catalog.remove("shop", first.id, references)
    assert len(days.ports.catalog.entries("shop")) == 2
    days.ports.catalog.remove("shop", second.id, references)
    days.ports.catalog.remove("shop", first.id, references)
    assert list(days.ports.store.list("backups/")) == []


@pytest.mark.parametrize("effect", ["fail", "fail after"])
def test_fault_at_every_store_call(tmp_path: Path, effect: Literal["fail", "fail after"]) -> None:
    """Fail the n-th store call of an incremental backup, for every n: its parent stays whole, a rerun works."""
    killed = dataclasses.replace(Holder.of_this_process(), pid=2**22 - 1)  # its lease ends with it
    pristine = MemoryStore()
    first = Days(pristine, tmp_path).good(0)
    for nth in itertools.count(1):
        inner = MemoryStore()
        for info in pristine.list(""):
            inner.put(info.key, pristine.get(info.key))
        faulty = FaultyStore(inner, [Fault(effect=effect, nth=(nth,), error=lambda: StoreError("planted"))])
        with contextlib.suppress(DrdError):
            Days(faulty, tmp_path, holder=killed).backup(1)
        well = Days(inner, tmp_path)
        found = {entry.id for entry in well.ports.catalog.entries("shop") if entry.backup}
        assert first.id in found, nth
        assert len(found) <= 2, nth
        assert verify(well.ports, [], deep=True).outcome == "ok", nth
        again = well.good(2)
        assert again.kind == "incremental"
        assert well.ports.catalog.unfinished("shop") == []
        assert well.restored(first.recovery_point) == {"t": table(0)}
        assert well.restored(again.recovery_point) == {"t": table(2)}
        if len(faulty.calls) < nth:
            break
    assert nth > 12


def test_prune_keeps_whole_chains_and_lets_old_ones_go(days: Days) -> None:
    """What a kept backup builds on stays; a chain that nothing keeps goes, children first."""
    old = [days.good(day) for day in (0, 1)]
    new = [days.good(day, kind=kind) for day, kind in ((2, "full"), (3, "auto"), (4, "auto"))]

    def plan(keep: int) -> list[str]:
        report = prune(days.ports, {"shop": Policy(keep_last=keep)}, apply=True)
        return [item.id for item in report.sources[0].decision.remove]

    assert plan(4) == []
    assert plan(1) == [old[1].id, old[0].id]
    assert [entry.id for entry in days.ports.catalog.entries("shop")] == [backup.id for backup in new]
    assert days.restored(new[-1].recovery_point) == {"t": table(4)}
