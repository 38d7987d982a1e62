"""Output for people: the words of :mod:`drd.wording`, colours, marks, tables, error lines. Decides nothing."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from drd.errors import DrdError
from drd.legible import legible
from drd.wording import ago, number, plural, point, size, span, when

__all__ = [
    "ago",
    "coloured",
    "error_lines",
    "legible",
    "mark",
    "number",
    "paint",
    "plural",
    "point",
    "size",
    "span",
    "table",
    "when",
]

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}


def coloured(stream: TextIO) -> bool:
    """Whether to use colour on this stream: a terminal, and no one said NO_COLOR (no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Colour the text where the stream shows it; colour never carries meaning alone."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if coloured(stream or sys.stdout) else text


def mark(outcome: str, stream: TextIO | None = None) -> str:
    """Return ✓, ! or ✗ for an outcome."""
    sign, colour = {"ok": ("✓", "green"), "planned": ("·", "dim"), "warning": ("!", "yellow")}.get(
        outcome, ("✗", "red")
    )
    return paint(sign, colour, stream)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Align rows under headings, two spaces apart, numbers as given; ends without a newline."""
    widths = [max(len(str(row[i])) for row in (headings, *rows)) for i in range(len(headings))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)
    ]
    return "\n".join((indent + line).rstrip() for line in lines)


def fits(text: str, stream: TextIO | None = None) -> bool:
    """Whether no line has to be broken where it is shown; what is not a terminal takes any."""
    stream = stream or sys.stdout
    return not stream.isatty() or max(map(len, text.splitlines()), default=0) <= shutil.get_terminal_size().columns


def error_lines(error: DrdError, *, stream: TextIO | None = None) -> str:
    """Return an error as people see it: what failed and why, what to do, the exit code.

    A subject with which the message begins or ends, or a key that it names, is not said twice.
    """
    named = re.escape(error.subject)  # as a whole: a source called pg is not named by "pg_dump failed"
    said = bool(re.search(rf"^{named}(?![\w.-])|(?<![\w.-]){named}$", error.message))
    said = said or ("/" in error.subject and error.subject in error.message)
    subject = "" if said else error.subject
    where = " ".join(part for part in (error.op, subject) if part)
    lines = [f"{mark('failed', stream)} {where + ': ' if where else ''}{error.message}"]
    if error.hint:
        lines.append(f"  {error.hint}")
    lines.append(paint(f"  exit {error.exit_code}", "dim", stream))
    return "\n".join(lines)
