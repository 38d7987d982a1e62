"""Wrappers do what they are for, and no more."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator

import pytest

from drd.cancel import CancelToken
from drd.errors import Cancelled, ObjectExists, ObjectMissing, StoreError, StoreRefused, StoreUnavailable
from drd.model import ObjectInfo
from drd.protocols import BytesLike
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from drd.stores.wrappers.read_only import ReadOnlyStore
from drd.stores.wrappers.retry import Retry, RetryPolicy, RetryStore
from drd.stores.wrappers.throttle import ThrottleStore


class SteppingCancel(CancelToken):
    """A token whose waits take no time but are written down and move a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.raise_if_cancelled()
        self.waits.append(seconds)
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s


def retrying(
    store: FaultyStore, cancel: SteppingCancel, policy: RetryPolicy | None = None, seen: list[Retry] | None = None
) -> RetryStore:
    """Wrap with waits that take no time."""
    told = seen if seen is not None else []
    return RetryStore(
        store, cancel=cancel, policy=policy, on_retry=told.append, monotonic=cancel.clock, rng=random.Random(3)
    )


def test_retry_until_it_works() -> None:
    """A passing failure is tried again, told of each time, and leaves no trace in the result."""
    inner, cancel = FaultyStore(MemoryStore(), [Fault("put", nth=(1, 2, 3))]), SteppingCancel()
    seen: list[Retry] = []
    store = retrying(inner, cancel, seen=seen)
    store.put("k", b"x")
    assert store.get("k") == b"x"
    assert [(retry.operation, retry.subject, retry.attempt) for retry in seen] == [("write", "k", n) for n in (1, 2, 3)]
    assert len(cancel.waits) == 3


def test_retry_is_patient_and_then_gives_up() -> None:
    """With default patience a call is tried for two minutes, the waits bounded; then the error says for how long."""
    cancel = SteppingCancel()
    inner = FaultyStore(MemoryStore(), [Fault("get")])
    with pytest.raises(StoreUnavailable) as caught:
        retrying(inner, cancel).get("k")
    assert cancel.now_s == pytest.approx(120.0)
    assert max(cancel.waits) <= 10.0
    assert len(inner.calls) > 15
    assert f"tried {len(inner.calls)} times in 120 s" in caught.value.message


def test_retry_counts_attempts() -> None:
    """The number of tries can be bounded as well; one try means no waiting."""
    for attempts in (1, 4):
        cancel, inner = SteppingCancel(), FaultyStore(MemoryStore(), [Fault("stat")])
        with pytest.raises(StoreUnavailable):
            retrying(inner, cancel, RetryPolicy(max_attempts=attempts)).stat("k")
        assert len(inner.calls) == attempts
        assert len(cancel.waits) == attempts - 1


@pytest.mark.parametrize("error", [StoreRefused, ObjectMissing])
def test_retry_leaves_refusals_alone(error: type[StoreError]) -> None:
    """What cannot pass by waiting is raised at once."""
    cancel, inner = SteppingCancel(), FaultyStore(MemoryStore(), [Fault(error=lambda: error("no"))])
    store = retrying(inner, cancel)
    with pytest.raises(error):
        store.get("k")
    with pytest.raises(error):
        list(store.list(""))
    assert len(inner.calls) == 2
    assert cancel.waits == []


def test_conditional_put_whose_answer_was_lost() -> None:
    """A put that succeeded though its answer was lost counts as won."""
    inner = FaultyStore(MemoryStore(), [Fault("put", "fail after", nth=(1,))])
    store = retrying(inner, SteppingCancel())
    store.put("manifest", b"mine", if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("manifest", b"mine", if_absent=True)


def test_conditional_put_that_lost_meanwhile() -> None:
    """When another's object appears between two tries, the put has lost."""
    memory = MemoryStore()
    inner = FaultyStore(memory, [Fault("put", nth=(1,))])
    memory.put("manifest", b"theirs")
    with pytest.raises(ObjectExists):
        retrying(inner, SteppingCancel()).put("manifest", b"mine", if_absent=True)
    assert memory.get("manifest") == b"theirs"


def test_conditional_put_that_cannot_be_read_back() -> None:
    """A role that may only write cannot claim an object it finds: it reports that the key is taken."""
    faults = [Fault("put", "fail after", nth=(1,)), Fault("get", error=lambda: StoreRefused("no right"))]
    with pytest.raises(ObjectExists):
        retrying(FaultyStore(MemoryStore(), faults), SteppingCancel()).put("manifest", b"mine", if_absent=True)


def test_listing_goes_on_where_it_broke_off() -> None:
    """A listing that fails again and again half-way gives every entry exactly once, in order."""
    memory = MemoryStore()
    for number in range(20):
        memory.put(f"k/{number:02d}", b"x")

    class BreaksOff(MemoryStore):
        """Fails after the third entry that is new to the caller."""

        given = 0

        def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
            for at, info in enumerate(memory.list(prefix, delimiter=delimiter)):
                if at >= self.given + 3:
                    self.given += 3
                    raise StoreUnavailable("cut off")
                yield info

    cancel = SteppingCancel()
    store = RetryStore(BreaksOff(), cancel=cancel, monotonic=cancel.clock)
    assert [info.key for info in store.list("k/")] == [f"k/{n:02d}" for n in range(20)]
    assert len(cancel.waits) == 6


def test_retry_stops_when_cancelled() -> None:
    """Cancellation ends the waiting at once, though the patience is not at its end."""
    cancel = CancelToken()
    policy = RetryPolicy(base_delay_s=600.0, max_delay_s=600.0, patience_s=6000.0)
    store = RetryStore(FaultyStore(MemoryStore(), [Fault()]), cancel=cancel, policy=policy, rng=random.Random(5))
    caught: list[BaseException] = []

    def work() -> None:
        try:
            store.put("k", b"x")
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    cancel.cancel()
    thread.join(5)
    assert not thread.is_alive()
    assert len(caught) == 1


def test_cancelled_work_can_still_clean_up() -> None:
    """After cancellation calls that succeed at once go through: what was begun must be undone."""
    cancel, memory = CancelToken(), MemoryStore()
    store = RetryStore(memory, cancel=cancel)
    store.put("k", b"x")
    cancel.cancel()
    store.delete(["k"])
    assert list(memory.list("")) == []


def test_throttle_keeps_the_rate() -> None:
    """Puts and gets together take the time their bytes need, after a burst of one second's worth."""
    cancel = SteppingCancel()
    store = ThrottleStore(MemoryStore(), 1000, cancel=cancel, monotonic=cancel.clock)
    store.put("a", bytes(1000))
    assert cancel.now_s == 0.0
    store.put("b", bytes(5000))
    assert cancel.now_s == pytest.approx(5.0)
    store.get("b")
    assert cancel.now_s == pytest.approx(10.0)
    cancel.now_s += 100  # idle time is saved for one second only
    store.get("b")
    assert cancel.waits[-1] == pytest.approx(4.0)


def test_throttle_is_shared_by_threads() -> None:
    """Eight threads do not get eight times the rate."""
    cancel = SteppingCancel()
    frozen = ThrottleStore(MemoryStore(), 1000, cancel=cancel, monotonic=lambda: 0.0)
    threads = [threading.Thread(target=frozen.put, args=(f"k{n}", bytes(1000))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(cancel.waits) == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])


def test_throttle_stops_when_cancelled() -> None:
    """A put that waits for its bandwidth ends with the work."""
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        ThrottleStore(MemoryStore(), 1, cancel=cancel).put("k", bytes(1000))


def test_throttle_lets_small_objects_pass_at_any_time() -> None:
    """A lease passes at once, in debt and after a cancellation, and what it took is counted."""
    cancel = CancelToken()
    store = ThrottleStore(MemoryStore(), 100, cancel=cancel, small_bytes=500, monotonic=lambda: 0.0)
    store.put("lease", bytes(500))
    cancel.cancel()
    store.put("lease", bytes(500))
    with pytest.raises(Cancelled):
        store.put("part", bytes(501))
    assert store._tokens == 100 - 500 - 500 - 501


def test_throttle_refuses_a_rate_of_nothing() -> None:
    """A rate that would wait for ever is refused."""
    with pytest.raises(ValueError, match="positive"):
        ThrottleStore(MemoryStore(), 0, cancel=CancelToken())


def test_read_only_refuses_changes() -> None:
    """Puts and deletions are refused and nothing has changed; the check writes nothing."""
    memory = MemoryStore()
    memory.put("k", b"x")
    store = ReadOnlyStore(memory)
    with pytest.raises(StoreRefused, match="read-only"):
        store.put("new", b"x")
    with pytest.raises(StoreRefused, match="read-only"):
        store.delete(["k"])
    store.delete([])
    assert [item.outcome for item in store.check()] == ["ok"]
    assert [info.key for info in memory.list("")] == ["k"]


def test_read_only_check_of_a_broken_store() -> None:
    """The check of a read-only store fails when its store does."""
    store = ReadOnlyStore(FaultyStore(MemoryStore(), [Fault("list")]))
    assert [item.outcome for item in store.check()] == ["failed"]


def test_faults_are_picked_by_number_key_and_kind() -> None:
    """A script fails exactly the calls it names."""
    faults = [Fault("put", nth=(2,)), Fault("get", every=3), Fault("stat", key_contains="bad")]
    store = FaultyStore(MemoryStore(), faults)
    store.put("good", b"x")
    with pytest.raises(StoreUnavailable):
        store.put("good", b"x")
    store.put("bad", b"x")
    outcomes: list[bytes | None] = []
    for _ in range(6):
        try:
            outcomes.append(store.get("good"))
        except StoreUnavailable:
            outcomes.append(None)
    assert outcomes == [b"x", b"x", None, b"x", b"x", None]
    store.stat("good")
    with pytest.raises(StoreUnavailable):
        store.stat("bad")


def test_damage_is_repeatable() -> None:
    """Truncated and flipped reads are damaged as said, the same way for the same seed; the store itself is whole."""
    memory = MemoryStore()
    memory.put("k", bytes(100))
    assert FaultyStore(memory, [Fault("get", "truncate")]).get("k") == bytes(50)
    first, second = (FaultyStore(memory, [Fault("get", "flip a bit")], seed=9).get("k") for _ in range(2))
    assert first == second
    assert sum(byte.bit_count() for byte in first) == 1
    assert memory.get("k") == bytes(100)


def test_delays_and_shares() -> None:
    """A delay waits as long as it says, and a rate fails about that share of calls."""
    waits: list[float] = []
    store = FaultyStore(MemoryStore(), [Fault("put", "delay", delay_s=1.5)], sleep=waits.append)
    store.put("k", b"x")
    assert waits == [1.5]
    some = FaultyStore(MemoryStore(), [Fault("put", rate=0.3)], seed=1)
    failed = 0
    for _ in range(200):
        try:
            some.put("k", b"x")
        except StoreUnavailable:
            failed += 1
    assert 40 < failed < 80


class Blank(MemoryStore):
    """A store with one broken promise at a time, to see the check notice."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        if if_absent and self.broken == "501":
            raise StoreRefused("no conditional writes", hint="another store")
        super().put(key, data, if_absent=if_absent and self.broken != "conditional put")

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if self.broken == "read right":
            raise StoreRefused("no right to read", hint="give it")
        data = super().get(key, start=start, length=length)
        return b"?" + data[1:] if self.broken == "read back" else data

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        return iter([]) if self.broken == "list" else super().list(prefix, delimiter=delimiter)

    def delete(self, keys: Iterable[str]) -> None:
        if self.broken == "delete":
            raise StoreRefused("no right to delete", hint="give it")
        super().delete(keys)


@pytest.mark.parametrize(
    ("broken", "name", "outcome"),
    [
        ("conditional put", "store: conditional put", "warning"),
        ("501", "store: conditional put", "failed"),
        ("read right", "store: read back", "warning"),
        ("read back", "store: read back", "failed"),
        ("list", "store: list", "failed"),
        ("delete", "store: delete", "warning"),
    ],
)
def test_check_notices(broken: str, name: str, outcome: str) -> None:
    """Each broken promise shows in its own line, with a remedy, and in no other."""
    bad = [item for item in Blank(broken).check() if item.outcome != "ok"]
    assert [(item.name, item.outcome) for item in bad] == [(name, outcome)]
    assert bad[0].hint
