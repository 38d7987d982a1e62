"""Engine work is bounded: results and errors pass, a cancelled one may clear up, one that hangs is left behind."""

from __future__ import annotations

import threading
import time

import pytest

from drd.cancel import CancelToken
from drd.errors import Cancelled, SourceRefused
from drd.ops.bounded import left_behind, run_bounded


def test_results_and_errors_pass() -> None:
    """What the work returns is returned, and what it raises is raised."""

    def fail() -> None:
        raise SourceRefused("no")

    assert run_bounded(lambda: 42, CancelToken(), 1.0) == 42
    with pytest.raises(SourceRefused, match="no"):
        run_bounded(fail, CancelToken(), 1.0)


def test_cancelled_work_may_clear_up() -> None:
    """Work that ends within its grace time ends with its own error, after it cleared up."""
    cancel, cleared = CancelToken(), threading.Event()

    def work() -> None:
        try:
            cancel.sleep(30)
        finally:
            time.sleep(0.1)
            cleared.set()

    threading.Timer(0.05, cancel.cancel).start()
    with pytest.raises(Cancelled, match="has been undone"):
        run_bounded(work, cancel, 5.0)
    assert cleared.is_set()


def test_work_that_hangs_is_left_behind() -> None:
    """Work that does not end is given up after its grace time, in words that say so."""
    cancel, stuck = CancelToken(), threading.Event()
    threading.Timer(0.05, cancel.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled, match="did not answer for 0 s"):
        run_bounded(lambda: stuck.wait(30), cancel, 0.2)
    assert time.monotonic() - began < 5
    assert left_behind()
    stuck.set()
    until = time.monotonic() + 5
    while left_behind() and time.monotonic() < until:
        time.sleep(0.01)
    assert not left_behind()
