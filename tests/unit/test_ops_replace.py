"""Restores in place over a memory store and a dictionary engine: the order of steps, and what a fault leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from drd.errors import Cancelled, CatalogError, ConfigError, LeaseError, StoreUnavailable, TargetError
from drd.model import Fingerprint, Notice, Recovered
from drd.ops import replace, replaced, restore
from drd.ops.backup import back_up
from drd.ops.check import check
from drd.ops.ports import Ports, Source
from drd.repository.pins import Pins
from drd.repository.restores import Restores
from tests.support.engine import DictEngine
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports

BEFORE, AFTER = {"orders": b"1\n2\n", "users": b"x\n"}, {"orders": b"9\n"}


class DictReplacer:
    """Swaps dictionaries; ``hit`` is called with the name of each step and may raise."""

    def __init__(self, live: DictEngine, keeps: str) -> None:
        self.live = live
        self.keeps: Any = keeps
        self.staged: DictEngine | None = None
        self.kept: dict[str, dict[str, bytes]] = {}
        self.steps: list[str] = []
        self.hit: Callable[[str], object] = lambda _step: None

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self.hit(name)

    def survey(self, backup: Any, artifacts: Any) -> Sequence[str]:
        return ("swap dictionaries",)

    def stage(self, restore_id: str, backup: Any, artifacts: Any, ctx: Any) -> Sequence[Notice]:
        self.staged = DictEngine()
        self.staged.restore(backup, artifacts, ctx)
        self._step("stage")
        return ()

    def fingerprint(self, restore_id: str, expected: Fingerprint, ctx: Any) -> Fingerprint:
        assert self.staged
        return self.staged.fingerprint(expected, ctx)

    def swap(self, restore_id: str, backup: Any, artifacts: Any, ctx: Any, save_old: Any) -> Sequence[str]:
        self._step("swap")
        assert self.staged
        if self.keeps == "backup":
            save_old(self.live)
            self._step("saved")
        else:
            self.kept[restore_id] = self.live.tables
        self.live.tables, self.staged = self.staged.tables, None
        self._step("swapped")
        return ("old",)

    def recover(self, restore_id: str) -> Recovered:
        self.steps.append("recover")
        self.staged = None
        return Recovered(restore_id in self.kept if self.keeps == "beside" else None)

    def undo(self, restore_id: str) -> Sequence[str]:
        self.live.tables, self.kept[restore_id] = self.kept[restore_id], self.live.tables
        return ("new",)

    def drop_old(self, restore_id: str) -> Sequence[str]:
        return ("old",) if self.kept.pop(restore_id, None) is not None else ()


class World:
    """A source that was backed up and changed since."""

    def __init__(self, folder: Path, keeps: str = "beside") -> None:
        self.store = HookedStore()
        self.ports: Ports = make_ports(self.store, folder)
        self.engine = DictEngine(dict(BEFORE))
        self.replacer = DictReplacer(self.engine, keeps)
        self.source = Source("shop", self.engine, 60.0, replacer=self.replacer)
        assert back_up(self.ports, [self.source]).outcome == "ok"
        self.at = datetime.now(UTC)
        self.engine.tables = dict(AFTER)

    def replace(self) -> restore.RestoredSource:
        planned = restore.plan(self.ports, self.at, ["shop"], lambda _source, _backup: self.source)
        (done,) = replace.restore_in_place(self.ports, self.at, planned).restores
        return done

    def doubts(self) -> tuple[Notice, ...]:
        """Return what a plan for now says of its backup."""
        (planned,) = restore.plan(self.ports, datetime.now(UTC), ["shop"], lambda _source, _backup: self.source)
        return planned.notices

    def phase(self) -> str:
        (record,), problems = Restores(self.ports.store).all()
        assert problems == []
        return record.phase


@pytest.fixture(params=["beside", "backup"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Give a world of each way of keeping the old data."""
    return World(tmp_path, request.param)


def test_replace_undo_drop(world: World) -> None:
    """The data comes, goes back, and what is kept is given up; each may be repeated."""
    done = world.replace()
    assert done.error is None
    assert done.replaced
    assert world.engine.tables == BEFORE
    assert world.phase() == "replaced"
    undone = replaced.undo(world.ports, world.source, done.replaced.restore[-6:])
    assert undone.names
    assert world.engine.tables == AFTER
    assert world.phase() == "undone"
    assert len(Pins(world.ports.store).of("shop")) == (1 if world.replacer.keeps == "backup" else 0)
    assert replaced.drop_old(world.ports, world.source, done.replaced.restore).names
    assert replaced.drop_old(world.ports, world.source, done.replaced.restore).names == ()
    assert Pins(world.ports.store).of("shop") == set()
    with pytest.raises(CatalogError, match="was dropped"):
        replaced.undo(world.ports, world.source, done.replaced.restore)


@pytest.mark.parametrize("found", [True, False, None])
def test_killed_on_the_way_back(world: World, found: bool | None) -> None:
    """Whoever comes next keeps the way back, or knows that it was gone; ``undo`` ends what was begun."""
    done = world.replace()
    assert done.replaced
    records = Restores(world.ports.store)
    record = records.get(done.replaced.restore)
    records.put(record.now("undoing", datetime.now(UTC)))
    if found is not None:
        world.replacer.recover = lambda _restore: Recovered(found)  # type: ignore[method-assign]
    pins = Pins(world.ports.store).of("shop")
    ((_, notice),) = replace.recover_interrupted(world.ports, [world.source])
    assert f"drd restore undo {record.id}" in notice.message
    assert world.phase() == ("undone" if found is False and world.replacer.keeps == "beside" else "replaced")
    assert Pins(world.ports.store).of("shop") == pins
    replaced.undo(world.ports, world.source, record.id)
    assert world.engine.tables == AFTER
    assert world.phase() == "undone"


def test_interrupted_on_the_way_back(tmp_path: Path) -> None:
    """What is said is that one of both is there, and how to go on; that leads to the old data."""
    world = World(tmp_path, "backup")
    done = world.replace()
    assert done.replaced

    def interrupt(step: str) -> None:
        if step == "saved":
            raise Cancelled("interrupted; what was under way has been undone")

    world.replacer.hit = interrupt
    with pytest.raises(Cancelled, match="on the way back") as caught:
        replaced.undo(world.ports, world.source, done.replaced.restore)
    assert caught.value.hint == f"to go on: drd restore undo {done.replaced.restore}"
    assert world.engine.tables == BEFORE
    world.replacer.hit = lambda _step: None
    replaced.undo(world.ports, world.source, done.replaced.restore)
    assert world.engine.tables == AFTER


def test_restores_are_undone_in_reverse_order(world: World) -> None:
    """Going back past a later restore would mix up the copies: refused, with the one to undo first."""
    first = world.replace()
    if world.replacer.keeps == "backup":
        assert [notice.code for notice in world.doubts()] == ["kept-by-restore"]
        return
    world.engine.tables = {"orders": b"5\n"}
    second = world.replace()
    assert first.replaced
    assert second.replaced
    with pytest.raises(ConfigError, match=second.replaced.restore) as caught:
        replaced.undo(world.ports, world.source, first.replaced.restore)
    assert f"drd restore undo {second.replaced.restore}, then" in caught.value.hint
    assert world.engine.tables == BEFORE
    replaced.undo(world.ports, world.source, second.replaced.restore)
    assert world.engine.tables == {"orders": b"5\n"}
    replaced.undo(world.ports, world.source, first.replaced.restore)
    assert world.engine.tables == AFTER


@pytest.mark.parametrize("step", ["stage", "swap"])
def test_a_refused_step(world: World, step: str) -> None:
    """A step that fails leaves the live data, no pin, and a record that says so; a second run succeeds."""

    def refuse(name: str) -> None:
        if name == step:
            raise TargetError("no")

    world.replacer.hit = refuse
    failed = world.replace()
    assert failed.error
    assert world.engine.tables == AFTER
    assert world.replacer.steps[-1] == "recover"
    assert world.phase() == "failed"
    assert Pins(world.ports.store).of("shop") == set()
    world.replacer.hit = lambda _name: None
    assert world.replace().error is None
    assert world.engine.tables == BEFORE


def test_data_that_reads_back_otherwise(tmp_path: Path) -> None:
    """A fingerprint that differs stops before the swap."""
    world = World(tmp_path)

    def spoil(name: str) -> None:
        if name == "stage":
            assert world.replacer.staged
            world.replacer.staged.tables["orders"] += b"x"

    world.replacer.hit = spoil
    failed = world.replace()
    assert failed.error
    assert failed.error.exit_code == 20
    assert "nothing was changed" in failed.error.hint
    assert "swap" not in world.replacer.steps
    assert world.engine.tables == AFTER


def test_no_backup_meanwhile(world: World) -> None:
    """The lease is held from the first step to the last."""
    errors: list[object] = []

    def back_up_too(name: str) -> None:
        if name in {"stage", "swap"}:
            errors.append(back_up(world.ports, [world.source]).sources[0].error)

    world.replacer.hit = back_up_too
    assert world.replace().error is None
    assert len(errors) == 2
    assert all(isinstance(error, LeaseError) for error in errors)


def test_a_store_that_fails_at_every_change(tmp_path: Path) -> None:
    """Whichever put of a record the store refuses: the data is all old or all new, and the next run ends it."""
    for nth in range(1, 4):
        world, puts = World(tmp_path / str(nth)), [0]

        def fail(method: str, key: str, puts: list[int] = puts, nth: int = nth) -> None:
            if method == "put" and key.startswith("restores/"):
                puts[0] += 1
                if puts[0] >= nth:
                    raise StoreUnavailable("away")

        world.store.before = fail
        done = world.replace()
        assert world.engine.tables == (BEFORE if nth == 3 else AFTER)
        assert (done.error is None) == (nth == 3)
        assert ("record-not-written" in {notice.code for notice in done.notices}) == (nth == 3)
        world.store.before = lambda _method, _key: None
        replace.recover_interrupted(world.ports, [world.source])
        if nth > 1:
            assert world.phase() == ("replaced" if nth == 3 else "failed")
        assert world.engine.tables == (BEFORE if nth == 3 else AFTER)


def test_interrupted_and_found(tmp_path: Path) -> None:
    """A record of a killed run is ended by whoever comes next; to drop before that is refused."""
    world = World(tmp_path)

    def die(name: str) -> None:
        if name == "swapped":
            raise KeyboardInterrupt

    world.replacer.hit = die
    world.replacer.recover = lambda _id: (_ for _ in ()).throw(TargetError("away"))  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        world.replace()
    del world.replacer.recover
    assert world.phase() == "swapping"
    (record,), _ = Restores(world.ports.store).all()
    (item,) = [item for item in check(world.ports, []).items if item.name == "restores"]
    assert (item.outcome, record.id in item.hint) == ("warning", True)
    with pytest.raises(ConfigError, match="interrupted"):
        replaced.drop_old(world.ports, world.source, record.id)
    ((name, first),) = replace.recover_interrupted(world.ports, [world.source])
    assert (name, first.code) == ("shop", "restore-recovered")
    assert world.phase() == "replaced"


def test_an_empty_target_is_restored_as_ever(tmp_path: Path) -> None:
    """Where there is nothing to replace, nothing is staged and no record is written."""
    world = World(tmp_path)
    world.engine.tables = {}
    done = world.replace()
    assert done.error is None
    assert done.replaced is None
    assert world.engine.tables == BEFORE
    assert Restores(world.ports.store).all() == ([], [])


def test_two_at_once(tmp_path: Path) -> None:
    """Of two restores in place of one source, the second is refused by the lease and changes nothing."""
    world, inside, go_on = World(tmp_path), threading.Event(), threading.Event()
    outcomes: list[restore.RestoredSource] = []

    def wait(name: str) -> None:
        if name == "stage":
            inside.set()
            go_on.wait(20)

    world.replacer.hit = wait
    first = threading.Thread(target=lambda: outcomes.append(world.replace()))
    first.start()
    assert inside.wait(20)
    second = world.replace()
    assert isinstance(second.error, LeaseError)
    go_on.set()
    first.join()
    assert outcomes[0].error is None
    assert world.engine.tables == BEFORE
