"""Verify that the stored bytes are right: present, of the right size, and, with ``deep``, of the right content.

``verify`` is about the store; whether the database they make is sane is what a drill finds out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from drd.errors import CatalogError, DrdError, IntegrityError, NoSuchBackup, StoreError
from drd.model import Backup, Problem, Progress
from drd.ops.observe import Meter, ObservedReader
from drd.ops.ports import Ports
from drd.repository import layout
from drd.repository.catalog import CatalogEntry
from drd.repository.planning import chain

_UNUSABLE = "the backup cannot be restored"


@dataclass(frozen=True, slots=True)
class VerifiedBackup:
    """What was found about one backup; no problems means it is well."""

    id: str
    source: str
    problems: tuple[Problem, ...]

    @property
    def outcome(self) -> Literal["ok", "damaged"]:
        """Return ``ok`` or ``damaged``."""
        return "damaged" if self.problems else "ok"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found; ``unfinished`` are ids that are no backups but hold objects (swept by the next run)."""

    deep: bool
    backups: tuple[VerifiedBackup, ...]
    unfinished: tuple[str, ...]

    @property
    def outcome(self) -> Literal["ok", "damaged"]:
        """Return ``ok`` when every backup is."""
        return "damaged" if any(backup.problems for backup in self.backups) else "ok"


def verify(ports: Ports, wanted: Sequence[str], *, deep: bool) -> VerifyReport:
    """Verify the named backups or sources, or everything when none is named.

    Raises :class:`~drd.errors.NoSuchBackup` for a name that is neither, :class:`~drd.errors.CatalogError` when there
    is nothing to verify (a wrong bucket or prefix must not look well), and store errors; problems of backups are in
    the report.
    """
    entries = _select(ports, wanted)
    if not entries:
        raise CatalogError(
            "there is no backup to verify",
            op="verify",
            subject=", ".join(wanted),
            hint="check store.bucket and store.prefix (or store.path); a first backup: drd backup now",
        )
    by_id = {entry.id: entry.backup for entry in ports.catalog.entries() if entry.backup}
    sizes = _Sizes(ports)
    out: list[VerifiedBackup] = []
    for entry in entries:
        ports.cancel.raise_if_cancelled()
        if entry.backup is None:
            problem = Problem(
                layout.manifest_key(entry.source, entry.id),
                entry.problem or "unreadable",
                "the backup does not count: nothing is restored from it" if entry.distrusted else _UNUSABLE,
            )
            out.append(VerifiedBackup(entry.id, entry.source, (problem,)))
            continue
        problems = _chain_problems(entry.backup, by_id) + _missing_parts(entry.backup, sizes)
        if deep and not problems:
            problems = _deep(ports, entry.backup)
        out.append(VerifiedBackup(entry.id, entry.source, tuple(problems)))
        ports.progress(Progress(entry.source, "verified", detail=entry.id))
    sources = sorted({entry.source for entry in entries}) if wanted else ports.catalog.sources()
    unfinished = tuple(backup_id for source in sources for backup_id in ports.catalog.unfinished(source))
    return VerifyReport(deep, tuple(out), unfinished)


def _select(ports: Ports, wanted: Sequence[str]) -> list[CatalogEntry]:
    if not wanted:
        return ports.catalog.entries()
    known = set(ports.catalog.sources())
    out: list[CatalogEntry] = []
    for name in wanted:
        if name in known:
            out.extend(ports.catalog.entries(name))
            continue
        try:
            out.append(ports.catalog.entry(name))
        except NoSuchBackup as error:
            error.hint = f"{error.hint}; sources there: {', '.join(sorted(known)) or 'none'}"
            raise
    return out


def _chain_problems(backup: Backup, by_id: dict[str, Backup]) -> list[Problem]:
    try:
        chain(backup, by_id)
    except DrdError as error:
        return [Problem(backup.id, error.message, _UNUSABLE)]
    return []


class _Sizes:
    """Sizes of stored objects, one listing a backup folder, remembered for the folder of one chain at a time."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._known: dict[str, dict[str, int]] = {}

    def of(self, key: str) -> int | None:
        """Return the size of the object, or None when it is missing."""
        folder = "/".join(key.split("/")[:3]) + "/"
        if folder not in self._known:
            if len(self._known) >= 16:
                self._known.pop(next(iter(self._known)))
            self._known[folder] = {info.key: info.size_bytes for info in self._ports.store.list(folder)}
        return self._known[folder].get(key)


def _missing_parts(backup: Backup, sizes: _Sizes) -> list[Problem]:
    """Check presence and size of every object the manifest names."""
    effect = f"backup {backup.id} cannot be restored"
    out: list[Problem] = []
    for artifact in backup.artifacts:
        for part in artifact.parts:
            size = sizes.of(part.key)
            if size is None:
                out.append(Problem(part.key, "is missing", f"{effect}: {artifact.name} is incomplete"))
            elif size != part.stored_bytes:
                text = f"has {size} bytes instead of {part.stored_bytes}"
                out.append(Problem(part.key, text, f"{effect}: {artifact.name} is damaged"))
    return out


def _deep(ports: Ports, backup: Backup) -> list[Problem]:
    """Read every byte: digests, decryption, decompression, then the engine's own format."""
    out: list[Problem] = []
    meter = Meter(ports.progress, backup.source, "verify", backup.plain_bytes)
    with ports.reader(backup) as artifacts, ports.work(backup.source, backup.id) as ctx:
        observed = ObservedReader(artifacts, meter)
        try:
            out.extend(ports.formats(backup.engine).verify(backup, observed, ctx))
        except IntegrityError as error:
            out.append(_problem(backup, error))
        for name in observed.unread():  # what the format did not look at, and all of it after it gave up
            try:
                with observed.open(name) as stream:
                    for _chunk in stream.chunks():
                        ports.cancel.raise_if_cancelled()
            except (IntegrityError, StoreError) as error:
                if isinstance(error, StoreError) and error.retryable:
                    raise
                out.append(_problem(backup, error))
    return list({(p.subject, p.message): p for p in out}.values())


def _problem(backup: Backup, error: DrdError) -> Problem:
    return Problem(error.subject or backup.id, error.message, f"backup {backup.id} cannot be restored")
