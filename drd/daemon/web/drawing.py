"""Small drawings as inline SVG: sizes as a line, spans and amounts as bars.

Colours come from the classes of the style sheet. No drawing holds text, so that no letter gets too small at any width;
each has a label that says in words what it shows, for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from drd.legible import legible

_SPARK_STEP, _SPARK_HEIGHT = 10, 60
_BAR_HEIGHT = 10


def sparkline(sizes: Sequence[int], label: str) -> Markup:
    """Draw sizes, oldest first, above zero and scaled to the largest; nothing for fewer than two."""
    if len(sizes) < 2:
        return Markup()
    rise = (_SPARK_HEIGHT - 6) / max(*sizes, 1)
    heights = [_SPARK_HEIGHT - 3 - round(rise * size) for size in sizes]
    line = "L".join(f"{x * _SPARK_STEP} {y}" for x, y in enumerate(heights))
    width, floor = (len(sizes) - 1) * _SPARK_STEP, _SPARK_HEIGHT + 9
    return drawn(
        f'<svg class="spark" viewBox="0 0 {width} {_SPARK_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label_of(label)}"><path d="M-9 {floor}V{heights[0]}L{line}H{width + 9}V{floor}"/></svg>'
    )


def bar(start: float, end: float, label: str, *, mark: float | None = None) -> Markup:
    """Draw the span between two shares (0 to 1) of a full width, a hair at least; ``mark`` points at a share."""
    left, right = (min(1.0, max(0.0, share)) for share in (start, end))
    width = max(0.004, right - left)
    left = min(left, 1 - width)
    point = "" if mark is None else f'<use href="#passed" x="{percent(mark)}" y="{_BAR_HEIGHT / 2:.0f}"/>'
    return drawn(
        f'<svg class="bar" width="100%" height="{_BAR_HEIGHT}" role="img" aria-label="{label_of(label)}">'
        f'<rect class="track" width="100%" height="{_BAR_HEIGHT}" rx="3"/>'
        f'<rect x="{percent(left)}" width="{percent(width)}" height="{_BAR_HEIGHT}" rx="3"/>{point}</svg>'
    )


def drawn(svg: str) -> Markup:
    """Take a drawing as it is: made of numbers and names of ours, and of labels by :func:`label_of`."""
    return Markup(svg)  # noqa: S704 # the one place: formatting as markup is ten times slower


def label_of(text: str) -> Markup:
    """Return any text as the value of a quoted attribute."""
    return escape(legible(text))


def percent(share: float) -> str:
    """Write a share (0 to 1) as SVG takes it."""
    return f"{100 * share:.2f}%"
