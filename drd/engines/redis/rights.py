"""Whether a swap can be done: the login may do all that it takes, and nobody writes meanwhile.

This is asked before the server's data is touched or a client waits. ``ACL DRYRUN`` is a right of its own and younger
than 6.2, so each command is sent in a form that changes nothing: it is refused for its arguments where it may be run
(redis ``processCommand`` looks at rights first).
"""

from __future__ import annotations

import secrets
from contextlib import closing

import redis

from drd.engines.redis.connect import config_get, mapped, open_client, refused
from drd.engines.redis.settings import Address, RedisSettings

_HARMLESS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("+config|get", ("CONFIG", "GET", "repl-diskless-load")),
    ("+config|set", ("CONFIG", "SET", "drd-has-no-such-setting", "x")),
    ("+client|pause +client|unpause", ("CLIENT", "PAUSE", "x", "WRITE")),
    ("+replicaof", ("REPLICAOF", "drd.invalid", "x")),
    ("+function|list", ("FUNCTION", "LIST")),
    ("+dump ~*", ("DUMP",)),
)


def require_swap(settings: RedisSettings, address: Address) -> None:
    """Raise :class:`~drd.errors.TargetError` for a server that takes writes as a replica, or for rights that lack."""
    lacking: list[tuple[str, str]] = []
    with (
        mapped("target", address, settings.login, "REPLICAOF"),
        closing(open_client(settings, address, settings.login)) as client,
    ):
        for rule, words in _HARMLESS:
            arguments = words if len(words) > 1 else (*words, f"drd:{secrets.token_hex(12)}")
            try:
                client.execute_command(*arguments)
            except redis.exceptions.NoPermissionError:
                lacking.append((" ".join(words[:2]) if "|" in rule else words[0], rule))
            except redis.exceptions.ResponseError:
                continue
        writable = config_get(client, "replica-read-only") == "no"
    if lacking:
        user = settings.login.username or "default"
        raise refused(
            "target",
            f"{address}: user {user} may not run {', '.join(command for command, _ in lacking)}, which a swap takes",
            f"on the server: ACL SETUSER {user} {' '.join(rule for _, rule in lacking)}",
        )
    if writable:
        raise refused(
            "target",
            f"{address} takes writes while it is a replica (replica-read-only no): those of the swap would be lost",
            "CONFIG SET replica-read-only yes, then restore",
        )
