"""Words for people: sizes, ages, times, tables and error lines. Nothing here decides anything."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TextIO

from drd.errors import DrdError

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}


def size(count: float | None) -> str:
    """Return a size in binary units, such as ``412 MiB``; a dash for None."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def span(seconds: float | None) -> str:
    """Return a duration in the one or two units that matter, such as ``59 min 59 s``; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    for unit, length, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = (whole % length) // small
            return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("unreachable")


def when(moment: datetime | None) -> str:
    """Return a time as ``2026-11-22 18:14:55 UTC``; a dash for None."""
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def point(moment: datetime | None) -> str:
    """Return a recovery point as :func:`when` does, rounded up: asking for the printed time then reaches it."""
    return when(moment and moment + timedelta(microseconds=999_999))


def number(count: int | None) -> str:
    """Return a count with thousands separated; a dash for None."""
    return "–" if count is None else f"{count:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """Return ``1 source`` or ``2 sources``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


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
