"""Which part of a source is to be restored; a value, like those of :mod:`drd.model`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a source, to be restored alone: names as shell patterns (``*``, ``?``, ``[…]``).

    An empty field sets no bound, and fields narrow one another. ``tables`` are ``name`` or ``schema.name`` (in
    ClickHouse ``database.name``). ``keys`` are of Redis, in the pattern language of its SCAN.
    """

    databases: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.databases or self.schemas or self.tables or self.keys)


EVERYTHING = Selection()


def matches_any(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether one of the names of a thing matches one of the shell patterns, with regard to case."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def quoted(patterns: Iterable[str]) -> str:
    """Return patterns as an error names them: ``'orders', 'public.*'``."""
    return ", ".join(repr(pattern) for pattern in patterns)
