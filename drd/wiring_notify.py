"""Who is told of events, as a configuration names them: the part of wiring that knows notifiers."""

from __future__ import annotations

from datetime import UTC, datetime

from drd.cancel import CancelToken
from drd.config import Config
from drd.protocols import Notifier


def utc_now() -> datetime:
    """Return the time, for what is told when nothing else is wired."""
    return datetime.now(UTC)


def notifier_of(config: Config, cancel: CancelToken) -> Notifier:
    """Return who is told; nobody where nothing is configured. Reads no secret before it is needed."""
    settings = config.alertmanager
    if settings is None:
        from drd.notify.null import NullNotifier

        return NullNotifier()
    from drd.notify.alertmanager import AlertmanagerNotifier, AlertmanagerSettings
    from drd.notify.peer import Access

    access = Access(
        timeout_s=settings.timeout.total_seconds(),
        ca_file=settings.ca_file,
        username=settings.username,
        credentials=settings.credentials.resolve if settings.credentials else None,
    )
    return AlertmanagerNotifier(
        AlertmanagerSettings(
            urls=settings.urls,
            access=access,
            patience_s=settings.patience.total_seconds(),
            report_s=settings.report_for.total_seconds(),
            state_s=settings.state_for.total_seconds(),
            labels=settings.labels,
            link=settings.link,
        ),
        now=utc_now,
        cancel=cancel,
    )
