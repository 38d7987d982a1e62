"""What the page says of each source, ready to be laid out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from markupsafe import Markup

from drd import wording
from drd.daemon.model import Board, JobView, SourceView
from drd.daemon.web.drawing import bar, sparkline
from drd.daemon.web.strip import Gap, Strip, strip
from drd.drills.report import DrillRun
from drd.ops.coverage import coverage_words
from drd.ops.status import SourceStatus
from drd.repository.oddness import is_whole

RowTone = Literal["act", "look", "well"]
Tone = Literal["", "act", "look"]
ENGINES = {"postgres": "PostgreSQL", "redis": "Redis", "clickhouse": "ClickHouse"}
MARKS = {"act": "✗", "look": "!", "well": "✓"}
VERDICT_MARKS = {"passed": "✓", "failed": "✗", "unverified": "?"}
VERDICT_TONES: dict[str, Tone] = {"passed": "", "failed": "act", "unverified": "look"}
_TREND = 30


@dataclass(frozen=True, slots=True)
class Cell:
    """Words with a second, quieter line; ``tone`` colours them, and ``mark`` says the same without colour."""

    text: str
    note: str = ""
    mark: str = ""
    tone: Tone = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A source: the cells of its line, its drawings, and how to restore it (empty where there is nothing)."""

    name: str
    engine: str
    tone: RowTone
    configured: bool
    newest: Cell
    rpo: Cell
    size: Cell
    spark: Markup
    next_run: Cell
    drill: Cell
    strip: Strip
    window: Cell
    window_bar: Markup
    storage: Cell
    storage_bar: Markup
    stored_bytes: int
    command: str
    command_note: str
    laid_out: dict[str, Markup] = field(default_factory=dict, compare=False)
    """What the templates made of parts of it, which they do once."""


def rows(
    views: Sequence[SourceView],
    board: Board | None,
    tones: Mapping[str, Literal["act", "look"]],
    holes: Mapping[str, Sequence[Gap]],
    now: datetime,
    make: Make,
) -> list[Row]:
    """Return a row for each source: those of ``tones`` first, in its order, then the others as they are given.

    ``holes`` are the gaps of each source; ``make`` is :func:`row_of`, or gives what that made before.
    """
    starts = [start for view in views if (start := window_start(view)) is not None]
    scale = Scale(
        start=min(starts, default=now),
        end=now,
        most=max((stored(view) for view in views), default=0),
    )
    first = {name: rank for rank, name in enumerate(tones)}
    ordered = sorted(views, key=lambda view: first.get(view.name, len(first)))
    return [make(view, board, tones.get(view.name, "well"), scale, holes[view.name], now) for view in ordered]


@dataclass(frozen=True, slots=True)
class Scale:
    """What the bars of all sources are drawn to: a time from ``start`` to ``end``, ``most`` bytes."""

    start: datetime
    end: datetime
    most: int

    def share(self, at: datetime) -> float:
        """Return where a time lies, from 0 to 1."""
        length_s = (self.end - self.start).total_seconds()
        return (at - self.start).total_seconds() / length_s if length_s > 0 else 0.0


Make: TypeAlias = Callable[[SourceView, Board | None, RowTone, Scale, Sequence[Gap], datetime], Row]
"""Makes the row of a source, with its tone and gaps, to a scale, as of a time."""


def window_start(view: SourceView) -> datetime | None:
    """Return the earliest time that can be restored."""
    oldest = view.status.oldest
    return None if oldest is None else min(oldest.recovery_point, oldest.window_start or oldest.recovery_point)


def stored(view: SourceView) -> int:
    """Return what the backups of a source take in the store."""
    return sum(head.stored_bytes for head in view.backups)


def row_of(
    view: SourceView, board: Board | None, tone: RowTone, scale: Scale, holes: Sequence[Gap], now: datetime
) -> Row:
    """Return the row of one source."""
    status, newest = view.status, view.status.newest
    whole = [head.plain_bytes for head in view.backups if is_whole(head)][-_TREND:]
    trend = (
        f"Data in the last {len(whole)} backups: {wording.size(min(whole))} to {wording.size(max(whole))}"
        if whole
        else ""
    )
    window, window_bar = _window(view, scale)
    command, note = _command(view)
    share = stored(view) / scale.most if scale.most else 0.0
    held = wording.size(stored(view)) if view.backups else "nothing"
    covered = coverage_words(status.coverage) if status.coverage.read_bytes or status.coverage.unknown else ""
    return Row(
        name=view.name,
        engine=ENGINES.get(view.engine, view.engine),
        tone=tone,
        configured=status.configured,
        newest=_newest(view, now),
        rpo=_rpo(view, now),
        size=Cell("–")
        if newest is None
        else Cell(
            wording.size(newest.plain_bytes),
            f"{wording.size(newest.stored_bytes)} stored",
        ),
        spark=sparkline(whole, trend),
        next_run=next_cell([job for job in view.jobs if job.job.kind == "backup"], board, now),
        drill=_last_drill(status, now),
        strip=strip(view, holes, now),
        window=window,
        window_bar=window_bar,
        storage=Cell(held, covered),
        storage_bar=bar(0, share, f"{view.name}: {held} stored") if view.backups else Markup(),
        stored_bytes=stored(view),
        command=command,
        command_note=note,
    )


def _newest(view: SourceView, now: datetime) -> Cell:
    newest = view.status.newest
    if newest is None:
        return Cell("none", mark="✗" if view.status.configured else "", tone="act" if view.status.configured else "")
    return Cell(wording.ago(newest.recovery_point, now), wording.when(newest.recovery_point), at=newest.recovery_point)


def _rpo(view: SourceView, now: datetime) -> Cell:
    status = view.status
    if status.rpo_s is None:
        return Cell("not set")
    limit = wording.span(status.rpo_s)
    if status.newest is None:
        return Cell(f"over {limit}", "no backup", "✗", "act")
    age_s = (now - status.newest.recovery_point).total_seconds()
    if status.within_rpo:
        return Cell(f"within {limit}", "", "✓")
    return Cell(f"over {limit}", f"by {wording.span(age_s - status.rpo_s)}", "✗", "act")


def next_cell(jobs: Sequence[JobView], board: Board | None, now: datetime) -> Cell:
    """Say what comes next of these jobs: what runs, what is tried again, when the schedule has it."""
    running = next((job for job in jobs if job.running_since), None)
    if running is not None and running.running_since:
        share = "" if running.progress is None else f" {100 * running.progress:.0f} %"
        note = f"for {wording.span((now - running.running_since).total_seconds())}"
        return Cell(f"running{share}", f"{running.phase}, {note}" if running.phase else note)
    if not jobs:
        return Cell("not scheduled")
    planned = [job for job in jobs if job.next_run_at]
    if board is not None and board.paused:
        return Cell("paused", mark="!", tone="look")
    if not planned:
        return Cell("none planned" if board is None or board.leader else "by the leader")
    first = min(planned, key=lambda job: (job.next_run_at is None, job.next_run_at))
    at = first.next_run_at
    late = at is not None and at < now
    note = "tried again, as it failed" if first.retry else f"schedule {first.job.schedule}"
    return Cell("due now" if late else wording.ago(at, now), note, at=at)


def _last_drill(status: SourceStatus, now: datetime) -> Cell:
    if status.last_drill is None and status.drills_unread:
        return Cell("not known")
    return drill_cell(status.last_drill, now) if status.last_drill or status.configured else Cell("never")


def drill_cell(run: DrillRun | None, now: datetime) -> Cell:
    """Say how the last drill went, when, and how long the recovery took."""
    if run is None:
        return Cell("never", mark="!", tone="look")
    took = f"in {wording.span(run.rto_s)}" if run.verdict == "passed" else ""
    text = f"{run.verdict} {wording.ago(run.finished_at, now)}"
    return Cell(text, took, VERDICT_MARKS[run.verdict], VERDICT_TONES[run.verdict], run.finished_at)


def _window(view: SourceView, scale: Scale) -> tuple[Cell, Markup]:
    start, newest, status = window_start(view), view.status.newest, view.status
    if start is None or newest is None:
        return Cell("nothing to restore"), Markup()
    length = wording.span((newest.recovery_point - start).total_seconds())
    proven = _proven(view.drills)
    text = f"{length}, {wording.plural(status.backups, 'backup')}"
    note = f"from {start:%Y-%m-%d}"
    label = f"{view.name}: recoverable from {wording.when(start)} to {wording.when(newest.recovery_point)}"
    mark = scale.share(proven) if proven is not None and proven >= start else None
    return Cell(text, note), bar(scale.share(start), scale.share(newest.recovery_point), label, mark=mark)


def _proven(drills: Iterable[DrillRun]) -> datetime | None:
    """Return the newest state that a drill proved."""
    points = (run.recovery_point for run in drills if run.verdict == "passed" and run.recovery_point)
    return max(points, default=None)


def _command(view: SourceView) -> tuple[str, str]:
    newest = view.status.newest
    if newest is None:
        return "", ""
    words = ["drd", "restore", "--at", wording.point(newest.recovery_point), "--source", view.name]
    if not view.status.configured:
        return shlex.join(
            [*words, "--into", f"./{view.name}"]
        ), "writes its files into a folder, as no server of it is configured"
    return shlex.join(words), ""
