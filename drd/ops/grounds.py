"""Decide what to remove, and read whole whatever that rests on: a damaged backup must not push a good one out.

A decision is made by heads. Then these are read whole, and judged by their digests and signatures: what is to go; what
is kept in its stead (by a rule that counts, or as the newest good or proven one) with its ancestors; and every kept
incremental backup that stands on the same full one as something that is to go, since parts are shared in such a family
and nowhere else. Where one turns out to be damaged or gone, the decision is made again.
"""

from __future__ import annotations

from drd.drills.history import History
from drd.model import BackupHead
from drd.ops.ports import Ports
from drd.repository import layout
from drd.repository.entries import HeadEntry
from drd.repository.pins import Pins
from drd.repository.planning import broken_chain
from drd.repository.references import needed_by
from drd.repository.retention import Candidate, Decision, Policy, decide


class Grounds:
    """What is known of one source's backups, to decide by; used by one thread."""

    def __init__(self, ports: Ports, source: str, policy: Policy) -> None:
        survey = ports.catalog.survey(source)
        self.entries = {entry.id: entry for entry in survey.entries}
        self.unfinished = survey.unfinished
        self._ports = ports
        self._source = source
        self._policy = policy
        self._now = ports.now()
        pins = Pins(ports.store)
        self._pinned = pins.of(source)
        self._set_aside = pins.set_aside(source, self._pinned)
        self._proven = History(ports.store, ports.catalog.signing).proven(source)

    def plan(self) -> Decision:
        """Decide by heads alone."""
        by_id = {entry.id: entry.backup for entry in self.entries.values() if entry.backup is not None}
        return decide([self._candidate(entry, by_id) for entry in self.entries.values()], self._policy, self._now)

    def decide(self) -> Decision:
        """Decide by whole manifests, of what matters; the caller holds the source's lease.

        Reads none when nothing is to go. Raises store errors.
        """
        read: set[str] = set()
        while True:
            decision = self.plan()
            unread = sorted(self._mattering(decision) - read)
            if not unread:
                return decision
            for found in unread:
                self._ports.cancel.raise_if_cancelled()
                self._read(found)
            read.update(unread)

    def _read(self, backup_id: str) -> None:
        entry = self._ports.catalog.read(self._source, backup_id)
        if entry is None:
            self._ports.catalog.disown(self._source, backup_id)
            del self.entries[backup_id]
        else:
            self.entries[backup_id] = entry

    def _mattering(self, decision: Decision) -> set[str]:
        """Return the ids of what a decision rests on."""
        going = {item.id for item in decision.remove}
        if not going:
            return going
        instead = {kept.id for kept in decision.keep if kept.displaces}
        above = {ancestor for found in instead for ancestor in self._ancestors(found)}
        families = {self._root(found) for found in going}
        beside = {kept.id for kept in decision.keep if self._parent(kept.id) and self._root(kept.id) in families}
        return (going | instead | above | beside) & self.entries.keys()

    def _parent(self, backup_id: str) -> str | None:
        entry = self.entries.get(backup_id)
        return entry.claimed.parent if entry is not None and entry.claimed is not None else None

    def _ancestors(self, backup_id: str) -> list[str]:
        """Return the ancestors as far as they are named, the nearest first."""
        found: list[str] = []
        parent = self._parent(backup_id)
        while parent is not None and parent not in found and parent != backup_id:
            found.append(parent)
            parent = self._parent(parent)
        return found

    def _root(self, backup_id: str) -> str:
        return (self._ancestors(backup_id) or [backup_id])[-1]

    def _candidate(self, entry: HeadEntry, by_id: dict[str, BackupHead]) -> Candidate:
        """Say what retention must know."""
        claimed, pinned = entry.claimed, entry.id in self._pinned
        if claimed is None:
            return Candidate(entry.id, layout.backup_time(entry.id), good=False, readable=False, pinned=pinned)
        good, at = not broken_chain(claimed, by_id), claimed.recovery_point
        if entry.backup is None:  # not trusted: its word is taken for what it needs, not for its time
            good, at = False, layout.backup_time(entry.id)
        proven = entry.id in self._proven
        return Candidate(
            entry.id,
            at,
            claimed.parent,
            good=good,
            proven=proven,
            pinned=pinned,
            set_aside=entry.id in self._set_aside,
            needs=needed_by(claimed),
        )
