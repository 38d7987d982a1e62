"""Leases in the bucket: one holder at a time, quick takeover of the dead, no surprise for the living."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.cancel import CancelToken
from drd.errors import Cancelled, LeaseError, StoreRefused, StoreUnavailable
from drd.repository import layout
from drd.repository.holder import Holder, is_gone
from drd.repository.lease import StoreLease, acquire
from tests.support.hooked_store import HookedStore

HERE = Holder.of_this_process()
ELSEWHERE = Holder("db2.example", 4242, "99", "another boot pid:[1]")


class Clocks:
    """A wall clock and a monotonic clock that move when told."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)  # the store's own clock is the real one
        self.passed_s = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.passed_s

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.passed_s += seconds


def take(
    store: HookedStore,
    clocks: Clocks | None = None,
    *,
    holder: Holder = HERE,
    ttl_s: float = 60.0,
    cancel: CancelToken | None = None,
) -> StoreLease:
    clocks = clocks or Clocks()
    return acquire(
        store,
        "source-src",
        ttl_s=ttl_s,
        now=clocks.now,
        monotonic=clocks.monotonic,
        holder=holder,
        cancel=cancel or CancelToken(),
    )


def abandon(lease: StoreLease) -> None:
    """End the renewal as a crash would: the object stays as it is."""
    lease._stop.set()
    lease._thread.join()


def ended_process() -> Holder:
    """Describe a process of this host that has ended."""
    child = subprocess.Popen(["true"])
    child.wait()
    return Holder(HERE.host, child.pid, "1", HERE.boot)


def test_one_holder_at_a_time_and_generations_ascend() -> None:
    """A second taker is refused by name until the first released; each holder has the next generation."""
    store, clocks = HookedStore(), Clocks()
    for generation in (1, 2, 3):
        with take(store, clocks) as lease:
            assert lease.generation == generation
            lease.ensure()
            named = rf"{HERE.host}, process {os.getpid()}, since {clocks.at:%Y-%m-%d}"
            with pytest.raises(LeaseError, match=named) as caught:
                take(store, clocks, holder=ELSEWHERE)
            assert f"{clocks.at + timedelta(seconds=90):%H:%M:%S}" in caught.value.hint
    assert list(store.contents()) == [layout.lease_key("source-src", 3)]


def test_of_many_contenders_exactly_one_wins() -> None:
    """Twenty threads take a free lease at once: one has it, the others are refused."""
    store, clocks = HookedStore(), Clocks()
    won: list[StoreLease] = []
    refused: list[LeaseError] = []
    start = threading.Barrier(20)

    def contend(number: int) -> None:
        start.wait()
        try:
            won.append(take(store, clocks, holder=Holder(f"h{number}", number)))
        except LeaseError as error:
            refused.append(error)

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 19)
    won[0].ensure()
    won[0].release()


def test_a_crashed_holder_elsewhere_blocks_until_its_expiry_and_margin() -> None:
    """It is refused up to one and a half lives after the last renewal, then taken over; the old one finds out."""
    store, clocks = HookedStore(), Clocks()
    crashed = take(store, clocks, holder=ELSEWHERE)
    abandon(crashed)
    clocks.advance(90)
    with pytest.raises(LeaseError, match=r"db2\.example"):
        take(store, clocks)
    clocks.advance(0.1)
    with take(store, clocks) as lease:
        assert lease.generation == 2
        lease.ensure()
        crashed._stop.clear()
        with pytest.raises(LeaseError, match="took over"):
            crashed.ensure()


def test_a_holder_whose_clock_was_ahead_blocks_nobody_for_hours() -> None:
    """It names an expiry of tomorrow: it is obeyed while it renews, and then for no longer than any other lease."""
    ahead, clocks = Clocks(), Clocks()
    ahead.advance(86400)
    store = HookedStore(clock=clocks.now)
    crashed = take(store, ahead, holder=ELSEWHERE)
    for _ in range(4):
        clocks.advance(900)
        crashed._renew()
        with pytest.raises(LeaseError, match=r"db2\.example"):
            take(store, clocks)
    abandon(crashed)
    with pytest.raises(LeaseError) as caught:
        take(store, clocks)
    clocks.advance(1350)
    assert f"free after {clocks.at:%H:%M:%S}" in caught.value.hint
    with pytest.raises(LeaseError):
        take(store, clocks)
    clocks.advance(1)
    with take(store, clocks) as lease:
        lease.ensure()


def test_a_lease_that_somebody_deleted_is_not_said_to_be_anothers() -> None:
    """Its holder finds out, and says that it is gone; nobody took it over."""
    store, clocks = HookedStore(), Clocks()
    with take(store, clocks) as lease:
        store.delete([info.key for info in store.list("leases/")])
        with pytest.raises(LeaseError, match="not in the store any more"):
            lease.ensure()


def test_a_dead_process_of_this_host_is_taken_over_at_once() -> None:
    """No waiting after kill -9 on the same machine; another boot or pid namespace proves nothing."""
    dead = ended_process()
    store, clocks = HookedStore(), Clocks()
    abandon(take(store, clocks, holder=dead))
    take(store, clocks).release()
    for unknown in (dataclasses.replace(dead, boot="other"), dataclasses.replace(dead, started="")):
        store = HookedStore()
        abandon(take(store, clocks, holder=unknown))
        with pytest.raises(LeaseError):
            take(store, clocks)


def test_who_is_gone() -> None:
    """This process is not; a reused number, a zombie and an ended process are; process 1 is not."""
    assert not is_gone(HERE, seen_from=HERE)
    assert is_gone(dataclasses.replace(HERE, started="1"), seen_from=HERE)
    assert is_gone(ended_process(), seen_from=HERE)
    zombie = subprocess.Popen(["true"])
    deadline = time.monotonic() + 5
    holder = Holder(HERE.host, zombie.pid, "1", HERE.boot)
    while not is_gone(holder, seen_from=HERE) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_gone(holder, seen_from=HERE)
    zombie.wait()


def test_renewal_keeps_a_lease_past_its_life() -> None:
    """A held lease is renewed in time; after release it is not, and another takes it at once."""
    store = HookedStore()
    live = {"ttl_s": 0.9, "now": lambda: datetime.now(UTC), "monotonic": time.monotonic, "cancel": CancelToken()}
    with acquire(store, "n", holder=ELSEWHERE, **live) as lease:  # type: ignore[arg-type]
        first = lease._state.expires_at
        deadline = time.monotonic() + 10
        while datetime.now(UTC) <= first and time.monotonic() < deadline:
            time.sleep(0.05)
        lease.ensure()
        with pytest.raises(LeaseError):
            acquire(store, "n", holder=HERE, **live)  # type: ignore[arg-type]
    lease.release()
    with pytest.raises(LeaseError, match="released"):
        lease.ensure()
    with acquire(store, "n", holder=HERE, **live) as second:  # type: ignore[arg-type]
        assert second.generation == 2
    assert not [t for t in threading.enumerate() if t.name.startswith("drd-lease")]


def test_a_lease_that_cannot_be_renewed_is_lost_in_time() -> None:
    """When the store is away for the whole life of a lease, ensure refuses and says why."""
    store = HookedStore()
    live = {"ttl_s": 0.3, "now": lambda: datetime.now(UTC), "monotonic": time.monotonic, "cancel": CancelToken()}
    with acquire(store, "n", holder=HERE, **live) as lease:  # type: ignore[arg-type]

        def fail(method: str, _key: str) -> None:
            if method == "put":
                raise StoreUnavailable("the store is away")

        store.before = fail
        deadline = time.monotonic() + 10
        while (lease._renewal_error is None or time.monotonic() - lease._renewed < 0.3) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LeaseError, match=r"could not be renewed.*the store is away"):
            lease.ensure()
    assert lease.problem == "the store is away"


def test_without_the_right_to_delete_it_works() -> None:
    """Releasing and taking over need put, get and list only."""
    store, clocks = HookedStore(), Clocks()

    def refuse(method: str, _key: str) -> None:
        if method == "delete":
            raise StoreRefused("no right to delete")

    store.before = refuse
    for generation in (1, 2, 3):
        with take(store, clocks) as lease:
            assert lease.generation == generation
    assert len(store.contents()) == 3


def test_a_won_race_with_a_lost_answer_is_won() -> None:
    """A put that succeeded and is repeated by the store finds its own object, and has the lease."""
    store = HookedStore()
    original = HookedStore.put

    class Repeating(HookedStore):
        def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:  # type: ignore[override]
            original(self, key, data, if_absent=if_absent)
            if if_absent:
                original(self, key, data, if_absent=True)

    store = Repeating()
    with take(store) as lease:
        assert lease.generation == 1


def test_a_store_that_ignores_the_condition_lets_one_work() -> None:
    """The loser of an overwritten race sees another's object and is refused."""
    elsewhere = HookedStore()
    other = take(elsewhere, holder=ELSEWHERE)

    class Careless(HookedStore):
        def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:  # type: ignore[override]
            super().put(key, elsewhere.contents()[key])

    with pytest.raises(LeaseError, match=r"db2\.example"):
        take(Careless())
    other.release()


def test_an_unreadable_lease_is_not_guessed_away() -> None:
    """It is refused with the key to look at, until one and a half lives after it was written."""
    clocks = Clocks()
    store = HookedStore(clock=clocks.now)
    key = layout.lease_key("source-src", 7)
    for bad in (b"", b"{}", b"[]", json.dumps({"token": "x", "pid": -1}).encode()):
        store.plant(key, bad)
        with pytest.raises(LeaseError, match="unknown") as caught:
            take(store, clocks)
        assert key in caught.value.hint
    clocks.advance(91)
    with take(store, clocks) as lease:
        assert lease.generation == 8


def test_foreign_names_beside_leases_are_passed_over() -> None:
    """Objects that are no generation neither hold nor crash."""
    store = HookedStore({"leases/source-src/readme.txt": b"x", "leases/source-src/x/0000000009.txt": b"x"})
    with take(store) as lease:
        assert lease.generation == 1


def test_a_cancelled_taker_stops() -> None:
    """Nothing is written after a cancellation."""
    store, cancel = HookedStore(), CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        take(store, cancel=cancel)
    assert not store.contents()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["take", "release", "crash", "wait"]), max_size=12))
def test_no_two_live_leases(steps: list[str]) -> None:
    """Whatever happens, ensure passes for at most one holder, and generations only ascend."""
    store, clocks = HookedStore(), Clocks()
    leases: list[StoreLease] = []
    generations: list[int] = []
    for number, step in enumerate(steps):
        if step == "take":
            try:
                leases.append(take(store, clocks, holder=Holder(f"h{number}", number)))
                generations.append(leases[-1].generation)
            except LeaseError:
                pass
        elif leases and step == "release":
            leases[-1].release()
        elif leases and step == "crash":
            abandon(leases[-1])
        elif step == "wait":
            clocks.advance(91)
        sure = 0
        for lease in leases:
            try:
                lease.ensure()
                sure += 1
            except LeaseError:
                pass
        assert sure <= 1
    assert all(later > earlier for earlier, later in pairwise(generations))
    for lease in leases:
        lease.release()
