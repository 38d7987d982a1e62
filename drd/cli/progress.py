"""Progress on standard error: bars on a terminal, a line when a source starts and ends elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from drd import model
from drd.cli.render import size, span

_ENDS = {"done": "done", "failed": "FAILED", "cancelled": "cancelled"}
_REFRESH_S = 0.1


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


class ProgressDisplay:
    """A context manager; :meth:`update` may be called from any thread."""

    def __init__(self, verb: str, stream: TextIO, *, quiet: bool = False) -> None:
        self._verb = verb
        self._stream = stream
        self._quiet = quiet
        self._lock = threading.Lock()
        self._started: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, model.Progress] = {}
        self._bars: Progress | None = None
        if stream.isatty() and not quiet:
            self._bars = Progress(
                TextColumn("  {task.description:<20}", table_column=Column(no_wrap=True)),
                BarColumn(16),
                _Amount(Column(no_wrap=True)),
                _Speed(Column(no_wrap=True)),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[phase]}", table_column=Column(no_wrap=True, ratio=1)),
                console=Console(file=stream),
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def update(self, step: model.Progress) -> None:
        """Show a step of one source."""
        now = time.monotonic()
        with self._lock:
            first = step.subject not in self._started
            self._started.setdefault(step.subject, now)
            if self._bars:
                self._draw(step, now)
            elif not self._quiet and (first or step.phase in _ENDS):
                took = span(now - self._started[step.subject])
                text = (
                    f"{_ENDS[step.phase]} after {took}, {size(step.done_bytes)}" if step.phase in _ENDS else step.phase
                )
                with contextlib.suppress(OSError):  # a reader of the progress that left stops no backup
                    print(f"{self._verb} {step.subject}: {text}", file=self._stream, flush=True)

    def _draw(self, step: model.Progress, now: float) -> None:
        if self._bars is None:
            return
        task = self._tasks.get(step.subject)
        if task is None:
            task = self._tasks[step.subject] = self._bars.add_task(step.subject, total=step.total_bytes, phase="")
        elif step.phase not in _ENDS and now - self._last.get(step.subject, 0.0) < _REFRESH_S:
            return
        self._last[step.subject] = now
        if step.detail:  # the engine itself speaks: it knows the phase and the total better than the meter of bytes
            self._told[step.subject] = step
        told = self._told.get(step.subject, step)
        total_bytes = told.total_bytes or step.total_bytes
        phase = f"{told.phase} {told.detail}".strip()
        if step.done_bytes:
            total = max(total_bytes, step.done_bytes) if total_bytes else None
            self._bars.update(task, completed=step.done_bytes, total=total, phase=phase)
        else:
            self._bars.update(task, phase=phase)
