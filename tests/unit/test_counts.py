"""What is asked of a store is counted once, by what came of it, and survives the way from one process to another."""

from __future__ import annotations

import itertools
import json

import pytest

from drd.cancel import CancelToken
from drd.counts import StoreCounts
from drd.errors import ObjectExists, ObjectMissing, StoreForbidden, StoreUnavailable
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from drd.stores.wrappers.metered import MeteredStore
from drd.stores.wrappers.retry import RetryPolicy, RetryStore


def ticking():
    """Make a clock of which every reading is a tenth of a second after the last."""
    ticks = itertools.count()
    return lambda: next(ticks) / 10


def test_each_try_is_counted_by_what_came_of_it() -> None:
    """An answer is ok, also that nothing is there; a missing right is refused, anything else an error."""
    counts = StoreCounts()
    faults = [
        Fault("get", nth=(1,)),
        Fault("delete", error=lambda: StoreForbidden("no")),
        Fault("stat", error=lambda: StoreUnavailable("away")),
    ]
    store = MeteredStore(FaultyStore(MemoryStore(), faults), counts, monotonic=ticking())
    policy = RetryPolicy(base_delay_s=0.0)
    patient = RetryStore(store, cancel=CancelToken(), policy=policy, on_retry=lambda _: counts.retry("get"))
    store.put("a", b"12345")
    with pytest.raises(ObjectExists):
        store.put("a", b"1", if_absent=True)
    assert patient.get("a", start=1) == b"2345"
    with pytest.raises(ObjectMissing):
        store.get("b")
    with pytest.raises(StoreForbidden):
        store.delete(["a"])
    with pytest.raises(StoreUnavailable):
        store.stat("a")
    found = counts.totals()
    assert found.operations == {
        ("put", "ok"): 2, ("get", "error"): 1, ("get", "ok"): 2, ("delete", "refused"): 1, ("stat", "error"): 1,
    }  # fmt: skip
    assert (found.bytes, found.retries) == ({"put": 5, "get": 4}, {"get": 1})
    assert found.durations["put"].seconds == pytest.approx(0.2)
    assert dict(found.durations["get"].cumulative)["0.1"] + dict(found.durations["get"].cumulative)["0.25"] > 0
    assert found.durations["get"].cumulative[-1] == ("+Inf", 3.0)


def test_a_listing_counts_when_it_was_left() -> None:
    """Read to its end, left half-way or broken: one call, and its time is that of the store alone."""
    counts = StoreCounts()
    inner = MemoryStore()
    for key in "abc":
        inner.put(key, b"")
    store = MeteredStore(inner, counts, monotonic=ticking())
    assert len(list(store.list(""))) == 3
    assert counts.totals().operations == {("list", "ok"): 1}
    next(iter(store.list("")))
    broken = MeteredStore(FaultyStore(inner, [Fault("list", "fail after")]), counts)
    with pytest.raises(StoreUnavailable):
        list(broken.list(""))
    assert counts.totals().operations == {("list", "ok"): 2, ("list", "error"): 1}


def test_counts_go_from_one_process_to_another() -> None:
    """What is taken is gone here and added there, through JSON; nothing is taken where nothing was counted."""
    ours, theirs = StoreCounts(), StoreCounts()
    assert theirs.take() is None
    for _ in range(2):
        theirs.operation("put", "ok", 0.3)
        theirs.operation("get", "error", 100.0)
        theirs.retry("get")
        theirs.moved("put", 10)
        ours.add(json.loads(json.dumps(theirs.take())))
    assert theirs.take() is None
    found = ours.totals()
    assert found.operations == {("put", "ok"): 2, ("get", "error"): 2}
    assert (found.retries, found.bytes) == ({"get": 2}, {"put": 20})
    assert dict(found.durations["put"].cumulative)["0.25"] == 0
    assert dict(found.durations["put"].cumulative)["0.5"] == 2
    assert dict(found.durations["get"].cumulative) == {
        **dict.fromkeys(dict(found.durations["get"].cumulative), 0),
        "+Inf": 2,
    }


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"operations": [["steal", "ok", 1]], "durations": [], "retries": {}, "bytes": {}},
        {"operations": [["put", "ok", -1]], "durations": [], "retries": {}, "bytes": {}},
        {"operations": [["put", "ok", True]], "durations": [], "retries": {}, "bytes": {}},
        {"operations": [["put"]], "durations": [], "retries": {}, "bytes": {}},
        {"operations": [], "durations": [["put", 1.0, [1, 2]]], "retries": {}, "bytes": {}},
        {"operations": [], "durations": [], "retries": {"put": 1.5}, "bytes": {}},
        {"operations": [], "durations": [], "retries": {}, "bytes": {"sideways": 1}},
    ],
)
def test_nothing_else_is_added(document: object) -> None:
    """Whatever a broken child says, the totals stay as they were."""
    counts = StoreCounts()
    with pytest.raises(ValueError):
        counts.add(document)  # type: ignore[arg-type]
    assert not counts.totals()
