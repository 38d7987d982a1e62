"""Connections for ordinary commands, and the one place where redis-py's exceptions become drd's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Literal, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from drd.engines.redis.settings import Address, Login, RedisSettings
from drd.errors import DrdError, SourceRefused, SourceUnreachable, TargetError

Side = Literal["source", "target"]
Client: TypeAlias = Any  # redis.Redis, whose command methods are typed for sync and async at once


class TargetUnreachable(TargetError):
    """No connection to the server to restore into, or it is loading its data."""

    code = "target_unreachable"
    retryable = True


def unreachable(side: Side, message: str, hint: str = "") -> DrdError:
    """Make the error for a server that may answer later."""
    return SourceUnreachable(message, hint=hint) if side == "source" else TargetUnreachable(message, hint=hint)


def refused(side: Side, message: str, hint: str = "") -> DrdError:
    """Make the error for a server that said no."""
    return SourceRefused(message, hint=hint) if side == "source" else TargetError(message, hint=hint)


def refusal(side: Side, address: Address, reply: str, login: Login, doing: str) -> DrdError:
    """Turn a server's error reply into the error to raise; the reply is the server's own words, never a secret."""
    code = reply.split(" ", 1)[0]
    user = login.username or "default"
    if code == "NOAUTH":
        return refused(side, f"{address} wants a password and none is configured", "set password: {env: NAME}")
    if code == "WRONGPASS" or "invalid password" in reply or "without any password" in reply:
        return refused(side, f"{address} refused the password of user {user}", "check username and password")
    if code == "NOPERM":
        what, rule = _missing(reply, doing)
        return refused(side, f"{address}: user {user} may not {what}", f"on the server: ACL SETUSER {user} {rule}")
    if code in {"LOADING", "BUSY", "MASTERDOWN", "NOMASTERLINK", "TRYAGAIN", "CLUSTERDOWN"}:
        return unreachable(side, f"{address} cannot do {doing} now: {reply}", "wait until it is healthy and try again")
    if "unknown command" in reply.lower():
        return refused(side, f"{address} does not offer {doing}", "managed services often hide it; ask the provider")
    return refused(side, f"{address} refused {doing}: {reply}")


def _missing(reply: str, doing: str) -> tuple[str, str]:
    """Say what a login may not do, and the rule that lets it; the server names its lack (redis ``ACLMsg``).

    ``doing`` counts where it does not: several commands may be sent under one word.
    """
    if re.search(r"\bkeys?\b", reply):
        return "touch every key, as a whole data set needs", "~*"
    named = re.search(r"run the '([^']+)' command", reply)
    command = named[1].replace("|", " ").upper() if named else doing
    both = command in {"PSYNC", "REPLCONF"}  # a replica needs the one and the other
    rule = "+psync +replconf" if both else f"+{command.lower().replace(' ', '|')}"
    return f"run {command}", rule


@contextmanager
def mapped(side: Side, address: Address, login: Login, doing: str) -> Iterator[None]:
    """Map everything redis-py raises in the block to drd errors."""
    try:
        yield
    except redis.exceptions.BusyLoadingError as error:
        raise unreachable(side, f"{address} is still loading its data", "wait until it is up") from error
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        said = str(error)  # redis-py drops the code in front
        code = "NOPERM" if isinstance(error, redis.exceptions.NoPermissionError) else "WRONGPASS"
        code = "NOAUTH" if "Authentication required" in said else code
        raise refusal(side, address, f"{code} {said}", login, doing) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "check that the server runs and that host and port are right"
        raise unreachable(side, f"no connection to {address}: {said}", hint) from error
    except redis.exceptions.ResponseError as error:
        raise refusal(side, address, str(error), login, doing) from error
    except redis.exceptions.RedisError as error:
        raise refused(side, f"{address}: {doing} failed: {error}") from error


def open_client(
    settings: RedisSettings, address: Address, login: Login, *, db: int = 0, timeout_s: float | None = None
) -> Client:
    """Make a client for one server process; it connects at the first command. Replies are raw: bytes, int, list."""
    tls: dict[str, Any] = {}
    if settings.tls:
        tls = {
            "ssl": True,
            "ssl_ca_certs": str(settings.ca_file) if settings.ca_file else None,
            "ssl_certfile": str(settings.cert_file) if settings.cert_file else None,
            "ssl_keyfile": str(settings.key_file) if settings.key_file else None,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
        }
    made = redis.Redis(
        host=address.host,
        port=address.port,
        db=db,
        username=login.username if login.password else None,
        password=login.password.reveal() if login.password else None,
        socket_timeout=timeout_s or settings.timeout_s,
        socket_connect_timeout=min(10.0, timeout_s or settings.timeout_s),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )
    made.response_callbacks.clear()  # replies as the server sent them, whatever redis-py's version makes of them
    return made


@contextmanager
def client(
    settings: RedisSettings, address: Address, side: Side, doing: str = "a command", *, db: int = 0
) -> Iterator[Client]:
    """Lend a client for data commands; what goes wrong in the block is mapped as ``doing``."""
    with (
        mapped(side, address, settings.login, doing),
        closing(open_client(settings, address, settings.login, db=db)) as c,
    ):
        yield c


def text(value: Any) -> str:
    """Decode a reply for people and for comparison; undecodable bytes are escaped."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def config_get(c: Client, name: str) -> str | None:
    """Return one setting of the server, or None where CONFIG is refused or the setting is unknown."""
    try:
        found = c.execute_command("CONFIG", "GET", name)
    except redis.exceptions.ResponseError:
        return None
    return text(found[1]) if len(found) == 2 else None
