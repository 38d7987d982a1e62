"""Where a stream of rows is cut into parts: at row ends that the content chooses.

Cut by the offset alone, one row that came or went in the middle would move every cut behind it. Here the end of a part
is looked for in a window around the size meant for it, and it is the end of the row with the least checksum in that
window. The same rows so give the same cuts wherever they lie: after a change the cuts are the old ones again within
a part or few, and the parts behind it can be referred to instead of being stored again.

Only the window, a quarter of a part, is ever looked at: about a second of processor for a gigabyte of
rows of 200 bytes.
"""

from __future__ import annotations

import mmap
import zlib

from drd.repository.chunking import MAX_PART_BYTES

_FIRST = 4
"""The first parts of a stream of rows are this much smaller than those of other streams: less is stored again.

Smaller still costs more than it saves: a put takes some 5 ms of processor, whatever its size.
"""
_DOUBLES_AT = 256
_MOST_DOUBLINGS = 4
_END_MARK = b"\\.\n\n\n"
"""What pg_dump writes behind the rows of a table (``dumpTableData_copy`` of its pg_dump.c)."""
_MARK_ALONE_FROM = 32
"""Rows of at least this fraction of the base, 256 KiB with the default, are stored without the mark."""
_PIECE_BYTES = 256 << 10
"""How much is split into rows at once, to bound what the rows as objects take."""


def row_window_at(offset: int, base_bytes: int) -> tuple[int, int]:
    """Return the least and the most plain size of the part that begins at ``offset`` of a stream of rows.

    With the default base of 8 MiB: about 2 MiB up to 512 MiB, then between 1/256 and 1/128 of the offset, up to about
    32 MiB from 4 GiB on; so a terabyte has some 30,500 parts, and the last ones, which growth changes, are less than
    one hundredth of the stream. Both bounds lie an eighth around that size; other bases scale alike.
    """
    first = max(1, base_bytes // _FIRST)
    doublings = min(_MOST_DOUBLINGS, max(0, (offset // (_DOUBLES_AT * first)).bit_length()))
    size = first << doublings
    return max(1, size - size // 8), min(MAX_PART_BYTES, size + size // 8)


def cut_after_row(buffer: mmap.mmap | bytes, least: int, most: int) -> int:
    """Return where to end the part at the start of ``buffer``: after a row, between ``least`` and ``most``.

    Of the rows that lie whole in there, it is the one with the least CRC-32, the first of equals. Without any, it is
    after the first row end in there, and ``most`` where there is none.
    """
    at, lowest = most, 1 << 32
    begin = buffer.find(b"\n", least, most) + 1
    if begin:
        at = begin
    while begin and begin < most:
        end = buffer.rfind(b"\n", begin, min(most, begin + _PIECE_BYTES)) + 1 or buffer.find(b"\n", begin, most) + 1
        if not end:
            break
        rows = buffer[begin:end].split(b"\n")
        rows.pop()  # what follows the last row end: nothing
        sums = list(map(zlib.crc32, rows))
        if (least_sum := min(sums)) < lowest:
            lowest = least_sum
            which = sums.index(least_sum) + 1
            at = begin + sum(map(len, rows[:which])) + which
        begin = end
    return at


def end_of_rows(buffer: mmap.mmap | bytes, filled: int, base_bytes: int) -> int:
    """Return the size of a stream's last part but for the mark behind its rows, which becomes a part of its own.

    Rows added the day after come before the mark: with it inside, the part could never be met again (see
    :mod:`drd.repository.tails`). Few rows are not worth one more object: then it is ``filled``, as without a mark.
    """
    rows = filled - len(_END_MARK)
    return rows if rows >= max(1, base_bytes // _MARK_ALONE_FROM) and buffer[rows:filled] == _END_MARK else filled
