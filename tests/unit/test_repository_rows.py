"""Cutting at row ends: the same rows give the same parts, wherever they lie."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.repository.chunking import DEFAULT_PART_BYTES, MAX_BASE_BYTES, MAX_PART_BYTES, MIB
from drd.repository.codec import Codec
from drd.repository.layout import owner_of
from drd.repository.rows import cut_after_row, end_of_rows, row_window_at
from drd.stores.memory import MemoryStore
from tests.support.backups import reader_of, store_backup

PLAIN = Codec(1)
MARK = b"\\.\n\n\n"
BASE = 16 << 10  # first parts of 4 KiB


def rows(count: int, seed: int) -> list[bytes]:
    """Make rows of a table, some forty bytes each."""
    source = random.Random(seed)
    return [b"%d\t%x\n" % (seed * 1_000_000 + n, source.getrandbits(120)) for n in range(count)]


def cuts(data: bytes, base: int = BASE) -> list[bytes]:
    """Return the parts of a stream of rows, as the sink would cut them."""
    out: list[bytes] = []
    offset = 0
    while len(data) - offset >= row_window_at(offset, base)[1]:
        least, most = row_window_at(offset, base)
        end = cut_after_row(data[offset : offset + most], least, most)
        out.append(data[offset : offset + end])
        offset += end
    end = offset + end_of_rows(data[offset:], len(data) - offset, base)
    return [*out, *(part for part in (data[offset:end], data[end:]) if part)]


def stored_again(before: bytes, after: bytes) -> float:
    """Return which share of ``after`` is in no part of ``before``."""
    known = set(cuts(before))
    return sum(len(part) for part in cuts(after) if part not in known) / len(after)


TABLE = rows(25_000, 1)
WHOLE = b"".join(TABLE)


def test_a_table_that_grew_shares_all_but_its_end() -> None:
    """Two in a hundred rows more cost little more than those two."""
    assert stored_again(WHOLE, WHOLE + b"".join(rows(500, 2))) < 0.035


def test_rows_gone_from_the_middle_move_no_cut_behind_them() -> None:
    """After a few removed rows, only a few parts around them are new."""
    assert stored_again(WHOLE, b"".join(TABLE[:9_000] + TABLE[9_003:])) < 0.05


def test_a_block_put_in_the_middle_costs_itself_and_some_parts_around() -> None:
    """Parts are the old ones again some way behind a block of rows that is larger than any part."""
    assert stored_again(WHOLE, b"".join([*TABLE[:5_000], *rows(1_000, 3), *TABLE[5_000:]])) < 0.35


def test_a_changed_row_costs_one_part() -> None:
    """A row that was written anew in place changes its own part, and seldom the next."""
    changed = [*TABLE[:12_000], b"0\tother\n", *TABLE[12_001:]]
    assert stored_again(WHOLE, b"".join(changed)) < 0.03


@settings(max_examples=150, deadline=None)
@given(offset=st.integers(0, 1 << 42), base=st.integers(1, MAX_BASE_BYTES))
def test_windows_leave_room_and_keep_the_bounds(offset: int, base: int) -> None:
    """What is left behind a cut is less than a part, and no part is larger than a reader allows."""
    least, most = row_window_at(offset, base)
    assert 1 <= least <= most <= MAX_PART_BYTES
    following = row_window_at(offset + least, base)[0]
    assert most - least < following


def test_a_terabyte_is_near_thirty_thousand_parts_and_its_tail_below_a_hundredth() -> None:
    """The rule begins at 2 MiB, keeps parts below a hundredth of what lies before them, and ends at 32 MiB."""
    offset = parts = 0
    while offset < 10**12:
        least, most = row_window_at(offset, DEFAULT_PART_BYTES)
        assert offset < 512 * MIB or most <= offset * 1.13 / 128
        offset += (least + most) // 2
        parts += 1
    assert 29_500 < parts < 31_500
    assert row_window_at(0, DEFAULT_PART_BYTES) == (MIB * 7 // 4, MIB * 9 // 4)
    assert row_window_at(10**12, DEFAULT_PART_BYTES)[1] == 36 * MIB


@settings(max_examples=200, deadline=None)
@given(data=st.binary(min_size=20, max_size=400), least=st.integers(1, 19))
def test_any_bytes_are_cut_in_the_window_and_at_a_row_end_if_there_is_one(data: bytes, least: int) -> None:
    """Whatever a stream holds, the cut lies in the window, and never inside a row where a row ends there."""
    most = len(data)
    at = cut_after_row(data, least, most)
    assert least <= at <= most
    if b"\n" in data[least:most]:
        assert data[at - 1 : at] == b"\n"
    else:
        assert at == most


@pytest.mark.parametrize("row", [b"\n", b"same\n", b"a" * 5_000 + b"\n", b"b" * 700_000 + b"\n"])
def test_equal_rows_empty_rows_and_wide_rows(row: bytes) -> None:
    """Rows that are all equal, empty, or wider than a window are cut, not looped over."""
    data = row * (2_000_000 // len(row))
    assert b"".join(cuts(data, MIB)) == data


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=300) | st.just(b"row\n" * 40) | st.just(MARK), max_size=12),
    base=st.integers(1, 900),
)
def test_the_sink_stores_all_bytes_and_cuts_as_the_rule_says(pieces: list[bytes], base: int) -> None:
    """Whatever way a stream is written in, its parts are those of the rule and together they are the stream."""
    whole = b"".join(pieces)
    backup = store_backup(MemoryStore(), PLAIN, {"t": pieces}, part_size=base, cut="rows")
    digests = [part.plain_sha256 for part in backup.artifacts[0].parts]
    assert digests == [hashlib.sha256(part).hexdigest() for part in cuts(whole, base)]


def test_a_table_that_grew_day_by_day_stores_its_new_rows_alone() -> None:
    """Each day refers to all rows of the days before, although a table's last part ends where no rule would cut."""
    store, table, reuse = MemoryStore(), b"".join(TABLE[:15_000]), {}
    backup = store_backup(store, PLAIN, {"t": [table + MARK]}, part_size=BASE, cut="rows")
    for day in range(1, 5):
        added = b"".join(rows(100, day + 10))
        table += added
        ancestry = backup.artifacts
        reuse |= {part.plain_sha256: part for part in ancestry[0].parts if part.plain_bytes > len(MARK)}
        new_id = f"2026112{2 + day}T181455Z-aaaaaa"
        options = {"backup_id": new_id, "reuse": reuse, "ancestry": ancestry}
        backup = store_backup(store, PLAIN, {"t": [table + MARK]}, part_size=BASE, cut="rows", **options)
        parts = backup.artifacts[0].parts
        assert sum(part.plain_bytes for part in parts if owner_of(part.key) == new_id) == len(added + MARK)
        with reader_of(store, PLAIN, backup) as reader:
            assert reader.open("t").read() == table + MARK


def test_a_row_changed_behind_an_old_end_leaves_that_end_to_be_referred_to() -> None:
    """A change among the rows of yesterday costs those and today's, not what was there the day before yesterday."""
    store, first, second = MemoryStore(), b"".join(TABLE[:15_000]), b"".join(rows(100, 11))
    backup = store_backup(store, PLAIN, {"t": [first + MARK]}, part_size=BASE, cut="rows")
    for day, table in ((3, first + second), (4, first + second.replace(b"\n11000050\t", b"\nchanged\t"))):
        reuse = {part.plain_sha256: part for part in backup.artifacts[0].parts if part.plain_bytes > len(MARK)}
        new_id = f"2026112{day}T181455Z-aaaaaa"
        options = {"backup_id": new_id, "reuse": reuse, "ancestry": backup.artifacts}
        backup = store_backup(store, PLAIN, {"t": [table + MARK]}, part_size=BASE, cut="rows", **options)
    own = sum(part.plain_bytes for part in backup.artifacts[0].parts if owner_of(part.key) == backup.id)
    assert own == len(table + MARK) - len(first)


def test_rows_that_are_what_they_were_are_referred_to_without_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is equal to the parent's parts is found by their digests alone, and nothing is compressed or put."""
    store, table = MemoryStore(), WHOLE + MARK
    parent = store_backup(store, PLAIN, {"t": [table]}, part_size=BASE, cut="rows")
    reuse = {part.plain_sha256: part for part in parent.artifacts[0].parts}
    puts = len(list(store.list("")))
    with monkeypatch.context() as patch:
        patch.setattr("drd.repository.cutting.cut_after_row", None)
        patch.setattr(Codec, "compress", None)
        options = {"backup_id": "20261124T181455Z-aaaaaa", "reuse": reuse, "ancestry": parent.artifacts}
        child = store_backup(store, PLAIN, {"t": [WHOLE, MARK]}, part_size=BASE, cut="rows", **options)
    assert child.artifacts == parent.artifacts
    assert len(list(store.list(""))) == puts
    with reader_of(store, PLAIN, child) as reader:
        assert reader.open("t").read() == table


@settings(max_examples=60, deadline=None)
@given(
    gone=st.integers(0, 400),
    at=st.integers(0, 2_000),
    new=st.lists(st.just(b"0\tother\n"), max_size=30),
    cut=st.booleans(),
)
def test_what_is_not_equal_is_stored_as_it_is(gone: int, at: int, new: list[bytes], cut: bool) -> None:
    """Rows that go, come or change anywhere: every backup holds its own bytes, whatever it refers to."""
    store, before = MemoryStore(), TABLE[:2_000]
    after = [*before[:at], *new, *before[at + gone :]]
    parent = store_backup(store, PLAIN, {"t": [*before, MARK]}, part_size=BASE, cut="rows")
    reuse = {part.plain_sha256: part for part in parent.artifacts[0].parts if cut or part.plain_bytes > len(MARK)}
    options = {"backup_id": "20261124T181455Z-aaaaaa", "reuse": reuse, "ancestry": parent.artifacts}
    child = store_backup(store, PLAIN, {"t": [*after, MARK]}, part_size=BASE, cut="rows", **options)
    with reader_of(store, PLAIN, child) as reader:
        assert reader.open("t").read() == b"".join([*after, MARK])


def test_an_end_that_may_not_be_referred_to_cuts_nothing() -> None:
    """Without the part in the store, the rows are cut by the rule, as in a full backup."""
    table = b"".join(TABLE)
    parent = store_backup(MemoryStore(), PLAIN, {"t": [b"".join(TABLE[:15_000]) + MARK]}, part_size=BASE, cut="rows")
    child = store_backup(MemoryStore(), PLAIN, {"t": [table]}, part_size=BASE, cut="rows", ancestry=parent.artifacts)
    digests = [part.plain_sha256 for part in child.artifacts[0].parts]
    assert digests == [hashlib.sha256(part).hexdigest() for part in cuts(table)]


def test_the_end_mark_of_few_rows_is_no_part_of_its_own() -> None:
    """An object more is made only where its rows are worth referring to."""
    few, enough = rows(5, 1), rows(50, 1)
    sizes = [
        [part.plain_bytes for part in artifact.parts]
        for artifact in store_backup(
            MemoryStore(), PLAIN, {"a": [*few, MARK], "b": [*enough, MARK]}, part_size=BASE, cut="rows"
        ).artifacts
    ]
    assert sizes == [[len(b"".join([*few, MARK]))], [len(b"".join(enough)), len(MARK)]]
