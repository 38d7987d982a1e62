"""What is to be said of a status besides its numbers: what is wrong, what to do about it, most urgent first. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from drd import wording
from drd.drills.report import DrillRun
from drd.model import Notice
from drd.ops.coverage import coverage_words
from drd.ops.status import DRILLS_UNREAD, SourceStatus, StatusReport

Urgency = Literal["act", "look", "note"]
"""``act``: a person has to do something, or data may be lost; ``look``: worth a look; ``note``: good to know."""
_URGENCIES: tuple[Urgency, ...] = ("act", "look", "note")


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence without its full stop, and the commands that tell more or mend it.

    ``code`` is stable; ``source`` is empty where all are meant.
    """

    code: str
    urgency: Urgency
    source: str
    message: str
    commands: tuple[str, ...] = ()


def remarks(report: StatusReport) -> tuple[Remark, ...]:
    """Return all there is to say, ``act`` first; within an urgency what concerns recovery first, then by source."""
    found = [remark for kind in _KINDS for item in report.sources for remark in kind(item, report)]
    missing = [Remark(notice.code, _weight(notice), "", notice.message) for notice in report.notices]
    return tuple(remark for urgency in _URGENCIES for remark in (*missing, *found) if remark.urgency == urgency)


def _weight(notice: Notice) -> Urgency:
    return "look" if notice.code == DRILLS_UNREAD else "act"


def _absent(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    if item.configured and item.newest is None:
        unread = item.coverage.unknown and not item.backups
        text = f"{item.source} has no backup {'that is known of' if unread else 'to restore'}"
        yield Remark("no-backup", "act", item.source, text, (_drd("backup now", item),))


def _failed_drill(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    run = item.last_drill
    if run is not None and run.verdict == "failed":
        text = f"{item.source}: its last drill failed{_colon(why(run))}"
        yield Remark("drill-failed", "act", item.source, text, (f"drd drill show {shlex.quote(run.id)}",))


def _damaged(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    if item.damaged:
        text = f"{item.source}: {wording.plural(item.damaged, 'damaged backup')}"
        yield Remark("damaged", "act", item.source, text, (_drd("verify", item),))
    if item.coverage.damaged:
        text = f"{item.source}: {wording.plural(item.coverage.damaged, 'object')} damaged when last read"
        yield Remark("damaged-objects", "act", item.source, text, (f"{_drd('verify', item)} --sample 1%",))


def _late(item: SourceStatus, report: StatusReport) -> Iterator[Remark]:
    if item.within_rpo is False and item.newest is not None and item.rpo_s is not None:
        since = item.newest.recovery_point + timedelta(seconds=item.rpo_s)
        text = (
            f"{item.source} is past its RPO of {wording.span(item.rpo_s)} since {wording.when(since)} "
            f"({wording.ago(since, report.at)})"
        )
        yield Remark("past-rpo", "act", item.source, text, (_drd("check", item), _drd("backup now", item)))


def _untrusted(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    if item.untrusted:
        held = wording.plural(item.untrusted, "backup")
        text = f"{item.source}: {held} not signed, or not encrypted, as configured, and not counted"
        yield Remark("untrusted", "act", item.source, text, (_drd("verify", item),))


def _shrunken(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    fallen = {"fewer-rows": "fewer rows or keys", "less-data": "less data"}
    less = [words for code, words in fallen.items() if item.newest is not None and code in item.newest.warnings]
    if less:
        text = f"{item.source}: its newest backup holds oddly {' and '.join(less)} than the one before"
        yield Remark("shrunken", "look", item.source, text, (_drd("list", item),))


def _unverified_drill(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    run = item.last_drill
    if run is None:
        return
    show = (f"drd drill show {shlex.quote(run.id)}",)
    if run.verdict == "unverified":
        text = f"{item.source}: its last drill could not be carried out{_colon(why(run))}"
        yield Remark("drill-unverified", "look", item.source, text, show)
    for name in run.over_objective:
        took, limit_s = f"recovery took {wording.span(run.rto_s)}", run.objectives.rto_s
        if name == "rpo":
            took, limit_s = f"the data recovered was {wording.span(run.rpo_s)} old", run.objectives.rpo_s
        objective = f"over the {name.upper()} objective of {wording.span(limit_s)}"
        text = f"{item.source}: {took} in its last drill, {objective}"
        yield Remark(f"over-{name}", "look", item.source, text, show)


def _future(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    if item.from_future:
        taken = wording.plural(item.from_future, "backup")
        text = f"{item.source}: {taken} dated in the future: a clock was wrong, here or when taken"
        yield Remark("from-future", "look", item.source, text)


def _unconfigured(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    if not item.configured:
        yield Remark("unconfigured", "look", item.source, f"{item.source} is in the store but not in the configuration")


def _read_back(item: SourceStatus, _report: StatusReport) -> Iterator[Remark]:
    if item.coverage.read_bytes and not item.coverage.unknown:
        yield Remark("read-back", "note", item.source, f"{item.source}: {coverage_words(item.coverage)} (drd verify)")


_KINDS = (
    _absent,
    _failed_drill,
    _damaged,
    _late,
    _untrusted,
    _shrunken,
    _unverified_drill,
    _future,
    _unconfigured,
    _read_back,
)


def why(run: DrillRun) -> str:
    """Say in a line why a drill did not pass; empty where it did."""
    if run.error is not None:
        return run.error.message
    outcome = "failed" if run.verdict == "failed" else "unverified"
    return next((check.detail for check in run.checks if check.outcome == outcome), "")


def _drd(verb: str, item: SourceStatus) -> str:
    return f"drd {verb} {shlex.quote(item.source)}"


def _colon(text: str) -> str:
    return f": {text}" if text else ""
