"""The first line of the page: could we recover now, to when, in how long, proven when?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from drd import wording
from drd.daemon.model import Overview
from drd.drills.report import DrillRun
from drd.ops.status import SourceStatus, StatusReport

Tone = Literal["yes", "doubt", "no"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One of the three things to know, with what qualifies it. ``at`` is set where the value is a time."""

    name: str
    value: str
    note: str
    at: datetime | None = None


_UNREAD = "drills' reports may not be read from here"


@dataclass(frozen=True, slots=True)
class Answer:
    """``word`` answers the question; ``sentence`` says of what."""

    tone: Tone
    word: str
    sentence: str
    facts: tuple[Fact, ...]


def answer(overview: Overview, report: StatusReport, now: datetime) -> Answer:
    """Answer by what the store held at the overview's time; never yes without a backup of every configured source."""
    configured = [item for item in report.sources if item.configured]
    facts = _facts(overview, configured, now) if any(item.newest for item in configured) else ()
    if not configured:
        return _nothing(overview, report)
    tone, word, sentence = _judged(configured, drills_unread=report.drills_unread)
    if overview.error:
        text = f"The store does not answer. {wording.ago(overview.at, now)} the answer was: “{word} {sentence}”"
        return Answer("doubt", "Not known.", text, facts)
    return Answer(tone, word, sentence, facts)


def _nothing(overview: Overview, report: StatusReport) -> Answer:
    board = overview.board
    if not overview.known:
        starting = board is not None and board.state == "starting"
        text = "drd is starting and has not read the store yet." if starting else "The store has not been read yet."
        return Answer("doubt", "Not known yet.", text, ())
    held = [item.source for item in report.sources if item.newest]
    if held:
        text = f"No source is configured. The store holds backups of {wording.plural(len(held), 'source')}."
        return Answer("doubt", "Not by this configuration.", text, ())
    return Answer("doubt", "Nothing to recover.", "No source is configured, and the store holds no backup.", ())


def _judged(configured: list[SourceStatus], *, drills_unread: bool) -> tuple[Tone, str, str]:
    lacking = [item.source for item in configured if item.newest is None]
    count = len(configured)
    every = "The one source" if count == 1 else f"All {count} sources"
    if len(lacking) == count:
        return "no", "No.", f"There is no backup of {_names(lacking)} to restore."
    if lacking:
        of = f"{count - len(lacking)} of {count} sources can be restored"
        return "no", "No, not all of it.", f"{of}; there is no backup of {_names(lacking)}."
    failed = [item.source for item in configured if item.last_drill and item.last_drill.verdict == "failed"]
    if failed:
        text = f"{every} can be restored by what is stored, but the last drill of {_names(failed)} failed."
        return "doubt", "Yes, with a doubt.", text
    unproven = [item.source for item in configured if item.last_drill is None or item.last_drill.verdict != "passed"]
    if len(unproven) == count and drills_unread:
        text = f"{every} can be restored by what is stored. What drills have shown may not be read from here."
        return "doubt", "Yes, by what is stored.", text
    if len(unproven) == count:
        return "doubt", "Yes, but unproven.", f"{every} can be restored by what is stored. No drill has shown it yet."
    if unproven:
        return (
            "doubt",
            "Yes, partly unproven.",
            f"{every} can be restored by what is stored; not shown for {_names(unproven)}.",
        )
    return "yes", "Yes.", f"{every} can be restored, and did restore in the last drill."


def _names(names: list[str]) -> str:
    if len(names) <= 3:
        return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{', '.join(names[:2])} and {len(names) - 2} more"


def _facts(overview: Overview, configured: list[SourceStatus], now: datetime) -> tuple[Fact, ...]:
    points = [item.newest.recovery_point for item in configured if item.newest]
    oldest = min(points)
    note = f"the oldest of the {len(points)} newest backups" if len(points) > 1 else "the newest backup"
    passed = _last_passed(overview)
    return (
        Fact("To", wording.point(oldest), f"{wording.ago(oldest, now)}, {note}", oldest),
        _duration(configured, passed),
        _proof(configured, passed, now),
    )


def _last_passed(overview: Overview) -> dict[str, DrillRun]:
    """Return the newest run that passed, of each source that has one."""
    out: dict[str, DrillRun] = {}
    for view in overview.sources:
        known = (run for run in (view.status.last_drill, *view.drills) if run is not None and run.verdict == "passed")
        if (run := next(known, None)) is not None:
            out[view.name] = run
    return out


def _duration(configured: list[SourceStatus], passed: dict[str, DrillRun]) -> Fact:
    runs = [passed[item.source] for item in configured if item.source in passed]
    if not runs:
        unread = any(item.drills_unread for item in configured)
        return Fact("In", "not known", _UNREAD if unread else "no drill has passed yet")
    whole = len(runs) == len(configured)
    note = "as the last drill that passed took" if len(runs) == 1 else "one after the other, as the last drills took"
    if not whole:
        note = f"for {len(runs)} of {len(configured)} sources; the others never passed a drill"
    return Fact("In", f"{'about' if whole else 'at least'} {wording.span(sum(run.rto_s for run in runs))}", note)


def _proof(configured: list[SourceStatus], passed: dict[str, DrillRun], now: datetime) -> Fact:
    good = [item.last_drill for item in configured if item.last_drill and item.last_drill.verdict == "passed"]
    if len(good) == len(configured):
        since = min(run.finished_at for run in good)
        return Fact("Proven", wording.ago(since, now), "by restoring each of them in a drill", since)
    latest = max((run.finished_at for run in passed.values()), default=None)
    if latest is None and any(item.drills_unread for item in configured):
        return Fact("Proven", "not known", _UNREAD)
    if latest is None:
        return Fact("Proven", "never", "take a drill: drd drill now")
    return Fact(
        "Proven",
        f"{len(good)} of {len(configured)}",
        f"last drills passed, the latest {wording.ago(latest, now)}",
        latest,
    )
