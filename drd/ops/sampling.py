"""Read a bounded share of all stored bytes, least recently read first, so that some runs together read everything.

A backup's folder is as old as its last whole pass, or as the backup itself: fresh uploads wait their turn and can
never keep older ones from being read. What was damaged is read again by every run until it is well or gone.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from drd.errors import ConfigError, IntegrityError, StoreError
from drd.model import Backup, BackupHead, Notice, Part, Problem, Progress
from drd.ops.ports import Ports
from drd.repository import layout
from drd.repository.fields import Malformed
from drd.repository.parts import fetch_part, fetch_raw, fetch_stored, require_raw_size
from drd.repository.verified import MAX_DAMAGED, Reading, Verified

_RAW_PIECE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one run reads: a share of all stored bytes (above 0, up to 1), bytes, or seconds; exactly one is set."""

    share: float | None = None
    bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a run read. ``problems`` are a source, a backup's id and what is wrong there."""

    objects: int
    bytes: int
    problems: tuple[tuple[str, str, Problem], ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """One object to be read; ``ends_folder`` when it is the last of its backup's folder, ``again`` when damaged."""

    source: str
    backup: Backup
    part: Part | None
    raw: bool = False
    ends_folder: bool = False
    again: bool = False


@dataclass
class _State:
    """What a run knows so far, by source and id."""

    readings: dict[str, dict[str, Reading]] = field(default_factory=dict)
    done: dict[str, dict[str, Reading]] = field(default_factory=dict)
    problems: list[tuple[str, str, Problem]] = field(default_factory=list)
    notices: dict[str, Notice] = field(default_factory=dict)
    objects: int = 0
    bytes: int = 0

    def reading(self, source: str, backup_id: str) -> Reading:
        return self.readings[source].get(backup_id, Reading(backup_id))

    def note(self, source: str, reading: Reading) -> None:
        self.readings[source][reading.id] = self.done.setdefault(source, {})[reading.id] = reading


def read_sample(ports: Ports, heads: dict[str, Sequence[BackupHead]], budget: Budget) -> Sample:
    """Read objects of the sources in ``heads`` until the budget is spent, at least one; record what was read.

    Where this role may not write the record, a notice says that the next run reads the same again. Raises store
    errors that a later try may not see, and Cancelled; what was read until then is recorded.
    """
    state = _State()
    for source in heads:
        state.readings[source], notice = load(ports, source)
        if notice:
            state.notices[source] = notice
    total = sum(head.stored_bytes for found in heads.values() for head in found)
    limit = budget.bytes if budget.share is None else int(total * budget.share)
    until = None if budget.seconds is None else ports.monotonic() + budget.seconds
    items = itertools.chain(_damaged(ports, state, heads), _folders(ports, state, heads))
    return _read_and_record(ports, state, items, heads, limit, until)


def read_damaged_again(ports: Ports, heads: dict[str, Sequence[BackupHead]]) -> Sample:
    """Read the objects that were no good when they were last read, and record what they are now; raises as above."""
    state = _State(readings={source: load(ports, source)[0] for source in heads})
    return _read_and_record(ports, state, _damaged(ports, state, heads), heads)


def _read_and_record(
    ports: Ports,
    state: _State,
    items: Iterator[_Item],
    heads: dict[str, Sequence[BackupHead]],
    limit: int | None = None,
    until: float | None = None,
) -> Sample:
    try:
        _read(ports, state, items, limit, until)
    finally:
        for source, done in state.done.items():
            if notice := save(ports, source, done, [head.id for head in heads[source]]):
                state.notices[source] = notice
    return Sample(state.objects, state.bytes, tuple(state.problems), tuple(state.notices.values()))


def load(ports: Ports, source: str) -> tuple[dict[str, Reading], Notice | None]:
    """Return what is known of a source's backups; with a notice, nothing, when the record cannot be used."""
    try:
        return Verified(ports.store).of(source), None
    except Malformed as error:
        text = f"{layout.verified_key(source)} {error}: what was read when is unknown, and reading starts again"
    except StoreError as error:
        if error.retryable:
            raise
        text = f"what was read when cannot be known: {error.message}"
    return {}, Notice("verified-unknown", f"{source}: {text}")


def save(ports: Ports, source: str, done: dict[str, Reading], existing: Sequence[str]) -> Notice | None:
    """Record what was read; return a notice where this role may not, or a newer drd keeps the record."""
    try:
        Verified(ports.store).add(source, done, existing)
    except (Malformed, StoreError) as error:
        if isinstance(error, StoreError) and error.retryable:
            raise
        why = error.message if isinstance(error, StoreError) else f"{layout.verified_key(source)} {error}"
        return Notice("verified-not-recorded", f"{source}: what was read is not recorded, so it is read again: {why}")
    return None


def _damaged(ports: Ports, state: _State, heads: dict[str, Sequence[BackupHead]]) -> Iterator[_Item]:
    """Yield what was damaged when it was last read."""
    for source, found in heads.items():
        for head in found:
            reading = state.reading(source, head.id)
            if reading.damaged and (backup := _whole(ports, source, head.id)):
                parts = {part.key: (part, raw) for part, raw in _own_parts(backup)}
                state.note(source, replace(reading, damaged=tuple(key for key in reading.damaged if key in parts)))
                for key in reading.damaged:
                    if key in parts:
                        yield _Item(source, backup, *parts[key], again=True)


def _folders(ports: Ports, state: _State, heads: dict[str, Sequence[BackupHead]]) -> Iterator[_Item]:
    """Yield all there is, folder by folder, the least recently read first."""
    now = ports.now()
    order = [
        (_known_good_at(state.reading(source, head.id), now), head.id, source)
        for source, found in heads.items()
        for head in found
    ]
    for _, backup_id, source in sorted(order, key=lambda item: (item[0] is not None, item[0] or now, item[1])):
        backup = _whole(ports, source, backup_id)
        if backup is not None:  # one that is unreadable or gone is told of elsewhere
            yield from _folder(source, backup, state.reading(source, backup_id).after)


def _known_good_at(reading: Reading, now: datetime) -> datetime | None:
    """Return when the bytes were last read, or written; None, which comes first, for a time that is yet to come."""
    at = reading.read_at or layout.backup_time(reading.id)
    return at if at <= now else None


def _folder(source: str, backup: Backup, after: str) -> Iterator[_Item]:
    left = [(part, raw) for part, raw in _own_parts(backup) if part.key > after]
    for index, (part, raw) in enumerate(left, start=1):
        yield _Item(source, backup, part, raw, ends_folder=index == len(left))
    if not left:  # it stored nothing of its own
        yield _Item(source, backup, None, ends_folder=True)


def _own_parts(backup: Backup) -> list[tuple[Part, bool]]:
    """Return the objects in the backup's own folder, by key; what it refers to elsewhere is its ancestors'."""
    found = {
        part.key: (part, artifact.raw)
        for artifact in backup.artifacts
        for part in artifact.parts
        if layout.owner_of(part.key) == backup.id
    }
    return [found[key] for key in sorted(found)]


def _whole(ports: Ports, source: str, backup_id: str) -> Backup | None:
    entry = ports.catalog.read(source, backup_id)
    return entry.backup if entry else None


def _read(ports: Ports, state: _State, items: Iterator[_Item], limit: int | None, until: float | None) -> None:
    """Read side by side, and note the outcomes in order, so that a pass can be taken up where it stopped."""
    began_at = ports.now()
    window: deque[tuple[_Item, Future[Problem | None] | None]] = deque()
    asked = 0
    with ThreadPoolExecutor(ports.tuning.workers, thread_name_prefix="drd-sample") as pool:
        try:
            for item in items:
                ports.cancel.raise_if_cancelled()
                if item.part is None:
                    window.append((item, None))
                    continue
                if asked and (
                    (limit is not None and asked >= limit) or (until is not None and ports.monotonic() >= until)
                ):
                    break
                asked += item.part.stored_bytes
                window.append((item, pool.submit(_look, ports, state, item, item.part)))
                while len(window) > ports.tuning.workers:
                    _note(ports, state, *window.popleft(), began_at)
            while window:
                _note(ports, state, *window.popleft(), began_at)
        finally:
            for _, future in window:
                if future is not None:
                    future.cancel()


def _note(ports: Ports, state: _State, item: _Item, future: Future[Problem | None] | None, began_at: datetime) -> None:
    problem = future.result() if future else None
    reading = state.reading(item.source, item.backup.id)
    if item.part is not None:
        state.objects += 1
        state.bytes += item.part.stored_bytes
        damaged = {key for key in reading.damaged if key != item.part.key}
        if problem is not None:
            state.problems.append((item.source, item.backup.id, problem))
            damaged.add(item.part.key)
        reading = replace(reading, damaged=tuple(sorted(damaged))[:MAX_DAMAGED])
        if not item.again:
            reading = replace(
                reading,
                began_at=reading.began_at or began_at,
                after=item.part.key,
                read_bytes=reading.read_bytes + item.part.stored_bytes,
            )
        ports.progress(Progress(item.source, "read", state.bytes, None, item.part.key))
    if item.ends_folder:
        reading = reading.finished(reading.began_at or began_at)
    state.note(item.source, reading)


def _look(ports: Ports, state: _State, item: _Item, part: Part) -> Problem | None:
    """Read one object and compare it with the manifest; decode it too where an identity is at hand."""
    ports.cancel.raise_if_cancelled()
    backup = item.backup
    try:
        if item.raw:
            require_raw_size(ports.store, part, backup.id)
            for start in range(0, part.stored_bytes, _RAW_PIECE_BYTES):
                ports.cancel.raise_if_cancelled()
                fetch_raw(ports.store, part, start, min(start + _RAW_PIECE_BYTES, part.stored_bytes), backup.id)
        elif _may_decode(ports, state, backup):
            encrypted = layout.is_encrypted_key(part.key)
            fetch_part(ports.store, ports.codec, part, encrypted=encrypted, backup_id=backup.id)
        else:
            fetch_stored(ports.store, part, backup_id=backup.id)
    except IntegrityError as error:
        return Problem(part.key, error.message, f"backup {backup.id} cannot be restored")
    return None


def _may_decode(ports: Ports, state: _State, backup: Backup) -> bool:
    if backup.encryption == "none":
        return True
    try:
        ports.codec.require_identity(backup.recipients)
    except ConfigError as error:
        text = f"stored bytes are compared with their digests, not decrypted: {error.message}"
        state.notices["identity"] = Notice("not-decrypted", text)
        return False
    return True
