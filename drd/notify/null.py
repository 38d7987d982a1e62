"""Tell nobody, where nobody is configured."""

from __future__ import annotations

from collections.abc import Sequence

from drd.events import Delivery, Event
from drd.model import CheckItem


class NullNotifier:
    """Takes events to nobody and says so: no receiver is among the results, and a check has no line."""

    def notify(self, events: Sequence[Event]) -> Delivery:
        """Return a delivery without a receiver."""
        return Delivery(len(events))

    def check(self) -> Sequence[CheckItem]:
        """Return nothing: there is nobody to reach."""
        return ()
