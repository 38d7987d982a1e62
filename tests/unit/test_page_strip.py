"""The 30 days of a source, drawn: marks where backups lie, gaps where they are missing, nothing unknown."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from drd.daemon.model import SourceView
from drd.daemon.web.drawing import bar, sparkline
from drd.daemon.web.strip import Strip, gaps, strip
from tests.support.overviews import (
    DAY,
    HOUR,
    NOW,
    make_drill,
    make_failed_drill,
    make_head,
    make_job,
    make_run,
    make_series,
    make_view,
)

UNTIL = NOW - timedelta(minutes=10)


def hourly(*, without: tuple[datetime, datetime] | None = None, history: int = 200, days: float = 5) -> SourceView:
    """Make a source with a backup an hour, and the newest runs of its job, which failed where there is none."""
    heads = make_series("s", until=UNTIL, days=days, without=[without] if without else [])
    name = "backup/hourly/s"
    runs = [make_run(name, head.started_at, backup=head.id) for head in heads]
    if without:
        first = min(head.recovery_point for head in heads if head.recovery_point >= without[1])
        runs += [make_run(name, first - HOUR * n, outcome="failed") for n in range(1, 5)]
    runs.sort(key=lambda run: run.planned_at, reverse=True)
    return make_view("s", heads, jobs=[make_job(name, runs=tuple(runs[:history]))])


def drawing(view: SourceView) -> Strip:
    """Draw a source with its gaps."""
    return strip(view, gaps(view, NOW), NOW)


def test_a_missing_backup_is_a_gap() -> None:
    """A hole longer than planned is a gap from the backup before to the one after; it is drawn, counted and timed."""
    hole = (UNTIL - HOUR * 40, UNTIL - HOUR * 30)
    view = hourly(without=hole)
    (found,) = gaps(view, NOW)
    assert (found.start, found.end, found.open) == (UNTIL - HOUR * 41, UNTIL - HOUR * 30, False)
    drawn = drawing(view)
    assert drawn.words == "111 backups, 4 failed attempts, 1 gap of 11 h"
    assert drawn.svg.count('class="gap"') == 1
    assert drawn.svg.count('class="attempt"') >= 1
    assert "attempt now" not in drawn.svg


def test_a_late_backup_is_an_open_gap() -> None:
    """From the newest backup until now, when the planned time is well over; a little late is not."""
    late = make_view("s", make_series("s", until=NOW - HOUR * 3, days=2))
    (found,) = gaps(late, NOW)
    assert (found.start, found.end, found.open) == (NOW - HOUR * 3, NOW, True)
    assert 'class="gap now"' in drawing(late).svg
    assert gaps(make_view("s", make_series("s", until=NOW - timedelta(minutes=85), days=2)), NOW) == ()


def test_what_is_not_known_is_no_gap() -> None:
    """Without a schedule nothing is missing; before the jobs' history nobody knows; what was pruned is drawn so."""
    hole = (UNTIL - HOUR * 40, UNTIL - HOUR * 30)
    assert gaps(make_view("s", make_series("s", without=[hole]), gap=None), NOW) == ()
    assert gaps(hourly(without=hole, history=20), NOW) == ()
    view = hourly()
    pruned = make_view("s", [h for h in view.backups if not hole[0] <= h.recovery_point < hole[1]], jobs=view.jobs)
    assert gaps(pruned, NOW) == ()
    assert 'class="gone"' in drawing(pruned).svg
    assert gaps(make_view("s"), NOW) == ()


def test_a_source_that_was_never_backed_up_is_a_gap() -> None:
    """Since the first attempt that is known of."""
    name = "backup/hourly/s"
    runs = tuple(make_run(name, NOW - HOUR * n, outcome="failed") for n in range(1, 9))
    (found,) = gaps(make_view("s", jobs=[make_job(name, runs=runs)]), NOW)
    assert (found.start, found.open) == (NOW - HOUR * 8, True)


def test_kinds_and_drills_have_marks_of_their_own() -> None:
    """Full and incremental differ; a drill stands on the backup it proved; only the last one that failed is red."""
    full = make_head("s", NOW - DAY * 15)
    half = make_head("s", NOW - DAY * 3, kind="incremental", parent=full.id)
    drills = [
        make_failed_drill(half, NOW - DAY),
        make_failed_drill(full, NOW - DAY * 2),
        make_drill(full, NOW - DAY * 14),
    ]
    svg = drawing(make_view("s", [full, half], drills=drills)).svg
    assert re.search(r'class="full" d="M360 13h4"', svg)
    assert re.search(r'class="incremental" d="M648 17h4"', svg)
    assert re.findall(r'<use href="#(\w+)" class="([^"]+)" x="([\d.]+)%"', svg) == [
        ("failed", "failed now", "90.00"),
        ("failed", "failed", "50.00"),
    ]


def test_old_and_future_backups_are_left_out() -> None:
    """What lies outside the 30 days, or ahead of the clock, is not drawn."""
    view = make_view("s", [make_head("s", NOW - DAY * 31), make_head("s", NOW + HOUR)], gap=None)
    assert "full" not in drawing(view).svg
    assert drawing(view).words == "no backup"


def test_sizes_are_drawn_above_zero() -> None:
    """The largest reaches the top and nothing the bottom; one value alone is no trend; all of them may be nothing."""
    heights = [int(y) for y in re.findall(r"\d+ (\d+)", sparkline([0, 50, 100], "x").split("d=")[1])]
    assert heights[1:] == [57, 30, 3]
    assert sparkline([5], "x") == ""
    assert "57" in sparkline([0, 0], "x")


def test_bars_stay_within_their_track() -> None:
    """Shares out of range are cut off, and what is next to nothing can still be seen."""
    assert 'x="0.00%" width="100.00%"' in bar(-1, 2, "x")
    assert 'x="99.60%" width="0.40%"' in bar(1, 1, "x")
    assert 'href="#passed" x="50.00%"' in bar(0, 1, "x", mark=0.5)
