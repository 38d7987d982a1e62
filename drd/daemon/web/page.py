"""The daemon's page: one look says whether the platform could be recovered now, to when, and how long it would take.

A pure function of an overview and a time. The HTML stands alone: no script, no request for anything else, nothing in
a ``style`` attribute; :func:`content_security_policy` allows its style sheet and forbids all else. Every text goes
through the template engine's escaping and, before, through :func:`legible`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from drd import __version__, wording
from drd.daemon.model import Board, Overview
from drd.daemon.web.answer import Answer, answer
from drd.daemon.web.kept import KeptRows
from drd.daemon.web.lists import DrillRow, JobRow, drill_rows, job_rows
from drd.daemon.web.rows import MARKS, Row, rows, window_start
from drd.daemon.web.strip import DAYS, gaps
from drd.daemon.web.troubles import Trouble, capital, sentence, troubles
from drd.drills.look import LOOK, style_source
from drd.drills.page import STYLE as DRILL_STYLE
from drd.legible import legible
from drd.ops.status import DRILLS_UNREAD, StatusReport

_FEW = 8
_MANY = 16  # sources or jobs that are all shown at once; of more, those with nothing to say are folded away
_RECENT, _LISTED = 9, 60  # drill reports


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What the templates lay out."""

    now: datetime
    known: bool
    at: datetime
    age: str
    title: str
    state: str
    answer: Answer
    troubles: tuple[Trouble, ...]
    rows: list[Row]
    shown: list[Row]
    folded: list[Row]
    largest: list[Row]
    smaller: list[Row]
    stored: str
    scale_start: str
    axis: list[str]
    holds: bool
    restore_all: str
    drills: list[DrillRow]
    drills_left_out: int
    board: Board | None
    jobs: list[JobRow]
    jobs_shown: list[JobRow]
    jobs_folded: list[JobRow]
    version: str
    started: datetime | None
    configured: datetime | None


def render(overview: Overview, now: datetime, *, version: str = __version__, kept: KeptRows | None = None) -> str:
    """Return the page as of ``now`` (aware); ``version`` is drd's, ``kept`` may hold rows of the page before.

    Quick, and bounded in size: about two kilobytes a source however many backups it has, and the newest drills alone.
    """
    template = _environment().get_template("page.html")
    return template.render(page=_page(overview, now.astimezone(UTC), version, kept or KeptRows()))


@cache
def content_security_policy() -> str:
    """Return the header that allows what the page and the drill reports hold, and nothing else."""
    styles = f"{style_source(_style())} {style_source(DRILL_STYLE)}"
    return f"default-src 'none'; style-src {styles}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _page(overview: Overview, now: datetime, version: str, kept: KeptRows) -> _Page:
    report = _report(overview, now)
    holes, board = {view.name: gaps(view, now) for view in overview.sources}, overview.board
    wrong = troubles(overview, report, holes, now)
    all_rows = rows(overview.sources, board, _tones(wrong), holes, now, kept.row_of)
    kept.keep_only([view.name for view in overview.sources])
    shown = all_rows if len(all_rows) <= _MANY else [row for row in all_rows if row.tone != "well"]
    by_size = sorted(all_rows, key=lambda row: -row.stored_bytes)
    starts = [start for view in overview.sources if (start := window_start(view)) is not None]
    jobs = job_rows(board, now)
    notable = jobs if len(jobs) <= _MANY else [row for row in jobs if row.notable]
    found = answer(overview, report, now)
    return _Page(
        now=now,
        known=overview.known,
        at=overview.at,
        age=wording.ago(overview.at, now) if abs((now - overview.at).total_seconds()) >= 1 else "just now",
        title=f"{found.word} Could we recover now? drd",
        state=_state(board),
        answer=found,
        troubles=wrong,
        rows=all_rows,
        shown=shown,
        folded=all_rows[len(shown) :],
        largest=by_size[:_MANY],
        smaller=by_size[_MANY:],
        stored=wording.size(sum(row.stored_bytes for row in all_rows)),
        scale_start=wording.when(min(starts, default=now)),
        axis=[_day(now - timedelta(days=days)) for days in range(DAYS, 0, -6)] + ["now"],
        holds=any(row.stored_bytes or row.command for row in all_rows),
        restore_all=f"drd restore --at '{wording.point(report.ask_for)}'" if report.ask_for else "",
        drills=drill_rows(overview.drills[:_LISTED]),
        drills_left_out=max(0, len(overview.drills) - _LISTED),
        board=board,
        jobs=jobs,
        jobs_shown=notable,
        jobs_folded=jobs[len(notable) :],
        version=version,
        started=board.started_at if board else None,
        configured=board.configured_at if board else None,
    )


def _report(overview: Overview, now: datetime) -> StatusReport:
    """Return what ``drd status`` would say of the same store, with ages as of ``now``."""
    statuses = tuple(
        replace(view.status, age_s=max(0.0, (now - view.status.newest.recovery_point).total_seconds()))
        if view.status.newest
        else view.status
        for view in overview.sources
    )
    told = tuple(notice for notice in overview.notices if notice.code in {"no-repository", DRILLS_UNREAD})
    return StatusReport(now, statuses, told)


def _tones(wrong: tuple[Trouble, ...]) -> dict[str, Literal["act", "look"]]:
    """Return the worst that is said of each source, most urgent first."""
    out: dict[str, Literal["act", "look"]] = {}
    for trouble in wrong:
        for item in trouble.parts or (trouble,):
            out.setdefault(item.source, "act" if item.urgency == "act" else "look")
    return out


def _state(board: Board | None) -> str:
    if board is None:
        return "shows what the store holds"
    words = {
        "starting": "is starting",
        "running": "runs",
        "draining": "is shutting down and starts nothing new",
    }
    if board.state == "starting":  # nobody knows yet who leads
        return f"{words[board.state]}{', paused' if board.paused else ''}"
    role = " as the leader" if board.leader else " as a standby: another replica plans the jobs"
    return f"{words[board.state]}{role}{', paused' if board.paused else ''}"


def _day(at: datetime) -> str:
    return f"{at.day} {at:%b}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("drd.daemon.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: legible(value) if type(value) is str else value,
    )
    environment.filters |= {"sentence": sentence, "capital": capital}
    environment.globals |= {
        "once": _once,
        "when": wording.when,
        "marks": MARKS,
        "few": _FEW,
        "recent": _RECENT,
        "style": Markup(_style()),  # noqa: S704 # the package's own file
    }
    return environment


def _once(row: Row, part: str, caller: Callable[[], Markup]) -> Markup:
    """Lay out a part of a row, or give what was laid out before."""
    made = row.laid_out.get(part)
    if made is None:
        made = row.laid_out[part] = caller()
    return made


@cache
def _style() -> str:
    source = PackageLoader("drd.daemon.web").get_source(Environment(autoescape=True), "page.css")[0]
    return LOOK + source
