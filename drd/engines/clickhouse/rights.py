"""Whether a user may do what is to be done, asked of the server itself (``CHECK GRANT``).

Servers too old for that say it when it is done: they are asked nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drd.engines.clickhouse.client import Server, ServerRefusal
from drd.engines.clickhouse.quoting import identifier
from drd.engines.marks import kept_name, staged_name
from drd.errors import TargetError

_ANY_RESTORE = "20000101T000000Z-000000"
_SWAP = (
    "SELECT", "INSERT", "CREATE", "DROP", "CHECK", "ALTER MODIFY DATABASE COMMENT", "SYSTEM MERGES",
    "SYSTEM TTL MERGES",
)  # fmt: skip
_RENEW, _ENGINES = "ALTER VIEW MODIFY QUERY", "TABLE ENGINE"


def lacking(server: Server, rights: Iterable[str], databases: Sequence[str]) -> list[str] | None:
    """Return those of ``rights`` that the user lacks on one of these databases; None where the server cannot tell."""
    told = {right: [_has(server, right, f"{identifier(name)}.*") for name in databases] for right in rights}
    if all(answer is None for answers in told.values() for answer in answers):
        return None
    return [right for right, answers in told.items() if False in answers]


def _has(server: Server, right: str, where: str) -> bool | None:
    """Ask for one right; None for one that this server does not know, or where it cannot be asked."""
    try:
        return {"1": True, "0": False}.get(server.answer(f"CHECK GRANT {right} ON {where}"))
    except ServerRefusal:
        return None


def require_swap(server: Server, live: Sequence[str]) -> None:
    """Raise TargetError that names every right that the user lacks for building beside these, renaming and renewing."""
    names = [*live, *(staged_name(_ANY_RESTORE, name) for name in live)]
    names += [kept_name(_ANY_RESTORE, name, "old") for name in live]
    views = server.rows(
        "SELECT 1 FROM system.tables WHERE database IN {names:Array(String)} AND engine = 'MaterializedView' LIMIT 1",
        {"names": list(live)},
    )
    found = lacking(server, (*_SWAP, *([_RENEW] if views else [])), names) or []
    engines = [_ENGINES] if _has(server, _ENGINES, "*") is False else []
    if found or engines:
        (row,) = server.rows("SELECT currentUser() AS me")
        grants = [f"GRANT {', '.join(found)} ON *.* TO {row['me']}"] if found else []
        grants += [f"GRANT {_ENGINES} ON * TO {row['me']}"] if engines else []
        raise TargetError(
            f"the user {row['me']} lacks {', '.join([*found, *engines])}, which replacing live data takes",
            hint="; ".join(grants),
        )
