"""What a swap lends to a live server, with a mark that says so; by it a killed one is found and ended.

As in :mod:`.lent`, the mark is the replication password, made for one restore. But here the server holds live data,
so ending it never empties the server: it holds either all of the old data set or all of the new one, and the mark says
from which replication offset on it is the new.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Literal

from drd.engines.redis.connect import Client, config_get
from drd.engines.redis.topology import read_info
from drd.errors import TargetError

PATIENCE_S = 3600
SWAP = "swapdb"
_SWAPPED_FROM = 1 << 50
"""Offsets count bytes of a server's life; none comes near. Each swap begins at the next multiple."""
_MARK = re.compile(
    r"drd-swap-(none|same|other)-([a-z-]{1,20})-([0-9a-f]{1,16})-([0-9]{8}T[0-9]{6}Z-[a-z0-9]{6})-[0-9a-f]{64}"
)
_LOANS = ("masterauth", "repl-timeout", "repl-diskless-load")


@dataclass(frozen=True, slots=True)
class Loan:
    """What a mark says: whose password stood there, the server's own way of loading, and where the new data begins."""

    password: str
    kind: Literal["none", "same", "other"]
    loading: str
    offset: int
    restore: str


def read_loan(masterauth: str | None) -> Loan | None:
    """Return what a replication password says, None when it is not a swap's."""
    found = _MARK.fullmatch(masterauth or "")
    if found is None:
        return None
    kind = next(kind for kind in ("none", "same", "other") if kind == found[1])
    return Loan(found[0], kind, found[2], int(found[3], 16), found[4])  # type: ignore[arg-type]  # one of the three


def lend(client: Client, restore_id: str, *, offset: int, subject: str) -> tuple[Loan, dict[str, str]]:
    """Lend password, patience and the way of loading; return the mark and the server's own settings.

    Raises :class:`~drd.errors.TargetError` when it does not show its settings, or is too old to swap.
    """
    before = {name: config_get(client, name) for name in _LOANS}
    if before["masterauth"] is None or before["repl-diskless-load"] is None:
        raise TargetError(
            f"{subject} cannot be replaced in place: it does not show, or have, masterauth and repl-diskless-load",
            hint="give the login +config; Redis 6.2 and newer, and Valkey, have them",
        )
    own = {name: value or "" for name, value in before.items()}
    kind = "none" if not own["masterauth"] else "other"
    if own["masterauth"] and own["masterauth"] == config_get(client, "requirepass"):
        kind = "same"
    start = (offset // _SWAPPED_FROM + 1) * _SWAPPED_FROM
    password = f"drd-swap-{kind}-{own['repl-diskless-load']}-{start:x}-{restore_id}-{secrets.token_hex(32)}"
    loan = read_loan(password)
    if loan is None:
        raise AssertionError(password[:60])
    patience = str(int(own["repl-timeout"]) + PATIENCE_S) if own["repl-timeout"].isdigit() else own["repl-timeout"]
    client.execute_command("CONFIG", "SET", "masterauth", password)
    client.execute_command("CONFIG", "SET", "repl-timeout", patience)
    client.execute_command("CONFIG", "SET", "repl-diskless-load", SWAP)
    return loan, own


def give_back(client: Client, own: dict[str, str]) -> None:
    """Give the server its own settings again, the mark last: as long as one is missing, the mark is there."""
    for name in reversed(_LOANS):
        client.execute_command("CONFIG", "SET", name, own[name])


def own_settings(client: Client, loan: Loan) -> tuple[dict[str, str], str]:
    """Say from a mark what the server's own settings were, and in words what cannot be known."""
    patience = config_get(client, "repl-timeout") or "60"
    if patience.isdigit() and int(patience) > PATIENCE_S:
        patience = str(int(patience) - PATIENCE_S)
    password = (config_get(client, "requirepass") or "") if loan.kind == "same" else ""
    lost = "its masterauth, which that restore had replaced, is empty now: set it again" if loan.kind == "other" else ""
    return {"masterauth": password, "repl-timeout": patience, "repl-diskless-load": loan.loading}, lost


def holds_new(client: Client, loan: Loan) -> bool:
    """Whether the server has loaded what the swap sent: its offset then begins where the mark says."""
    info = read_info(client, "replication")
    name = "slave_repl_offset" if info.get("role") == "slave" else "master_repl_offset"
    value = info.get(name, "0")
    return value.isdigit() and int(value) >= loan.offset
