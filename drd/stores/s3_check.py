"""``drd check`` for an S3 store: reach it, try everything, compare the clocks."""

from __future__ import annotations

from datetime import datetime

from drd.errors import StoreError, StoreForbidden
from drd.model import CheckItem
from drd.protocols import Clock, Store
from drd.stores.checking import check_store, new_probe_key
from drd.stores.s3_client import S3Client
from drd.stores.s3_errors import store_error
from drd.stores.s3_settings import S3Settings
from drd.stores.times import skew_s

_CLOCK_WARNING_S = 5.0
_CLOCK_FAILED_S = 900.0  # S3 refuses requests beyond it
_NO_LOCK = frozenset({"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "404", "405", "501"})
_REACHED = {"NoSuchKey", "AccessDenied", "InvalidObjectState"}


def check_s3(store: Store, client: S3Client, settings: S3Settings, clock: Clock) -> list[CheckItem]:
    """Return a line an item; the rest is left out when the bucket cannot be reached or the keys are wrong."""
    name = "store: reach"
    before = clock()
    try:
        answer, server_at = client.knock(settings.folder + new_probe_key())
    except StoreError as error:
        return [CheckItem(name, "failed", error.message, error.hint)]
    after = clock()
    skew = [] if server_at is None else [_clock_item(before, after, server_at)]
    if answer.status >= 300 and answer.code not in _REACHED:
        refusal = store_error(answer, client.request("get_object", ""))
        return [CheckItem(name, "failed", refusal.message, refusal.hint), *skew]
    reached = CheckItem(name, "ok", f"bucket {settings.bucket} at {settings.endpoint} answers")
    return [reached, *check_store(store), *_lock_items(client, settings), *skew]


def _lock_items(client: S3Client, settings: S3Settings) -> list[CheckItem]:
    """Say whether the bucket can hold locked objects, and whether drd locks what it writes.

    No line where an identity may not ask and nothing depends on the answer.
    """
    name, wanted = "store: object lock", settings.object_lock
    try:
        answer = client.call("get_object_lock_configuration", expected=_NO_LOCK)
    except StoreForbidden as error:
        return [] if wanted is None else [CheckItem(name, "warning", f"not known: {error.message}", error.hint)]
    except StoreError as error:
        return [CheckItem(name, "failed", error.message, error.hint)]
    rules = (answer or {}).get("ObjectLockConfiguration", {})
    enabled = rules.get("ObjectLockEnabled") == "Enabled"
    default = _in_words(rules.get("Rule", {}).get("DefaultRetention", {}))
    if wanted is not None and not enabled:
        detail = f"bucket {settings.bucket} has no object lock, so no backup could be written with store.object_lock"
        hint = "make a bucket with object lock enabled (aws s3api create-bucket --object-lock-enabled-for-bucket …)"
        return [CheckItem(name, "failed", detail, hint)]
    if wanted is not None:
        detail = f"the bucket has it; backups are locked in mode {wanted.mode} for {wanted.days} days"
        return [CheckItem(name, "ok", detail)]
    if enabled and default:
        return [CheckItem(name, "ok", f"the bucket locks everything by itself: {default}")]
    if enabled:
        hint = "store.object_lock: {mode: governance, days: 30}"
        return [
            CheckItem(name, "warning", "the bucket has it, and nothing is locked: store.object_lock is not set", hint)
        ]
    return [CheckItem(name, "ok", "off: who may delete in this bucket can delete backups (see store.object_lock)")]


def _in_words(default: dict[str, object]) -> str:
    amount = next((f"{default[unit]} {unit.lower()}" for unit in ("Days", "Years") if default.get(unit)), "")
    return f"mode {str(default.get('Mode', '')).lower()}, {amount}" if amount else ""


def _clock_item(before: datetime, after: datetime, server_at: datetime) -> CheckItem:
    """Compare with the Date of an answer, which is cut to whole seconds, got between two looks at our clock."""
    name, hint = "store: clock", "set the clock of this machine by NTP: timedatectl set-ntp true"
    ahead_s = skew_s(before, server_at, after)
    if ahead_s == 0.0:
        return CheckItem(name, "ok", "within a second of the store's")
    detail = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the store's"
    if abs(ahead_s) > _CLOCK_FAILED_S:
        return CheckItem(name, "failed", f"{detail}; S3 refuses requests beyond 15 minutes", hint)
    if abs(ahead_s) > _CLOCK_WARNING_S:
        return CheckItem(name, "warning", f"{detail}; times of backups and --at are off by as much", hint)
    return CheckItem(name, "ok", detail)
