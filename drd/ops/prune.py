"""Remove backups that no rule keeps: a plan by default, and on demand the deed, manifest first, then its parts.

Deletion takes the manifest first, so that a prune that dies half-way leaves no backup that cannot be restored, only
objects that are no backup; the next prune, or the next backup of the source, sweeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from drd.errors import DrdError, ObjectMissing, StoreRefused
from drd.model import Progress
from drd.ops.backup import BackupReport, hold_lease
from drd.ops.failures import of_source
from drd.ops.grounds import Grounds
from drd.ops.ports import Ports
from drd.ops.presence import demand_repository
from drd.repository import layout
from drd.repository.catalog import CatalogEntry, HeadEntry
from drd.repository.pins import Pins
from drd.repository.references import References
from drd.repository.retention import Decision, Policy

_FREE_IN_A_ROW = 64


@dataclass(frozen=True, slots=True)
class Orphan:
    """Objects of a backup that was never finished. ``swept`` says whether they are gone now.

    ``locked_until`` is set where the store refused that for its object lock.
    """

    id: str
    objects: int
    bytes: int
    swept: bool
    locked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Locked:
    """A backup that no rule keeps and the store's object lock does, or one that such a backup needs."""

    id: str
    until: datetime


@dataclass(frozen=True, slots=True)
class PrunedSource:
    """What was decided and, when applied, done for one source; ``removed_bytes`` is what removed backups had stored.

    ``locked`` are backups of ``decision.remove`` that stay for now: nothing failed.
    """

    source: str
    decision: Decision
    orphans: tuple[Orphan, ...]
    removed: tuple[str, ...] = ()
    removed_bytes: int = 0
    error: DrdError | None = None
    locked: tuple[Locked, ...] = ()


@dataclass(frozen=True, slots=True)
class PruneReport:
    """All sources asked for; ``left_alone`` are sources in the store that the configuration does not name."""

    applied: bool
    sources: tuple[PrunedSource, ...]
    left_alone: tuple[str, ...]

    @property
    def outcome(self) -> Literal["ok", "partial", "failed"]:
        """Return ``ok`` when every source went well."""
        failed = sum(source.error is not None for source in self.sources)
        if not failed:
            return "ok"
        return "partial" if failed < len(self.sources) else "failed"


def prune(ports: Ports, policies: Mapping[str, Policy], *, apply: bool) -> PruneReport:
    """Decide for every source of ``policies`` what to keep and, with ``apply``, remove the rest.

    Changes nothing without ``apply``. A source whose lease is held, or whose store refuses, is reported and does not
    stop the others. Raises only what concerns all, such as an unreachable store.
    """
    there = demand_repository(ports)
    done = tuple(_source(ports, name, policy, apply=apply) for name, policy in policies.items() if name in there)
    return PruneReport(apply, done, tuple(name for name in there if name not in policies))


def prune_after(ports: Ports, report: BackupReport, policies: Mapping[str, Policy]) -> PruneReport:
    """Prune the sources that a run has just backed up, and none whose backup failed."""
    done = [source.source for source in report.sources if source.backup is not None]
    return prune(ports, {name: policies[name] for name in done}, apply=True)


def set_pin(ports: Ports, backup_id: str, *, pinned: bool) -> CatalogEntry:
    """Pin or unpin a backup, found as :meth:`~drd.repository.catalog.Catalog.entry` finds it; return its entry.

    Raises :class:`~drd.errors.NoSuchBackup`, :class:`~drd.errors.LeaseError` while the source is worked on.
    """
    entry = ports.catalog.entry(backup_id)
    pins = Pins(ports.store)
    with hold_lease(ports, entry.source):
        if pinned:
            ports.catalog.entry(entry.id)  # it may have been pruned since it was looked up
            pins.pin(entry.source, entry.id, ports.now())
        else:
            pins.unpin(entry.source, entry.id)
    return entry


def _source(ports: Ports, source: str, policy: Policy, *, apply: bool) -> PrunedSource:
    if not apply:
        grounds = Grounds(ports, source, policy)
        decision = grounds.plan()
        locks = _Locks(ports, source, grounds.entries)
        locks.look(decision)
        orphans = _orphans(ports, source, grounds.unfinished, swept=False)
        return PrunedSource(source, decision, orphans, locked=locks.found)
    decision, locks = Decision((), ()), _Locks(ports, source, {})
    removed: list[str] = []
    removed_bytes = 0
    try:
        with hold_lease(ports, source) as lease:
            grounds = Grounds(ports, source, policy)
            decision = grounds.decide()
            locks = _Locks(ports, source, grounds.entries)
            references = References(grounds.entries.values())
            for item in decision.remove:
                ports.cancel.raise_if_cancelled()
                lease.ensure()
                if locks.hold(item.id):
                    continue
                ports.progress(Progress(source, "remove", detail=item.id))
                try:
                    ports.catalog.remove(source, item.id, references)
                except StoreRefused as error:
                    if not locks.explain(item.id, error):
                        raise
                    continue
                removed.append(item.id)
                going = grounds.entries[item.id].backup
                removed_bytes += going.stored_bytes if going else 0
            orphans = _sweep(ports, source)
            ports.catalog.renew_index(source)
            ports.catalog.tidy_index(source)
    except DrdError as error:
        of_source(error, "prune", source)
        return PrunedSource(source, decision, (), tuple(removed), removed_bytes, error, locks.found)
    return PrunedSource(source, decision, orphans, tuple(removed), removed_bytes, locked=locks.found)


class _Locks:
    """What the store's object lock holds of one source; asked about children before their parents."""

    def __init__(self, ports: Ports, source: str, entries: Mapping[str, HeadEntry]) -> None:
        self._ports = ports
        self._source = source
        self._parent_of = {entry.id: entry.backup.parent for entry in entries.values() if entry.backup}
        self._found: dict[str, Locked] = {}
        self._needed: dict[str, datetime] = {}

    @property
    def found(self) -> tuple[Locked, ...]:
        """All that was found, in the order asked."""
        return tuple(self._found.values())

    def look(self, decision: Decision) -> None:
        """Find what a plan cannot remove yet, as far as it may be: older ones were locked before newer ones.

        Ends after some in a row that may go, so that a plan asks little however much may go; each is asked about again
        before it is removed.
        """
        free = 0
        for item in decision.remove:
            free = 0 if self.hold(item.id) else free + 1
            if free == _FREE_IN_A_ROW:
                break

    def hold(self, backup_id: str) -> bool:
        """Whether the backup must stay: it is locked, or a locked one needs it."""
        return self._note(backup_id, self._ports.catalog.locked_until(self._source, backup_id))

    def explain(self, backup_id: str, refusal: StoreRefused) -> bool:
        """Whether a deletion was refused for a lock: some stores refuse where others would only hide the object."""
        until = None
        if refusal.op == "delete" and refusal.subject:
            with suppress(ObjectMissing, StoreRefused):  # then it was refused for another reason, which is raised
                until = self._ports.store.stat(refusal.subject).locked_until
        return until is not None and self._note(backup_id, until)

    def _note(self, backup_id: str, until: datetime | None) -> bool:
        until = max((at for at in (until, self._needed.get(backup_id)) if at is not None), default=None)
        if until is None:
            return False
        self._found[backup_id] = Locked(backup_id, until)
        if parent := self._parent_of.get(backup_id):
            self._needed[parent] = max(until, self._needed.get(parent, until))
        return True


def _sweep(ports: Ports, source: str) -> tuple[Orphan, ...]:
    """Sweep what was never finished and say what it held; a lock that refuses it is said, and no failure."""
    orphans = _orphans(ports, source, ports.catalog.unfinished(source), swept=True)
    try:
        ports.catalog.sweep(source)
    except StoreRefused:
        locks = [(orphan, ports.catalog.locked_until(source, orphan.id)) for orphan in orphans]
        if not any(until for _, until in locks):
            raise
        left = set(ports.catalog.unfinished(source))
        orphans = tuple(
            replace(orphan, swept=orphan.id not in left, locked_until=until if orphan.id in left else None)
            for orphan, until in locks
        )
    return orphans


def _orphans(ports: Ports, source: str, unfinished: Sequence[str], *, swept: bool) -> tuple[Orphan, ...]:
    out: list[Orphan] = []
    for backup_id in unfinished:
        sizes = [info.size_bytes for info in ports.store.list(layout.backup_prefix(source, backup_id))]
        out.append(Orphan(backup_id, len(sizes), sum(sizes), swept))
    return tuple(out)
