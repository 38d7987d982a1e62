"""The right to work on one thing, kept in the bucket: numbered objects, of which the highest number rules.

Each generation is its own object, created only if absent, so that of several contenders exactly one gets it. The
holder renews by rewriting its own object; it gives up by marking it released, which needs no right to delete. A
lease is free when its highest generation is released, has expired (with a margin for clocks that differ), was held by
a process of this host that is gone, or was not written for longer than any lease lives, by the store's clock: a holder
whose clock was hours ahead, and that died, blocks nobody for hours.

A role that may put and list, and not read, takes part too: an object that it cannot read counts as held until its time
of modification is older than a lease lives, or until a mark beside it says that it was released.

On a store that ignores the condition, a contender that reads back another's object has lost; two that race within
the same instant are not kept apart there, so only one drd may write to such a bucket (``drd check`` says so).
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from drd.cancel import CancelToken
from drd.errors import Cancelled, DrdError, LeaseError, ObjectExists, ObjectMissing, StoreError, StoreForbidden
from drd.model import ObjectInfo
from drd.protocols import Clock, Store
from drd.repository import layout
from drd.repository.fields import Fields, Malformed, parse_strictly, text_of_time, written
from drd.repository.holder import Holder, is_gone
from drd.timing import LONGEST_LEASE
from drd.wording import when

__all__ = ["Holder", "StoreLease", "acquire", "is_held"]

_ATTEMPTS = 5
_MAX_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What one generation's object says. ``token`` tells two holders apart that look alike."""

    token: str
    holder: Holder
    acquired_at: datetime
    expires_at: datetime
    released: bool


def acquire(
    store: Store,
    name: str,
    *,
    ttl_s: float,
    now: Clock,
    monotonic: Callable[[], float],
    holder: Holder,
    cancel: CancelToken,
) -> StoreLease:
    """Take the lease called ``name`` and start to renew it; use it as a context manager.

    A crashed holder on another host blocks for at most ``ttl_s`` and half as much again; one on this host not
    at all. Raises LeaseError, naming the holder, when it is held; store errors; Cancelled.
    """
    for _ in range(_ATTEMPTS):
        cancel.raise_if_cancelled()
        newest = _newest(store, name)
        generation = 1
        if newest is not None:
            number, info = newest
            generation = number + 1
            try:
                _refuse_if_held(store, name, info, ttl_s=ttl_s, now=now(), holder=holder)
            except StoreForbidden as error:
                _refuse_if_recent(store, name, info, error, ttl_s=ttl_s, now=now())
        started, at = monotonic(), now()
        state = LeaseState(uuid.uuid4().hex, holder, at, at + timedelta(seconds=ttl_s), released=False)
        key = layout.lease_key(name, generation)
        put = readable = False
        with contextlib.suppress(ObjectExists):  # lost the race, or won it and lost the answer
            store.put(key, _dump(state), if_absent=True)
            put = True
        try:
            won = readable = _is(store, key, state)
        except StoreForbidden:
            won = put
        if won:
            _forget_older(store, name, generation)
            return StoreLease(
                store,
                name,
                generation,
                state,
                ttl_s=ttl_s,
                now=now,
                monotonic=monotonic,
                since=started,
                readable=readable,
            )
    raise LeaseError(
        f"others keep taking the lease on {_shown(name)}", subject=_shown(name), hint="try again in a minute"
    )


def is_held(store: Store, name: str, *, ttl_s: float, now: datetime, holder: Holder) -> bool:
    """Whether :func:`acquire` would find the lease taken at ``now``. Raises store errors."""
    newest = _newest(store, name)
    try:
        if newest is not None:
            _refuse_if_held(store, name, newest[1], ttl_s=ttl_s, now=now, holder=holder)
    except LeaseError:
        return True
    return False


class StoreLease:
    """A held lease; implements :class:`~drd.protocols.Lease`. A daemon thread renews it every third of its life."""

    def __init__(
        self,
        store: Store,
        name: str,
        generation: int,
        state: LeaseState,
        *,
        ttl_s: float,
        now: Clock,
        monotonic: Callable[[], float],
        since: float,
        readable: bool,
    ) -> None:
        self.generation = generation
        self.readable = readable
        """Whether this role may read leases."""
        self.problem = ""
        """Why it could not be marked released, if so: it then expires by itself."""
        self._store = store
        self._name = name
        self._key = layout.lease_key(name, generation)
        self._state = state
        self._ttl_s = ttl_s
        self._now = now
        self._monotonic = monotonic
        self._renewed = since
        self._renewal_error: DrdError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_released, name=f"drd-lease-{name}", daemon=True)
        self._thread.start()

    def ensure(self) -> None:
        """Raise LeaseError when the lease was lost: taken over, deleted, or neither kept nor regained.

        A holder that was cut off for longer than the lease's life and whom nobody followed renews it here. Somebody
        may take over between this call and what it guards, so a publisher calls it again afterwards.
        """
        if self._stop.is_set():
            raise LeaseError(
                f"the lease on {_shown(self._name)} was released before the work ended", subject=_shown(self._name)
            )
        newest = _newest(self._store, self._name)
        if newest is None or newest[0] < self.generation:
            raise LeaseError(
                f"the lease on {_shown(self._name)} is not in the store any more, so nobody is kept from the same work",
                subject=_shown(self._name),
                hint=f"nothing was published; who deletes objects below {layout.lease_prefix(self._name)}?",
            )
        if newest[0] > self.generation:
            raise LeaseError(
                f"another drd took over the lease on {_shown(self._name)} while this one stood still",
                subject=_shown(self._name),
                hint="nothing was published; the other one's work goes on",
            )
        if self._monotonic() - self._renewed >= self._ttl_s:
            self._renew()
        if self._monotonic() - self._renewed >= self._ttl_s:
            why = f": {self._renewal_error}" if self._renewal_error else ""
            raise LeaseError(
                f"the lease on {_shown(self._name)} expired, as it could not be renewed for {self._ttl_s:.0f} s{why}",
                subject=_shown(self._name),
                hint="nothing was published; run it again",
            )

    def release(self) -> None:
        """Give it up; idempotent. Where the store refuses, it expires by itself, and ``problem`` says why."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        try:
            self._store.put(self._key, _dump(replace(self._state, released=True)))
            if not self.readable:
                self._store.put(layout.lease_mark_key(self._name, self.generation), b"{}\n")
        except (StoreError, Cancelled) as error:  # the work's own outcome matters more
            self.problem = error.message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _renew_until_released(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            self._renew()

    def _renew(self) -> None:
        started = self._monotonic()
        state = replace(self._state, expires_at=self._now() + timedelta(seconds=self._ttl_s))
        try:
            self._store.put(self._key, _dump(state))
        except DrdError as error:  # told by ensure() if it lasts
            self._renewal_error = error
        else:
            self._state, self._renewed, self._renewal_error = state, started, None


def _shown(name: str) -> str:
    """Return what people call that which a lease is on: a source by its own name."""
    return name.removeprefix("source-")


def _newest(store: Store, name: str) -> tuple[int, ObjectInfo] | None:
    """Return the highest generation and its object; names that are none are passed over."""
    found = [
        (number, info)
        for info in store.list(layout.lease_prefix(name))
        if (number := layout.lease_generation(info.key)) is not None
    ]
    return max(found, key=lambda pair: pair[0], default=None)


def _refuse_if_held(store: Store, name: str, info: ObjectInfo, *, ttl_s: float, now: datetime, holder: Holder) -> None:
    margin = timedelta(seconds=ttl_s / 2)
    try:
        state = _read(store, info.key)
    except ObjectMissing:
        return  # deleted since it was listed: only the older of two generations is
    except Malformed as error:
        if info.modified_at is not None and now > info.modified_at + timedelta(seconds=ttl_s) + margin:
            return
        raise LeaseError(
            f"the lease on {_shown(name)} {error}, so its holder is unknown",
            subject=_shown(name),
            hint=f"if no other drd is at work, delete the object {info.key}",
        ) from error
    free_at = state.expires_at + margin
    if info.modified_at is not None:  # its holder's clock may be far ahead
        free_at = min(free_at, info.modified_at + 1.5 * LONGEST_LEASE)
    if state.released or now > free_at or is_gone(state.holder, seen_from=holder):
        return
    raise LeaseError(
        f"another drd works on {_shown(name)}: {state.holder.host}, process {state.holder.pid}, "
        f"since {when(state.acquired_at)}",
        subject=_shown(name),
        hint=f"wait for it; if it is dead, the lease is free after {free_at:%H:%M:%S} UTC",
    )


def _refuse_if_recent(
    store: Store, name: str, info: ObjectInfo, refusal: StoreForbidden, *, ttl_s: float, now: datetime
) -> None:
    """Judge a lease that this role may not read: by a mark that it was released, else by when it was last renewed."""
    generation = layout.lease_generation(info.key)
    if any(layout.released_generation(found.key) == generation for found in store.list(layout.lease_prefix(name))):
        return
    if info.modified_at is None:
        raise refusal
    free_at = info.modified_at + timedelta(seconds=1.5 * ttl_s)
    if now <= free_at:
        raise LeaseError(
            f"another drd may be at work on {_shown(name)}: the lease was renewed at {info.modified_at:%H:%M:%S} UTC,"
            " and this role may not read by whom",
            subject=_shown(name),
            hint=f"try again after {free_at:%H:%M:%S} UTC, or give this role the right to read leases",
        ) from refusal


def _forget_older(store: Store, name: str, generation: int) -> None:
    older = [
        info.key
        for info in store.list(layout.lease_prefix(name))
        if (number := layout.lease_generation(info.key) or layout.released_generation(info.key)) is not None
        and number < generation
    ]
    try:
        store.delete(older)
    except StoreError:
        return  # perhaps a role that may not delete: old generations are small and harmless, and the next one tries


def _is(store: Store, key: str, state: LeaseState) -> bool:
    try:
        return _read(store, key) == state
    except (ObjectMissing, Malformed):
        return False


def _dump(state: LeaseState) -> bytes:
    document = {
        "token": state.token,
        "host": state.holder.host,
        "pid": state.holder.pid,
        "started": state.holder.started,
        "boot": state.holder.boot,
        "acquired_at": text_of_time(state.acquired_at),
        "expires_at": text_of_time(state.expires_at),
        "released": state.released,
    }
    return written(document)


def _read(store: Store, key: str) -> LeaseState:
    fields = Fields(parse_strictly(store.get(key, length=_MAX_BYTES)), "object")
    holder = Holder(fields.text("host"), fields.count("pid"), fields.text("started"), fields.text("boot"))
    state = LeaseState(
        fields.text("token"), holder, fields.time("acquired_at"), fields.time("expires_at"), fields.flag("released")
    )
    fields.require_nothing_else()
    return state
