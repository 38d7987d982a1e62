"""The drill runs of a repository, kept in memory: each report is read once, and most of it forgotten again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from drd.drills.history import History, Place, RecordedRun
from drd.drills.report import DrillRun
from drd.model import Notice
from drd.repository.layout import backup_time

DAYS_KEPT = 35
RUNS_KEPT = 60
"""Of one source in one drill."""
_NEWEST_OF_A_DRILL = 250
"""Read however old they are: a drill that has long not run shall be seen to have."""
_READS_A_TURN = 400
_LISTED_WHOLE_EVERY = timedelta(hours=1)
_FINDINGS_KEPT = 3


class WarmDrills:
    """What is known of drill runs; used by one thread at a time.

    Of the newest run of a source in a drill all is kept; of older ones the numbers, and at most three findings that
    did not pass. Reports that nobody trusted signed count for nothing, where signatures are demanded.
    """

    def __init__(self) -> None:
        self._runs: dict[Place, DrillRun | None] = {}  # None: read, and of no use
        self._wanted: list[Place] = []
        self._listed_at: datetime | None = None
        self._unusable: dict[Place, str] = {}

    def refresh(self, history: History, drills: Collection[str], now: datetime) -> None:
        """List what is new, and read at most a few hundred reports of it, newest first; the next turn goes on.

        ``drills`` are looked at for new runs each time, all there are once an hour. Raises store errors; what was
        read until then is kept.
        """
        if self._listed_at is None or not timedelta(0) <= now - self._listed_at < _LISTED_WHOLE_EVERY:
            self._wanted = _worth_reading(history.places(), now)
            self._listed_at = now
            wanted = set(self._wanted)
            self._runs = {place: run for place, run in self._runs.items() if place in wanted}
            self._unusable = {place: why for place, why in self._unusable.items() if place in wanted}
        else:
            known = set(self._wanted)
            for drill in drills:
                for day in (now - timedelta(days=1), now):
                    self._wanted += [p for p in history.places(drill, day=day.date()) if p not in known]
        unread = sorted((place for place in self._wanted if place not in self._runs), key=_by_time, reverse=True)
        asked = unread[:_READS_A_TURN]
        for found in history.read_all(asked):
            self._take(found, believed=history.is_believed(found))
        for place in asked:
            self._runs.setdefault(place, None)  # it is gone
        self._forget()

    def newest_first(self) -> tuple[DrillRun, ...]:
        """Return the runs that are kept, latest first."""
        runs = (run for run in self._runs.values() if run is not None)
        return tuple(sorted(runs, key=lambda run: (run.started_at, run.id), reverse=True))

    def notices(self) -> tuple[Notice, ...]:
        """Say which reports count for nothing."""
        if not self._unusable:
            return ()
        place, why = max(self._unusable.items(), key=lambda item: item[0][1])
        text = f"{len(self._unusable)} drill reports count for nothing, the newest is {place[0]} {place[1]}: {why}"
        return (Notice("drill-reports-unusable", text),)

    def _take(self, found: RecordedRun, *, believed: bool) -> None:
        place = (found.drill, found.id)
        if found.run is None or not believed:
            self._unusable[place] = found.problem or "is not signed by a trusted key"
            self._runs[place] = None
        else:
            self._runs[place] = found.run

    def _forget(self) -> None:
        """Keep the numbers of all but the newest run of each source in each drill, not too many, and the last proof."""
        seen: dict[tuple[str, str], int] = {}
        passed: set[tuple[str, str]] = set()
        for run in self.newest_first():
            key = (run.drill, run.source)
            seen[key] = seen.get(key, 0) + 1
            last_proof = run.verdict == "passed" and key not in passed
            if run.verdict == "passed":
                passed.add(key)
            if seen[key] > RUNS_KEPT and not last_proof:
                self._runs[(run.drill, run.id)] = None
            elif seen[key] > 1 and (run.environment or len(run.checks) > _FINDINGS_KEPT):
                self._runs[(run.drill, run.id)] = _slim(run)


def _worth_reading(places: Iterable[Place], now: datetime) -> list[Place]:
    """Return the newest of each drill, and all of the last weeks; ``places`` come newest first."""
    count: dict[str, int] = {}
    out: list[Place] = []
    oldest = now - timedelta(days=DAYS_KEPT)
    for drill, run_id in places:
        count[drill] = count.get(drill, 0) + 1
        if count[drill] <= _NEWEST_OF_A_DRILL or backup_time(run_id) >= oldest:
            out.append((drill, run_id))
    return out


def _by_time(place: Place) -> str:
    return place[1]


def _slim(run: DrillRun) -> DrillRun:
    telling = tuple(check for check in run.checks if check.outcome not in {"passed", "skipped"})
    return replace(run, checks=telling[:_FINDINGS_KEPT], environment={}, chain=())
