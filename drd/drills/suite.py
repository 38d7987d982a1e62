"""What a drill is to do and to check: values only; files are read by the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from drd.model import Cell, EngineKind, Question

Selection = Literal["latest", "random", "oldest", "longest-chain"]
SELECTIONS: tuple[Selection, ...] = ("latest", "random", "oldest", "longest-chain")
Comparison = Literal["equals", "not_equals", "at_least", "at_most", "above", "below", "no_rows", "rows", "within"]

GIB = 1 << 30
DEFAULT_TIME_S = 3600.0
DEFAULT_NAME = "default"
"""The drill that runs where none is configured: all sources, their latest backups, the checks that all drills make."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an answer must be: its single value compared, no rows at all, exactly these rows, or a time not long ago.

    ``within`` compares with the drill's start, in seconds; None stands for the drill's RPO objective.
    """

    comparison: Comparison
    value: Cell = None
    rows: tuple[tuple[Cell, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class SuiteCheck:
    """One check of a suite: a question with what is expected, or a command that must end with 0.

    ``newest``: the time it answers is that of the newest recovered data, from which the RPO is counted.
    """

    name: str
    question: Question | None = None
    expectation: Expectation | None = None
    command: tuple[str, ...] = ()
    newest: bool = False


@dataclass(frozen=True, slots=True)
class Objectives:
    """How long a recovery may take and how old its data may be; ``strict`` lets a drill fail that is over one."""

    rto_s: float | None = None
    rpo_s: float | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Budgets:
    """What one run may use: time from start to verdict, bytes fetched, disk of the scratch server."""

    time_s: float = DEFAULT_TIME_S
    fetched_bytes: int | None = None
    disk_bytes: int = 100 * GIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the scratch server; ``image`` overrides the runtime's choice, by engine."""

    memory_bytes: int = 2 * GIB
    cpus: float = 2.0
    pids: int = 1024
    images: dict[EngineKind, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suite:
    """Checks by source name and by kind of database. ``show_rows`` allows row data in reports."""

    by_source: dict[str, tuple[SuiteCheck, ...]] = field(default_factory=dict)
    by_engine: dict[EngineKind, tuple[SuiteCheck, ...]] = field(default_factory=dict)
    show_rows: bool = False
    origin: str = ""

    def checks(self, source: str, engine: EngineKind) -> tuple[SuiteCheck, ...]:
        """Return what is to be checked of a source, the general ones first."""
        return (*self.by_engine.get(engine, ()), *self.by_source.get(source, ()))


@dataclass(frozen=True, slots=True)
class Drill:
    """One configured drill. It names sources and how their backups are chosen; it cannot name a target."""

    name: str
    sources: tuple[str, ...]
    select: tuple[Selection, ...] = ("latest",)
    suite: Suite = field(default_factory=Suite)
    objectives: Objectives = field(default_factory=Objectives)
    budgets: Budgets = field(default_factory=Budgets)
    limits: Limits = field(default_factory=Limits)
