"""Cooperative cancellation shared by the threads of one command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drd.errors import Cancelled


class CancelToken:
    """Say once that work must stop; every waiter and callback learns of it.

    Thread-safe. Callbacks run in the thread that cancels, must be quick and must not raise; they exist to
    wake what cannot poll (kill a child process, shut a socket). Not for signal handlers, which interrupt a thread
    that may hold its lock: :mod:`drd.cli.interrupts` calls :meth:`cancel` from a thread.

    ``expired`` says that it was a deadline and not a person: see :func:`deadline`.
    """

    def __init__(self) -> None:
        self.expired = False
        self._event = threading.Event()
        self._lock = threading.RLock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._serial = 0

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Stop the work: idempotent, returns after all registered callbacks ran."""
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def raise_if_cancelled(self) -> None:
        """Raise :class:`~drd.errors.Cancelled` when the work must stop."""
        if self._event.is_set():
            raise Cancelled("interrupted; what was under way has been undone")

    def sleep(self, seconds: float) -> None:
        """Wait up to ``seconds``; raise :class:`~drd.errors.Cancelled` as soon as the work must stop."""
        self._event.wait(seconds)
        self.raise_if_cancelled()

    @contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Run ``callback`` if the work is cancelled inside the block; at once when it already was."""
        with self._lock:
            already = self._event.is_set()
            self._serial += 1
            serial = self._serial
            if not already:
                self._callbacks[serial] = callback
        if already:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(serial, None)


@contextmanager
def deadline(parent: CancelToken, seconds: float) -> Iterator[CancelToken]:
    """Give a token for one piece of work: cancelled with its parent, or after ``seconds`` (then it is ``expired``)."""
    token = CancelToken()

    def expire() -> None:
        token.expired = not token.cancelled
        token.cancel()

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), expire)
    timer.daemon = True
    timer.start()
    try:
        with parent.on_cancel(token.cancel):
            yield token
    finally:
        timer.cancel()
