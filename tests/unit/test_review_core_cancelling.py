"""An interruption while the store has hiccups: what ends, what is said, what is left."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drd.cancel import CancelToken
from drd.errors import Cancelled, SourceRefused, StoreUnavailable
from drd.model import DumpResult
from drd.ops.backup import back_up
from drd.ops.ports import Source
from drd.protocols import ArtifactSink, WorkContext
from drd.repository.catalog import Catalog
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.retry import RetryStore
from tests.support.engine import DictEngine
from tests.support.hooked_store import HookedStore
from tests.unit.test_review_core_publishing import ports_of


class Interrupted(DictEngine):
    """Is interrupted after it wrote something, and then ends as it is told."""

    def __init__(self, interrupt: Callable[[], None], *, fail: bool) -> None:
        super().__init__()
        self._interrupt = interrupt
        self._fail = fail

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        writer = sink.open("x")
        writer.write(b"y" * 200_000)
        writer.close()
        self._interrupt()
        if self._fail:
            raise SourceRefused("the server's disk is full")
        raise Cancelled("interrupted")


@pytest.mark.parametrize(("fail", "kind"), [(False, Cancelled), (True, SourceRefused)])
def test_a_hiccup_while_undoing_hides_nothing(tmp_path: Path, fail: bool, kind: type[Exception]) -> None:
    """The first error stays the outcome, and its hint says that the next run sweeps what could not be removed."""
    cancel, inner = CancelToken(), HookedStore()

    def hiccup(method: str, _key: str) -> None:
        if cancel.cancelled and method in {"put", "stat", "delete"}:
            raise StoreUnavailable("slow down")

    inner.before = hiccup
    ports = dataclasses.replace(ports_of(RetryStore(inner, cancel=cancel), tmp_path, "host"), cancel=cancel)
    report = back_up(ports, [Source("shop", Interrupted(cancel.cancel, fail=fail), 60.0)])
    error = report.sources[0].error
    assert isinstance(error, kind)
    assert "swept by the next run" in error.hint


def test_reading_a_catalog_ends_with_an_interruption() -> None:
    """``drd list`` of ten thousand backups stops at Ctrl-C: no manifest is read after it."""
    cancel, inner = CancelToken(), HookedStore()
    for number in range(50):
        MemoryStore.put(inner, f"backups/src/20261122T1814{number:02}Z-abcdef/manifest.json", b"{}")
    inner.before = lambda method, _key: cancel.cancel() if method == "get" else None
    with pytest.raises(Cancelled):
        Catalog(RetryStore(inner, cancel=cancel)).entries()
    assert sum(method == "get" for method, _ in inner.calls) <= 10


@pytest.mark.parametrize(("prefix", "stops"), [((), True), (("nohup",), False)])
def test_a_lost_terminal_interrupts_unless_nohup(prefix: tuple[str, ...], stops: bool) -> None:
    """SIGHUP, as a dropped ssh session sends it, undoes like Ctrl-C even when standard error is gone."""
    script = (
        "import sys; from drd.cancel import CancelToken; from drd.cli.interrupts import Interrupts\n"
        "token = CancelToken()\n"
        "with Interrupts(token):\n"
        "    print('ready', flush=True); token._event.wait(1.5); print(token.cancelled, flush=True)\n"
    )
    child = subprocess.Popen(
        [*prefix, sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == b"ready\n"
    if not prefix:
        child.stderr.close()
    child.send_signal(signal.SIGHUP)
    assert child.stdout.readline() == f"{stops}\n".encode()
    child.wait(20)
    child.stdout.close()
    child.stderr.close()
