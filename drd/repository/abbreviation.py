"""Ids as people type them: whole, or a beginning or an end of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

MIN_CHARACTERS = 4
Named = TypeVar("Named")


def meant_by(text: str, candidates: Iterable[Named], id_of: Callable[[Named], str]) -> list[Named]:
    """Return the candidates that ``text`` may mean, in their order: none, one, or several.

    A candidate with just this id is meant before all whose id only begins or ends so, for which it takes four
    characters.
    """
    known = [(id_of(candidate), candidate) for candidate in candidates]
    if exact := [candidate for name, candidate in known if name == text]:
        return exact
    if len(text) < MIN_CHARACTERS:
        return []
    return [candidate for name, candidate in known if name.startswith(text) or name.endswith(text)]
