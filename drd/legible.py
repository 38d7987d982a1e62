"""Text that a name of somebody else's may be in, made fit for one line of a terminal, a log or a mail.

PostgreSQL, Redis and ClickHouse take almost any character in a name. Printed as it is, a line feed begins a line that
looks like drd's own, an escape sequence moves the cursor or sets the title, and a mark of direction turns a line round.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def legible(text: str) -> str:
    r"""Return the text on one line, with what cannot be seen as an escape, such as ``\n``, ``\x1b`` or ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class OneLine:
    """A frozen dataclass whose texts people read as parts of a line: each is made :func:`legible`."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Make the texts legible."""
        for name in (one.name for one in fields(self)):  # type: ignore[arg-type] # the dataclass is the one below
            value: Any = getattr(self, name)
            if type(value) is str and not value.isprintable():
                object.__setattr__(self, name, legible(value))
