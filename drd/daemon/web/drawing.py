"""Small drawings as inline SVG: sizes as a line, spans and amounts as bars.

Colours come from the classes of the style sheet. No drawing holds text, so that no letter gets too small at any width;
each has a label that says in words what it shows, for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

_SPARK_WIDTH, _SPARK_HEIGHT = 96, 24
_BAR_HEIGHT = 12


def sparkline(sizes: Sequence[int], label: str) -> Markup:
    """Draw sizes, oldest first, above zero and scaled to the largest; nothing for fewer than two."""
    if len(sizes) < 2:
        return Markup()
    top, step = max(*sizes, 1), _SPARK_WIDTH / (len(sizes) - 1)
    points = [
        f"{index * step:.1f} {_SPARK_HEIGHT - 1 - (_SPARK_HEIGHT - 3) * size / top:.1f}"
        for index, size in enumerate(sizes)
    ]
    line = "M" + "L".join(points)
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">'
        '<path class="area" d="{line}V{h}H0z"/><path class="line" d="{line}"/></svg>'
    ).format(w=_SPARK_WIDTH, h=_SPARK_HEIGHT, label=legible(label), line=line)


def bar(start: float, end: float, label: str, *, mark: float | None = None) -> Markup:
    """Draw the span between two shares (0 to 1) of a full width, a hair at least; ``mark`` points at a share."""
    left, right = (min(1.0, max(0.0, share)) for share in (start, end))
    width = max(0.004, right - left)
    left = min(left, 1 - width)
    point = "" if mark is None else Markup('<use href="#passed" x="{}" y="{}"/>').format(percent(mark), _BAR_HEIGHT / 2)
    return Markup(
        '<svg class="bar" width="100%" height="{h}" role="img" aria-label="{label}">'
        '<rect class="track" width="100%" height="{h}" rx="3"/>'
        '<rect class="fill" x="{x}" width="{w}" height="{h}" rx="3"/>{point}</svg>'
    ).format(h=_BAR_HEIGHT, label=legible(label), x=percent(left), w=percent(width), point=point)


def percent(share: float) -> str:
    """Write a share (0 to 1) as SVG and style sheets take it."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def legible(text: str) -> str:
    """Return text in which what cannot be seen is: control characters, those that reorder a line, broken ones."""
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else " " if c in "\n\t" else "\ufffd" for c in text)
    )
