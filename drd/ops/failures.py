"""What an error says once it ends the work on a source."""

from __future__ import annotations

from drd.errors import DrdError


def of_source(error: DrdError, op: str, source: str) -> DrdError:
    """Make ``error`` one about ``op`` on ``source`` and return it.

    What it was raised about, such as an object of the store, goes into the message unless that names it already.
    """
    if error.subject not in {"", source} and error.subject not in error.message:
        error.message = f"{error.subject}: {error.message}"
    error.op, error.subject = op, source
    return error
