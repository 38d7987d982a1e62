"""Parts that the parent has, named without their bytes; parts ended where the engine says; what it notes of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.cancel import CancelToken
from drd.errors import IntegrityError, StoreRefused
from drd.model import Artifact, Backup, Part, Progress
from drd.ops.observe import Meter, ObservedSink
from drd.protocols import Cut
from drd.repository import facts as facts_module
from drd.repository.catalog import Catalog
from drd.repository.chunking import part_size_at
from drd.repository.codec import Codec, generate_identity
from drd.repository.layout import owner_of
from drd.repository.pipeline import PartSink
from drd.stores.memory import MemoryStore
from tests.support.artifacts import MemorySink
from tests.support.backups import describe, reader_of, store_backup
from tests.support.hooked_store import HookedStore

IDENTITY, RECIPIENT = generate_identity()
PLAIN, SEALED = Codec(1), Codec(1, (RECIPIENT,), (IDENTITY,))
LATER, LATEST = "20261123T181455Z-aaaaaa", "20261124T181455Z-aaaaaa"
PART_BYTES = 64
BYTES = hashlib.shake_256(b"rows").digest(10 * PART_BYTES)
ROWS = b"".join(b"%04d\tsome row\n" % number for number in range(400))
UNKNOWN = hashlib.sha256(b"unknown").hexdigest()


def known(backup: Backup) -> dict[str, Part]:
    return {part.plain_sha256: part for artifact in backup.artifacts for part in artifact.parts}


def sink_on(
    store: MemoryStore, parent: Backup | None, codec: Codec = PLAIN, *, backup_id: str = LATER, **options: Any
) -> PartSink:
    options = {"part_size": PART_BYTES, "reuse": known(parent) if parent else {}} | options
    return PartSink(store, codec, source="src", backup_id=backup_id, workers=2, cancel=CancelToken(), **options)


def whole(store: MemoryStore, artifact: Artifact, codec: Codec = PLAIN, backup_id: str = LATER) -> bytes:
    backup = describe((artifact,), backup_id=backup_id, recipients=codec.recipients)
    with reader_of(store, codec, backup) as reader:
        return reader.open(artifact.name).read()


def offsets(parts: tuple[Part, ...]) -> Iterator[tuple[int, Part]]:
    offset = 0
    for part in parts:
        yield offset, part
        offset += part.plain_bytes


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(0, 9) | st.binary(max_size=200) | st.none(), max_size=12),
    sealed=st.booleans(),
    cut=st.sampled_from(["size", "rows"]),
)
def test_a_backup_of_both_is_read_back_whole(steps: list[int | bytes | None], sealed: bool, cut: Cut) -> None:
    """Parts of the parent, bytes and ends of parts in any order: the count is right, and all comes back."""
    store, codec = MemoryStore(), SEALED if sealed else PLAIN
    parent = store_backup(store, codec, {"other": [BYTES]}, part_size=PART_BYTES)
    theirs = parent.artifacts[0].parts
    expected, counts = b"", []
    with sink_on(store, parent, codec, ancestry=parent.artifacts) as sink:
        writer = sink.open("t", cut=cut)
        for step in steps:
            if isinstance(step, int):
                writer.refer(theirs[step].plain_sha256, theirs[step].plain_bytes)
                expected += BYTES[step * PART_BYTES : (step + 1) * PART_BYTES]
            elif step is None:
                counts.append((len(expected), writer.end_part()))
            else:
                writer.write(step)
                expected += step
        writer.close()
        (artifact,) = sink.finish()
        assert sink.bytes_written == len(expected)
    assert whole(store, artifact, codec) == expected
    ends = [0, *(offset + part.plain_bytes for offset, part in offsets(artifact.parts))]
    assert [ends[count] for _, count in counts] == [size for size, _ in counts]
    assert all(part.plain_bytes for part in artifact.parts)


def test_what_is_referred_to_is_counted_and_not_stored() -> None:
    """A part is named by the parent's key, its bytes count as reused, and the store gets what was written alone."""
    store = HookedStore()
    parent = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    first, second = parent.artifacts[0].parts[:2]
    before = len(store.contents())
    seen: list[Progress] = []
    with sink_on(store, parent) as sink:
        writer = ObservedSink(sink, Meter(seen.append, "src", "dump", None)).open("t")
        writer.refer(second.plain_sha256, second.plain_bytes)
        writer.write(b"new")
        writer.refer(first.plain_sha256, first.plain_bytes)
        assert writer.end_part() == 3
        writer.close()
        (artifact,) = sink.finish()
        assert (sink.bytes_written, sink.bytes_reused) == (2 * PART_BYTES + 3, 2 * PART_BYTES)
    assert [owner_of(part.key) for part in artifact.parts] == [parent.id, LATER, parent.id]
    assert artifact.parts[::2] == (second, first)
    assert len(store.contents()) == before + 1
    assert [progress.done_bytes for progress in seen] == [PART_BYTES, PART_BYTES + 3, 2 * PART_BYTES + 3]


def test_parts_are_found_where_they_lie_through_a_chain() -> None:
    """A part that the parent itself only refers to is named by the key of the backup that stored it."""
    store = MemoryStore()
    first = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    backup = first
    for backup_id in (LATER, LATEST):
        with sink_on(store, backup, backup_id=backup_id) as sink:
            writer = sink.open("t")
            for part in backup.artifacts[0].parts:
                writer.refer(part.plain_sha256, part.plain_bytes)
            writer.write(backup_id.encode())
            writer.close()
            backup = describe(sink.finish(), backup_id=backup_id, parent=backup.id)
    assert [owner_of(part.key) for part in backup.artifacts[0].parts] == [first.id] * 10 + [LATER, LATEST]
    assert whole(store, backup.artifacts[0], backup_id=LATEST) == BYTES + f"{LATER}{LATEST}".encode()


def test_a_part_that_the_parent_lacks_is_refused() -> None:
    """An unknown digest, another size, and a full backup: a bug in the engine, and no backup comes of it."""
    store = MemoryStore()
    parent = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    part = parent.artifacts[0].parts[0]
    for basis, digest, size in (
        (parent, UNKNOWN, PART_BYTES),
        (parent, part.plain_sha256, PART_BYTES - 1),
        (None, part.plain_sha256, PART_BYTES),
    ):
        with sink_on(store, basis) as sink:
            assert not ObservedSink(sink, Meter(lambda _: None, "src", "dump", None)).holds(digest, size)
            writer = sink.open("t")
            with pytest.raises(IntegrityError, match="refers to a part") as caught:
                writer.refer(digest, size)
            assert "bug in the engine" in caught.value.hint
            with pytest.raises(IntegrityError, match="never finished"):
                sink.finish()


def test_encrypted_and_clear_parts_are_not_mixed() -> None:
    """A part in the clear is nothing that an encrypted backup may refer to, nor the other way round."""
    for theirs, ours in ((PLAIN, SEALED), (SEALED, PLAIN)):
        store = MemoryStore()
        parent = store_backup(store, theirs, {"t": [BYTES]}, part_size=PART_BYTES)
        part = parent.artifacts[0].parts[0]
        for codec in (theirs, ours):
            with sink_on(store, parent, codec) as sink:
                assert sink.holds(part.plain_sha256, part.plain_bytes) == (codec is theirs)
                if codec is ours:
                    with pytest.raises(IntegrityError):
                        sink.open("t").refer(part.plain_sha256, part.plain_bytes)


@pytest.mark.parametrize("cut", ["size", "rows"])
def test_an_end_without_bytes_makes_no_part(cut: Cut) -> None:
    """At the start, twice in a row, behind a part of the parent, and before the close: the count stays what it is."""
    store = MemoryStore()
    parent = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    part = parent.artifacts[0].parts[0]
    with sink_on(store, parent) as sink:
        writer = sink.open("t", cut=cut)
        assert (writer.end_part(), writer.end_part()) == (0, 0)
        writer.write(b"")
        assert writer.end_part() == 0
        writer.write(b"x")
        assert (writer.end_part(), writer.end_part()) == (1, 1)
        writer.refer(part.plain_sha256, part.plain_bytes)
        assert writer.end_part() == 2
        writer.close()
        assert [part.plain_bytes for part in sink.finish()[0].parts] == [1, PART_BYTES]


def test_the_next_part_begins_at_the_offset_behind() -> None:
    """What was referred to counts for the sizes of the parts behind it, as if its bytes had been written."""
    store, step = MemoryStore(), 4
    parent = store_backup(store, PLAIN, {"a": [bytes(64 * step)]}, part_size=64 * step)
    (part,) = parent.artifacts[0].parts
    with sink_on(store, parent, part_size=step) as sink:
        writer = sink.open("t")
        writer.write(b"x")
        writer.refer(part.plain_sha256, part.plain_bytes)
        writer.write(bytes(range(200)))
        writer.close()
        (artifact,) = sink.finish()
    sizes = [(offset, part.plain_bytes) for offset, part in offsets(artifact.parts)]
    assert sizes[:2] == [(0, 1), (1, 64 * step)]
    assert {size for _, size in sizes[2:]} == {part_size_at(64 * step + 1, step)} == {2 * step}


def test_rows_behind_a_part_of_the_parent_meet_their_old_parts() -> None:
    """Rows that are read again are cut where the parent cut them, as their offset is right; only the new are stored."""
    store, base = MemoryStore(), 4096
    parent = store_backup(store, PLAIN, {"t": [ROWS]}, part_size=base, cut="rows")
    theirs = parent.artifacts[0].parts
    assert len(theirs) > 4
    start = sum(part.plain_bytes for part in theirs[:2])
    with sink_on(store, parent, part_size=base, ancestry=parent.artifacts) as sink:
        writer = sink.open("t", cut="rows")
        for part in theirs[:2]:
            writer.refer(part.plain_sha256, part.plain_bytes)
        writer.write(ROWS[start:] + b"one more row\n")
        writer.close()
        (artifact,) = sink.finish()
        assert sink.bytes_written - sink.bytes_reused == len(b"one more row\n")
    assert artifact.parts[:-1] == theirs
    assert whole(store, artifact) == ROWS + b"one more row\n"


def test_an_end_of_rows_finds_the_parts_of_the_parent() -> None:
    """What is less than a part when the engine ends it is the parent's part again, and what is behind it another."""
    store = MemoryStore()
    with sink_on(store, None, part_size=4096, backup_id="20261122T181455Z-k3f9qa") as sink:
        writer = sink.open("t", cut="rows")
        writer.write(ROWS[:140])
        assert writer.end_part() == 1
        writer.write(ROWS[140:280])
        writer.close()
        parent = describe(sink.finish())
    with sink_on(store, parent, part_size=4096, ancestry=parent.artifacts) as sink:
        writer = sink.open("t", cut="rows")
        writer.write(ROWS[:140] + b"new row\n")
        assert writer.end_part() == 2
        writer.write(ROWS[140:280])
        writer.close()
        (artifact,) = sink.finish()
    assert [owner_of(part.key) == LATER for part in artifact.parts] == [False, True, False]
    assert whole(store, artifact) == ROWS[:140] + b"new row\n" + ROWS[140:280]


def test_pieces_go_on_behind_a_part_of_the_parent() -> None:
    """A piece that follows a part that was named is cut as a piece; so is the rest of one that was ended early."""
    store = MemoryStore()
    parent = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    part = parent.artifacts[0].parts[0]
    with sink_on(store, parent) as sink:
        writer = sink.open("t")
        writer.begin_piece(100)
        writer.write(bytes(100))
        writer.refer(part.plain_sha256, part.plain_bytes)
        writer.begin_piece(50)
        writer.write(bytes(20))
        assert writer.end_part() == 3
        writer.write(bytes(80))
        writer.close()
        (artifact,) = sink.finish()
    assert [part.plain_bytes for part in artifact.parts] == [100, PART_BYTES, 20, 50, 30]
    assert whole(store, artifact) == bytes(100) + BYTES[:PART_BYTES] + bytes(100)


def test_what_is_noted_stands_in_the_manifest() -> None:
    """The last note of each artifact is read back from the store, whatever the engine does with its values later."""
    store, facts = MemoryStore(), {"ranges": [[0, 1], [1, 3]], "xid": "748"}
    with sink_on(store, None) as sink:
        noted, silent, emptied, dropped = (sink.open(name) for name in ("noted", "silent", "emptied", "dropped"))
        noted.note({"old": True})
        noted.write(b"x")
        noted.note(facts)  # type: ignore[arg-type]
        facts["xid"] = "changed"
        emptied.note({"old": True})
        emptied.note({})
        dropped.note({"old": True})
        dropped.abort()
        for writer in (noted, silent, emptied):
            writer.close()
        published = Catalog(store).publish(describe(sink.finish(), backup_id=LATER))
    found = Catalog(store).get(LATER)
    assert found == published
    assert {artifact.name: artifact.facts for artifact in found.artifacts} == {
        "noted": {"ranges": [[0, 1], [1, 3]], "xid": "748"},
        "silent": {},
        "emptied": {},
    }


def test_what_no_manifest_can_hold_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the end of a dump of hours; what was noted before stands."""
    monkeypatch.setattr(facts_module, "MAX_FACTS_BYTES", 1000)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with sink_on(MemoryStore(), None) as sink:
        writer = sink.open("t")
        writer.note({"good": 1})
        for bad in ({"x": float("nan")}, {"x": object()}, {"x": "\ud800"}, {"x": deep}, {"x": "y" * 1000}):
            with pytest.raises(IntegrityError, match=r"artifact t (has|is not)") as caught:
                writer.note(bad)  # type: ignore[arg-type]
            assert "bug in the engine" in caught.value.hint
        writer.close()
        assert sink.finish()[0].facts == {"good": 1}


def test_an_artifact_that_is_over_takes_nothing_more() -> None:
    """Closed or aborted, with a buffer under way or not: every call is refused, and an abort frees what was held."""
    store = MemoryStore()
    parent = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    part = parent.artifacts[0].parts[0]
    with sink_on(store, parent) as sink:
        closed, aborted = sink.open("closed"), sink.open("aborted")
        for writer in (closed, aborted):
            writer.refer(part.plain_sha256, part.plain_bytes)
            writer.write(b"x")
        closed.close()
        aborted.abort()
        for writer in (closed, aborted):
            with pytest.raises(IntegrityError, match="written after"):
                writer.end_part()
            with pytest.raises(IntegrityError, match="written after"):
                writer.refer(part.plain_sha256, part.plain_bytes)
            with pytest.raises(IntegrityError, match="written after"):
                writer.note({"x": 1})
        assert [artifact.name for artifact in sink.finish()] == ["closed"]


def test_a_failed_store_is_told_to_who_only_refers() -> None:
    """An engine that writes nothing more hears of a failure as well, and does not go on for hours."""
    store = HookedStore()
    parent = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    part = parent.artifacts[0].parts[0]

    def refuse(method: str, _key: str) -> None:
        if method == "put":
            raise StoreRefused("no right to write")

    store.before = refuse
    with sink_on(store, parent) as sink:
        other, writer = sink.open("other"), sink.open("t")
        other.write(b"x")
        other.close()

        def refer_on() -> None:
            for _ in range(10_000):
                writer.refer(part.plain_sha256, part.plain_bytes)
                time.sleep(0.001)

        with pytest.raises(StoreRefused):
            refer_on()
        with pytest.raises(StoreRefused):
            writer.end_part()


def test_the_double_in_memory_does_as_the_sink_does() -> None:
    """Engine tests go by it: what it holds, refuses, counts and keeps is what the real one would."""
    store = MemoryStore()
    parent = store_backup(store, PLAIN, {"t": [BYTES]}, part_size=PART_BYTES)
    part = parent.artifacts[0].parts[0]
    double = MemorySink(parents={part.plain_sha256: BYTES[:PART_BYTES]})
    counts = []
    with sink_on(store, parent, part_size=1000) as sink:
        for each in (double, sink):
            assert each.holds(part.plain_sha256, PART_BYTES)
            assert not each.holds(part.plain_sha256, 1)
            assert not each.holds(UNKNOWN, PART_BYTES)
            writer = each.open("t")
            writer.write(b"abc")
            with pytest.raises(IntegrityError, match="refers to a part"):
                writer.refer(UNKNOWN, PART_BYTES)
            writer.refer(part.plain_sha256, PART_BYTES)
            counts.append((writer.end_part(), writer.end_part()))
            writer.write(b"de")
            writer.note({"x": 1})
            writer.close()
        (artifact,) = sink.finish()
    assert counts == [(2, 2), (2, 2)]
    assert [hashlib.sha256(data).hexdigest() for data in double.parts["t"]] == [p.plain_sha256 for p in artifact.parts]
    assert (double.artifacts["t"], double.facts["t"]) == (whole(store, artifact), artifact.facts)
