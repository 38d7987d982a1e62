"""Run the same work for several sources at once, so that one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_AT_ONCE = 4


def side_by_side(items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
    """Return ``work(item)`` for each item, in the items' order; at most four run at once.

    ``work`` is expected to turn its own errors into results; one that escapes is a bug and is raised here.
    """
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(len(items), MAX_AT_ONCE), thread_name_prefix="drd-source") as pool:
        return list(pool.map(work, items))
