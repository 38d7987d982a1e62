"""The way from a ClickHouse server to drd's gateway: where to listen, what to advertise, what to say when it fails."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from drd.engines.clickhouse.client import ServerRefusal, Side
from drd.engines.clickhouse.gateway import Gateway
from drd.engines.clickhouse.packing import PackingSpace
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.engines.clickhouse.spaces import BackupSpace
from drd.errors import ConfigError, DrdError

_NETWORK = frozenset({0, 198, 209, 210, 499, 1000})  # unknown, DNS, timeout, network, S3_ERROR, POCO_EXCEPTION
# What ClickHouse says about a connection that failed: an exception of its library, and a status of -1, unsigned.
_NOISE = re.compile(r"Poco::Exception\. Code: 1000, e\.code\(\) = \d+, |\.? HTTP response code: 18446744073709551615\b")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def advertised(settings: ClickHouseSettings) -> str:
    """Return the configured URL base, "" when it follows from the listening address.

    Raises :class:`~drd.errors.ConfigError` for what cannot work.
    """
    if settings.gateway_advertise:
        if not settings.gateway_advertise.startswith(("http://", "https://")):
            raise ConfigError(
                f"gateway_advertise is not a URL: {settings.gateway_advertise}", hint="such as http://10.1.2.3:9444"
            )
        return settings.gateway_advertise
    host, _ = settings.listen()
    server = settings.address().host
    if _is_loopback(host) and not _is_loopback(server):
        raise ConfigError(
            f"the gateway listens on {host}, which the ClickHouse server {server} cannot reach",
            hint="set gateway_listen to an address of this machine that the server reaches, such as 10.1.2.3:9444",
        )
    return ""


@contextmanager
def open_gateway(
    space: BackupSpace | PackingSpace, settings: ClickHouseSettings, now: Callable[[], datetime], side: Side
) -> Iterator[Gateway]:
    """Serve ``space`` to the server for the length of the block; trouble with listening comes as ``side.failed``."""
    advertise = advertised(settings)
    host, port = settings.listen()
    wildcard = not advertise and host in {"0.0.0.0", "::"}  # noqa: S104 - recognised, not chosen
    via = _local_address(settings, side) if wildcard else ""
    gateway = Gateway(space, (host, port), now, advertise=advertise, host=via)
    try:
        gateway.start()
    except OSError as error:
        raise side.failed(
            f"cannot listen on {host}:{port} for the ClickHouse server: {error.strerror or error}",
            hint="another backup or restore may be using it; or set gateway_listen to a free port",
        ) from error
    try:
        yield gateway
    finally:
        gateway.stop()


def _local_address(settings: ClickHouseSettings, side: Side) -> str:
    """Learn which of our addresses the route to the server uses (no packet is sent for UDP)."""
    where = settings.address()
    try:
        family, _, _, _, target = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise side.unreachable(f"cannot reach ClickHouse at {where.netloc}: {error.strerror or error}") from error


def explain(gateway: Gateway, refusal: ServerRefusal, side: Side) -> None:
    """Raise the real reason of a job's failure where drd knows better than the server; return otherwise.

    A lost store or a damaged part comes first; then a way that never worked.
    """
    gateway.raise_failure()
    if not gateway.requests and refusal.number in _NETWORK:
        raise unreachable(gateway, side, refusal.text) from None


def unreachable(gateway: Gateway, side: Side, why: str) -> DrdError:
    """Say that the server did not get through to the gateway, or was turned away there."""
    if gateway.refusal is not None:
        return side.failed(
            f"the gateway {gateway.base_url} turned the server's requests away: {gateway.refusal.text}",
            hint="are the clocks of both machines right? is something else connecting to this port?",
        )
    return side.failed(
        f"ClickHouse cannot reach {gateway.base_url} (gateway): {why}",
        hint="open that way in the firewall or set gateway_advertise to a URL the server reaches; try: drd check",
    )


@contextmanager
def using_bucket(url: str, side: Side) -> Iterator[None]:
    """Say of the server's own way to the bucket (mode ``direct``) where it leads and what to look at when it fails."""
    try:
        yield
    except ServerRefusal as refusal:
        if refusal.number not in _NETWORK:
            raise
        raise side.failed(
            f"ClickHouse cannot use the bucket at {url}: {_NOISE.sub('', refusal.text)}",
            hint="does the server reach this URL, and may its keys list, read and write? see direct: in drd.yaml",
        ) from None
