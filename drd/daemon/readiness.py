"""Can this daemon do its work? Three answers, each with the reason where it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from drd.daemon.model import Board

_MISSED_BEATS = 3


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must be so; ``reason`` says in a line why it is not, and is empty when it is."""

    name: str
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is so."""
        return not self.reason


def conditions(
    board: Board, *, now: datetime, answered_at: datetime | None, store_error: str, heartbeat_s: float
) -> tuple[Condition, ...]:
    """Judge the configuration, the store and the scheduler.

    The store counts as reachable when it answered the last time, within three heartbeats. A replica that stands by for
    the leader is ready as well.
    """
    return (
        Condition("configuration", board.reload_error),
        Condition("store", _store(now, answered_at, store_error, heartbeat_s)),
        Condition("scheduler", "" if board.state == "running" else f"it is {board.state}"),
    )


def _store(now: datetime, answered_at: datetime | None, error: str, heartbeat_s: float) -> str:
    if error:
        return error
    if answered_at is None:
        return "it was not asked yet"
    if now - answered_at > timedelta(seconds=_MISSED_BEATS * heartbeat_s):
        return f"it has not answered since {answered_at:%Y-%m-%d %H:%M:%S} UTC"
    return ""
