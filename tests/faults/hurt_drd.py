"""Run a ``drd`` command that is hurt at one step of a restore in place: killed, refused, or shown other data.

``python hurt_drd.py HOW WHERE ARGUMENT…``. HOW is ``kill`` (as ``kill -9`` would, exit 9), ``interrupt`` (as Ctrl-C
would), ``fail`` (the server refuses), ``wait`` (it takes four seconds longer) or ``differ`` (what was built reads back
otherwise). WHERE is ``before:STEP`` or
``after:STEP`` of a step of :class:`drd.protocols.Replacer`, or ``MODULE:FUNCTION:N``: before the N-th call of a
function of drd's.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

from drd import wiring
from drd.cli.main import main
from drd.errors import TargetError

DIED = 9


class HurtReplacer:
    """Hands every call on, and is hurt before or after one of them."""

    def __init__(self, inner: Any, how: str, where: str) -> None:
        self._inner = inner
        self._how = how
        self._when, _, self._step = where.partition(":")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._step:
            return found

        def hurt(*args: Any, **more: Any) -> Any:
            if self._when == "before":
                strike(self._how)
            answer = found(*args, **more)
            if self._how == "differ":
                name, item = next(iter(answer.items.items()))
                changed = dict.fromkeys(answer.compared, "other")
                return replace(answer, items=answer.items | {name: item | changed})
            if self._when == "after":
                strike(self._how)
            return answer

        return hurt


def strike(how: str) -> None:
    """Die, be interrupted, be late, or be refused."""
    if how == "kill":
        os._exit(DIED)
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)  # until it is heard
        return
    if how == "wait":
        time.sleep(4)
        return
    raise TargetError("the server refuses (planted)", hint="this is a test")


def hurt_calls(how: str, module: str, function: str, nth: int) -> None:
    """Strike before the n-th call of a function of a module."""
    where = importlib.import_module(module)
    inner, calls = getattr(where, function), [0]

    def hurt(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth:
            strike(how)
        return inner(*args, **more)

    setattr(where, function, hurt)


if __name__ == "__main__":
    how, where = sys.argv[1:3]
    if where.count(":") == 2:
        module, function, nth = where.split(":")
        hurt_calls(how, module, function, int(nth))
    else:
        made = wiring.replacer_of
        wiring.replacer_of = lambda *config: HurtReplacer(made(*config), how, where)  # type: ignore[assignment]
    sys.exit(main(sys.argv[3:]))
