"""How much ``drd verify --sample`` and a schedule read: amounts that say what they are."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from drd.cli.verify import _budget
from drd.config_daemon import Amount
from drd.errors import ConfigError
from drd.ops.sampling import Budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5%", Budget(share=0.05)),
        ("0.5%", Budget(share=0.005)),
        ("10GiB", Budget(bytes=10 << 30)),
        ("1B", Budget(bytes=1)),
        ("15m", Budget(seconds=900.0)),
    ],
)
def test_amounts_with_a_unit(text: str, budget: Budget) -> None:
    """A share, a size and a time are told apart by their unit."""
    assert _budget(text) == budget
    assert TypeAdapter(Amount).validate_python(text) == text


@pytest.mark.parametrize("text", ["5", "100", "0%", "101%", "-1%", "5 apples", "0B", "GiB"])
def test_amounts_that_are_none(text: str) -> None:
    """A number alone may mean a share as well as bytes, so it means nothing."""
    with pytest.raises(ConfigError, match="is no amount"):
        _budget(text)
    with pytest.raises(ValidationError):
        TypeAdapter(Amount).validate_python(text)
