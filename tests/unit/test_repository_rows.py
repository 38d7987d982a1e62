"""Cutting at row ends: the same rows give the same parts, wherever they lie."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drd.repository.chunking import DEFAULT_PART_BYTES, MAX_BASE_BYTES, MAX_PART_BYTES, MIB
from drd.repository.codec import Codec
from drd.repository.rows import cut_after_row, row_window_at
from drd.stores.memory import MemoryStore
from tests.support.backups import store_backup

PLAIN = Codec(1)
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
    return [*out, data[offset:]] if offset < len(data) else out


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
@given(pieces=st.lists(st.binary(max_size=300) | st.just(b"row\n" * 40), max_size=12), base=st.integers(1, 900))
def test_the_sink_stores_all_bytes_and_cuts_as_the_rule_says(pieces: list[bytes], base: int) -> None:
    """Whatever way a stream is written in, its parts are those of the rule and together they are the stream."""
    whole = b"".join(pieces)
    backup = store_backup(MemoryStore(), PLAIN, {"t": pieces}, part_size=base, cut="rows")
    digests = [part.plain_sha256 for part in backup.artifacts[0].parts]
    assert digests == [hashlib.sha256(part).hexdigest() for part in cuts(whole, base)]
