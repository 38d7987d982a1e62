"""Wait for a server to answer a query, for a time, and say in its own words why it does not."""

from __future__ import annotations

import time
from collections.abc import Callable

from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.scratch.recipes.recipe import NotReady

_WORDS = 600


class PortTaken(Exception):
    """Somebody else listens where the server was to."""


def last_words(log: str, *, hide: str = "") -> str:
    """Return the last lines of a log on one line, at most 600 characters, without the password."""
    if hide:
        log = log.replace(hide, "**********")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    text = " | ".join(lines[-4:])
    return text if len(text) <= _WORDS else "…" + text[-_WORDS:]


def wait_ready(
    ask: Callable[[], str],
    *,
    title: str,
    death: Callable[[], str],
    log: Callable[[], str],
    cancel: CancelToken,
    patience_s: float,
    hint: str,
) -> str:
    """Return the version that the server answers with.

    Raises :class:`~drd.errors.ScratchError` when it ends or is not ready in time, :class:`PortTaken` when another
    try elsewhere helps, and :class:`~drd.errors.Cancelled`.
    """
    until = time.monotonic() + patience_s
    while True:
        cancel.raise_if_cancelled()
        if dead := death():
            if "address already in use" in log().lower():
                raise PortTaken
            raise ScratchError(f"the scratch {title} ended at its start: {dead}", hint=hint)
        try:
            return ask()
        except NotReady as reason:
            if time.monotonic() > until:
                raise ScratchError(
                    f"the scratch {title} was not ready after {patience_s:.0f} s ({reason}); "
                    f"it said: {last_words(log()) or 'nothing'}",
                    hint=hint,
                ) from reason
        cancel.sleep(0.04)
