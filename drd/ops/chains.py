"""Decide what a backup builds on: the chain whose parts it may refer to, or nothing, with the reason.

Parts are referred to by their content (the SHA-256 of their plain bytes), and only those that the store lists with the
size they were stored in. So a backup never refers to what was missing when it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from drd.errors import CatalogError, ConfigError, IntegrityError, ObjectMissing, StoreRefused
from drd.model import Artifact, Backup, BackupKind, Notice, Part
from drd.ops.ports import Chaining, Ports, Source
from drd.repository import layout
from drd.repository.entries import HeadEntry
from drd.repository.planning import broken_chain, chain

KindAsked = Literal["auto", "full", "incremental"]
MIN_SHARED_BYTES = 64 << 10
"""A smaller part is stored again: it would save nothing and tie the backup to its parent."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a backup builds on: ``chain``, oldest first and the parent last, or none.

    ``reason`` says why, in a clause; it is empty where backups of that database are always full.
    ``reuse`` are the parent's parts, wherever they lie, by plain SHA-256.
    """

    chain: tuple[Backup, ...]
    reason: str
    reuse: Mapping[str, Part] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    @property
    def parent(self) -> Backup | None:
        """Return the backup that is built on."""
        return self.chain[-1] if self.chain else None


def choose_basis(ports: Ports, source: Source, asked: KindAsked, repository_id: str, started_at: datetime) -> Basis:
    """Choose what a backup that begins now builds on; the caller holds the source's lease.

    ``auto`` obeys the source's chaining and falls back to a full backup; ``incremental`` asks for one whatever the
    chaining says, and then raises ConfigError when backups of that database are always full, CatalogError when there is
    none to build on.
    """
    if asked == "full":
        return Basis((), "asked for")
    chaining = source.chaining
    if chaining is None:
        if asked == "incremental":
            raise _always_full(source)
        return Basis((), "")  # always so: nothing to tell
    if asked == "auto" and chaining.max_chain == 0:
        return Basis((), "max_chain is 0")
    try:
        found, refusal, notices = _newest_sound(ports, source, repository_id, started_at)
    except StoreRefused as error:
        found, refusal, notices = (), f"this role may not read manifests ({error.message})", ()
    standing = len(found) - 1
    if found and chaining.base == "full":
        full = found[0]
        standing = sum(e.backup is not None and e.backup.parent == full.id for e in _heads(ports, source))
        missing = _missing_raw(ports, full)
        found, refusal = ((), f"{full.id} lacks {missing}") if missing else ((full,), refusal)
    if found and asked == "auto":
        refusal = _due(found[0], standing, chaining, started_at)
    if found and not refusal:
        return Basis(found, f"builds on {found[-1].id}", _present_parts(ports, found[-1]), notices)
    if asked == "incremental":
        raise CatalogError(
            f"there is no backup that an incremental one could build on: {refusal}",
            subject=source.name,
            hint=f"take a full one: drd backup now {source.name} --kind full; or leave --kind away, and drd decides",
        )
    return Basis((), refusal, notices=notices)


def parent_of(backup_id: str, basis: Basis, kind: BackupKind, artifacts: Sequence[Artifact]) -> Backup | None:
    """Return the parent to name in the manifest: None when the backup shares nothing after all, and so is a full one.

    ``kind`` is what the engine says: ``incremental`` when it left out what the parent has. Raises IntegrityError when
    it says so although it was given nothing to build on.
    """
    if kind == "incremental" and basis.parent is None:
        raise IntegrityError("the engine built on a backup that it was not given", hint="a bug: please report it")
    shares = any(layout.owner_of(part.key) != backup_id for artifact in artifacts for part in artifact.parts)
    return basis.parent if shares or kind == "incremental" else None


def require_still_there(ports: Ports, basis: Basis) -> None:
    """Raise IntegrityError when a manifest of the chain is gone since it was chosen (deleted by hand, or withdrawn)."""
    for ancestor in basis.chain:
        try:
            ports.store.stat(layout.manifest_key(ancestor.source, ancestor.id))
        except ObjectMissing as error:
            raise IntegrityError(
                f"{ancestor.id} was deleted while a backup was being built on it; that backup was given up",
                subject=ancestor.source,
                hint="run again: drd finds another backup to build on, or takes a full one",
            ) from error


def _always_full(source: Source) -> ConfigError:
    reasons = {"redis": " (Redis writes its whole data set anew each time)"}
    return ConfigError(
        f"an incremental backup of {source.name} is not possible: backups of {source.engine.kind} are always full"
        + reasons.get(source.engine.kind, ""),
        subject=source.name,
        hint="leave --kind away, or name only the sources that can: drd backup now SOURCE --kind incremental",
    )


def _newest_sound(
    ports: Ports, source: Source, repository_id: str, started_at: datetime
) -> tuple[tuple[Backup, ...], str, tuple[Notice, ...]]:
    """Return the newest backup with its ancestors before it, or why there is none; damaged ones are passed over."""
    notices: list[Notice] = []
    for backup_id in reversed(ports.catalog.ids(source.name)):
        entry = ports.catalog.read(source.name, backup_id)
        if entry is None:  # never finished, or it went just now
            continue
        backup, problem = entry.backup, entry.problem or "its manifest cannot be read"
        if backup is not None:
            ancestors = _ancestors(ports, backup)
            problem = broken_chain(backup, ancestors)
        if backup is None or problem:
            notices.append(Notice("parent-unusable", f"{entry.id} cannot be built on: {problem}"))
            continue
        whole = (*chain(backup, ancestors), backup)
        unfit = (f"{b.id} {why}" for b in whole if (why := _unfit(ports, source, b, repository_id, started_at)))
        refusal = next(unfit, "")
        return (() if refusal else whole), refusal, tuple(notices)
    return (), notices[0].message if notices else "there is no earlier backup", tuple(notices)


def _ancestors(ports: Ports, backup: Backup) -> dict[str, Backup]:
    """Return the ancestors by id, as far as the parents' names lead to manifests that can be read and are trusted."""
    found: dict[str, Backup] = {}
    parent = backup.parent
    while parent is not None and parent != backup.id and parent not in found:
        entry = ports.catalog.read(backup.source, parent)
        if entry is None or entry.backup is None:
            break
        found[parent] = entry.backup
        parent = entry.backup.parent
    return found


def _unfit(ports: Ports, source: Source, backup: Backup, repository_id: str, started_at: datetime) -> str:
    """Say why a sound backup is nothing to build on; an empty line when it is."""
    codec = ports.codec
    if backup.engine != source.engine.kind:
        return f"is one of {backup.engine}"
    if backup.repository_id != repository_id:
        return "was made in another repository"
    if (backup.encryption == "age") != codec.encrypted:
        return "is encrypted, this one would not be" if backup.encryption == "age" else "is not encrypted"
    if set(backup.recipients) != set(codec.recipients):
        return "is encrypted to other recipients"
    if layout.backup_time(backup.id) > started_at:
        return "begins later than now: the clock was set back"
    return ""


def _due(full: Backup, standing: int, chaining: Chaining, started_at: datetime) -> str:
    """Say why it is time for a full backup; nothing when it is not. ``standing`` is how many build on ``full``."""
    age = started_at - layout.backup_time(full.id)
    if age >= timedelta(seconds=chaining.full_every_s):
        return f"the last full one is {_days(age)} old (full_every {_days(timedelta(seconds=chaining.full_every_s))})"
    if standing >= chaining.max_chain:
        return f"{standing} incremental ones stand on the last full one (max_chain)"
    return ""


def _heads(ports: Ports, source: Source) -> Sequence[HeadEntry]:
    return ports.catalog.survey(source.name).entries


def _missing_raw(ports: Ports, backup: Backup) -> str:
    """Name an object that the server wrote and the store does not list in its size; nothing when all are there."""
    raw = [part for artifact in backup.artifacts if artifact.raw for part in artifact.parts]
    listed = ports.store.list(layout.backup_prefix(backup.source, backup.id)) if raw else ()
    sizes = {info.key: info.size_bytes for info in listed}
    return next((part.key for part in raw if sizes.get(part.key) != part.stored_bytes), "")


def _present_parts(ports: Ports, parent: Backup) -> dict[str, Part]:
    """Return the parent's parts that the store has in their size: one listing a folder they lie in."""
    parts = [
        part
        for artifact in parent.artifacts
        if not artifact.raw
        for part in artifact.parts
        if part.plain_bytes >= MIN_SHARED_BYTES
    ]
    sizes: dict[str, int] = {}
    for owner in sorted({layout.owner_of(part.key) for part in parts}):
        listed = ports.store.list(layout.backup_prefix(parent.source, owner))
        sizes |= {info.key: info.size_bytes for info in listed}
    return {part.plain_sha256: part for part in parts if sizes.get(part.key) == part.stored_bytes}


def _days(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.1f} d" if hours >= 48 else f"{hours:.1f} h"
