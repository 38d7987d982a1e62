"""Turn SIGINT, SIGTERM and SIGHUP into cancellation, without running anything inside a signal handler."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Self

from drd.cancel import CancelToken
from drd.errors import Cancelled

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_S = 0.3
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """A context manager for the main thread: the first signal cancels, the second one ends the process at once.

    Python handlers run between two instructions of the main thread, which may hold the very lock that the
    cancellation needs, or may sit in a library that does not come back. So the interpreter only writes the signal's
    number to a pipe, and a thread acts on it. A signal that comes within 0.3 s of the first is taken for the
    same one: terminals, ``sudo`` and supervisors deliver both to the group and to the process. A ``quiet`` one says
    nothing to people.
    """

    def __init__(self, cancel: CancelToken, *, quiet: bool = False) -> None:
        self._cancel = cancel
        self._quiet = quiet
        self._before: dict[int, object] = {}
        self._pipe_before = -1
        self._read = self._write = -1
        self._thread = threading.Thread(target=self._listen, name="drd-signals", daemon=True)

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._pipe_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: it shall outlive its terminal
            self._before[number] = signal.signal(number, lambda *_: None)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._cancel.cancelled:  # else the process is about to end, with the right exit code
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself returned
        signal.set_wakeup_fd(self._pipe_before)
        os.close(self._write)  # the thread reads the end and leaves
        self._thread.join()
        os.close(self._read)

    def _listen(self) -> None:
        first_at: float | None = None
        while byte := os.read(self._read, 1):
            if byte[0] not in _SIGNALS:
                continue
            now = time.monotonic()
            if first_at is None:
                first_at = now
                self._cancel.cancel()
                if self._quiet:
                    continue
                text = f"\ndrd: {signal.Signals(byte[0]).name}: stopping and undoing; once more to stop at once"
                with contextlib.suppress(OSError):  # the terminal, or what read from here, is gone
                    print(text, file=sys.stderr, flush=True)
            elif now - first_at > _SAME_S:
                _end_at_once()


def _end_at_once() -> None:
    """End the process now; children die with it, and the next run clears up what stays behind."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:  # a reader that stands still must not keep us
            cursor = _SHOW_CURSOR if os.isatty(2) else b""
            os.write(2, cursor + b"drd: stopped at once; the next run clears up what is left\n")
    os._exit(Cancelled.exit_code)
