"""Who is told of events, as a configuration names them: the part of wiring that knows notifiers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from drd.cancel import CancelToken
from drd.config import Config
from drd.errors import ConfigError
from drd.protocols import Notifier

if TYPE_CHECKING:  # made when it is asked for
    from drd.notify.pushgateway import Gateway


def utc_now() -> datetime:
    """Return the time, for what is told when nothing else is wired."""
    return datetime.now(UTC)


def gateway_of(config: Config, url: str | None) -> Gateway:
    """Return the configured Pushgateway, or the one at ``url``; raises ConfigError for a URL that is none."""
    from pydantic import ValidationError

    from drd.config_metrics import PushgatewayConfig
    from drd.notify.peer import Access
    from drd.notify.pushgateway import Gateway

    settings = config.metrics.pushgateway
    try:
        known = settings.model_dump(exclude={"url", "credentials"}) if settings else {}
        if url is not None:
            secret = settings.credentials if settings else None
            settings = PushgatewayConfig.model_validate({**known, "url": url, "credentials": secret})
    except ValidationError as error:
        text = "; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors(include_input=False))
        raise ConfigError(f"--push-gateway: {text}", hint="give http://host:9091") from None
    if settings is None:
        raise ConfigError("no Pushgateway is configured", hint="give --push-gateway URL")
    access = Access(
        timeout_s=settings.timeout.total_seconds(),
        ca_file=settings.ca_file,
        username=settings.username,
        credentials=settings.credentials.resolve if settings.credentials else None,
        section="metrics.pushgateway",
        address="metrics.pushgateway.url",
    )
    return Gateway(settings.url, access, settings.job, settings.labels)


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
