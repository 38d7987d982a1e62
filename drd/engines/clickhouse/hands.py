"""The second pair of hands: a process that renames databases, and ends what it began though drd be killed meanwhile.

``python -m drd.engines.clickhouse.hands`` reads an :class:`Order`, one line of JSON, connects, says that it is ready,
and waits for ``go``. Where its standard input ends before that, it leaves, having done nothing; after it, it carries
the order out whatever becomes of drd, and says how it went. Then it waits for ``bye``: where its input ends without,
drd was killed before it had done what follows a rename (:mod:`.finish`), and that is done here, too. No signal but
SIGKILL keeps it from all that; an alarm ends it where something hangs. :mod:`.handover` starts it. Both are of one
version, which the order names.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from drd.engines.clickhouse import alive
from drd.engines.clickhouse.client import TARGET, Server, ServerRefusal
from drd.engines.clickhouse.finish import finish
from drd.engines.clickhouse.renames import Change, change_names, token_of
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.errors import DrdError, TargetError
from drd.model import Secret

VERSION = 2
GO = b"go\n"
BYE = b"bye\n"
ORDER_WITHIN_S = 60
_TRIES, _TRY_AGAIN_S = 3, 1.0
_DEAF_TO = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Order:
    """Which names to change, on which server; ``settings`` matter as far as a connection needs them."""

    settings: ClickHouseSettings
    restore_id: str
    changes: Sequence[Change]

    @property
    def ready_within_s(self) -> int:
        """How long it may take to connect and to be told to go."""
        return round(60 + 2 * self.settings.look_timeout_s)

    @property
    def done_within_s(self) -> int:
        """How long the renames may take, and going back where one is refused."""
        return round(60 + 3 * max(30.0, self.settings.stall_timeout_s))

    def line(self) -> bytes:
        """Spell it; it holds the password."""
        settings = self.settings
        return json.dumps({
            "version": VERSION,
            "url": settings.url,
            "password": settings.password.reveal() if settings.password else None,
            "ca_file": str(settings.ca_file.absolute()) if settings.ca_file else None,
            "connect_timeout_s": settings.connect_timeout_s,
            "stall_timeout_s": settings.stall_timeout_s,
            "restore_id": self.restore_id,
            "changes": [[change.live, change.away, change.built] for change in self.changes],
        }).encode() + b"\n"  # fmt: skip

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Read it; raises ValueError for one of another version of drd, whose package was replaced as it ran."""
        fields = json.loads(line)
        if fields["version"] != VERSION:
            raise ValueError(f"an order of version {fields['version']}, and this drd knows {VERSION}")
        settings = ClickHouseSettings(
            fields["url"],
            Secret(fields["password"]) if fields["password"] is not None else None,
            ca_file=Path(fields["ca_file"]) if fields["ca_file"] else None,
            connect_timeout_s=fields["connect_timeout_s"],
            stall_timeout_s=fields["stall_timeout_s"],
        )
        return cls(settings, fields["restore_id"], [Change(*change) for change in fields["changes"]])


def demand_done(answer: dict[str, Any]) -> None:
    """Raise the error that an answer tells of, as the server's client raised it in the other process."""
    if refused := answer.get("refused"):
        raise ServerRefusal(*refused)
    if failed := answer.get("failed"):
        raise TargetError(failed[0], hint=failed[1])


def main() -> int:
    """Do what the docstring of this module says; the exit code says nothing."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # who started it may have blocked the alarm
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(ORDER_WITHIN_S)
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if line.endswith(b"\n"):
        _serve(Order.read(line))
    return 0


def _serve(order: Order) -> None:
    signal.alarm(order.ready_within_s)
    server = Server(order.settings, TARGET)
    try:
        token = token_of(order.restore_id)
        with alive.sign(server, token):
            _say({"ready": True})
            if sys.stdin.buffer.readline() != GO:
                return
            signal.alarm(order.done_within_s)
            change_names(server, order.changes, token)
            _say({"done": True})
            signal.alarm(order.done_within_s)
            if sys.stdin.buffer.readline() != BYE:
                signal.alarm(order.done_within_s)
                _finish(server, order.restore_id)
    except ServerRefusal as refusal:
        _say({"refused": [refusal.number, refusal.text]})
    except DrdError as error:
        _say({"failed": [error.message, error.hint]})


def _finish(server: Server, restore_id: str) -> None:
    """Do what drd, killed, did not come to; the server may still work on what it was told last."""
    for last in (False,) * (_TRIES - 1) + (True,):
        try:
            finish(server, restore_id)
        except (ServerRefusal, DrdError):
            if last:
                raise
            time.sleep(_TRY_AGAIN_S)
        else:
            return


def _say(answer: dict[str, Any]) -> None:
    """Say one line; that nobody listens any more changes nothing."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
