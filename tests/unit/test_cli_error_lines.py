"""How an error names what it is about: once, and always."""

from __future__ import annotations

import io

import pytest

from drd.cli.render import error_lines
from drd.errors import SourceError


@pytest.mark.parametrize(
    ("subject", "message", "headline"),
    [
        ("shop", "the server is away", "✗ backup shop: the server is away"),
        ("shop", "shop: not done in time", "✗ backup: shop: not done in time"),
        ("shop", "no source is called shop", "✗ backup: no source is called shop"),
        ("pg", "pg_dump of shop failed", "✗ backup pg: pg_dump of shop failed"),
        ("orders", "it lost the table shop.orders", "✗ backup orders: it lost the table shop.orders"),
        (
            "backups/shop/x",
            "cannot get backups/shop/x from the store",
            "✗ backup: cannot get backups/shop/x from the store",
        ),
        ("", "nothing to do", "✗ backup: nothing to do"),
    ],
)
def test_the_subject_is_said_once(subject: str, message: str, headline: str) -> None:
    """A subject that the message begins or ends with as a whole word is not repeated; part of a word is no mention."""
    assert (
        error_lines(SourceError(message, op="backup", subject=subject), stream=io.StringIO()).splitlines()[0]
        == headline
    )
