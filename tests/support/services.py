"""What a test does about a service that this machine lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devstack.errors import ServiceMissing


@contextmanager
def present() -> Iterator[None]:
    """Turn a missing service into a skip, or into a failure where nothing may be missing."""
    try:
        yield
    except ServiceMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have every service: {missing}", pytrace=False)
        pytest.skip(str(missing))
