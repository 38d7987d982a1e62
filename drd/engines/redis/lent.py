"""What a restore by replication lends to its target, in a form that can be taken back even after drd was killed.

The target logs in to drd with a password made for one restore (never with one of its own, which whoever listens on
drd's port later would be told), and is given an hour more patience. The password says what stood there before, and
the hour is added, so the next restore into this target can tell what a killed one left, and undo it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

from drd.engines.redis.connect import Client, config_get
from drd.engines.redis.settings import Address
from drd.engines.redis.topology import Info, read_info
from drd.errors import TargetError
from drd.model import Notice

_MARK = "drd-lent-"
_PATIENCE_S = 3600  # a store that stalls must not end the transfer; drd has its own limits
_SURELY_ALONE_S = 3.0  # a replica tries to reach its primary every second (redis src/replication.c)
_POLL_S = 0.1


@contextmanager
def settings_lent(client: Client, target: Address) -> Iterator[str]:
    """Set the replication password and patience for the block, and put the target's own back; yields the password."""
    put_back(client)  # what a restore left that was killed before it made the target a replica
    before = {name: config_get(client, name) for name in ("masterauth", "repl-timeout")}
    if before["masterauth"] is None:
        raise TargetError(
            f"{target} does not let drd read its settings (CONFIG GET masterauth)",
            hint="give the login +config, or set restore_via: keys",
        )
    password = f"{_MARK}{_kind(client, before['masterauth'])}-{secrets.token_hex(32)}"
    lent = {"masterauth": password}
    if (patience := before["repl-timeout"]) and patience.isdigit():
        lent["repl-timeout"] = str(int(patience) + _PATIENCE_S)
    try:
        for name, value in lent.items():
            client.execute_command("CONFIG", "SET", name, value)
        yield password
    finally:
        for name in lent:
            client.execute_command("CONFIG", "SET", name, before[name] or "")


def _kind(client: Client, masterauth: str) -> str:
    if not masterauth:
        return "none"
    return "same" if masterauth == config_get(client, "requirepass") else "other"


def is_left_behind(info: Info, masterauth: str | None) -> bool:
    """Whether this replica is the target of a restore that was killed: drd's settings, and nobody at the other end."""
    return (
        info.get("role") == "slave"
        and (masterauth or "").startswith(_MARK)
        and info.get("slave_read_only") == "1"
        and _is_alone(info)
    )


def _is_alone(info: Info) -> bool:
    return info.get("master_link_status") == "down" and info.get("master_sync_in_progress") == "0"


def take_back(client: Client, target: Address) -> Notice:
    """Make what a killed restore left an empty primary with its own settings again.

    It was empty when that restore began and took no writes since, so whatever it holds came from drd. Raises
    :class:`~drd.errors.TargetError`, untouched, when a restore is under way after all.
    """
    until = time.monotonic() + _SURELY_ALONE_S
    while time.monotonic() < until:
        if not is_left_behind(read_info(client, "replication"), config_get(client, "masterauth")):
            raise TargetError(f"another drd restores into {target} right now", hint="wait for it, then look there")
        time.sleep(_POLL_S)
    client.execute_command("REPLICAOF", "NO", "ONE")
    client.execute_command("FLUSHALL")
    with suppress(redis.exceptions.ResponseError):  # before 7.0 there are no functions
        client.execute_command("FUNCTION", "FLUSH")
    text = (
        f"{target} was still a replica of a restore that was killed; it was emptied and is a primary of its own again"
    )
    return Notice("leftover-removed", text + put_back(client))


def put_back(client: Client) -> str:
    """Give a server its own settings again if a killed restore left drd's; return in words what could not be."""
    lent = config_get(client, "masterauth") or ""
    if not lent.startswith(_MARK):
        return ""
    patience = config_get(client, "repl-timeout") or ""
    if patience.isdigit() and int(patience) > _PATIENCE_S:
        client.execute_command("CONFIG", "SET", "repl-timeout", str(int(patience) - _PATIENCE_S))
    own = (config_get(client, "requirepass") or "") if lent.startswith(f"{_MARK}same-") else ""
    client.execute_command("CONFIG", "SET", "masterauth", own)
    other = lent.startswith(f"{_MARK}other-")
    return "; its masterauth, which that restore had replaced, is empty now: set it again" if other else ""
