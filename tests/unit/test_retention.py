"""The laws of retention, stated as properties, and the calendar as a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drd.repository.retention import Candidate, Guard, Policy, decide

BASE = datetime(2026, 1, 1, tzinfo=UTC)
counts = st.integers(0, 5)
policies = st.builds(
    Policy,
    keep_last=counts,
    keep_within=st.none() | st.timedeltas(timedelta(0), timedelta(days=400)),
    keep_hourly=counts,
    keep_daily=counts,
    keep_weekly=counts,
    keep_monthly=counts,
    keep_yearly=counts,
    zone=st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")]),
).filter(lambda p: not p.keeps_nothing)


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    """Make backups of one source in any order, some incremental, some damaged, proven or pinned."""
    hours = draw(st.lists(st.integers(0, 24 * 800), max_size=25))
    out: list[Candidate] = []
    for number, hour in enumerate(sorted(hours)):
        parent = draw(st.sampled_from([c.id for c in out])) if out and draw(st.booleans()) else None
        flags = draw(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5), st.booleans()))
        out.append(
            Candidate(
                f"b{number:03d}",
                BASE + timedelta(hours=hour),
                parent,
                good=flags[2] > 0,
                readable=flags[2] > 0 or flags[0],
                proven=flags[0],
                pinned=flags[1],
                set_aside=flags[3],
                needs=frozenset(draw(st.sets(st.sampled_from([c.id for c in out]), max_size=2)))
                if out
                else frozenset(),
            )
        )
    return draw(st.permutations(out))


def kept(history: list[Candidate], policy: Policy) -> dict[str, tuple[str, ...]]:
    return {item.id: item.reasons for item in decide(history, policy).keep}


@given(histories(), policies)
def test_every_backup_is_kept_or_removed_and_each_has_a_reason(history: list[Candidate], policy: Policy) -> None:
    """Each candidate is in exactly one of both lists, with a reason."""
    decision = decide(history, policy)
    ids = [item.id for item in decision.keep] + [item.id for item in decision.remove]
    assert sorted(ids) == sorted(c.id for c in history)
    assert all(item.reasons for item in decision.keep)
    assert all(item.reason for item in decision.remove)


@given(histories(), policies)
def test_newest_good_and_newest_proven_are_never_removed(history: list[Candidate], policy: Policy) -> None:
    """Whatever the policy, the newest good and the newest proven good backup stay, of those that count."""
    stays = kept(history, policy)
    good = sorted((c for c in history if c.good and not c.aside), key=lambda c: (c.at, c.id))
    if good:
        assert Guard.NEWEST_GOOD.value in stays[good[-1].id]
    proven = [c for c in good if c.proven]
    if proven:
        assert Guard.NEWEST_PROVEN.value in stays[proven[-1].id]


@given(histories(), policies)
def test_pinned_and_damaged_are_never_removed(history: list[Candidate], policy: Policy) -> None:
    """A pinned backup stays, and a damaged one stays until a person has looked."""
    removed = {item.id for item in decide(history, policy).remove}
    assert not removed & {c.id for c in history if c.pinned or not c.good}


@given(histories(), policies)
def test_nothing_that_a_damaged_manifest_may_need_is_removed(history: list[Candidate], policy: Policy) -> None:
    """A manifest that cannot be read may name any older backup as its ancestor: none of them goes."""
    removed = {item.id for item in decide(history, policy).remove}
    newest_first = sorted(history, key=lambda c: (c.at, c.id), reverse=True)
    for place, candidate in enumerate(newest_first):
        if not candidate.readable:
            assert not removed & {c.id for c in newest_first[place:]}


@given(histories(), policies)
def test_no_kept_backup_loses_what_it_needs(history: list[Candidate], policy: Policy) -> None:
    """Every ancestor of a kept backup is kept, and whatever else a part of it lies in."""
    by_id = {c.id: c for c in history}
    stays = kept(history, policy)
    for name in stays:
        assert by_id[name].ancestors <= stays.keys()


@given(histories(), policies)
def test_children_are_removed_before_what_they_need(history: list[Candidate], policy: Policy) -> None:
    """The order of removal never leaves a backup without its parent, or without what its parts lie in."""
    by_id = {c.id: c for c in history}
    order = [item.id for item in decide(history, policy).remove]
    for place, name in enumerate(order):
        assert all(order.index(needed) > place for needed in by_id[name].ancestors if needed in order)


@given(histories(), policies)
def test_order_of_input_does_not_matter_and_input_is_not_changed(history: list[Candidate], policy: Policy) -> None:
    """The decision depends on the set of backups alone."""
    before = list(history)
    forwards = decide(history, policy)
    assert history == before
    assert {i.id: i.reasons for i in decide(list(reversed(history)), policy).keep} == {
        i.id: i.reasons for i in forwards.keep
    }


@given(histories(), policies, st.timedeltas(timedelta(days=-4000), timedelta(days=4000)))
def test_moving_all_times_moves_no_decision_of_age(history: list[Candidate], policy: Policy, shift: timedelta) -> None:
    """Age is relative to the newest backup: a source that stopped years ago keeps what it kept."""
    relative = replace(policy, keep_hourly=0, keep_daily=0, keep_weekly=0, keep_monthly=0, keep_yearly=0)
    if relative.keeps_nothing:
        return
    moved = [replace(c, at=c.at + shift) for c in history]
    assert kept(history, relative).keys() == kept(moved, relative).keys()


@given(histories(), policies)
def test_applying_a_decision_changes_nothing_more(history: list[Candidate], policy: Policy) -> None:
    """Pruning is idempotent: what was kept is kept again when only that is left."""
    stays = kept(history, policy)
    rest = [c for c in history if c.id in stays]
    assert decide(rest, policy).remove == ()


def test_policy_that_keeps_nothing_is_refused() -> None:
    """A policy of zeros is a mistake, not an order."""
    with pytest.raises(ValueError, match="keeps nothing"):
        decide([], Policy())


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("policy", "times", "expected"),
    [
        pytest.param(
            Policy(keep_monthly=2),
            ["2026-01-31T23:59+00:00", "2026-02-01T00:00+00:00", "2026-02-28T12:00+00:00", "2026-03-31T23:00+00:00"],
            {"2026-02-28T12:00+00:00", "2026-03-31T23:00+00:00"},
            id="month ends",
        ),
        pytest.param(
            Policy(keep_daily=2, zone=ZoneInfo("Europe/Berlin")),
            ["2026-01-09T22:59+00:00", "2026-01-09T23:01+00:00", "2026-01-10T22:30+00:00", "2026-01-10T23:30+00:00"],
            {"2026-01-10T22:30+00:00", "2026-01-10T23:30+00:00"},
            id="days begin at the zone's midnight",
        ),
        pytest.param(
            Policy(keep_hourly=3, zone=ZoneInfo("Europe/Berlin")),
            ["2026-10-24T23:30+00:00", "2026-10-25T00:30+00:00", "2026-10-25T01:30+00:00", "2026-10-25T02:30+00:00"],
            {"2026-10-25T00:30+00:00", "2026-10-25T01:30+00:00", "2026-10-25T02:30+00:00"},
            id="the hour that comes twice in autumn",
        ),
        pytest.param(
            Policy(keep_daily=2, zone=ZoneInfo("Europe/Berlin")),
            ["2026-03-28T12:00+00:00", "2026-03-29T00:30+00:00", "2026-03-29T01:30+00:00"],
            {"2026-03-28T12:00+00:00", "2026-03-29T01:30+00:00"},
            id="the hour that is missing in spring",
        ),
        pytest.param(
            Policy(keep_daily=3),
            ["2028-02-28T12:00+00:00", "2028-02-29T12:00+00:00", "2028-03-01T12:00+00:00"],
            {"2028-02-28T12:00+00:00", "2028-02-29T12:00+00:00", "2028-03-01T12:00+00:00"},
            id="leap day",
        ),
        pytest.param(
            Policy(keep_weekly=2),
            ["2026-12-27T12:00+00:00", "2026-12-28T12:00+00:00", "2027-01-03T12:00+00:00"],
            {"2026-12-27T12:00+00:00", "2027-01-03T12:00+00:00"},
            id="an ISO week across the new year is one week",
        ),
        pytest.param(
            Policy(keep_daily=2),
            ["2025-05-01T12:00+00:00", "2026-01-01T12:00+00:00", "2026-06-01T12:00+00:00"],
            {"2026-01-01T12:00+00:00", "2026-06-01T12:00+00:00"},
            id="gaps: the last days that have a backup count",
        ),
        pytest.param(
            Policy(keep_within=timedelta(days=2)),
            ["2026-01-01T12:00+00:00", "2026-01-03T12:00+00:00", "2026-01-05T12:00+00:00"],
            {"2026-01-03T12:00+00:00", "2026-01-05T12:00+00:00"},
            id="within is counted from the newest, its edge included",
        ),
        pytest.param(
            Policy(keep_last=1),
            ["2026-01-01T12:00+00:00", "2031-01-01T12:00+00:00"],
            {"2031-01-01T12:00+00:00"},
            id="a clock that jumped ahead removes by count only",
        ),
        pytest.param(
            Policy(keep_yearly=2),
            ["2024-12-31T23:00+00:00", "2025-01-01T00:00+00:00", "2026-01-01T00:00+00:00"],
            {"2025-01-01T00:00+00:00", "2026-01-01T00:00+00:00"},
            id="years",
        ),
    ],
)
def test_calendar(policy: Policy, times: list[str], expected: set[str]) -> None:
    """The calendar rules at their edges."""
    history = [Candidate(text, at(text)) for text in times]
    assert {item.id for item in decide(history, policy).keep} == expected


@given(histories(), policies)
def test_what_a_restore_kept_pushes_nothing_out(history: list[Candidate], policy: Policy) -> None:
    """Backups of data that a restore replaced, perhaps ruined, stay while pinned; all that stays without them stays."""
    stays = kept(history, policy)
    assert {c.id for c in history if c.aside} <= stays.keys()
    for name, reasons in kept([c for c in history if not c.aside], policy).items():
        assert set(reasons) <= set(stays[name])


def test_what_a_wrong_clock_dated_ahead_pushes_nothing_out() -> None:
    """After a clock was set back, backups from later than now stay and do not count; the newest of now is kept."""
    hours = {name: Candidate(name, BASE + timedelta(hours=ahead)) for name, ahead in
             {"a": -3, "b": -2, "c": -1, "d": 1, "e": 2}.items()}  # fmt: skip
    policy = Policy(keep_last=1)
    blind, told = decide(hours.values(), policy), decide(hours.values(), policy, BASE)
    assert [item.id for item in blind.keep] == ["e"]
    assert {item.id: item.reasons for item in told.keep} == {
        "e": (Guard.FUTURE.value,),
        "d": (Guard.FUTURE.value,),
        "c": ("last 1 of 1", Guard.NEWEST_GOOD.value),
    }
    assert [item.id for item in told.remove] == ["b", "a"]
    assert not any(item.displaces for item in told.keep if item.id in {"d", "e"})
    assert decide([hours["d"], hours["e"]], policy, BASE).remove == ()
