"""What the catalog says of backups: values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from drd.model import Backup, BackupHead

Content = TypeVar("Content", bound=BackupHead)
Content_co = TypeVar("Content_co", bound=BackupHead, covariant=True)


@dataclass(frozen=True)
class Entry(Generic[Content_co]):
    """One backup: what its manifest says, or the ``problem`` with the manifest. Exactly one of both is set.

    ``distrusted`` is what a well-formed manifest says that does not count, since nobody who is believed signed it.
    """

    source: str
    id: str
    backup: Content_co | None
    problem: str | None
    distrusted: Content_co | None = None

    @property
    def claimed(self) -> Content_co | None:
        """What the manifest says, believed or not: for references that must not be broken, never for a restore."""
        return self.backup or self.distrusted


CatalogEntry: TypeAlias = Entry[Backup]
"""An entry whose manifest was read whole and checked by its digest."""
HeadEntry: TypeAlias = Entry[BackupHead]
"""An entry of which the head was read: to list, and to choose what is then read whole before it is used."""


@dataclass(frozen=True, slots=True)
class Survey:
    """All that lies in one source's folder: its backups by id, and the ids that are ``unfinished``."""

    entries: tuple[HeadEntry, ...]
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep removed; ``kept`` are unfinished ids that a backup refers to, or may refer to."""

    ids: tuple[str, ...]
    objects: int
    bytes: int
    kept: tuple[str, ...] = ()
