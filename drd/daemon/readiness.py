"""Can this daemon do its work? Three answers, each with the reason where it cannot."""

from __future__ import annotations

from dataclasses import dataclass

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


def conditions(board: Board, *, silent_s: float | None, store_error: str, heartbeat_s: float) -> tuple[Condition, ...]:
    """Judge the configuration, the store and the scheduler.

    The store counts as reachable when it answered the last time, within three heartbeats; ``silent_s`` is how long ago
    that was, None for never, whatever was done to the wall clock since. A replica that stands by for
    the leader is ready as well.
    """
    return (
        Condition("configuration", board.reload_error),
        Condition("store", _store(silent_s, store_error, heartbeat_s)),
        Condition("scheduler", "" if board.state == "running" else f"it is {board.state}"),
    )


def _store(silent_s: float | None, error: str, heartbeat_s: float) -> str:
    if error:
        return error
    if silent_s is None:
        return "it was not asked yet"
    if silent_s > _MISSED_BEATS * heartbeat_s:
        return f"it has not answered for {silent_s:.0f} s"
    return ""
