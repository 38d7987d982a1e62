"""Tell the configured receivers how a verb went; a failure to do so is a warning and a number, and changes nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help needs none of it
    from drd.cli.session import Session
    from drd.drills.suite import Drill
    from drd.errors import DrdError
    from drd.events import Delivery, Event
    from drd.model import Json
    from drd.ops.backup import BackupReport
    from drd.ops.drill import DrillReport, Request


def tell(session: Session, events: Sequence[Event]) -> Delivery:
    """Tell them, warn on standard error of each receiver that was not reached, and return how it went."""
    delivery = session.notifier.notify(events)
    for peer in delivery.failures:
        session.log.warning("notify.failed", peer=peer.peer, attempts=peer.attempts, message=peer.message)
    with contextlib.suppress(BrokenPipeError):  # who does not listen misses a warning, and no work
        for peer in delivery.failures:
            print(
                f"drd: warning: {peer.peer} was not told ({delivery.events} alerts, {peer.attempts} tries): "
                f"{peer.message}",
                file=sys.stderr,
                flush=True,
            )
    return delivery


def tell_backups(session: Session, report: BackupReport) -> Delivery:
    """Tell how a run of backups went."""
    from drd.ops.announce import backup_events

    return tell(session, backup_events(report, session.services.ports.now()))


def tell_failure(session: Session, names: Sequence[str], error: DrdError) -> None:
    """Tell that the named sources (all, where none is named) were not backed up; one that is not configured is not."""
    from drd.ops.announce import failed_events
    from drd.wiring_notify import utc_now

    config = session.__dict__.get("config")  # where it could not be read, nobody is known
    if config is None:
        return
    engines = {name: source.type for name, source in config.sources.items() if not names or name in names}
    tell(session, failed_events(engines, error, utc_now()))


def tell_drills(session: Session, plans: Sequence[Drill], reports: Sequence[DrillReport], request: Request) -> Delivery:
    """Tell how drills went: ``reports`` are of ``plans``, in their order."""
    from drd.ops.announce_drill import drill_events, summary_of
    from drd.repository.layout import new_backup_id

    now = session.services.ports.now()
    own_choice = request.backup is None and request.at is None
    events: list[Event] = []
    for plan, report in zip(plans, reports, strict=True):
        summary = summary_of(plan, report, now, own_choice=own_choice)
        if summary is not None:
            events += drill_events(summary, new_backup_id(now))
    return tell(session, events)


def document(delivery: Delivery) -> dict[str, Json]:
    """Return what a ``--json`` document says of it; nothing where nobody is configured."""
    if not delivery.peers:
        return {}
    peers: list[Json] = [
        {"peer": peer.peer, "outcome": peer.outcome, "attempts": peer.attempts, "message": peer.message}
        for peer in delivery.peers
    ]
    return {"notified": {"events": delivery.events, "failed": len(delivery.failures), "peers": peers}}
