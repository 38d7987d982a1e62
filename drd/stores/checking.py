"""The questions that ``drd check`` asks of any store, by doing with a probe object what a backup does."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from drd.errors import DrdError, ObjectExists, StoreRefused
from drd.model import CheckItem, CheckOutcome
from drd.protocols import Store

PROBE_PREFIX = "drd-check/"


def new_probe_key() -> str:
    """Make the key of a probe object that no other check uses."""
    return f"{PROBE_PREFIX}{secrets.token_hex(8)}"


def check_store(store: Store) -> list[CheckItem]:
    """Write, read back, write only if absent, list and delete a probe object; one item each.

    ``failed`` means that a backup would fail; what only restoring, verifying or pruning from here needs is a
    warning, since a role that may only write is a good one for a backup host.
    """
    key, data = new_probe_key(), secrets.token_bytes(1024)
    items = [_item("store: write", lambda: _write(store, key, data), refused="failed")]
    if items[0].outcome == "failed":
        items.append(_item("store: list", lambda: _list(store, None), refused="warning"))
        return items
    items += [
        _item("store: read back", lambda: _read(store, key, data), refused="warning"),
        _item("store: conditional put", lambda: _conditional(store, key, data), refused="failed"),
        _item("store: list", lambda: _list(store, key), refused="warning"),
        _item("store: delete", lambda: _delete(store, key), refused="warning"),
    ]
    return items


def _item(name: str, probe: Callable[[], CheckItem], *, refused: CheckOutcome) -> CheckItem:
    try:
        return probe()
    except StoreRefused as error:
        detail = error.message if refused == "failed" else _meaning(name, error)
        return CheckItem(name, refused, detail, error.hint)
    except DrdError as error:
        return CheckItem(name, "failed", error.message, error.hint)


def _meaning(name: str, error: StoreRefused) -> str:
    effect = {
        "store: read back": "backups can be written from here, not verified or restored",
        "store: list": "finding backups, increments and retention do not work from here",
        "store: delete": "drd prune does not work from here, and the probe object stays",
    }[name]
    return f"{error.message}; {effect}"


def _write(store: Store, key: str, data: bytes) -> CheckItem:
    store.put(key, data)
    return CheckItem("store: write", "ok", f"wrote a probe object of {len(data)} bytes")


def _read(store: Store, key: str, data: bytes) -> CheckItem:
    if store.get(key) == data and store.get(key, start=10, length=20) == data[10:30]:
        return CheckItem("store: read back", "ok", "whole and by range, equal to what was written")
    return CheckItem(
        "store: read back",
        "failed",
        "the store returned other bytes than were written",
        "do not use this store for backups before its operator has found out why",
    )


def _conditional(store: Store, key: str, data: bytes) -> CheckItem:
    try:
        store.put(key, data, if_absent=True)
    except ObjectExists:
        return CheckItem("store: conditional put", "ok", "a put that demands absence is refused when the key is taken")
    return CheckItem(
        "store: conditional put",
        "warning",
        "the store ignores If-None-Match: two drd that work on one bucket are not kept apart",
        "let only one drd at a time write to this bucket, or use a store with conditional writes",
    )


def _list(store: Store, key: str | None) -> CheckItem:
    found = [info.key for info in store.list(PROBE_PREFIX)]
    if key is None or key in found:
        return CheckItem("store: list", "ok", "listing works" if key is None else "the probe object is listed")
    return CheckItem(
        "store: list",
        "failed",
        "an object is not listed right after it was written",
        "drd needs a store whose listing is current; ask its operator about consistency",
    )


def _delete(store: Store, key: str) -> CheckItem:
    store.delete([key])
    return CheckItem("store: delete", "ok", "the probe object was deleted")
