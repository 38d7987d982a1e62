"""Listing order is S3's, whatever the order in which a store finds its keys."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from drd.model import ObjectInfo
from drd.protocols import Store
from drd.stores.local import LocalStore
from drd.stores.memory import MemoryStore
from drd.stores.ordering import ascending, walk_order

NAMES = st.text(alphabet="ab-.!0é", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
KEYS = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), unique=True, max_size=25)


def without_nesting(keys: list[str]) -> list[str]:
    """Leave out keys that lie below another, which a directory cannot hold."""
    return [key for key in keys if not any(key.startswith(f"{other}/") for other in keys)]


def infos(keys: list[str]) -> list[ObjectInfo]:
    """Make listing entries."""
    return [ObjectInfo(key, 1) for key in keys]


@given(KEYS)
def test_walk_order_becomes_key_order(keys: list[str]) -> None:
    """What a store lists folder by folder comes out by code point."""
    walked = sorted(infos(keys), key=walk_order)
    assert [info.key for info in ascending(walked, "")] == sorted(keys)


@given(KEYS)
def test_key_order_stays(keys: list[str]) -> None:
    """What a store lists by code point comes out as it is."""
    assert [info.key for info in ascending(infos(sorted(keys)), "")] == sorted(keys)


@given(KEYS, st.integers(1, 4))
def test_pages_that_mix_both_orders(keys: list[str], page: int) -> None:
    """Pages of folders and objects, each page in walk order while the pages follow by key, come out by code point."""
    top = sorted({key if "/" not in key else f"{key.split('/')[0]}/" for key in keys})
    paged = [info for at in range(0, len(top), page) for info in sorted(infos(top[at : at + page]), key=walk_order)]
    assert [info.key for info in ascending(paged, "")] == top


def test_holds_back_no_more_than_it_must() -> None:
    """Entries of a folder are passed on as soon as the next name cannot sort before them."""
    asked: list[str] = []

    def source() -> list[ObjectInfo]:
        return infos(["p/a/1", "p/a/2", "p/a-/1", "p/b/1", "p/c/1"])

    def watched() -> object:
        for info in source():
            asked.append(info.key)
            yield info

    found = ascending(watched(), "p/")  # type: ignore[arg-type]
    assert next(found).key == "p/a-/1"
    assert asked == ["p/a/1", "p/a/2", "p/a-/1", "p/b/1"]


@settings(max_examples=60, deadline=None)
@given(KEYS, st.sampled_from(["", "a", "a/", "a-", "-/", "b/a", "0"]))
def test_local_lists_as_memory(keys: list[str], prefix: str) -> None:
    """A directory lists what a dictionary lists, deep and with delimiter, before and after deletions."""
    keys = without_nesting(keys)
    with tempfile.TemporaryDirectory(prefix="drd-order-") as folder:
        stores: list[Store] = [LocalStore(Path(folder)), MemoryStore()]
        for store in stores:
            for key in keys:
                store.put(key, b"x")
        for round_ in range(2):
            for delimiter in ("", "/"):
                local, memory = ([i.key for i in s.list(prefix, delimiter=delimiter)] for s in stores)
                assert local == memory
                assert all(left < right for left, right in pairwise(local))
            if round_ == 0:
                for store in stores:
                    store.delete(keys[::2])
