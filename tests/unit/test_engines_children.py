"""Waiting for child processes: woken at their end, and for no longer than asked."""

from __future__ import annotations

import os
import time

import pytest

from drd.cancel import CancelToken
from drd.engines.children import running


@pytest.mark.parametrize("sandboxed", [False, True])
def test_the_end_of_a_child_is_noticed(monkeypatch: pytest.MonkeyPatch, *, sandboxed: bool) -> None:
    """With a descriptor of the process or, where a sandbox does not let us have one, without: code, or None."""

    def refused(pid: int) -> int:
        raise PermissionError(pid)

    if sandboxed:
        monkeypatch.setattr(os, "pidfd_open", refused)
    with running(["/bin/sh", "-c", "read -r line; exit 7"], cancel=CancelToken(), stdin=-1) as child:
        assert child.wait(0.01) is None
        assert child.process.stdin is not None
        child.process.stdin.write(b"go\n")
        child.process.stdin.flush()
        assert child.wait(30.0) == 7
        began = time.monotonic()
        assert child.wait(30.0) == 7, "also once it is known"
        assert time.monotonic() - began < 10
