"""Progress on standard error: bars on a terminal, a line when a source starts and ends elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from drd import model
from drd.cli.render import size, span

if TYPE_CHECKING:  # drawn on a terminal only, and slow to import
    from rich.progress import Progress, TaskID

_ENDS = {"done": "done", "failed": "FAILED", "cancelled": "cancelled"}
_REFRESH_S = 0.1


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
            from drd.cli.bars import bars

            self._bars = bars(stream)

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

    def say(self, text: str) -> None:
        """Print a line above the bars; nothing where progress is not wanted."""
        if self._quiet:
            return
        with self._lock, contextlib.suppress(OSError):
            if self._bars:
                self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=self._stream, flush=True)

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
