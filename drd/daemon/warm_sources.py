"""What the store holds of each source, kept in memory and brought up to date a few sources at a time."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any

from drd.errors import Cancelled, DrdError
from drd.model import BackupHead, Notice
from drd.ops.coverage import coverage
from drd.ops.ports import Ports
from drd.ops.status import Look, look_at
from drd.repository.catalog import Entry, HeadEntry, Survey
from drd.timing import CLOCK_SLACK

_AT_ONCE = 4
_LOOKED_WHOLE_EVERY = timedelta(hours=1)
"""How often the newest backup is read whole again, though nothing has changed."""
_SURVEYED_EVERY = timedelta(days=1)
"""How often nothing that was known here is believed; the index of heads still is (``drd verify`` reads manifests)."""
_HEAD_FIELDS = tuple(item.name for item in fields(BackupHead))


@dataclass
class _Known:
    """One source; ``problem`` is why it could not be read, or empty."""

    survey: Survey = field(default_factory=lambda: Survey((), ()))
    look: Look | None = None
    seen_at: datetime | None = None
    looked_at: datetime | None = None
    surveyed_at: datetime | None = None
    problem: str = ""


@dataclass
class WarmSources:
    """What is known of every source; used by one thread at a time.

    Of each backup the numbers are kept, of the newest of a source all of its head: 10,000 backups take some megabytes.
    """

    _known: dict[str, _Known] = field(default_factory=dict)

    def refresh(
        self, ports: Ports, configured: Sequence[str], asked: Collection[str], *, limit: int, whole: bool
    ) -> None:
        """Look at the sources ``asked`` for, at those never seen, and at the longest unseen up to ``limit`` in all.

        With ``whole`` nothing that was known of those asked for is believed: after a prune some stores go on listing
        what is gone. A source that alone cannot be read (a right that is missing) keeps what was known, with a notice.
        Raises what concerns all: a store that is away, a repository of a newer drd, Cancelled; what was read until
        then is kept.
        """
        there = [*dict.fromkeys((*configured, *ports.catalog.sources()))]
        self._known = {name: self._known.get(name) or _Known() for name in there}
        turn = dict.fromkeys(name for name in there if name in asked or self._known[name].seen_at is None)
        for name in sorted(there, key=lambda name: _never_first(self._known[name].seen_at)):
            if len(turn) >= limit:
                break
            turn[name] = None
        if whole:
            for name in turn:
                if name in asked:
                    self._known[name].surveyed_at = None
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="drd-overview") as pool:
            for _ in pool.map(lambda name: self._look(ports, name, asked=name in asked), turn):
                pass

    def looks(self) -> dict[str, Look | None]:
        """Return what is known, by source: configured ones first. None for one that could not be read so far."""
        return {name: known.look for name, known in self._known.items()}

    def notices(self) -> tuple[Notice, ...]:
        """Say which sources could not be read."""
        wrong = [(name, known.problem) for name, known in self._known.items() if known.problem]
        return tuple(Notice("source-unreadable", f"{name} cannot be looked at: {why}") for name, why in wrong)

    def _look(self, ports: Ports, name: str, *, asked: bool) -> None:
        known = self._known[name]
        ports.cancel.raise_if_cancelled()
        now = ports.now()
        try:
            self._update(ports, name, known, now, asked=asked)
        except DrdError as error:
            if error.retryable or isinstance(error, Cancelled):
                raise
            known.problem = error.message
        else:
            known.problem = ""
        known.seen_at = now

    def _update(self, ports: Ports, name: str, known: _Known, now: datetime, *, asked: bool) -> None:
        before = {entry.id: entry for entry in known.survey.entries}
        due = _is_due(known.surveyed_at, _SURVEYED_EVERY, now)
        survey = _slim(ports.catalog.refresh(name, {} if due else before), before)
        if due:
            known.surveyed_at = now
        look, same = known.look, survey == known.survey
        known.survey = survey
        # What comes from the future may be of the past by now.
        if look is None or not same or _is_due(known.looked_at, _LOOKED_WHOLE_EVERY, now) or _is_ahead(look, now):
            known.look = _without_parts(look_at(ports, name, survey, now))
            known.looked_at = now
        elif asked:  # what others read back is seen when all is looked at anew
            known.look = replace(look, coverage=coverage(ports, name, look.good))


def _never_first(at: datetime | None) -> tuple[bool, str]:
    return (at is not None, "" if at is None else at.isoformat())


def _is_due(since: datetime | None, every: timedelta, now: datetime) -> bool:
    return since is None or not timedelta(0) <= now - since < every


def _is_ahead(look: Look, now: datetime) -> bool:
    return bool(look.good) and look.good[-1].recovery_point > now + CLOCK_SLACK


def _without_parts(look: Look) -> Look:
    newest = look.newest and BackupHead(**{name: getattr(look.newest, name) for name in _HEAD_FIELDS})
    return replace(look, newest=newest)


def _slim(survey: Survey, before: Mapping[str, HeadEntry]) -> Survey:
    """Forget of every backup what nobody asks for, unless it is the newest; those known ``before`` stay as they are."""
    entries = tuple(known if (known := before.get(e.id)) is e else _slim_entry(e) for e in survey.entries)
    return replace(survey, entries=entries)


def _slim_entry(entry: HeadEntry) -> HeadEntry:
    backup, distrusted = entry.backup, entry.distrusted
    return Entry(
        entry.source,
        entry.id,
        backup and _slim_head(backup),
        entry.problem,
        distrusted and _slim_head(distrusted),
    )


def _slim_head(head: BackupHead) -> BackupHead:
    values = {name: getattr(head, name) for name in _HEAD_FIELDS}
    words = {name: sys.intern(value) for name, value in values.items() if type(value) is str}
    return BackupHead(**{**values, **words, **_FORGOTTEN})


_FORGOTTEN: dict[str, Any] = {"recipients": (), "tools": {}, "labels": {}, "facts": {}, "signature": None}
