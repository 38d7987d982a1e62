"""When daemons were up, led and worked in a storm, read from their logs: who had the chance to do what it did not do?

Times are seconds of the wall clock, spans pairs of them, ascending and apart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

Span: TypeAlias = tuple[float, float]


@dataclass
class DaemonLife:
    """One process of a daemon: its log, when the storm ended it (None: not yet) and while it was suspended."""

    which: int
    log: Path
    ended_at: float | None = None
    stops: list[Span] = field(default_factory=list)

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What it logged, with ``at`` as seconds; its last line may be half a line."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                event = json.loads(line)
                found.append({**event, "at": datetime.fromisoformat(event["timestamp"]).timestamp()})
        return found

    @property
    def _end(self) -> float:
        return self.ended_at or time.time()

    @property
    def up(self) -> list[Span]:
        """While it could have led: from when it had started to when it was hit, without the time it was suspended."""
        begun = [event["at"] for event in self.events if event["event"] == "daemon.started"]
        return minus([(begun[0], self._end)] if begun and begun[0] < self._end else [], self.stops)

    @property
    def led(self) -> list[Span]:
        """While it led and could plan."""
        spans: list[Span] = []
        since: float | None = None
        for event in self.events:
            if event["event"] == "leader.gained" and since is None:
                since = event["at"]
            elif event["event"] in {"leader.lost", "config.reloaded"} and since is not None:
                spans.append((since, event["at"]))
                since = None
        if since is not None:
            spans.append((since, self._end))
        return minus([(a, min(b, self._end)) for a, b in spans if a < self._end], self.stops)

    def busy(self, source: str) -> list[Span]:
        """While it worked on a source: nobody begins anew there."""
        spans: list[Span] = []
        begun: dict[str, float] = {}
        for event in self.events:
            if event.get("source") == source and event["event"] == "job.started":
                begun[event["job"]] = event["at"]
            elif event.get("source") == source and event["event"] == "job.ended" and event["job"] in begun:
                spans.append((begun.pop(event["job"]), event["at"]))
        return spans + [(at, max(at, self._end)) for at in begun.values()]


def leaderless_s(lives: Iterable[DaemonLife]) -> float:
    """Return for how long daemons were up, at most, before one of them led (again)."""
    all_lives = list(lives)
    return _longest_between([s for life in all_lives for s in life.led], [s for life in all_lives for s in life.up])


def idle_s(lives: Iterable[DaemonLife], source: str) -> float:
    """Return for how long there was a leader, at most, before somebody worked on the source (again)."""
    all_lives = list(lives)
    return _longest_between(
        [s for life in all_lives for s in life.busy(source)], [s for life in all_lives for s in life.led]
    )


def _longest_between(done: Iterable[Span], chances: Iterable[Span]) -> float:
    """Return how much of the chances lies between two deeds, before the first or after the last, at most."""
    apart = union(done)
    edges = [(float("-inf"), float("-inf")), *apart, (float("inf"), float("inf"))]
    could = union(chances)
    gaps = [(before[1], after[0]) for before, after in pairwise(edges)]
    return max(sum(max(min(b, d) - max(a, c), 0.0) for a, b in could) for c, d in gaps)


def union(spans: Iterable[Span]) -> list[Span]:
    """Join those that touch."""
    out: list[Span] = []
    for a, b in sorted(spans):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def minus(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """Cut some spans out of others."""
    out = list(spans)
    for c, d in taken:
        out = [piece for a, b in out for piece in ((a, min(b, c)), (max(a, d), b)) if piece[0] < piece[1]]
    return out
