"""What the daemon counts while it runs; the rest of its metrics is read from the store by the overview."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from drd.counts import Durations, StoreCounts
from drd.daemon.model import Job, JobRun
from drd.events import Delivery
from drd.model import Json

JOB_ENDS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning a source came to: kept by the last run, removed since the daemon runs, due and not removable."""

    kept: int
    removed: int
    blocked: int


@dataclass
class Tally:
    """All counts, since the daemon started."""

    runs: dict[tuple[str, str], int] = field(default_factory=dict)
    durations: dict[str, Durations] = field(default_factory=dict)
    pruned: dict[str, Pruned] = field(default_factory=dict)
    notified: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0})
    reloads: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0})
    leases_lost: int = 0
    answered_at: datetime | None = None


class Numbers:
    """Counts what it is told of; implements :class:`~drd.daemon.model.Listener`. Thread-safe.

    ``store`` counts what this process asks of the store; what jobs ask is added as they say it.
    """

    def __init__(self, store: StoreCounts) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._tally = Tally()

    def job_ended(self, run: JobRun) -> None:
        """Count a run and how long it took."""
        with self._lock:
            runs = self._tally.runs
            runs[run.kind, run.outcome] = runs.get((run.kind, run.outcome), 0) + 1
            held = self._tally.durations.setdefault(run.kind, Durations(ends_s=JOB_ENDS_S))
            held.add(run.duration_s)

    def job_said(self, job: Job, event: Mapping[str, Json]) -> None:  # noqa: ARG002 - the listener's signature
        """Add what a job counted; what is no count is passed over: a broken job must not end the daemon's listening."""
        match event:
            case {"event": "store", "counts": counts}:
                try:
                    self.store.add(counts)
                except ValueError:
                    return
            case {"event": "pruned", "source": str() as source, "kept": int() as kept, "removed": int() as removed,
                  "blocked": int() as blocked}:  # fmt: skip
                self.pruned(source, kept=kept, removed=max(removed, 0), blocked=blocked)

    def pruned(self, source: str, *, kept: int, removed: int, blocked: int) -> None:
        """Take note of what pruning a source came to."""
        with self._lock:
            before = self._tally.pruned.get(source, Pruned(0, 0, 0))
            self._tally.pruned[source] = Pruned(kept, before.removed + removed, blocked)

    def told(self, delivery: Delivery) -> None:
        """Count each receiver that was told, or not."""
        with self._lock:
            for peer in delivery.peers:
                self._tally.notified["ok" if peer.outcome == "ok" else "failed"] += 1

    def reloaded(self, *, ok: bool) -> None:
        """Count a reload of the configuration."""
        with self._lock:
            self._tally.reloads["ok" if ok else "failed"] += 1

    def store_answered(self, at: datetime) -> None:
        """Note when the store last answered."""
        with self._lock:
            self._tally.answered_at = at

    def leads(self, *, leader: bool, lost: bool = False) -> None:  # noqa: ARG002 - who leads stands on the board
        """Count a lease that was lost."""
        with self._lock:
            self._tally.leases_lost += lost

    def tally(self) -> Tally:
        """Return a copy of the counts."""
        with self._lock:
            now = self._tally
            return Tally(
                dict(now.runs),
                {
                    kind: Durations(held.seconds, list(held.buckets), held.ends_s)
                    for kind, held in now.durations.items()
                },
                dict(now.pruned),
                dict(now.notified),
                dict(now.reloads),
                now.leases_lost,
                now.answered_at,
            )
