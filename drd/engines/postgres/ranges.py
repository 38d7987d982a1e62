"""Page ranges of a table: what a backup knows of each, and which of them the next one has to read.

A table is cut into ranges of heap pages. A backup keeps of each how many rows it held, the SHA-256 of their COPY text
and the parts that hold it. Where no row of a range came or went since (see :mod:`.unchanged` for how that is known),
the next backup refers to those parts and does not read the rows. Pure: no server, no store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from drd.model import Artifact, Json

LEAST_PAGES = 512
"""Pages of a range (4 MiB of heap); a smaller table is left to pg_dump."""
_MOST_PAGES = 1 << 15
_RANGES_WANTED = 2048  # of a table; larger ones get larger ranges
_LAST_PAGES = 8  # a range of their own: that is where the next row goes
_SMALL_RANGES = 16  # at the end of a table, until they are read again as one
_NOTE_VERSION = 1
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Gap:
    """Pages ``first`` to ``end``, exclusive, that have to be read."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class PageRange:
    """What a backup holds of pages ``first`` to ``end``, exclusive.

    ``rows`` were visible in it; ``sha256`` is that of their COPY text; ``parts`` are the plain SHA-256 and size of the
    parts that hold just that text, in order.
    """

    first: int
    end: int
    rows: int
    sha256: str
    parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TableState:
    """What a backup knows of one table: ``definition`` digests all that the text of an unchanged row depends on."""

    oid: int
    filenode: int
    definition: str
    ranges: tuple[PageRange, ...]


def root_digest(ranges: Iterable[tuple[int, str]]) -> str:
    """Return the digest of a table read in ranges: the SHA-256 over those of the ranges that hold rows, in order.

    ``ranges`` gives rows and SHA-256 of each. A range without rows leaves no trace, as a restored table has none.
    """
    whole = hashlib.sha256()
    for rows, sha256 in ranges:
        if rows:
            whole.update(bytes.fromhex(sha256))
    return whole.hexdigest()


def plan(
    before: Sequence[PageRange], counts: Sequence[tuple[int, int]], pages: int, usable: Callable[[PageRange], bool]
) -> list[PageRange | Gap]:
    """Return what a backup of a table of ``pages`` is made of, in order: ranges to keep and gaps to read.

    ``counts`` are, for each range of ``before``, the rows that are visible in it now and those of them that are younger
    than the backup before. ``usable`` says whether the parts of a range can be referred to.
    """
    out: list[PageRange | Gap] = []
    at = 0
    for known, (rows, young) in zip(before, counts, strict=True):
        if known.first >= pages:
            break
        unchanged = rows == known.rows and young == 0
        out.append(known if unchanged and usable(known) else Gap(known.first, known.end))
        at = known.end
    size = _range_pages(pages)
    small = 0
    while small < len(out) and out[-1 - small].end - out[-1 - small].first < size // 2:
        small += 1
    if small > _SMALL_RANGES:
        at = out[-small].first
        del out[-small:]
    return out + _cut(at, pages, size)


def _range_pages(pages: int) -> int:
    size = LEAST_PAGES
    while size < _MOST_PAGES and size * _RANGES_WANTED < pages:
        size *= 2
    return size


def _cut(first: int, end: int, size: int) -> list[PageRange | Gap]:
    """Cut pages that no range covers; the last few stand alone, as the next row to come changes one of them."""
    last = max(first, end - _LAST_PAGES)
    out: list[PageRange | Gap] = [Gap(at, min(at + size, last)) for at in range(first, last, size)]
    return [*out, Gap(last, end)] if last < end else out


def note_of(state: TableState) -> dict[str, Json]:
    """Return what the manifest keeps beside the parts of a table; :func:`state_of` reads it back.

    It names nothing, and says of each range: its end, its rows, how many parts it has, and its SHA-256 where that is
    not the one of its only part.
    """
    return {
        "version": _NOTE_VERSION,
        "oid": state.oid,
        "filenode": state.filenode,
        "definition": state.definition,
        "ends": [one.end for one in state.ranges],
        "rows": [one.rows for one in state.ranges],
        "parts": [len(one.parts) for one in state.ranges],
        "sha256": ["" if len(one.parts) == 1 else one.sha256 for one in state.ranges],
    }


def state_of(artifact: Artifact) -> TableState | None:
    """Return what an earlier backup says of a table, None where it says nothing that can be built on.

    What it says decides which rows are not read: anything but what :func:`note_of` writes counts for nothing.
    """
    note = artifact.facts
    ends, rows, parts, digests = (note.get(name) for name in ("ends", "rows", "parts", "sha256"))
    oid, filenode, definition = note.get("oid"), note.get("filenode"), note.get("definition")
    if not (
        note.get("version") == _NOTE_VERSION
        and is_count(oid)
        and is_count(filenode)
        and isinstance(definition, str)
        and _are_counts(ends)
        and _are_counts(rows)
        and _are_counts(parts)
        and isinstance(digests, list)
        and len(ends) == len(rows) == len(parts) == len(digests)
        and len(artifact.parts) == sum(parts) + 1  # the last is pg_dump's end mark
    ):
        return None
    ranges: list[PageRange] = []
    at = first = 0
    for end, count, number, digest in zip(ends, rows, parts, digests, strict=True):
        held = tuple((part.plain_sha256, part.plain_bytes) for part in artifact.parts[at : at + number])
        sha256 = held[0][0] if number == 1 else digest
        if end <= first or (count > 0) != (number > 0) or not (isinstance(sha256, str) and _is_digest(sha256)):
            return None
        ranges.append(PageRange(first, end, count, sha256, held))
        first = end
        at += number
    return TableState(oid, filenode, definition, tuple(ranges))


def is_count(value: Json) -> TypeGuard[int]:
    """Whether a value of a manifest is a whole number that counts something."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_counts(values: Json) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(is_count(value) for value in values)


def _is_digest(text: str) -> bool:
    return len(text) == _SHA256_DIGITS and set(text) <= set("0123456789abcdef")
