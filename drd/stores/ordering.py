"""Listing order: what S3 promises, also from stores that walk folders.

Amazon S3 lists by the UTF-8 bytes of the whole key, so ``a-b`` and ``a.b`` come before ``a/b``. Stores that keep
keys as folders (SeaweedFS 4.48, seen) list folder ``a`` first and descend into it. Source: observed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drd.model import ObjectInfo


def ascending(infos: Iterable[ObjectInfo], folder: str) -> Iterator[ObjectInfo]:
    """Yield ``infos`` ascending by key, when they arrive either so or in the order of a folder walk.

    ``folder`` is the part of the prefix up to its last slash. Entries are held back until no later one can come
    before them: in the worst case what one folder directly below ``folder`` holds is in memory at a time.
    """
    held: list[ObjectInfo] = []
    first = ""  # the first name directly below the folder among those held
    for info in infos:
        name = info.key[len(folder) :].partition("/")[0]
        if held and not _may_precede(name, first):
            yield from sorted(held, key=_key)
            held.clear()
        if not held:
            first = name
        held.append(info)
    yield from sorted(held, key=_key)


def _may_precede(name: str, first: str) -> bool:
    """Whether keys at ``name`` can sort before keys below the folder ``first`` though a walk shows them later."""
    return name == first or (name.startswith(first) and name[len(first)] < "/")


def walk_order(info: ObjectInfo) -> list[str]:
    """Sort key of a folder walk: a folder's entries directly follow its name."""
    return info.key.rstrip("/").split("/")


def _key(info: ObjectInfo) -> str:
    return info.key


def grouped(infos: Iterable[ObjectInfo], prefix: str) -> Iterator[ObjectInfo]:
    """Yield ascending ``infos`` with everything below the first slash after ``prefix`` as one entry of size 0."""
    last = ""
    for info in infos:
        head, slash, _ = info.key[len(prefix) :].partition("/")
        if not slash:
            yield info
        elif (common := f"{prefix}{head}/") != last:
            last = common
            yield ObjectInfo(common, 0)
