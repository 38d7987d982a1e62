"""Databases that change their names: one that was built takes the name of a live one, which is kept under another.

The server knows no statement for both renames, so between them nobody has the live name. Each is sent with an id by
which :func:`await_end` finds it while the server works on it.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from drd.engines.clickhouse import alive
from drd.engines.clickhouse.client import ACCESS_DENIED, Server, ServerRefusal
from drd.engines.clickhouse.quoting import identifier
from drd.engines.clickhouse.unfinished import FORCE
from drd.errors import DrdError, TargetError

_PREFIX = "drd-rename-"
_LOOK_AGAIN_S = 0.05
_END_WITHIN_S = 40.0
"""The sign of one that died is gone after half a minute at the latest, see :mod:`.alive`."""


@dataclass(frozen=True, slots=True)
class Change:
    """``built`` takes the name ``live``; who has it now is called ``away`` from then on (None: nobody has it)."""

    live: str
    away: str | None
    built: str

    def way_made(self, there: set[str]) -> bool:
        """Whether the first rename needs not be sent, given the names there are."""
        return self.away is None or self.away in there

    def done(self, there: set[str]) -> bool:
        """Whether the second one, after the first, needs not be sent."""
        return self.live in there and self.built not in there


def token_of(restore_id: str) -> str:
    """Return what marks the renames of one restore, and the sign of life of who sends them."""
    return hashlib.sha256(restore_id.encode()).hexdigest()[:16]


def rename(server: Server, old: str, new: str, token: str) -> None:
    """Rename a database, also one whose dictionaries and views hold on to each other (else code 630)."""
    server.execute(
        f"RENAME DATABASE {identifier(old)} TO {identifier(new)}",
        settings=FORCE,
        query_id=f"{_PREFIX}{token}-{secrets.token_hex(4)}",
    )


def change_names(server: Server, changes: Sequence[Change], token: str) -> None:
    """Carry changes out, those that are under way already to their end.

    Two may do so at once, and one after another died: a rename that is refused because its effect is there is done.
    When one is refused, or the server is lost, those that took a name from somebody are taken back, as far as the
    server lets them, before its error is raised.
    """
    there = _names(server)
    try:
        for change in changes:
            if change.away is not None and not change.way_made(there):
                _unless(server, change.way_made, change.live, change.away, token)
                there = (there - {change.live}) | {change.away}
            if not change.done(there):
                _unless(server, change.done, change.built, change.live, token)
    except (ServerRefusal, DrdError):
        _take_back(server, changes, token)
        raise


def _unless(server: Server, done: Callable[[set[str]], bool], old: str, new: str, token: str) -> None:
    """Rename; a refusal is raised unless another one has just done it."""
    try:
        rename(server, old, new, token)
    except ServerRefusal:
        if not done(_names(server)):
            raise


def _take_back(server: Server, changes: Sequence[Change], token: str) -> None:
    """Give names back to who had them; what fails is left to who looks at the names next, which is who asked."""
    with suppress(ServerRefusal, DrdError):
        _await(server, lambda: _running(server, token, signs=False))
        there = _names(server)
        for change in reversed(changes):
            if change.away is not None and change.away in there:
                with suppress(ServerRefusal, DrdError):
                    if change.done(there):
                        rename(server, change.live, change.built, token)
                    rename(server, change.away, change.live, token)


def await_end(server: Server, token: str) -> None:
    """Wait until nobody renames for this restore: neither a drd's second process, nor the server for one that died.

    Raises :class:`~drd.errors.TargetError` when that takes too long.
    """
    _await(server, lambda: _running(server, token, signs=True))


def _await(server: Server, running: Callable[[], bool]) -> None:
    until = time.monotonic() + max(_END_WITHIN_S, server.settings.look_timeout_s)
    while running():
        if time.monotonic() > until:
            raise TargetError(
                "the server still works on a rename of this restore", hint="wait for it: SELECT * FROM system.processes"
            )
        time.sleep(_LOOK_AGAIN_S)


def _running(server: Server, token: str, *, signs: bool) -> bool:
    """Whether renames of a restore are under way, or with ``signs``, who sends them lives; False where none may see."""
    try:
        rows = server.rows(
            "SELECT 1 FROM system.processes WHERE startsWith(query_id, {prefix:String}) LIMIT 1",
            {"prefix": f"{_PREFIX}{token}-"},
        )
        return bool(rows) or (signs and token in alive.living(server))
    except ServerRefusal as refusal:
        if refusal.number != ACCESS_DENIED:
            raise
        return False


def _names(server: Server) -> set[str]:
    return {row["name"] for row in server.rows("SELECT name FROM system.databases")}
