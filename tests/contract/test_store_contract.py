"""What every store promises, asked of every store and of every wrapper around one."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drd.cancel import CancelToken
from drd.counts import StoreCounts
from drd.errors import IntegrityError, ObjectExists, ObjectMissing
from drd.model import Secret
from drd.protocols import Store
from drd.stores.local import LocalStore
from drd.stores.memory import MemoryStore
from drd.stores.s3 import S3Settings, S3Store
from drd.stores.wrappers.faulty import Fault, FaultyStore
from drd.stores.wrappers.metered import MeteredStore
from drd.stores.wrappers.read_only import ReadOnlyStore
from drd.stores.wrappers.retry import RetryPolicy, RetryStore
from drd.stores.wrappers.throttle import ThrottleStore

if TYPE_CHECKING:
    from devstack.s3 import SeaweedS3

TRICKY = ["a-b", "a/b", "a.b", "é", "z", "a/b-c/d", "a/b.c", "aa", "A", "a b+c%41&'", "日本", "a-/b", "b/x", "b0"]
BAD_KEYS = ["", "/a", "a//b", "a/", "../a", "a/./b", "a/../b", "a\\b", "a\nb", "x" * 901, "\ud800", ".drd-tmp/x"]


def _patient(inner: Store) -> Store:
    """Retry over a store that fails every third call before or after acting."""
    faults = [
        Fault(every=3),
        Fault(operation="put", effect="fail after", every=4),
        Fault("list", "fail after", every=5),
    ]
    policy = RetryPolicy(base_delay_s=0.0)
    return RetryStore(FaultyStore(inner, faults), cancel=CancelToken(), policy=policy, rng=random.Random(7))


PLAIN: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "local": lambda path: LocalStore(path / "store"),
    "retry": lambda _: _patient(MemoryStore()),
    "throttle": lambda _: ThrottleStore(MemoryStore(), 1 << 40, cancel=CancelToken()),
    "faulty": lambda _: FaultyStore(MemoryStore()),
    "metered": lambda _: MeteredStore(MemoryStore(), StoreCounts()),
    "retry over local": lambda path: _patient(LocalStore(path / "store")),
}


@pytest.fixture(params=[*PLAIN, pytest.param("s3", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each kind of store, empty."""
    if request.param == "s3":
        server: SeaweedS3 = request.getfixturevalue("s3")
        made: Store = S3Store(
            S3Settings(
                bucket=request.getfixturevalue("bucket"),
                prefix="some/prefix",
                endpoint_url=server.url,
                access_key_id=Secret(server.objects.access_key_id),
                secret_access_key=Secret(server.objects.secret_access_key),
            )
        )
    else:
        made = PLAIN[request.param](tmp_path)
    yield made
    made.close()


def keys(store: Store, prefix: str, delimiter: str = "") -> list[str]:
    """List keys alone."""
    return [info.key for info in store.list(prefix, delimiter=delimiter)]


def test_round_trip(store: Store) -> None:
    """What was put is got back, with its size and a time of about now."""
    store.put("backups/x/manifest.json", b"hello")
    assert store.get("backups/x/manifest.json") == b"hello"
    info = store.stat("backups/x/manifest.json")
    assert (info.key, info.size_bytes) == ("backups/x/manifest.json", 5)
    assert info.modified_at is not None
    assert abs(info.modified_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_empty_object(store: Store) -> None:
    """An object without bytes is an object."""
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.get("empty", start=0, length=10) == b""
    assert store.stat("empty").size_bytes == 0
    assert keys(store, "") == ["empty"]


def test_large_object(store: Store) -> None:
    """The largest part a backup writes survives whole, and ranges of it are exact."""
    data = random.Random(1).randbytes(32 << 20)
    store.put("big", data)
    assert store.get("big") == data
    assert store.get("big", start=(16 << 20) - 1, length=3) == data[(16 << 20) - 1 :][:3]
    assert store.stat("big").size_bytes == len(data)


def test_kinds_of_bytes(store: Store) -> None:
    """Bytearrays and memoryviews are stored as bytes are, and copied: what is done to them later has no effect."""
    buffer = bytearray(b"abcdef")
    store.put("array", buffer)
    store.put("view", memoryview(buffer)[2:4])
    buffer[:] = b"XXXXXX"
    assert (store.get("array"), store.get("view")) == (b"abcdef", b"cd")


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (0, 1, b"0"),
        (9, 1, b"9"),
        (5, 100, b"56789"),
        (0, 0, b""),
        (5, 0, b""),
        (10, None, b""),
        (10, 5, b""),
        (1000, 5, b""),
    ],
)
def test_ranges(store: Store, start: int, length: int | None, expected: bytes) -> None:
    """A range gives what there is of it, and nothing past the end."""
    store.put("digits", b"0123456789")
    assert store.get("digits", start=start, length=length) == expected


def test_overwrite(store: Store) -> None:
    """A second put replaces the object."""
    store.put("k", b"first and longer")
    store.put("k", b"second")
    assert store.get("k") == b"second"
    assert store.stat("k").size_bytes == 6


def test_missing(store: Store) -> None:
    """What is not there is missing, also below, above and beside what is there, and by range."""
    store.put("a/b", b"x")
    for key in ("nothing", "a", "a/b/c", "a/bb", "nothing/at/all"):
        with pytest.raises(ObjectMissing):
            store.get(key)
        with pytest.raises(ObjectMissing):
            store.get(key, start=1, length=0)
        with pytest.raises(ObjectMissing):
            store.stat(key)


def test_if_absent(store: Store) -> None:
    """A put that demands absence succeeds once, leaves the first object alone, and works again after deletion."""
    store.put("lease", b"one", if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("lease", b"two", if_absent=True)
    assert store.get("lease") == b"one"
    store.delete(["lease"])
    store.put("lease", b"three", if_absent=True)
    assert store.get("lease") == b"three"


def test_if_absent_race(store: Store) -> None:
    """Of eight threads that demand absence at once exactly one wins, and its bytes are what is stored."""
    for number in range(2):
        barrier = threading.Barrier(8)

        def attempt(who: int, key: str = f"race/{number}", barrier: threading.Barrier = barrier) -> int | None:
            barrier.wait()
            try:
                store.put(key, b"%d" % who * 1000, if_absent=True)
            except ObjectExists:
                return None
            return who

        with ThreadPoolExecutor(8) as pool:
            winners = [who for who in pool.map(attempt, range(8)) if who is not None]
        assert len(winners) == 1
        assert store.get(f"race/{number}") == b"%d" % winners[0] * 1000


def test_list_order(store: Store) -> None:
    """Listing ascends by code point of the whole key, not by folder."""
    for key in TRICKY:
        store.put(f"t/{key}", key.encode())
    assert keys(store, "t/") == sorted(f"t/{key}" for key in TRICKY)
    assert keys(store, "") == sorted(f"t/{key}" for key in TRICKY)
    assert {info.key: info.size_bytes for info in store.list("t/")} == {f"t/{k}": len(k.encode()) for k in TRICKY}
    for key in TRICKY:
        assert store.get(f"t/{key}") == key.encode()


def test_list_prefix_that_is_no_folder(store: Store) -> None:
    """A prefix may end inside a name."""
    for key in TRICKY:
        store.put(key, b"x")
    for prefix in ("a", "a/", "a/b", "a/b-", "a-", "b", "nothing", "a/b-c/d", "日", "a/b-c/d/e", "a/b.c/"):
        assert keys(store, prefix) == sorted(key for key in TRICKY if key.startswith(prefix)), prefix


def test_list_with_delimiter(store: Store) -> None:
    """With a delimiter each folder is one entry that ends with it, has no size, and is in order among the objects."""
    for key in TRICKY:
        store.put(f"p/{key}", b"xyz")
    found = list(store.list("p/", delimiter="/"))
    folders = {"p/a/", "p/a-/", "p/b/"}
    names = {f"p/{key}" for key in TRICKY if "/" not in key}
    assert [info.key for info in found] == sorted(folders | names)
    assert {info.key for info in found if info.size_bytes == 0} == folders
    assert keys(store, "p/a", "/") == sorted(key for key in folders | names if key.startswith("p/a"))
    assert keys(store, "p", "/") == ["p/"]
    assert keys(store, "", "/") == ["p/"]
    assert keys(store, "nothing/", "/") == []


def test_list_is_current(store: Store) -> None:
    """An object is listed as soon as its put returned, and no longer as soon as its deletion did."""
    for number in range(10):
        store.put(f"c/{number}", b"")
        assert keys(store, "c/") == [f"c/{n}" for n in range(number + 1)]
    store.delete([f"c/{n}" for n in range(9)])
    assert keys(store, "c/") == ["c/9"]


def test_many_objects(store: Store) -> None:
    """More than a page of objects is listed whole, and more than a batch is deleted whole."""
    wanted = [f"many/{number % 7}/{number:06d}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), wanted))
    assert keys(store, "many/") == sorted(wanted)
    listing = store.list("many/")
    assert next(listing).key == "many/0/000000"  # need not be read to its end
    store.delete([*wanted[:1050], "many/not/there"])
    assert keys(store, "many/") == sorted(wanted[1050:])


def test_delete(store: Store) -> None:
    """Deletion takes any iterable, minds its own keys only, and is content with what is missing."""
    for key in ("d/a", "d/b", "d/bb"):
        store.put(key, b"x")
    store.delete(key for key in ("d/b", "d/nothing", "nothing", "d", "d/a/below", "d/b"))
    assert keys(store, "") == ["d/a", "d/bb"]
    store.delete([])
    store.delete(["nothing"])
    store.delete(["d/a", "d/bb"])
    assert keys(store, "") == []
    store.put("d/a", b"again")
    assert store.get("d/a") == b"again"


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_key_at_the_door(store: Store, key: str) -> None:
    """A key that some store could not hold, or that leads out of its folder, is refused by every method."""
    store.put("good", b"x")
    with pytest.raises(IntegrityError):
        store.put(key, b"x")
    with pytest.raises(IntegrityError):
        store.put(key, b"x", if_absent=True)
    with pytest.raises(IntegrityError):
        store.get(key)
    with pytest.raises(IntegrityError):
        store.stat(key)
    with pytest.raises(IntegrityError):
        store.delete(["good", key])
    assert keys(store, "") == ["good"]


@pytest.mark.parametrize("prefix", ["/", "/a", "a//", "../", "a/../b", "a\nb", "\ud800"], ids=repr)
def test_prefix_at_the_door(store: Store, prefix: str) -> None:
    """A prefix that no key can have is refused when the listing is asked for, not when it is read."""
    with pytest.raises(IntegrityError):
        store.list(prefix)


def test_delimiter_and_range_at_the_door(store: Store) -> None:
    """A delimiter other than the slash and a negative range are refused."""
    store.put("k", b"x")
    with pytest.raises(IntegrityError):
        store.list("", delimiter="-")
    with pytest.raises(IntegrityError):
        store.get("k", start=-1)
    with pytest.raises(IntegrityError):
        store.get("k", length=-1)


def test_longest_key(store: Store) -> None:
    """A key of 900 bytes, in names a file system takes, is stored and listed."""
    key = "/".join(["é" * 100] * 4 + ["x" * 96])
    assert len(key.encode()) == 900
    store.put(key, b"x")
    assert keys(store, "é") == [key]
    assert store.get(key) == b"x"


def test_threads(store: Store) -> None:
    """Threads put, get, list and delete in one folder, which empties and fills again, and do not disturb others."""

    def work(who: int) -> None:
        chance = random.Random(who)
        for turn in range(12):
            key, data = f"shared/{who}", chance.randbytes(2000)
            store.put(key, data)
            assert store.get(key) == data
            assert key in keys(store, "shared/")
            if turn % 2:
                store.delete([key])
                with pytest.raises(ObjectMissing):
                    store.get(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_reader_sees_old_or_new(store: Store) -> None:
    """While an object is overwritten again and again, a reader sees it whole, old or new."""
    size = 200_000
    store.put("changing", b"\0" * size)
    done = threading.Event()

    def write() -> None:
        for value in range(1, 30):
            store.put("changing", bytes([value]) * size)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            seen = store.get("changing")
            assert len(seen) == size
            assert len(set(seen)) == 1
    finally:
        writer.join()


def test_check(store: Store) -> None:
    """A healthy store passes every item of its check and keeps nothing of the probe."""
    found = store.check()
    if not any(isinstance(inner, FaultyStore) for inner in (store, getattr(store, "_store", None))):
        assert {item.name for item in found} >= {
            "store: write",
            "store: read back",
            "store: conditional put",
            "store: list",
            "store: delete",
        }
        assert [item for item in found if item.outcome != "ok"] == []
        assert keys(store, "") == []


def test_close_is_idempotent(store: Store) -> None:
    """A store may be closed twice."""
    store.close()
    store.close()


def test_read_only_reads_as_its_store(tmp_path: Path) -> None:
    """The read-only wrapper gives what the store inside holds."""
    inner = LocalStore(tmp_path)
    inner.put("a/b", b"0123")
    guarded = ReadOnlyStore(inner)
    assert guarded.get("a/b", start=1, length=2) == b"12"
    assert guarded.stat("a/b") == inner.stat("a/b")
    assert keys(guarded, "a") == ["a/b"]
    assert os.listdir(tmp_path / "a") == ["b"]  # noqa: PTH208  a plain look at the folder
