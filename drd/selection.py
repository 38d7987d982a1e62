"""Which part of a source is to be restored; a value, like those of :mod:`drd.model`."""

from __future__ import annotations

from dataclasses import dataclass


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
