"""The way out: verified before used, ahead but bounded, ranges, raw objects."""

from __future__ import annotations

import dataclasses
import random
import threading
import time

import pytest

from drd.cancel import CancelToken
from drd.errors import Cancelled, ConfigError, IntegrityError, StoreUnavailable
from drd.model import Artifact, Backup, Part
from drd.repository import layout
from drd.repository.codec import Codec, generate_identity
from tests.support.backups import ID, describe, reader_of, store_backup, with_parts
from tests.support.hooked_store import HookedStore

IDENTITY, RECIPIENT = generate_identity()
PLAIN, SEALED = Codec(1), Codec(1, (RECIPIENT,), (IDENTITY,))
DATA = random.Random(7).randbytes(1000)


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("drd-get")]


def read_back(store: HookedStore, codec: Codec, backup: Backup) -> bytes:
    with reader_of(store, codec, backup) as reader, reader.open("a") as stream:
        return b"".join(stream.chunks())


@pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_any_damage_to_any_part_is_caught(codec: Codec) -> None:
    """A flipped bit, a cut, added bytes, a missing or swapped object: an integrity error that names the key."""
    store = HookedStore()
    backup = store_backup(store, codec, {"a": [DATA]}, part_size=250)
    keys = [part.key for part in backup.artifacts[0].parts]
    good = store.contents()
    assert read_back(store, codec, backup) == DATA
    generator = random.Random(3)
    for key in keys:
        stored = good[key]
        bits = generator.sample(range(len(stored) * 8), 12)
        flipped = [stored[: b // 8] + bytes([stored[b // 8] ^ 1 << b % 8]) + stored[b // 8 + 1 :] for b in bits]
        other = good[keys[(keys.index(key) + 1) % len(keys)]]
        for bad in [*flipped, stored[:-1], stored[:1], b"", stored + b"\0", other, None]:
            if bad is None:
                store.remove(key)
            else:
                store.plant(key, bad)
            with pytest.raises(IntegrityError, match=key) as caught:
                read_back(store, codec, backup)
            assert (caught.value.subject, ID in str(caught.value)) == (key, True)
            store.plant(key, stored)
    assert not threads_left()


def test_no_byte_of_a_damaged_part_is_returned() -> None:
    """Reading stops exactly before the damaged part, also byte by byte and by range."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]}, part_size=250)
    store.plant(backup.artifacts[0].parts[2].key, b"junk")
    with reader_of(store, PLAIN, backup) as reader, reader.open("a") as stream:
        assert b"".join(stream.read(1) for _ in range(500)) == DATA[:500]
        with pytest.raises(IntegrityError):
            stream.read(1)
        with pytest.raises(IntegrityError):
            reader.open("a", start=600, length=2).read()
        assert reader.open("a", start=499, length=1).read() == DATA[499:500]
        assert reader.open("a", start=750).read() == DATA[750:]


def test_what_decodes_to_something_else_is_caught() -> None:
    """A manifest whose plain digest or size differs from the decoded part is an integrity error."""
    store = HookedStore()
    backup = store_backup(store, SEALED, {"a": [DATA]}, part_size=5000)
    for lie in ({"plain_sha256": "0" * 64}, {"plain_bytes": 999}, {"plain_bytes": 1001}):
        with pytest.raises(IntegrityError):
            read_back(store, SEALED, with_parts(backup, **lie))


def test_the_stored_digest_is_checked_before_anything_is_decrypted() -> None:
    """Altered bytes are reported as altered, not as a wrong key."""
    store = HookedStore()
    backup = store_backup(store, SEALED, {"a": [DATA]}, part_size=5000)
    key = backup.artifacts[0].parts[0].key
    foreign = Codec(1, (generate_identity()[1],)).encode(DATA)
    store.plant(key, foreign[: len(store.contents()[key])].ljust(len(store.contents()[key]), b"\0"))
    with pytest.raises(IntegrityError, match="altered"):
        read_back(store, SEALED, backup)


def test_a_wrong_identity_is_refused_before_anything_is_fetched() -> None:
    """Without the right identity a reader cannot even be made, and no object was read."""
    store = HookedStore()
    backup = store_backup(store, SEALED, {"a": [DATA]})
    store.calls.clear()
    other = Codec(1, (RECIPIENT,), (generate_identity()[0],))
    for codec in (PLAIN, other):
        with pytest.raises(ConfigError, match=RECIPIENT):
            reader_of(store, codec, backup)
    assert not store.calls
    assert not threads_left()


def test_reads_are_never_short() -> None:
    """read(n) crosses parts, returns what is left at the end, then nothing; read(0) is empty."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]}, part_size=7)
    with reader_of(store, PLAIN, backup) as reader, reader.open("a") as stream:
        assert stream.read(0) == b""
        assert stream.read(100) == DATA[:100]
        assert stream.read(3) == DATA[100:103]
        assert stream.read(10_000) == DATA[103:]
        assert stream.read(1) == stream.read() == b""


def test_small_ranges_decode_a_part_once() -> None:
    """Many small ranges of one part, from several threads, fetch it once."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]}, part_size=500)
    store.calls.clear()
    wrong: list[int] = []
    with reader_of(store, PLAIN, backup) as reader:

        def work(seed: int) -> None:
            for n in range(seed, 490, 5):
                if reader.open("a", start=n, length=9).read() != DATA[n : n + 9]:
                    wrong.append(n)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert store.calls == [("get", backup.artifacts[0].parts[0].key)]


def test_fetching_ahead_is_bounded_by_memory() -> None:
    """A reader that is not read from fetches only what fits; reading goes on to the end."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]}, part_size=100)
    store.calls.clear()
    with reader_of(store, PLAIN, backup, workers=8, memory_limit_bytes=600) as reader:
        stream = reader.open("a")
        assert stream.read(1) == DATA[:1]
        deadline = time.monotonic() + 10
        while len(store.calls) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(store.calls) == 3  # half of the limit is for fetching ahead
        assert stream.read() == DATA[1:]


def test_streams_read_in_any_order_do_not_deadlock() -> None:
    """With memory for one part and one worker, thirty open streams are read in lockstep and then backwards."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {f"a{n:02d}": [DATA] for n in range(30)}, part_size=100)
    with reader_of(store, PLAIN, backup, workers=1, memory_limit_bytes=100) as reader:
        streams = [reader.open(name) for name in reader.names()]
        for n in range(5):
            for stream in streams:
                assert stream.read(110) == DATA[n * 110 : (n + 1) * 110]
        for stream in reversed(streams):
            assert stream.read() == DATA[550:]


def test_a_failing_store_and_a_cancellation_surface() -> None:
    """A store error reaches the reader as it is; a cancelled read raises soon, and no thread is left."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]}, part_size=100)

    def fail(method: str, _key: str) -> None:
        if method == "get":
            raise StoreUnavailable("gone")

    store.before = fail
    with pytest.raises(StoreUnavailable):
        read_back(store, PLAIN, backup)

    gate, cancel = threading.Event(), CancelToken()
    store.before = lambda _method, _key: gate.wait(5)
    threading.Timer(0.1, cancel.cancel).start()
    threading.Timer(0.6, gate.set).start()
    with reader_of(store, PLAIN, backup, cancel=cancel) as reader, pytest.raises(Cancelled):
        reader.open("a").read()
    assert not threads_left()


def test_closed_streams_give_their_memory_back() -> None:
    """Closing streams half-way, a thousand times, does not use up what may be fetched ahead."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]}, part_size=100)
    with reader_of(store, PLAIN, backup, memory_limit_bytes=800) as reader:
        for _ in range(300):
            with reader.open("a") as stream:
                stream.read(150)
        deadline = time.monotonic() + 5
        while reader._ahead._left_bytes != 400 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert reader._ahead._left_bytes == 400


def test_a_closed_reader_refuses() -> None:
    """After close, a stream raises instead of hanging."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]}, part_size=100)
    reader = reader_of(store, PLAIN, backup)
    stream = reader.open("a")
    reader.close()
    with pytest.raises(Cancelled):
        stream.read()


def test_raw_artifacts_are_read_by_range_and_their_size_is_checked() -> None:
    """What a server wrote itself is returned as it is; a missing, short or grown object is an integrity error."""
    store = HookedStore()
    key = f"{layout.direct_prefix('src', ID)}data/%2Einner/x.bin"
    raw = Artifact("clickhouse/data/%2Einner/x.bin", (Part(key, 1000, 1000, "", ""),), raw=True)
    backup = describe((raw,), recipients=(RECIPIENT,))
    store.plant(key, DATA)
    with reader_of(store, SEALED, backup) as reader:
        assert reader.open(raw.name).read() == DATA
        assert reader.open(raw.name, start=10, length=20).read() == DATA[10:30]
    for bad in (DATA[:-1], DATA + b"x", None):
        store.remove(key)
        if bad is not None:
            store.plant(key, bad)
        with reader_of(store, SEALED, backup) as reader, pytest.raises(IntegrityError, match=r"x\.bin"):
            reader.open(raw.name).read()


def test_unknown_artifacts_and_silly_ranges() -> None:
    """An artifact that is not there is an integrity error; a range past the end is empty; a negative one a bug."""
    store = HookedStore()
    backup = store_backup(store, PLAIN, {"a": [DATA]})
    with reader_of(store, PLAIN, dataclasses.replace(backup)) as reader:
        with pytest.raises(IntegrityError, match="no artifact b"):
            reader.size("b")
        with pytest.raises(IntegrityError, match="no artifact b"):
            reader.open("b")
        assert reader.open("a", start=5000).read() == b""
        with pytest.raises(ValueError, match="range"):
            reader.open("a", start=-1)
