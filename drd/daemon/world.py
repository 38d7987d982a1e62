"""What one validated configuration means to the daemon; a reload replaces it as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from drd.daemon.model import Plan
from drd.daemon.overview import Watched
from drd.daemon.planning import Rules
from drd.daemon.web.settings import WebSettings
from drd.model import Json, Notice
from drd.ops.ports import Ports
from drd.protocols import Notifier


@dataclass(frozen=True, kw_only=True)
class World:
    """All that the daemon needs, and no configuration.

    ``watched`` are the configured sources, ``drills`` the names of the drills, ``drilled`` the sources of each one that
    has times. ``argv`` starts the process of a job, in
    ``environ``, with ``folder`` for its temporary files (None: the system's); ``request`` makes what it is told.
    ``look_at_folder`` says what is wrong with that folder now, if anything. ``web`` says where and to whom it shows
    itself. ``close`` releases the store.
    """

    plans: tuple[Plan, ...]
    rules: Rules
    concurrency: int
    grace_s: float
    heartbeat_s: float
    lease_ttl_s: float
    ports: Ports
    notifier: Notifier
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path | None
    watched: tuple[Watched, ...]
    drills: tuple[str, ...]
    request: Callable[[Plan], Mapping[str, Json]]
    configured_at: datetime
    close: Callable[[], None]
    web: WebSettings = field(default_factory=WebSettings)
    notices: tuple[Notice, ...] = ()
    drilled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    look_at_folder: Callable[[], Notice | None] = lambda: None

    def engine_of(self, source: str) -> str | None:
        """Return the kind of a configured source, None for any other."""
        return next((item.engine for item in self.watched if item.name == source), None)

    def plan_of(self, job: str) -> Plan | None:
        """Return the plan of a job by its name."""
        return next((plan for plan in self.plans if plan.job.name == job), None)
