"""One part, fetched and verified: used by the reader, and by anything that verifies a part alone."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from drd.errors import IntegrityError, ObjectMissing
from drd.model import Part
from drd.protocols import Store
from drd.repository.codec import Codec


def fetch_stored(store: Store, part: Part, *, backup_id: str) -> bytes:
    """Return the stored bytes of a part, after their size and SHA-256; needs no identity.

    Raises IntegrityError when the object is missing or not what the manifest says. Reads at most one byte more than
    the manifest says, whatever lies there.
    """
    try:
        stored = store.get(part.key, length=part.stored_bytes + 1)
    except ObjectMissing as error:
        raise _damaged(part, backup_id, "is missing from the store") from error
    if len(stored) != part.stored_bytes:
        longer = "longer" if len(stored) > part.stored_bytes else f"only {len(stored)} bytes long"
        raise _damaged(part, backup_id, f"is {longer}, where {part.stored_bytes} bytes were stored")
    if hashlib.sha256(stored).hexdigest() != part.stored_sha256:
        raise _damaged(part, backup_id, "was altered since it was stored (SHA-256 differs)")
    return stored


def fetch_part(store: Store, codec: Codec, part: Part, *, encrypted: bool, backup_id: str) -> bytes:
    """Return the plain bytes of a part, all of them verified.

    Raises IntegrityError when anything differs, ConfigError when no identity opens it.
    """
    stored = fetch_stored(store, part, backup_id=backup_id)
    try:
        plain = codec.decode(stored, plain_bytes=part.plain_bytes, encrypted=encrypted)
    except IntegrityError as error:
        raise _damaged(part, backup_id, f"does not decode: {error}") from error
    if hashlib.sha256(plain).hexdigest() != part.plain_sha256:
        raise _damaged(part, backup_id, "decodes to other bytes than were backed up (SHA-256 differs)")
    return plain


def fetch_raw(store: Store, part: Part, start: int, stop: int, backup_id: str) -> bytes:
    """Return a range of a raw part; raises IntegrityError when it is missing or shorter than the manifest says."""
    try:
        data = store.get(part.key, start=start, length=stop - start)
    except ObjectMissing as error:
        raise _damaged(part, backup_id, "is missing from the store") from error
    if len(data) != stop - start:
        raise _damaged(part, backup_id, f"ends at {start + len(data)}, where {part.stored_bytes} bytes were stored")
    return data


def require_raw_size(store: Store, part: Part, backup_id: str) -> None:
    """Raise IntegrityError unless a raw part is there in the size that the manifest says."""
    try:
        found = store.stat(part.key).size_bytes
    except ObjectMissing as error:
        raise _damaged(part, backup_id, "is missing from the store") from error
    if found != part.stored_bytes:
        raise _damaged(part, backup_id, f"has {found} bytes, where {part.stored_bytes} were stored")


def _damaged(part: Part, backup_id: str, what: str) -> IntegrityError:
    return IntegrityError(
        f"{part.key} {what}: backup {backup_id} cannot be restored whole",
        subject=part.key,
        hint=f"see what else is damaged: drd verify --deep {backup_id}; then restore an older backup (drd list)",
    )


class PartCache:
    """Decoded parts used last, up to ``limit_bytes`` (or one part); thread-safe, and each is decoded once at a time."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._held_bytes = 0
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._held

    def held(self, key: str) -> bytes | None:
        """Return the part of that key if it is held."""
        with self._lock:
            return self._recall(key)

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return the part of that key, calling ``make`` if it is not held; other threads wait for the same key only."""
        with self._lock:
            if (held := self._recall(key)) is not None:
                return held
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if (held := self._recall(key)) is not None:
                    return held
            try:
                made = make()
            except BaseException:
                with self._lock:
                    self._making.pop(key, None)
                raise
            with self._lock:
                self._making.pop(key, None)
                self._keep(key, made)
            return made

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._held.clear()
            self._held_bytes = 0

    def _recall(self, key: str) -> bytes | None:
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
        return held

    def _keep(self, key: str, made: bytes) -> None:
        if key not in self._held:
            self._held[key] = made
            self._held_bytes += len(made)
        while self._held_bytes > self._limit_bytes and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= len(dropped)
