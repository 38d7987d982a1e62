"""What is wrong, by what the store and the scheduler say together, with what to do next: one sentence each."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from drd import wording
from drd.daemon.model import Board, JobRun, JobView, Overview, SourceView
from drd.daemon.overview import NOT_YET
from drd.daemon.web.strip import Gap
from drd.ops.remarks import Remark, Urgency, remarks
from drd.ops.status import StatusReport

_GROUPED = {
    "no-backup": "sources have no backup to restore",
    "drill-failed": "sources failed their last drill",
    "damaged": "sources have damaged backups",
    "damaged-objects": "sources have damaged objects",
    "past-rpo": "sources are past their RPO",
    "untrusted": "sources have backups not signed or encrypted as configured",
    "shrunken": "sources have a newest backup that holds oddly less than the one before",
    "drill-unverified": "sources could not be drilled",
    "over-rto": "sources took longer to recover than their RTO objective",
    "over-rpo": "sources were recovered to older data than their RPO objective",
    "from-future": "sources have backups dated in the future",
    "unconfigured": "sources are in the store but not in the configuration",
    "late": "sources have had no backup for longer than planned",
    "job": "jobs fail",
}
_FEW = 3
_PERSISTENT = 3  # failures in a row after which a retry is no more expected to mend it


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing, or with ``parts`` several of one kind. ``hint`` says what to do, ``commands`` can be pasted."""

    code: str
    urgency: Urgency
    source: str
    message: str
    hint: str = ""
    commands: tuple[str, ...] = ()
    parts: tuple[Trouble, ...] = ()


def troubles(
    overview: Overview, report: StatusReport, holes: Mapping[str, Sequence[Gap]], now: datetime
) -> tuple[Trouble, ...]:
    """Return what is wrong, most urgent first; many sources with the same trouble are one. ``holes``: by source."""
    views = {view.name: view for view in overview.sources}
    told: set[str] = set()
    said = [_told(remark, views, told) for remark in remarks(report) if remark.urgency != "note"]
    found = [*_store(overview, now), *said, *_late(overview, holes), *_jobs(overview.board, told)]
    found += [*_unproven(report), *_board(overview.board)]
    found += [Trouble(n.code, "look", "", capital(n.message)) for n in overview.notices if n not in report.notices]
    ordered = [item for urgency in ("act", "look") for item in found if item.urgency == urgency]
    return tuple(_grouped(ordered))


def _store(overview: Overview, now: datetime) -> Iterator[Trouble]:
    if not overview.known:
        starting = overview.board is not None and overview.board.state == "starting"
        why = f": {overview.error}" if overview.error not in {"", NOT_YET} else ""
        text = f"The store has not been read yet{why}"
        yield Trouble("store", "look" if starting else "act", "", text, commands=("drd check",))
    elif overview.error:
        text = f"The store could not be read since {wording.when(overview.at)} ({wording.ago(overview.at, now)})"
        yield Trouble("store", "act", "", f"{text}: {overview.error}", commands=("drd check",))


def _told(remark: Remark, views: dict[str, SourceView], told: set[str]) -> Trouble:
    """Add to what the store says how the last attempt went, where that explains it."""
    message, hint = remark.message, ""
    if remark.code in {"no-backup", "past-rpo"} and (failing := _failing(views[remark.source].jobs)):
        told.add(failing.job)
        message, hint = f"{message}. The last attempt failed: {failing.message}", failing.hint
    return Trouble(remark.code, remark.urgency, remark.source, message, hint, remark.commands)


def _failing(jobs: Sequence[JobView]) -> JobRun | None:
    """Return the last attempt to back up where it failed."""
    runs = [view.last for view in jobs if view.job.kind == "backup" and view.failures and view.last]
    failed = [run for run in runs if run.outcome == "failed"]
    return max(failed, key=lambda run: run.finished_at, default=None)


def _late(overview: Overview, holes: Mapping[str, Sequence[Gap]]) -> Iterator[Trouble]:
    """Name sources whose schedule was missed, where no RPO says so already."""
    for view in overview.sources:
        if not view.status.configured or view.status.within_rpo is False:
            continue
        for gap in holes[view.name][-1:]:
            if gap.open and view.status.newest is not None:
                text = f"{view.name} has had no backup for {wording.span(view.status.age_s)}"
                text += f", though one is planned every {wording.span(view.longest_gap_s)}"
                name = shlex.quote(view.name)
                yield Trouble(
                    "late", "act" if view.status.rpo_s is None else "look", view.name, text, "", (f"drd check {name}",)
                )


def _jobs(board: Board | None, told: set[str]) -> Iterator[Trouble]:
    for view in board.jobs if board else ():
        run = view.last
        if not view.failures or run is None or view.job.name in told:
            continue
        lasting = view.failures >= _PERSISTENT or view.next_run_at is None
        times = "" if view.failures == 1 else f" {view.failures} times in a row"
        text = f"{view.job.name} failed{times}: {run.message or 'no reason was given'}"
        yield Trouble("job", "act" if lasting else "look", view.job.subject, text, run.hint)


def _unproven(report: StatusReport) -> Iterator[Trouble]:
    never = [item.source for item in report.sources if item.configured and item.newest and item.last_drill is None]
    if never and not report.drills_unread:
        names = ", ".join(never[:_FEW]) + (f" and {len(never) - _FEW} more" if len(never) > _FEW else "")
        text = f"No drill has proven that {names} can be restored"
        yield Trouble("never-drilled", "look", "", text, commands=("drd drill now",))


def _board(board: Board | None) -> Iterator[Trouble]:
    if board is None:
        return
    if board.reload_error:
        text = f"The newest configuration was not taken, and the one before is in force: {board.reload_error}"
        yield Trouble("reload", "act", "", text, commands=("drd config validate",))
    if board.history_error:
        yield Trouble(
            "history", "look", "", f"The history of jobs could not be kept in the store: {board.history_error}"
        )
    if board.paused:
        yield Trouble("paused", "look", "", "The scheduler is paused: nothing is started before it is resumed")
    for notice in board.notices:
        yield Trouble(notice.code, "look", "", capital(notice.message))


def _grouped(found: Sequence[Trouble]) -> Iterator[Trouble]:
    for (code, urgency), group in groupby(found, key=lambda item: (item.code, item.urgency)):
        items = tuple(group)
        if len(items) > _FEW and code in _GROUPED:
            yield Trouble(code, urgency, "", f"{len(items)} {_GROUPED[code]}", parts=items)
        else:
            yield from items


def sentence(text: str) -> str:
    """Return a text with a full stop, unless it ends like a sentence already."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def capital(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]
