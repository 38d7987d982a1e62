"""Buffers that are used again."""

from __future__ import annotations

from drd.repository.buffers import BufferPool


def test_a_buffer_is_used_again_when_its_size_fits() -> None:
    """What is given back is lent again, and only for its own size."""
    pool = BufferPool(100)
    first = pool.take(60)
    first[:3] = b"abc"
    pool.give_back(first)
    assert pool.take(50) is not first
    assert pool.take(60) is first


def test_no_more_is_kept_than_allowed() -> None:
    """The buffers given back longest ago are closed first; a closed pool keeps none."""
    pool = BufferPool(100)
    lent = [pool.take(40) for _ in range(4)]
    for buffer in lent:
        pool.give_back(buffer)
    assert [buffer.closed for buffer in lent] == [True, True, False, False]
    last = pool.take(7)
    pool.close()
    pool.give_back(last)
    assert all(buffer.closed for buffer in (*lent, last))
