"""Backups that hold oddly less than the one before them."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drd.model import BackupHead
from drd.repository.oddness import falls, growth
from tests.support.backups import AT, describe


def head(day: int, *, parent: str | None = None, **changes: Any) -> BackupHead:
    at = AT + timedelta(days=day)
    made = describe(backup_id=f"{at:%Y%m%dT%H%M%SZ}-aaaaaa", recovery_point=at, parent=parent)
    return dataclasses.replace(made, **changes)


def codes(heads: list[BackupHead], threshold: float | None = 0.3) -> list[list[str]]:
    found = growth(heads, threshold)
    return [[fall.code for fall in found[h.id].falls] for h in heads]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((100, 1000), (70, 700), []),
        ((100, 1000), (69, 1000), ["fewer-rows"]),
        ((100, 1000), (100, 699), ["less-data"]),
        ((100, 1000), (0, 0), ["fewer-rows", "less-data"]),
        ((0, 0), (0, 0), []),
        ((None, 1000), (None, 1000), []),
        ((100, 1000), (900, 9000), []),
    ],
)
def test_what_fell_by_more_than_the_threshold(
    before: tuple[int | None, int], now: tuple[int | None, int], expected: list[str]
) -> None:
    """Rows and bytes are looked at each by itself; exactly the threshold, growth and what is not known are fine."""
    heads = [head(day, rows=rows, plain_bytes=size) for day, (rows, size) in enumerate((before, now))]
    assert codes(heads) == [[], expected]
    assert codes(heads, None) == [[], []]


def test_increments_that_clickhouse_wrote_itself_are_not_compared_by_bytes() -> None:
    """What is new is no fall; the next full backup is compared with the full one before; rows are compared always."""
    direct: dict[str, Any] = {"engine": "clickhouse", "facts": {"mode": "direct"}}
    full = head(0, **direct, plain_bytes=1000, rows=100)
    small = head(1, **direct, plain_bytes=10, rows=101, parent=full.id)
    lost = head(2, **direct, plain_bytes=10, rows=5, parent=small.id)
    again = head(3, **direct, plain_bytes=500, rows=5)
    assert codes([full, small, lost, again]) == [[], [], ["fewer-rows"], ["less-data"]]
    found = growth([again, lost, small, full], 0.3)
    assert [found[h.id].data for h in (full, small, lost, again)] == [None, None, None, -0.5]
    postgres = [head(0, plain_bytes=1000), head(1, plain_bytes=10, parent=head(0).id)]
    assert codes(postgres) == [[], ["less-data"]]


@pytest.mark.parametrize("mode", ["gateway", "disk"])
def test_increments_that_drd_stored_are_compared(mode: str) -> None:
    """Through drd the server sends everything each time, so an increment of ClickHouse is as large as the database."""
    sent: dict[str, Any] = {"engine": "clickhouse", "facts": {"mode": mode}}
    heads = [head(0, **sent, plain_bytes=1000), head(1, **sent, plain_bytes=500, parent=head(0).id)]
    assert codes(heads) == [[], ["less-data"]]
    assert growth(heads, 0.3)[heads[1].id].data == -0.5


def test_another_database_under_the_same_name_is_not_compared() -> None:
    """Where the engine changed, nothing fell."""
    assert codes([head(0, rows=100, plain_bytes=100), head(1, engine="redis", rows=1, plain_bytes=1)]) == [[], []]


@given(st.lists(st.tuples(st.none() | st.integers(0, 100), st.integers(0, 100)), max_size=8), st.floats(0.01, 0.99))
def test_every_fall_is_one(sizes: list[tuple[int | None, int]], threshold: float) -> None:
    """Whatever is called odd is smaller than what it is compared with, by more than the threshold."""
    heads = [head(day, rows=rows, plain_bytes=size) for day, (rows, size) in enumerate(sizes)]
    for one, found in growth(heads, threshold).items():
        for fall in found.falls:
            assert fall.share > threshold * 0.999
            assert fall.since < one
    for day, one_head in enumerate(heads):
        assert falls(one_head, reversed(heads[:day]), threshold) == growth(heads, threshold)[one_head.id].falls
