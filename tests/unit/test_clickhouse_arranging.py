"""How the files of a ClickHouse backup are arranged: the same parts again, whatever the order they arrive in."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterable
from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drd.cancel import CancelToken
from drd.engines.clickhouse import arranging
from drd.engines.clickhouse.arranging import ArrangedTar, Place
from drd.errors import StoreUnavailable
from drd.model import Artifact, Part
from drd.repository.chunking import MIB
from drd.repository.codec import Codec
from drd.repository.layout import owner_of
from drd.repository.pipeline import PartSink
from tests.support.artifacts import MemorySink
from tests.support.backups import ID, describe, reader_of
from tests.support.hooked_store import HookedStore

LATER = "20261123T181455Z-aaaaaa"
Files = dict[str, bytes]


def a_table(parts: Iterable[int], *, files: int = 12, size: int = 40_000) -> Files:
    """Make the files of MergeTree parts: those of one number are the same each time."""
    out: Files = {"metadata/d.sql": b"CREATE DATABASE d"}
    for part in parts:
        rng = random.Random(part)
        folder = f"data/d/t/all_{part}_{part}_0"
        out |= {f"{folder}/column{n}.bin": rng.randbytes(rng.randrange(2 * size)) for n in range(files)}
        out[f"{folder}/checksums.txt"] = rng.randbytes(200)
    return out


def written(
    store: HookedStore, files: Files, order: int, id_: str = ID, reuse: dict[str, Part] | None = None
) -> tuple[Artifact, dict[str, Place], int]:
    """Put files in an order of arrival; return the artifact, the places, and the bytes that were shared."""
    names = list(files)
    random.Random(order).shuffle(names)
    with PartSink(
        store, Codec(1), source="src", backup_id=id_, workers=2, part_size=MIB, cancel=CancelToken(), reuse=reuse
    ) as sink:
        tar = ArrangedTar(sink.open("t.tar"))
        places = {name: tar.add(name, len(files[name]), [files[name]]) for name in names}
        tar.finish()
        (artifact,) = sink.finish()
        return artifact, places, sink.bytes_reused


def by_digest(artifact: Artifact) -> dict[str, Part]:
    return {part.plain_sha256: part for part in artifact.parts}


def content(store: HookedStore, artifact: Artifact) -> bytes:
    with reader_of(store, Codec(1), describe((artifact,)), memory_limit_bytes=64 * MIB) as reader:
        return b"".join(bytes(piece) for piece in reader.open("t.tar").chunks())


def demand(tar: bytes, files: Files, places: dict[str, Place]) -> None:
    """Demand that tar and places agree on every file."""
    with tarfile.open(fileobj=BytesIO(tar)) as stream:
        assert {member.name: member.size for member in stream} == {name: len(data) for name, data in files.items()}
    for name, place in places.items():
        assert tar[place.offset : place.offset + place.size] == files[name]


def test_what_did_not_change_is_shared_whatever_the_order() -> None:
    """A new MergeTree part and two merged ones cost what they are; both backups read as tars."""
    store = HookedStore()
    first = a_table(range(8)) | {"data/d/t/big_9_9_0/x.bin": random.Random(9).randbytes(5 * MIB), ".backup": b"1" * 900}
    later = a_table([0, 1, 2, 3, 4, 5, 67, 8]) | {
        "data/d/t/big_9_9_0/x.bin": first["data/d/t/big_9_9_0/x.bin"],
        ".backup": b"2" * 900,
    }
    before, places, _ = written(store, first, 1)
    demand(content(store, before), first, places)
    after, places, shared = written(store, later, 2, LATER, by_digest(before))
    demand(content(store, after), later, places)
    new = sum(len(data) for name, data in later.items() if first.get(name) != data)
    assert after.plain_bytes - shared < new + 100_000
    assert {owner_of(part.key) for part in after.parts} == {ID, LATER}


def test_many_small_parts_lie_together_and_are_shared_but_where_one_changed() -> None:
    """Parts of a few kilobytes make no object each; one more of them costs a piece, not all."""
    store = HookedStore()
    many = a_table(range(400), files=4, size=8_000)
    before, _, _ = written(store, many, 1)
    assert len(before.parts) < 12
    later = many | a_table([1000], files=4, size=8_000)
    after, places, shared = written(store, later, 2, LATER, by_digest(before))
    demand(content(store, after), later, places)
    assert after.plain_bytes - shared < 3 * arranging.PIECE_BYTES


def test_memory_is_bounded_and_a_wide_part_is_still_mostly_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part with more files than may wait is written file by file: those that are large enough are shared."""
    monkeypatch.setattr(arranging, "PENDING_BYTES", 1 << 20)
    monkeypatch.setattr(arranging, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(arranging, "APART_BYTES", 70_000)
    store = HookedStore()
    wide = a_table([1], files=120, size=45_000)
    sizes: list[int] = []
    real = ArrangedTar._make_room

    def watched(tar: ArrangedTar) -> None:
        sizes.append(tar._groups_bytes + tar._rest.size)
        real(tar)

    monkeypatch.setattr(ArrangedTar, "_make_room", watched)
    before, _, _ = written(store, wide, 1)
    after, places, shared = written(store, wide, 2, LATER, by_digest(before))
    demand(content(store, after), wide, places)
    assert sizes
    assert max(sizes) < (1 << 20) + 100_000
    large = sum(len(data) for data in wide.values() if len(data) >= 70_000)
    assert large < shared < after.plain_bytes


@settings(max_examples=300, deadline=None)
@given(
    members=st.lists(
        st.tuples(
            st.sampled_from(["a", "data/d/t/p/a", "data/d/t/p/b", "data/d/t/q/a", "metadata/é", "x/" * 60 + "y"]),
            st.sampled_from([0, 1, 511, 512, 513, 3000]),
        ),
        max_size=20,
    ),
    piece=st.sampled_from([1, 600, 5000]),
    pending=st.sampled_from([1, 3000, 1 << 20]),
)
@example(members=[("data/d/t/p/a", 1), ("a", 3000), ("data/d/t/p/a", 1), ("data/d/t/p/b", 1)], piece=5000, pending=3000)
def test_the_last_of_a_name_wins(members: list[tuple[str, int]], piece: int, pending: int) -> None:
    """Whatever is streamed, held or thrown out early: tar reads for each name what was added last, and so do places."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arranging, "PIECE_BYTES", piece)
        patch.setattr(arranging, "PENDING_BYTES", pending)
        patch.setattr(arranging, "GROUP_BYTES", 1500)
        patch.setattr(arranging, "APART_BYTES", 1000)
        sink = MemorySink()
        tar = ArrangedTar(sink.open("t.tar"))
        rng = random.Random(1)
        last: Files = {}
        places: dict[str, Place] = {}
        for name, size in members:
            last[name] = rng.randbytes(size)
            places[name] = tar.add(name, size, [last[name]])
        tar.finish()
    data = sink.artifacts["t.tar"]
    with tarfile.open(fileobj=BytesIO(data)) as stream:
        found = {member.name: (stream.extractfile(member) or BytesIO()).read() for member in stream}
    assert found == last
    assert all(data[place.offset : place.offset + place.size] == last[name] for name, place in places.items())


def test_a_lost_store_is_raised_to_whoever_adds_or_ends() -> None:
    """Held files are lost aloud: at the latest, the end raises."""
    sink = MemorySink(fail_after_bytes=1000, error=StoreUnavailable("gone"))
    tar = ArrangedTar(sink.open("t.tar"))
    tar.add("data/d/t/p/a", 5000, [b"x" * 5000])
    with pytest.raises(StoreUnavailable):
        tar.finish()
