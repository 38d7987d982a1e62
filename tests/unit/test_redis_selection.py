"""Patterns of Redis keys, as the server itself reads them."""

from __future__ import annotations

import pytest

from drd.engines.redis.selection import matcher
from drd.selection import Selection


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("user:*", ["user:", "user:1", "user:a\nb"], ["users", "xuser:1"]),
        ("h?llo", ["hello", "hallo"], ["hllo", "heello"]),
        ("h[ae]llo", ["hello", "hallo"], ["hillo"]),
        ("h[^e]llo", ["hallo", "hbllo"], ["hello"]),
        ("h[a-b]llo", ["hallo", "hbllo"], ["hcllo"]),
        ("h[b-a]llo", ["hallo", "hbllo"], ["hcllo"]),
        (r"a\*b", ["a*b"], ["axb"]),
        (r"[\]x]", ["]", "x"], ["\\"]),
        ("a.b+", ["a.b+"], ["axbb"]),
        ("[", [], ["[", "a"]),
        ("a[bc", ["ab", "ac"], ["a[bc"]),
        ("größe*", ["größe1"], ["grosse"]),
    ],
)
def test_pattern(pattern: str, yes: list[str], no: list[str]) -> None:
    """``* ? [a] [^a] [a-b]`` and a backslash mean what SCAN documents, over bytes; all else is itself."""
    chosen = matcher(Selection(keys=(pattern,)))
    assert chosen is not None
    assert [text for text in yes if not chosen(text.encode())] == []
    assert [text for text in no if chosen(text.encode())] == []


def test_several_patterns() -> None:
    """A key that matches any of the patterns is chosen; without patterns nothing is asked."""
    chosen = matcher(Selection(keys=("a*", "b*")))
    assert chosen is not None
    assert [chosen(name) for name in (b"a1", b"b1", b"c1")] == [True, True, False]
    assert matcher(Selection()) is None
