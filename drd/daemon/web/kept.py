"""Rows of the page, kept while nothing about their source has changed: of many sources they are most of its cost.

What is kept says ages as of when it was made, so it is kept for a while only, and not where seconds count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from drd.daemon.model import Board, SourceView
from drd.daemon.web.rows import Row, RowTone, Scale, row_of
from drd.daemon.web.strip import Gap

LASTS = timedelta(seconds=90)
_LIVELY = timedelta(minutes=2)
"""Of what lies no farther from now, a person wants to know the seconds."""


@dataclass(frozen=True, slots=True)
class _Kept:
    key: tuple[object, ...]
    made_at: datetime
    row: Row


class KeptRows:
    """Rows by source: at most one of each that the last page showed. Thread-safe: entries are replaced, not changed."""

    def __init__(self) -> None:
        self._rows: dict[str, _Kept] = {}

    def row_of(
        self, view: SourceView, board: Board | None, tone: RowTone, scale: Scale, holes: Sequence[Gap], now: datetime
    ) -> Row:
        """Return what :func:`~drd.daemon.web.rows.row_of` returns, or returned of the same a while ago."""
        key = _key(view, board, tone, scale, holes)
        found = self._rows.get(view.name)
        if found is not None and timedelta(0) <= now - found.made_at < LASTS and found.key == key:
            return found.row
        row = row_of(view, board, tone, scale, holes, now)
        if not _is_lively(view, now):
            self._rows[view.name] = _Kept(key, now, row)
        return row

    def keep_only(self, names: Sequence[str]) -> None:
        """Forget sources that are gone."""
        if len(self._rows) > len(names):
            wanted = set(names)
            self._rows = {name: kept for name, kept in self._rows.items() if name in wanted}


def _key(
    view: SourceView, board: Board | None, tone: RowTone, scale: Scale, holes: Sequence[Gap]
) -> tuple[object, ...]:
    """Return all that a row depends on but the time. Comparing is quick: what did not change is the same object."""
    return (
        replace(view, status=replace(view.status, age_s=None)),
        (board.paused, board.leader) if board is not None else None,
        tone,
        (scale.start, scale.most),
        tuple((hole.start, None if hole.open else hole.end) for hole in holes),
    )


def _is_lively(view: SourceView, now: datetime) -> bool:
    newest, drill = view.status.newest, view.status.last_drill
    times = [job.next_run_at for job in view.jobs] + [job.running_since for job in view.jobs]
    times += [newest.recovery_point if newest else None, drill.finished_at if drill else None]
    return any(job.running_since for job in view.jobs) or any(at and abs(now - at) < _LIVELY for at in times)
