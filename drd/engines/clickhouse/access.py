"""Users, roles, profiles, quotas, row policies and SQL functions: kept outside the databases, saved where allowed.

Entities that come from the server's configuration files are never in a backup; only those made by SQL are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from drd.engines.clickhouse.client import Server, ServerRefusal
from drd.model import Notice

_LACKING = re.compile(r".*the grant BACKUP ON system\..*")
KINDS = ("users", "roles", "settings_profiles", "row_policies", "quotas", "functions")


def savable(server: Server) -> tuple[tuple[str, ...], Notice | None]:
    """Try which kinds this server lets this user save (a backup of each to nowhere); name the rest in a notice."""
    allowed, refused, reasons = [], [], set()
    for kind in KINDS:
        try:
            server.execute(f"BACKUP TABLE system.{kind} TO Null")
        except ServerRefusal as refusal:
            refused.append(kind)
            reasons.add(_LACKING.sub("the user lacks BACKUP ON them", refusal.text.split(": While", 1)[0]))
        else:
            allowed.append(kind)
    if not refused:
        return tuple(allowed), None
    text = f"ClickHouse did not let {_listed(refused)} be saved: {'; '.join(sorted(reasons))}"
    return tuple(allowed), Notice("access-not-saved", text, standing=True)


def elements(kinds: Sequence[str]) -> list[str]:
    """Spell the kinds as elements of BACKUP or RESTORE; unknown ones are dropped."""
    return [f"TABLE system.{kind}" for kind in kinds if kind in KINDS]


def _listed(kinds: Sequence[str]) -> str:
    words = [kind.replace("_", " ") for kind in kinds]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
