"""Unit tests of what makes a name of somebody else's fit for one line of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drd.cli import render
from drd.errors import ConfigError, TargetError
from drd.legible import legible
from drd.model import CheckItem, Notice, TargetState

NASTY = "orders\n✓ all is well\x1b[2J\u202e\ud800"
SHOWN = r"orders\n✓ all is well\x1b[2J\u202e\ud800"


@given(st.text(st.characters()))
def test_any_text_fits_one_line(text: str) -> None:
    """Whatever a name holds, what is shown of it is printable, and a name that was fit already is itself."""
    assert legible(text).isprintable()
    assert legible(legible(text)) == legible(text)
    if text.isprintable():
        assert legible(text) == text


def test_what_people_read_is_legible() -> None:
    """Notices, checks, targets and errors hold no character that begins a line or moves the cursor."""
    assert Notice("code", NASTY).message == SHOWN
    item = CheckItem(NASTY, "failed", NASTY, NASTY)
    assert {item.name, item.detail, item.hint} == {SHOWN}
    assert TargetState(NASTY, empty=False).description == SHOWN
    error = TargetError(NASTY, hint=NASTY).during("restore", NASTY)
    error.add_hint(NASTY)
    assert render.error_lines(error).splitlines()[1:] == [f"  {SHOWN}; {SHOWN}", "  exit 13"]
    assert NASTY not in render.error_lines(error)


def test_the_problems_of_a_document_stay_lines() -> None:
    """A configuration error with several problems keeps its lines; a name in one of them begins none."""
    message = ConfigError(f"drd.yaml: 2 problems\n  first: {NASTY}\n  second").message
    assert message.splitlines() == ["drd.yaml: 2 problems", f"  first: {SHOWN}", "  second"]


@pytest.mark.parametrize("text", ["Bücher", "注文", "a b", "naïve – “quoted”"])
def test_letters_stay(text: str) -> None:
    """Letters of any language are shown as they are."""
    assert legible(text) == text
