"""Which backup a restore uses: never later than asked, never a broken one, never silently another."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.errors import IntegrityError, NoRecoveryPath
from drd.model import Backup
from drd.repository.catalog import CatalogEntry
from drd.repository.planning import chain, choose, plan_restore, recoverable_window
from tests.support.backups import describe

START = datetime(2026, 11, 1, tzinfo=UTC)


def made(minute: int, *, source: str = "src", parent: str | None = None, lag_s: int = 0) -> Backup:
    began = START + timedelta(minutes=minute)
    backup_id = f"{began:%Y%m%dT%H%M%SZ}-{source[:3]:a<6}"
    return describe(backup_id=backup_id, source=source, parent=parent, recovery_point=began + timedelta(seconds=lag_s))


def entry(backup: Backup) -> CatalogEntry:
    return CatalogEntry(backup.source, backup.id, backup, None)


@st.composite
def catalogs(draw: st.DrawFn) -> list[CatalogEntry]:
    """Chains of two sources with lagging recovery points, of which some are damaged or gone."""
    entries: list[CatalogEntry] = []
    for source in ("src", "two"):
        newest: Backup | None = None
        for minute in sorted(draw(st.sets(st.integers(0, 300), max_size=12))):
            parent = newest.id if newest and draw(st.booleans()) else None
            newest = made(minute, source=source, parent=parent, lag_s=draw(st.integers(0, 90)))
            fate = draw(st.sampled_from(["good", "good", "good", "damaged", "gone"]))
            if fate == "good":
                entries.append(entry(newest))
            elif fate == "damaged":
                entries.append(CatalogEntry(source, newest.id, None, "damaged"))
    return draw(st.permutations(entries))


@settings(max_examples=200, deadline=None)
@given(entries=catalogs(), minute=st.integers(-5, 310), second=st.integers(0, 59))
def test_the_choice_is_the_newest_good_one_not_later(entries: list[CatalogEntry], minute: int, second: int) -> None:
    """Against a brute-force oracle: right choice, right gap, whole chain, or a refusal when there is none."""
    at = START + timedelta(minutes=minute, seconds=second)
    by_id = {e.id: e.backup for e in entries if e.backup}

    def is_whole(backup: Backup) -> bool:
        return backup.parent is None or (backup.parent in by_id and is_whole(by_id[backup.parent]))

    for source in ("src", "two"):
        own = [e for e in entries if e.source == source]
        good = [e.backup for e in own if e.backup and is_whole(e.backup) and e.backup.recovery_point <= at]
        choice = choose(own, at, source)
        if choice is None:
            assert not good
            with pytest.raises(NoRecoveryPath, match=source):
                plan_restore(entries, at, [source])
            continue
        assert choice.backup.recovery_point == max(b.recovery_point for b in good)
        assert choice.gap_s == (at - choice.backup.recovery_point).total_seconds() >= 0
        needed = [*choice.ancestors, choice.backup]
        assert needed[0].parent is None
        assert all(child.parent == parent.id for parent, child in pairwise(needed))
        assert plan_restore(entries, at, [source])[0] == choice


@settings(max_examples=100, deadline=None)
@given(entries=catalogs())
def test_every_printed_window_can_be_asked_for(entries: list[CatalogEntry]) -> None:
    """Both ends of the recoverable window lead to a choice; a moment before it does not."""
    for source in ("src", "two"):
        own = [e for e in entries if e.source == source]
        window = recoverable_window(own)
        if window is None:
            assert choose(own, START + timedelta(days=999), source) is None
            continue
        assert choose(own, window[0], source) is not None
        last = choose(own, window[1], source)
        assert last is not None
        assert last.gap_s == 0
        assert choose(own, window[0] - timedelta(microseconds=1), source) is None


def test_a_refusal_names_every_source_and_its_window() -> None:
    """The message holds what could be reached instead, rounded so that it can be typed."""
    entries = [entry(made(10, lag_s=30)), entry(made(20)), entry(made(0, source="two"))]
    with pytest.raises(NoRecoveryPath) as caught:
        plan_restore(entries, START, ["src", "two", "new"])
    assert "src cannot be restored to 2026-11-01 00:00:00 UTC" in caught.value.message
    assert "from 2026-11-01 00:10:30 UTC to 2026-11-01 00:20:00 UTC" in caught.value.message
    assert "new has no backup" in caught.value.message
    assert "two" not in caught.value.message
    assert caught.value.exit_code == 10


def test_sources_come_in_the_order_asked_and_do_not_mix() -> None:
    """A newer backup of another source is never taken."""
    entries = [entry(made(10)), entry(made(20, source="two")), entry(made(5, source="two"))]
    plan = plan_restore(entries, START + timedelta(minutes=15), ["two", "src"])
    assert [(choice.source, choice.gap_s) for choice in plan] == [("two", 600), ("src", 300)]


def test_passed_over_backups_are_named() -> None:
    """When a newer backup cannot be used, the choice says which and why."""
    old, lost, new = made(0), made(10), made(20)
    new = dataclasses.replace(new, kind="incremental", parent=lost.id)
    damaged = CatalogEntry("src", made(15).id, None, "was altered")
    choice = choose([entry(old), damaged, entry(new)], START + timedelta(hours=1), "src")
    assert choice is not None
    assert choice.backup == old
    assert [found for found, _ in choice.passed_over] == [damaged.id, new.id]
    assert lost.id in choice.passed_over[1][1]


def test_impossible_chains_are_refused() -> None:
    """A missing ancestor is named; one of another source, a younger one and a circle are refused."""
    child = made(10, parent="20261101T000000Z-srcaaa")
    with pytest.raises(IntegrityError, match="20261101T000000Z-srcaaa"):
        chain(child, {})
    foreign = dataclasses.replace(made(0), source="two")
    with pytest.raises(IntegrityError, match="cannot be"):
        chain(child, {"20261101T000000Z-srcaaa": foreign})
    younger = made(20)
    with pytest.raises(IntegrityError, match="cannot be"):
        chain(dataclasses.replace(child, parent=younger.id), {younger.id: younger})
    circle = dataclasses.replace(child, parent=child.id)
    with pytest.raises(IntegrityError, match="cannot be"):
        chain(circle, {circle.id: circle})
