"""The page's lists of drill runs and of jobs, ready to be laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from drd import wording
from drd.daemon.model import Board, JobView
from drd.daemon.web.rows import VERDICT_MARKS, VERDICT_TONES, Cell, Tone, next_cell
from drd.drills.report import DrillRun
from drd.ops.remarks import why

_OUTCOMES = {
    "ok": ("went well", "✓"),
    "partial": ("done in part", "!"),
    "failed": ("failed", "✗"),
    "cancelled": ("was cancelled", "!"),
    "skipped": ("was skipped", "·"),
}


@dataclass(frozen=True, slots=True)
class DrillRow:
    """A run, where its report is, and how it compares with its objectives."""

    run: DrillRun
    link: str
    verdict: Cell
    rto: Cell
    rpo: Cell
    why: str


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job: what comes next, how the last attempt went, what it said when it failed."""

    view: JobView
    next_run: Cell
    last: Cell
    message: str
    hint: str

    @property
    def notable(self) -> bool:
        """Whether it runs, fails or is tried again."""
        return bool(self.view.running_since or self.view.failures or self.view.retry)


def report_path(run_id: str) -> str:
    """Return where a run's report is, relative to the page: it works below whatever path a proxy adds."""
    return f"drills/{run_id}"


def drill_rows(runs: Sequence[DrillRun]) -> list[DrillRow]:
    """Return the runs in the order given. Only the newest of each source and drill may be red: it asks for a person."""
    newest: set[tuple[str, str]] = set()
    out = []
    for run in runs:
        latest = (run.drill, run.source) not in newest
        newest.add((run.drill, run.source))
        tone: Tone = VERDICT_TONES[run.verdict] if latest else ""
        over = run.over_objective
        out.append(
            DrillRow(
                run=run,
                link=report_path(run.id),
                verdict=Cell(run.verdict, "", VERDICT_MARKS[run.verdict], tone),
                rto=_objective(run.rto_s, run.objectives.rto_s, over="rto" in over),
                rpo=_objective(run.rpo_s, run.objectives.rpo_s, over="rpo" in over),
                why=why(run),
            )
        )
    return out


def _objective(found_s: float | None, limit_s: float | None, *, over: bool) -> Cell:
    note = "" if limit_s is None else f"{'over' if over else 'objective'} {wording.span(limit_s)}"
    return Cell(wording.span(found_s), note, "!" if over else "", "look" if over else "")


def job_rows(board: Board | None, now: datetime) -> list[JobRow]:
    """Return the jobs: those that fail first, then what runs, then as they come."""
    found = [_job(view, board, now) for view in (board.jobs if board else ())]
    return sorted(found, key=lambda row: (not row.view.failures, not row.view.running_since, not row.view.retry))


def _job(view: JobView, board: Board | None, now: datetime) -> JobRow:
    last = view.last
    cell = Cell("never ran")
    if last is not None:
        words, mark = _OUTCOMES[last.outcome]
        tone: Tone = "act" if last.outcome == "failed" else ""
        note = f"took {wording.span(last.duration_s)}" + (f", exit {last.exit_code}" if last.exit_code else "")
        if view.failures > 1:
            note += f", {view.failures} times in a row"
        cell = Cell(f"{words} {wording.ago(last.finished_at, now)}", note, mark, tone, last.finished_at)
    failed = last is not None and bool(last.message) and last.outcome != "ok"
    return JobRow(
        view=view,
        next_run=next_cell([view], board, now),
        last=cell,
        message=last.message if last and failed else "",
        hint=last.hint if last and failed else "",
    )
