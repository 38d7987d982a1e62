"""The last 30 days of a source, drawn: what was backed up, what a drill proved, what failed, and where nothing is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from markupsafe import Markup

from drd import wording
from drd.daemon.model import JobRun, SourceView
from drd.daemon.web.drawing import drawn, label_of, percent
from drd.drills.report import DrillRun

DAYS = 30
_SPAN = timedelta(days=DAYS)
_SLOTS = 180
_UNIT = 4  # of drawing to a slot: a mark and the space behind it
_WIDTH = _SLOTS * _UNIT
_HEIGHT = 40
_MARKS_Y, _DRILLS_Y = 13, 33
_LEVELS = ("", "gone", "incremental", "full")
_GONE, _INCREMENTAL, _FULL = 1, 2, 3
_RUNS = re.compile(rb"\x01+|\x02+|\x03+")
_PATIENCE, _GRACE = 1.25, timedelta(minutes=15)
"""A backup is missing when the planned time between two is over by a quarter and this."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a backup was planned and none was made; ``open`` when it lasts."""

    start: datetime
    end: datetime
    open: bool = False

    @property
    def length_s(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds()


@dataclass(frozen=True, slots=True)
class Strip:
    """The drawing, and the same in words."""

    svg: Markup
    words: str


def strip(view: SourceView, holes: Sequence[Gap], now: datetime) -> Strip:
    """Draw a source's last 30 days, its gaps among them. Its size does not grow with the number of what it shows."""
    start = now - _SPAN
    runs = [run for job in view.jobs if job.job.kind == "backup" for run in job.runs]
    levels = _levels(view, runs, start, now)
    failed = [run for run in runs if run.outcome == "failed" and start <= run.started_at <= now]
    drills = [run for run in view.drills if start <= _proved(run) <= now]
    words = _words(view, holes, failed, drills, start, now)
    newest, latest = view.status.newest, view.status.last_drill
    since = newest.recovery_point if newest else start
    attempts = (("attempt now" if run.started_at > since else "attempt", run.started_at) for run in failed)
    proofs = ((f"{run.verdict}{' now' if latest and run.id == latest.id else ''}", _proved(run)) for run in drills)
    drawing = _marks(levels) + "".join(_gap(hole, start) for hole in holes)
    label = label_of(f"The last {DAYS} days of {view.name}: {words}")
    svg = drawn(
        f'<svg class="strip" width="100%" height="{_HEIGHT}" role="img" aria-label="{label}">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" width="100%" height="{_HEIGHT}">'
        f'<path class="ground" d="M0 23.5H{_WIDTH}"/>{drawing}</svg>'
        f"{_uses(attempts, _MARKS_Y, start)}{_uses(proofs, _DRILLS_Y, start)}</svg>"
    )
    return Strip(svg, words)


def gaps(view: SourceView, now: datetime) -> tuple[Gap, ...]:
    """Return where backups were planned and none was made in the last 30 days, oldest first.

    What was made and removed since is no gap. Before the jobs' history begins nobody knows: the past holds no gap
    then, but what follows the newest backup does, as that is never removed.
    """
    if view.longest_gap_s is None:
        return ()
    start, allowed = now - _SPAN, timedelta(seconds=view.longest_gap_s) * _PATIENCE + _GRACE
    jobs = [job for job in view.jobs if job.job.kind == "backup" and job.runs]
    known_since = max(start, min((job.runs[-1].planned_at for job in jobs), default=now))
    held = {head.id for head in view.backups}
    made = {head.recovery_point for head in view.backups}
    made |= {run.started_at for job in jobs for run in job.runs if run.backup and run.backup not in held}
    times = sorted(at for at in made if at <= now)
    wide = [(before, after) for before, after in pairwise(times) if after - before > allowed]
    found = [Gap(max(a, known_since), b) for a, b in wide if b - max(a, known_since) > allowed]
    if times and now - times[-1] > allowed:
        found.append(Gap(max(times[-1], start), now, open=True))
    if not times and now - known_since > allowed:
        found.append(Gap(known_since, now, open=True))
    return tuple(found)


def _levels(view: SourceView, runs: Sequence[JobRun], start: datetime, now: datetime) -> bytearray:
    """Return the best of what lies in each slot, as an index of :data:`_LEVELS`."""
    levels, slot = bytearray(_SLOTS), _SPAN / _SLOTS
    ids = {head.id for head in view.backups}
    for head in view.backups:
        if start <= head.recovery_point < now:
            index = int((head.recovery_point - start) / slot)
            if levels[index] != _FULL:
                levels[index] = _FULL if head.kind == "full" else _INCREMENTAL
    for run in runs:
        if run.backup and start <= run.started_at < now and run.backup not in ids:
            index = int((run.started_at - start) / slot)
            levels[index] = levels[index] or _GONE
    return levels


def _marks(levels: bytearray) -> str:
    """Draw slots as dashes of one line for each unbroken run of a kind: few bytes however many there are."""
    paths: dict[int, str] = {}
    ends: dict[int, int] = {}
    for run in _RUNS.finditer(levels):
        level, start, end = run[0][0], run.start() * _UNIT, run.end() * _UNIT
        if level in ends:
            paths[level] += f"m{start - ends[level]} 0h{end - start}"
        else:
            paths[level] = f"M{start} {13 if level == _FULL else 17}h{end - start}"
        ends[level] = end
    return "".join(f'<path class="{_LEVELS[level]}" d="{path}"/>' for level, path in sorted(paths.items()))


def _gap(hole: Gap, start: datetime) -> str:
    left, right = ((at - start) / _SPAN * _WIDTH for at in (hole.start, hole.end))
    left = min(left + (_UNIT if right - left > 3 * _UNIT else 0), right - 2)  # beside the mark of the backup before it
    name = "gap now" if hole.open else "gap"
    return f'<rect class="{name}" x="{left:.1f}" y="4" width="{right - left:.1f}" height="18"/>'


def _proved(run: DrillRun) -> datetime:
    return run.recovery_point or run.started_at


def _uses(marks: Iterable[tuple[str, datetime]], y: int, start: datetime) -> str:
    """Place named marks, at most one to a slot: the first that is given stays."""
    places: dict[int, tuple[str, float]] = {}
    for names, at in marks:
        share = (at - start) / _SPAN
        places.setdefault(int(share * _SLOTS), (names, share))
    return "".join(
        f'<use href="#{names.split()[0]}" class="{names}" x="{percent(share)}" y="{y}"/>'
        for names, share in places.values()
    )


def _words(
    view: SourceView,
    holes: Sequence[Gap],
    failed: Sequence[JobRun],
    drills: Sequence[DrillRun],
    start: datetime,
    now: datetime,
) -> str:
    held = sum(start <= head.recovery_point <= now for head in view.backups)
    passed = sum(run.verdict == "passed" for run in drills)
    parts = [wording.plural(held, "backup") if held else "no backup"]
    if drills:
        parts.append(f"{passed} of {wording.plural(len(drills), 'drill')} passed")
    if failed:
        parts.append(wording.plural(len(failed), "failed attempt"))
    if holes:
        longest = wording.span(max(hole.length_s for hole in holes))
        parts.append(f"1 gap of {longest}" if len(holes) == 1 else f"{len(holes)} gaps, the longest {longest}")
    return ", ".join(parts)
