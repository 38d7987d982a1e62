"""The way in: cutting, bounding, failing, stopping."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.cancel import CancelToken
from drd.errors import Cancelled, ConfigError, IntegrityError, StoreRefused, StoreUnavailable
from drd.repository.chunking import DEFAULT_PART_BYTES, MIB, part_size_at, piece_part_size
from drd.repository.codec import Codec, generate_identity
from drd.repository.pipeline import PartSink
from tests.support.backups import ID, describe, reader_of, store_backup
from tests.support.hooked_store import HookedStore

IDENTITY, RECIPIENT = generate_identity()
PLAIN, SEALED = Codec(1), Codec(1, (RECIPIENT,), (IDENTITY,))


def sink_on(store: HookedStore, **options: object) -> PartSink:
    settings: dict[str, object] = {"workers": 2, "part_size": 100, "cancel": CancelToken()} | options
    return PartSink(store, PLAIN, source="src", backup_id=ID, **settings)  # type: ignore[arg-type]


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("drd-put", "drd-get"))]


@settings(max_examples=40, deadline=None)
@given(
    contents=st.dictionaries(
        st.sampled_from(["a", "b/c", "toc.dat", "b/d.bin"]), st.lists(st.binary(max_size=400), max_size=6)
    ),
    part_size=st.integers(1, 150),
    sealed=st.booleans(),
    start=st.integers(0, 1500),
    length=st.none() | st.integers(0, 1500),
)
def test_what_is_written_is_read(
    contents: dict[str, list[bytes]], part_size: int, sealed: bool, start: int, length: int | None
) -> None:
    """Arbitrary writes come back equal, whole and by range, whatever the part size."""
    store, codec = HookedStore(), SEALED if sealed else PLAIN
    backup = store_backup(store, codec, contents, part_size=part_size)
    with reader_of(store, codec, backup, memory_limit_bytes=200) as reader:
        assert list(reader.names()) == sorted(contents)
        for name, pieces in contents.items():
            whole = b"".join(pieces)
            assert reader.size(name) == len(whole)
            stop = None if length is None else start + length
            with reader.open(name) as stream:
                assert b"".join(stream.chunks()) == whole
            with reader.open(name, start=start, length=length) as stream:
                assert stream.read() == whole[start:stop]
    assert not threads_left()


@settings(max_examples=200, deadline=None)
@given(base=st.integers(1, 64 * MIB), offset=st.integers(0, 1 << 42))
def test_part_size_depends_on_the_offset_alone(base: int, offset: int) -> None:
    """Parts that follow each other from 0 never cross a threshold, and never shrink."""
    size = part_size_at(offset, base)
    assert size in {base, 2 * base, 4 * base}
    assert part_size_at(offset + size, base) >= size
    for threshold in (64 * base, 256 * base):
        assert threshold % size == 0 or offset >= threshold


def test_a_terabyte_is_near_thirty_thousand_objects() -> None:
    """The rule keeps small artifacts small and a terabyte countable."""
    offset = parts = 0
    while offset < 10**12:
        offset += part_size_at(offset)
        parts += 1
    assert 29_000 < parts < 31_000
    assert part_size_at(0) == DEFAULT_PART_BYTES


def test_a_table_that_only_grew_is_cut_as_before_and_its_parts_are_reused() -> None:
    """With the parts of an ancestor, only what is new is stored, and both backups read back."""
    store = HookedStore()
    yesterday = hashlib.shake_256(b"rows").digest(1000)
    today = yesterday + b"new rows"
    parent = store_backup(store, PLAIN, {"t": [yesterday]}, part_size=100)
    known = {part.plain_sha256: part for part in parent.artifacts[0].parts}
    before = len(store.contents())
    later = "20261123T181455Z-aaaaaa"
    child = store_backup(store, PLAIN, {"t": [today]}, part_size=100, backup_id=later, reuse=known)
    assert len(store.contents()) == before + 1
    assert child.artifacts[0].parts[:10] == parent.artifacts[0].parts
    with reader_of(store, PLAIN, child) as reader:
        assert reader.open("t").read() == today


def test_parts_in_the_clear_are_not_reused_by_an_encrypted_backup() -> None:
    """Turning encryption on stores everything anew."""
    store = HookedStore()
    parent = store_backup(store, PLAIN, {"t": [b"x" * 300]}, part_size=100)
    known = {part.plain_sha256: part for part in parent.artifacts[0].parts}
    child = store_backup(store, SEALED, {"t": [b"x" * 300]}, backup_id="20261123T181455Z-aaaaaa", reuse=known)
    assert all(part.key.endswith(".zst.age") for part in child.artifacts[0].parts)


def test_parts_say_what_they_are() -> None:
    """Keys, sizes and digests of parts are those of the bytes; empty artifacts have no parts."""
    store = HookedStore()
    backup = store_backup(store, SEALED, {"a": [b"abc" * 50], "empty": []}, part_size=100)
    a, empty = backup.artifacts
    assert (a.name, empty.name, empty.parts) == ("a", "empty", ())
    assert [part.key for part in a.parts] == [f"backups/src/{ID}/a/{n:06d}.zst.age" for n in range(2)]
    for part, plain in zip(a.parts, ((b"abc" * 50)[:100], (b"abc" * 50)[100:]), strict=True):
        stored = store.contents()[part.key]
        assert part.stored_bytes == len(stored)
        assert part.stored_sha256 == hashlib.sha256(stored).hexdigest()
        assert (part.plain_bytes, part.plain_sha256) == (len(plain), hashlib.sha256(plain).hexdigest())


def test_memory_in_flight_is_bounded() -> None:
    """With a stalled store, writers block once the limit is in flight, and go on when it moves."""
    store, gate = HookedStore(), threading.Event()
    store.before = lambda method, _key: gate.wait(10) if method == "put" else None
    with sink_on(store, workers=8, part_size=1000, memory_limit_bytes=3000) as sink:
        writer = sink.open("a")

        def write() -> None:
            for n in range(20):
                writer.write(bytes(hashlib.shake_256(bytes([n])).digest(1000)))
            writer.close()

        thread = threading.Thread(target=write)
        thread.start()
        deadline = time.monotonic() + 10
        while sink.bytes_written < 3000 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert sink.bytes_written == 3000
        gate.set()
        thread.join(10)
        assert len(sink.finish()[0].parts) == 20


def test_puts_wait_beside_those_that_encode() -> None:
    """With one thread that may encode, three puts are under way at once, so a slow store does not stop the dump."""
    store, together = HookedStore(), threading.Barrier(3)
    store.before = lambda method, _key: together.wait(20) if method == "put" else None
    with sink_on(store, workers=1) as sink:
        writer = sink.open("a")
        writer.write(bytes(300))
        writer.close()
        sink.finish()
    assert not threads_left()


def test_many_open_artifacts_do_not_deadlock() -> None:
    """A limit below one part, one worker and fifty artifacts open at once still finish."""
    store = HookedStore()
    with sink_on(store, workers=1, memory_limit_bytes=10) as sink:
        writers = [sink.open(f"a{n:02d}") for n in range(50)]
        for _ in range(3):
            for writer in writers:
                writer.write(b"y" * 70)
        for writer in writers:
            writer.close()
        artifacts = sink.finish()
    assert [artifact.plain_bytes for artifact in artifacts] == [210] * 50


def test_a_failing_store_surfaces_everywhere_and_leaves_no_thread() -> None:
    """The first refusal is raised by writes, closes and finish, of every artifact."""
    store = HookedStore()

    def refuse(method: str, _key: str) -> None:
        if method == "put":
            raise StoreRefused("no right to write")

    store.before = refuse
    sink = sink_on(store)
    one, two = sink.open("one"), sink.open("two")

    def write_on() -> None:
        for _ in range(10_000):
            one.write(b"z" * 100)
            time.sleep(0.001)

    with pytest.raises(StoreRefused):
        write_on()
    with pytest.raises(StoreRefused):
        two.write(b"z")
    with pytest.raises(StoreRefused):
        two.close()
    with pytest.raises(StoreRefused):
        sink.open("three")
    with pytest.raises(StoreRefused):
        sink.finish()
    assert not threads_left()


def test_a_failure_of_the_very_last_part_is_not_lost() -> None:
    """A put that fails after the last write makes finish raise: no manifest without its parts."""
    store = HookedStore()

    def refuse_slowly(method: str, _key: str) -> None:
        if method == "put":
            time.sleep(0.1)
            raise StoreUnavailable("gone")

    store.before = refuse_slowly
    sink = sink_on(store)
    writer = sink.open("a")
    writer.write(b"last")
    writer.close()
    with pytest.raises(StoreUnavailable):
        sink.finish()
    assert not threads_left()


def test_abort_stops_threads_and_blocked_writers() -> None:
    """An abort from another thread wakes a blocked writer, and no thread is left."""
    store, gate = HookedStore(), threading.Event()
    store.before = lambda method, _key: gate.wait(10) if method == "put" else None
    sink = sink_on(store, memory_limit_bytes=100)
    caught: list[BaseException] = []

    def write() -> None:
        try:
            writer = sink.open("a")
            for _ in range(10):
                writer.write(b"q" * 100)
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.1)
    threading.Timer(0.1, gate.set).start()
    sink.abort()
    thread.join(5)
    assert caught
    assert not threads_left()


def write_and_finish(sink: PartSink, parts: int) -> None:
    writer = sink.open("a")
    for _ in range(parts):
        writer.write(b"q" * sink.part_size)
    writer.close()
    sink.finish()


def test_cancellation_wakes_writers_and_finish() -> None:
    """A cancelled token ends a blocked write and a waiting finish within a second."""
    for blocked_in in ("write", "finish"):
        store, gate, cancel = HookedStore(), threading.Event(), CancelToken()
        store.before = lambda method, _key, gate=gate: gate.wait(5) if method == "put" else None  # type: ignore[misc]
        sink = sink_on(store, memory_limit_bytes=100, cancel=cancel)
        threading.Timer(0.1, cancel.cancel).start()
        threading.Timer(0.5, gate.set).start()
        with pytest.raises(Cancelled):
            write_and_finish(sink, 10 if blocked_in == "write" else 1)
        sink.abort()
        assert not threads_left()


def test_an_unfinished_artifact_is_no_backup() -> None:
    """Finish refuses while an artifact is open; an aborted artifact is left out."""
    store = HookedStore()
    sink = sink_on(store)
    sink.open("a").write(b"abc")
    with pytest.raises(IntegrityError, match="never finished"):
        sink.finish()
    with sink_on(store) as sink:
        dropped, kept = sink.open("dropped"), sink.open("kept")
        dropped.write(b"d" * 500)
        dropped.abort()
        kept.close()
        assert [artifact.name for artifact in sink.finish()] == ["kept"]


def test_misuse_is_refused() -> None:
    """A name twice, a name that collides or escapes, a write after close, a silly part size."""
    with sink_on(HookedStore()) as sink:
        sink.open("a").close()
        for name in ("a", "../b", "manifest.json", "x/000000.zst", "", "a//b"):
            with pytest.raises(IntegrityError):
                sink.open(name)
        writer = sink.open("c")
        writer.close()
        with pytest.raises(IntegrityError):
            writer.write(b"late")
    with pytest.raises(ConfigError):
        sink_on(HookedStore(), part_size=0)


def test_any_buffer_is_copied() -> None:
    """What is written may be reused at once by the caller, and may be a view of wider items."""
    store = HookedStore()
    data = bytearray(b"1" * 90)
    with sink_on(store) as sink:
        writer = sink.open("a")
        writer.write(data)
        data[:] = b"2" * 90
        writer.write(memoryview(bytes(range(16))).cast("I"))
        writer.close()
        backup_parts = sink.finish()[0].parts
    assert backup_parts[0].plain_sha256 == hashlib.sha256(b"1" * 90 + bytes(range(10))).hexdigest()


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 1000), max_size=8),
    part_size=st.integers(1, 150),
)
def test_pieces_are_parts_of_their_own(pieces: list[int], part_size: int) -> None:
    """Each piece begins and ends with a part, in parts alike of at most four times the size; all is read back."""
    store = HookedStore()
    contents = [bytes([number]) * size for number, size in enumerate(pieces)]
    with sink_on(store, part_size=part_size) as sink:
        writer = sink.open("a")
        for piece in contents:
            writer.begin_piece(len(piece))
            for begin in range(0, len(piece), 77):
                writer.write(piece[begin : begin + 77])
        writer.close()
        (artifact,) = sink.finish()
    ends, offset = set(), 0
    for part in artifact.parts:
        assert part.plain_bytes <= 4 * part_size
        offset += part.plain_bytes
        ends.add(offset)
    assert ends >= {sum(pieces[: number + 1]) for number in range(len(pieces))} - {0}
    assert len(artifact.parts) == sum(-(-size // piece_part_size(size, part_size)) for size in pieces)
    with reader_of(store, PLAIN, describe((artifact,)), memory_limit_bytes=2000) as reader:
        assert reader.open("a").read() == b"".join(contents)
