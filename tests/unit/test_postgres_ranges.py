"""Page ranges: which are kept and which are read, what the manifest keeps of them, and digests over them."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drd.engines.postgres.digest import COPY_END, ArchivedTableDigest, CopyDigest, RangedDigest, table_digest
from drd.engines.postgres.ranges import Gap, PageRange, TableState, note_of, plan, root_digest, state_of
from drd.engines.postgres.unchanged import History, history_from_json
from drd.model import Artifact, Part

SHA = "0" * 64
SIZES = st.lists(st.integers(1, 700), min_size=1, max_size=40)


def known(first: int, end: int, rows: int = 3, parts: int = 1) -> PageRange:
    """Make a range with parts of made-up content."""
    held = tuple((hashlib.sha256(f"{first} {n}".encode()).hexdigest(), 70_000) for n in range(parts))
    digest = held[0][0] if parts == 1 else hashlib.sha256(str(first).encode()).hexdigest()
    return PageRange(first, end, rows, digest, held if rows else ())


def demand_whole(pieces: list[PageRange | Gap], pages: int) -> None:
    """Demand that pieces cover pages 0 to the last, each once and in order."""
    assert pieces[0].first == 0
    assert pieces[-1].end >= pages
    assert all(one.end == after.first for one, after in pairwise(pieces))
    assert all(one.first < one.end for one in pieces)


@given(st.integers(512, 3_000_000))
def test_a_table_is_cut_whole(pages: int) -> None:
    """Without an earlier backup every page is read, in few ranges of bounded size, the last few pages by themselves."""
    pieces = plan((), (), pages, lambda _known: True)
    demand_whole(pieces, pages)
    assert all(isinstance(piece, Gap) for piece in pieces)
    assert all(piece.end - piece.first <= 1 << 15 for piece in pieces)
    assert len(pieces) <= 2 * 2048 + 2
    assert pieces[-1].end - pieces[-1].first <= 8
    assert pieces[-1].end == pages


@given(SIZES, st.data())
def test_only_what_is_as_it_was_is_kept(sizes: list[int], data: st.DataObject) -> None:
    """A range is kept only with as many rows as before, none of them young, and parts at hand; all else is read."""
    before, at = [], 0
    for size in sizes:
        before.append(known(at, at + size))
        at += size
    counts = [(data.draw(st.sampled_from([3, 3, 3, 2, 4])), data.draw(st.sampled_from([0, 0, 0, 1]))) for _ in sizes]
    lost = data.draw(st.sets(st.sampled_from(before)))
    pages = max(1, at + data.draw(st.integers(-at, 2000)))
    pieces = plan(before, counts, pages, lambda one: one not in lost)
    demand_whole(pieces, pages)
    as_it_was = {one for one, count in zip(before, counts, strict=True) if count == (3, 0)} - lost
    kept = {piece for piece in pieces if isinstance(piece, PageRange)}
    assert kept <= as_it_was
    small = [one for one in before if one.end - one.first < 256]
    beyond = {one for one in before if one.first >= pages}
    assert as_it_was - kept <= set(small) | beyond  # small ones at the end may be read again as one


def test_small_ranges_at_the_end_become_one() -> None:
    """Days of small additions do not leave a range each for ever: after sixteen they are read again together."""
    before = [known(0, 512)]
    for day in range(17):
        before.append(known(512 + day, 513 + day))
    pieces = plan(before, [(3, 0)] * len(before), 529, lambda _known: True)
    assert pieces == [before[0], Gap(512, 521), Gap(521, 529)]
    pieces = plan(before[:-1], [(3, 0)] * 17, 528, lambda _known: True)
    assert pieces == before[:-1]


def test_a_shrunken_table_loses_its_ranges() -> None:
    """Ranges beyond the end of a table that VACUUM cut off are gone; the one across its end stays as it is."""
    before = [known(0, 512), known(512, 1024), known(1024, 1536)]
    assert plan(before, [(3, 0), (3, 0), (0, 0)], 1000, lambda _known: True) == before[:2]


def artifact_of(state: TableState, **other: Any) -> Artifact:
    """Make the artifact of a table as a manifest has it."""
    found = [part for one in state.ranges for part in one.parts] + [("f" * 64, len(COPY_END))]
    parts = tuple(Part(f"k{n}", size, 9, sha256, SHA) for n, (sha256, size) in enumerate(found))
    return Artifact("db-0/9.dat", parts, False, note_of(state) | other)


STATE = TableState(16400, 16401, "d" * 64, (known(0, 512, parts=2), known(512, 600), known(600, 608, rows=0, parts=0)))


def test_a_note_is_read_back() -> None:
    """What the manifest keeps of a table gives the same ranges again, of one part, several and none."""
    assert state_of(artifact_of(STATE)) == STATE


@pytest.mark.parametrize(
    "other",
    [
        {"version": 2},
        {"oid": -1},
        {"oid": True},
        {"filenode": "1"},
        {"definition": 3},
        {"ends": [512, 600]},
        {"ends": [512, 512, 608]},
        {"ends": "512"},
        {"rows": [3, 0, 0]},
        {"rows": [3, 3, 1]},
        {"rows": [3, 3.0, 0]},
        {"parts": [1, 2, 0]},
        {"parts": [2, 2, 0]},
        {"sha256": ["", "", SHA]},
        {"sha256": ["A" * 64, "", SHA]},
        {"sha256": [None, "", SHA]},
    ],
)
def test_a_note_that_is_none_of_ours_counts_for_nothing(other: dict[str, Any]) -> None:
    """What decides about rows that are not read is believed only as it was written."""
    assert state_of(artifact_of(STATE, **other)) is None


def test_an_artifact_without_a_note_counts_for_nothing() -> None:
    """Tables that pg_dump wrote, and backups of before, have none."""
    assert state_of(Artifact("db-0/9.dat", ())) is None


@given(st.lists(st.lists(st.binary(max_size=9).map(lambda row: row.replace(b"\n", b"n")), max_size=9)), st.data())
def test_a_digest_over_ranges_is_told_by_rows_alone(ranges: list[list[bytes]], data: st.DataObject) -> None:
    """However the stream is chopped, the digest is that of the ranges read one by one; an extra row changes it."""
    texts = [b"".join(row + b"\n" for row in rows) for rows in ranges]
    expected = root_digest(
        (len(rows), hashlib.sha256(text).hexdigest()) for rows, text in zip(ranges, texts, strict=True)
    )
    range_rows = [len(rows) for rows in ranges if rows]
    stream = b"".join(texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    digest = RangedDigest(range_rows)
    archived = ArchivedTableDigest(RangedDigest(range_rows))
    for first, end in pairwise([0, *cuts, len(stream)]):
        digest.update(stream[first:end])
        archived.update(bytearray(stream[first:end]), end - first)
    archived.update(bytearray(COPY_END), len(COPY_END))
    assert digest.facts() == {"rows": sum(range_rows), "sha256": expected, "range_rows": range_rows}
    assert archived.facts() == digest.facts()
    more = RangedDigest(range_rows)
    more.update(stream + b"one more\n")
    assert more.facts()["sha256"] != expected
    assert more.facts()["rows"] == sum(range_rows) + 1


def test_which_digest_a_table_has_is_told_by_its_facts() -> None:
    """A table of before, or read whole, has the digest of its stream."""
    assert isinstance(table_digest({"rows": 1, "sha256": SHA}), CopyDigest)
    assert isinstance(table_digest({"range_rows": [1]}), RangedDigest)


BEFORE = History("7", "00000001", "1700000000.5", "1700000001.25", 16384, 750, 900, 905, 5000)


@pytest.mark.parametrize(
    ("change", "continues"),
    [
        ({}, True),
        ({"xmin": 1000, "xmax": 1001, "lsn_bytes": 5001}, True),
        ({"system": "8"}, False),
        ({"timeline": "00000002"}, False),
        ({"started_at": "1700000000.6"}, False),
        ({"statistics": "1700000001.26"}, False),
        ({"database": 16385}, False),
        ({"entry": 901}, False),
        ({"lsn_bytes": 4999}, False),
        ({"xmax": 904}, False),
        ({"xmax": 900 + (1 << 30) - 1}, True),
        ({"xmax": 900 + (1 << 30)}, False),
    ],
)
def test_when_numbers_mean_what_they_meant(change: dict[str, Any], continues: bool) -> None:
    """Only further on in the same life of the same server and database, and less than 2^30 transactions on."""
    assert History(**(BEFORE.to_json() | change)).continues(BEFORE) is continues  # type: ignore[arg-type]


def test_history_is_read_back_and_nothing_else() -> None:
    """What the manifest keeps of a snapshot comes back; anything else counts for nothing."""
    assert history_from_json(BEFORE.to_json()) == BEFORE
    for wrong in ({"xmin": "900"}, {"xmin": -1}, {"xmin": True}, {"system": 7}, {"more": 1}):
        assert history_from_json(BEFORE.to_json() | wrong) is None
    assert history_from_json(None) is None
    assert history_from_json({"system": "7"}) is None
