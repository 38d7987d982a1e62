"""The shape of ``incremental``: when a backup builds on the one before it, in general and for one source."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Protocol, TypeAlias

from pydantic import Field

from drd.config_values import Count, Duration, Section

MaxChain: TypeAlias = Annotated[Count, Field(ge=0, le=1000)]


class ChainKeys(Protocol):
    """A source with keys of its own; None where it has none."""

    @property
    def full_every(self) -> timedelta | None:
        """Return its own period."""

    @property
    def max_chain(self) -> int | None:
        """Return its own limit."""


class IncrementalConfig(Section):
    """When a backup builds on the one before it: parts that did not change are referred to, not stored again."""

    full_every: Duration = Field(
        default=timedelta(days=7), description="A full backup is taken when the last full one is this old."
    )
    max_chain: MaxChain = Field(
        default=24, description="How many incremental backups may stand on one full backup; 0: every backup is full."
    )

    def of(self, source: ChainKeys) -> tuple[float, int]:
        """Return the seconds after which a full backup of a source is due, and how many may stand on one."""
        full_every = self.full_every if source.full_every is None else source.full_every
        return full_every.total_seconds(), self.max_chain if source.max_chain is None else source.max_chain
