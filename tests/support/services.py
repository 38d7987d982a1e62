"""What a test does about a service that this machine lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from devstack.errors import ServiceMissing


@contextmanager
def present() -> Iterator[None]:
    """Turn a missing service into a skip, or into a failure where nothing may be missing."""
    try:
        yield
    except ServiceMissing as missing:
        do_without(str(missing))


def do_without(reason: str) -> NoReturn:
    """Skip the test for want of what ``reason`` names; where nothing may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every service: {reason}", pytrace=False)
    pytest.skip(reason)
