"""Is a backup late, and who is told of it. The decision is pure; :class:`LateAlerts` remembers what was told.

A failed run tells by itself; what nobody tells of is a run that never was: no daemon, no leader, a schedule that
somebody took away. So the age of what lies in the store is looked at, whoever put it there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from drd.daemon.model import Overview, SourceView
from drd.events import Delivery, Event
from drd.ops.announce import late_event
from drd.protocols import Notifier
from drd.wording import span

AGAIN = timedelta(hours=1)
"""How often a state that holds is told anew: receivers forget when they restart."""
MOST_SLACK_S = 3600.0


def late_because(view: SourceView, now: datetime, since: datetime) -> str | None:
    """Say why the newest backup of a source is too old, ``""`` when it is not, None when that cannot be known.

    Too old is what is older than the RPO; without one, what began longer ago than the longest gap between two planned
    backups and half as much again (an hour at most). A source without any backup is late when all that has passed
    ``since`` the daemon started.
    """
    status = view.status
    if not status.configured:
        return ""
    if status.newest is None and status.coverage.unknown:
        return None
    allowed_s, what = status.rpo_s, "its RPO is"
    if allowed_s is None:
        gap_s = view.longest_gap_s
        if gap_s is None:
            return ""
        allowed_s, what = gap_s + min(gap_s / 2, MOST_SLACK_S), "its schedule makes one at least every"
    newest = status.newest
    if newest is None:
        if (now - since).total_seconds() <= allowed_s:
            return ""
        return f"there is none that can be restored; {what} {span(view.longest_gap_s or allowed_s)}"
    old_s = (now - newest.recovery_point).total_seconds()
    if old_s <= allowed_s:
        return ""
    return f"the newest is {span(old_s)} old; {what} {span(status.rpo_s or view.longest_gap_s or allowed_s)}"


class LateAlerts:
    """Tells who is late and who no longer is. Used by one thread."""

    def __init__(self, told: Callable[[Delivery], None]) -> None:
        self._told = told
        self._states: dict[str, tuple[bool, datetime]] = {}

    def look(self, overview: Overview, since: datetime, now: datetime, notifier: Notifier) -> list[str]:
        """Tell what has changed, what was never told, and now and then what still holds; return who is late."""
        events: list[Event] = []
        states: dict[str, tuple[bool, datetime]] = {}
        late: list[str] = []
        for view in overview.sources if overview.known else ():
            why = late_because(view, now, since)
            if why is None or not view.status.configured:
                continue
            firing = bool(why)
            if firing:
                late.append(view.name)
            before = self._states.get(view.name)
            if before is None or before[0] != firing or (firing and now - before[1] >= AGAIN) or now < before[1]:
                events.append(late_event(view.name, view.engine, why, view.status.newest, now))
                states[view.name] = (firing, now)
        if events:
            delivery = notifier.notify(events)
            self._told(delivery)
            if not delivery.failures:  # else all of it is told again by the next heartbeat
                self._states |= states
        return late
