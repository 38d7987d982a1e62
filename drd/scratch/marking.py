"""What says of a thing that it is a scratch server's, and whose, and until when: for every runtime that can label.

Docker keeps these as labels; Kubernetes as labels and, for what is no label there, annotations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from drd.scratch.owners import Owner

MARK = "drd.scratch"
NAME = "drd-scratch-"


def marks(server_id: str, owner: Owner, expires_at: datetime, more: Mapping[str, str]) -> dict[str, str]:
    """Return what everything that belongs to one server is marked with; ``more`` are the labels of its spec."""
    own = {f"{MARK}.label.{name}": value for name, value in more.items()}
    return own | {
        MARK: "1",
        f"{MARK}.id": server_id,
        f"{MARK}.owner": json.dumps(owner.to_json()),
        f"{MARK}.expires": expires_at.isoformat(),
    }


def reason_to_remove(found: Mapping[str, str], now: datetime, *, kept: bool) -> str:
    """Say why something may go: its drd is gone, or it has expired; empty while somebody may want it."""
    with suppress(ValueError, TypeError):
        if now >= datetime.fromisoformat(found.get(f"{MARK}.expires", "")):
            return "it had expired"
    if kept:
        return ""
    try:
        owner = Owner.from_json(json.loads(found.get(f"{MARK}.owner", "")))
    except ValueError:
        return ""
    return "its drd is gone" if owner and owner.fate() == "gone" else ""
