"""What the command line tells when work ends early."""

from __future__ import annotations

from argparse import Namespace
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from drd import wiring_drills
from drd.cli import drill as verb
from drd.cli.session import Silence
from drd.drills.suite import Drill
from drd.errors import Cancelled, ScratchError
from drd.events import Delivery, PeerResult
from drd.ops import drill as operation
from drd.ops.drill import DrillReport

AWAY = PeerResult("http://am:9093", "failed", 3, "cannot be reached (does it run?)")


class Recording:
    """Remembers what it is told, and says that nobody could be reached."""

    def __init__(self) -> None:
        self.events = []

    def notify(self, events):
        """Take events."""
        self.events += events
        return Delivery(len(events), (AWAY,))


def test_drills_that_were_done_are_told_though_a_later_one_was_interrupted(monkeypatch, capsys) -> None:
    """The interruption goes on as it was, the first drill's report and state are told, the failure to tell is seen."""

    def drill(ports, plan, *_):
        if plan.name == "second":
            raise Cancelled("interrupted")
        return DrillReport(plan.name, (), error=ScratchError("no room", hint="free some"))

    plans = [(Drill("first", ("pg",)), "process"), (Drill("second", ("pg",)), "process")]
    monkeypatch.setattr(verb, "_chosen", lambda *_: plans)
    monkeypatch.setattr(wiring_drills, "binder", lambda *_: None)
    monkeypatch.setattr(wiring_drills, "scratch_runtime", lambda *_: None)
    monkeypatch.setattr(operation, "drill", drill)
    notifier = Recording()
    session = SimpleNamespace(
        log=Silence(),
        services=SimpleNamespace(ports=SimpleNamespace(now=lambda: datetime(2026, 11, 23, tzinfo=UTC))),
        config=None,
        as_json=False,
        notifier=notifier,
        show_progress=lambda _: nullcontext(SimpleNamespace(say=print)),
    )
    with pytest.raises(Cancelled):
        verb.run_now(Namespace(at=None, backup=None, keep=False, drills=[], runtime=None), session)
    assert [(e.name, e.labels["drill"]) for e in notifier.events] == [
        ("DrdDrillReport", "first"),
        ("DrdDrillNotPassed", "first"),
    ]
    warning = "drd: warning: http://am:9093 was not told (2 alerts, 3 tries): cannot be reached (does it run?)"
    assert warning in capsys.readouterr().err
