"""The bars that a terminal shows while work runs."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from drd.cli.render import size


class _Amount(ProgressColumn):
    """Bytes so far, of the estimate where there is one."""

    def render(self, task: Task) -> Text:
        done = size(task.completed)
        return Text(f"{done} of ~{size(task.total)}" if task.total else done)


class _Speed(ProgressColumn):
    """Bytes a second, lately."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(speed)}/s" if speed else "")


def bars(stream: TextIO) -> Progress:
    """Return bars for ``stream``, a terminal, which vanish when stopped; a task has the field ``phase``."""
    return Progress(
        TextColumn("  {task.description:<20}", table_column=Column(no_wrap=True)),
        BarColumn(16),
        _Amount(Column(no_wrap=True)),
        _Speed(Column(no_wrap=True)),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[phase]}", table_column=Column(no_wrap=True, ratio=1)),
        console=Console(file=stream),
        transient=True,
    )
