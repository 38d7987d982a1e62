"""Verify that the stored bytes are right: present, of the right size, and, with ``deep``, of the right content.

``verify`` is about the store; whether the database they make is sane is what a drill finds out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from drd.errors import CatalogError, ConfigError, DrdError, IntegrityError, NoSuchBackup, StoreError, StoreRefused
from drd.model import Backup, BackupHead, Notice, Problem, Progress
from drd.ops.coverage import Coverage, coverage
from drd.ops.observe import Meter, ObservedReader
from drd.ops.ports import Ports
from drd.ops.presence import is_removed
from drd.ops.sampling import Budget, Sample, read_damaged_again, read_sample, save
from drd.repository import layout
from drd.repository.catalog import CatalogEntry, Survey
from drd.repository.lease import is_held
from drd.repository.planning import chain
from drd.repository.references import needed_by
from drd.repository.verified import MAX_DAMAGED, Reading


@dataclass(frozen=True, slots=True)
class VerifiedBackup:
    """What was found about one backup; no problems means it is well, unless it is ``sealed``.

    ``sealed`` is set where its bytes were to be read and no identity here opens them: presence and sizes are right.
    """

    id: str
    source: str
    problems: tuple[Problem, ...]
    sealed: ConfigError | None = None

    @property
    def outcome(self) -> Literal["ok", "damaged", "sealed"]:
        """Return ``ok``, ``damaged`` or ``sealed``."""
        return "damaged" if self.problems else "sealed" if self.sealed else "ok"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Objects in a folder without a manifest. ``may_run`` is true while a drd works on the source: it may be its."""

    id: str
    source: str
    objects: int
    bytes: int
    may_run: bool


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. ``leftovers`` are no backups; the next run of their source sweeps what is nobody's.

    ``sample`` is what was read besides, where that was asked for; ``coverage`` how much was read when, this run
    included.
    """

    deep: bool
    backups: tuple[VerifiedBackup, ...]
    leftovers: tuple[Leftover, ...]
    sample: Sample | None = None
    coverage: tuple[Coverage, ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Return the ids of the leftovers."""
        return tuple(leftover.id for leftover in self.leftovers)

    @property
    def outcome(self) -> Literal["ok", "damaged", "partial"]:
        """Return ``ok`` when every backup is, ``partial`` when some could not be opened and the others are well."""
        found = {backup.outcome for backup in self.backups}
        return "damaged" if "damaged" in found else "partial" if "sealed" in found else "ok"


def verify(ports: Ports, wanted: Sequence[str], *, deep: bool, sample: Budget | None = None) -> VerifyReport:
    """Verify the named backups or sources, or everything when none is named; with ``sample`` read some of it.

    Raises :class:`~drd.errors.NoSuchBackup` for a name that is neither, :class:`~drd.errors.CatalogError` when there
    is nothing to verify (a wrong bucket or prefix must not look well), and store errors; problems of backups are in
    the report. A sample is of whole sources: raises :class:`~drd.errors.ConfigError` for one of single backups, and
    where ``deep`` cannot open any backup at all.
    """
    selection = _select(ports, wanted)
    if sample and any(ids is not None for ids in selection.values()):
        raise ConfigError("--sample reads from whole sources", op="verify", hint="name a source, or no name at all")
    surveys = {source: ports.catalog.survey(source) for source in selection}
    if not any(survey.entries for survey in surveys.values()):
        raise CatalogError(
            "there is no backup to verify",
            op="verify",
            subject=", ".join(wanted),
            hint="check store.bucket and store.prefix (or store.path); a first backup: drd backup now",
        )
    taken = _read_some(ports, surveys, sample) if sample or not deep else None
    found: dict[tuple[str, str], VerifiedBackup] = {}
    notices: list[Notice] = []
    heads: dict[str, Sequence[BackupHead]] = {}
    for source, ids in selection.items():
        bad = {p.subject: p for where, _, p in taken.problems if where == source} if taken else {}
        run = _SourceRun(ports, source, surveys[source], bad, deep=deep)
        found |= {(backup.id, source): backup for backup in run.verify(ids)}
        heads[source] = list(run.heads.values())
        notices += run.notices
        if run.read and (notice := save(ports, source, run.read, list(run.heads))):
            notices.append(notice)
    _demand_some_opened(list(found.values()))
    leftovers = tuple(item for source in selection for item in _leftovers(ports, source, surveys[source].unfinished))
    return VerifyReport(
        deep=deep,
        backups=tuple(found[place] for place in sorted(found)),
        leftovers=leftovers,
        sample=taken if sample else None,
        coverage=tuple(coverage(ports, source, heads[source]) for source in selection),
        notices=(*notices, *(taken.notices if taken else ())),
    )


def _read_some(ports: Ports, surveys: Mapping[str, Survey], sample: Budget | None) -> Sample:
    """Read a sample; without one, what was damaged when it was last read: it must not look well for its size."""
    heads: dict[str, Sequence[BackupHead]] = {
        source: [entry.backup for entry in survey.entries if entry.backup is not None]
        for source, survey in surveys.items()
    }
    return read_sample(ports, heads, sample) if sample else read_damaged_again(ports, heads)


def _demand_some_opened(found: Sequence[VerifiedBackup]) -> None:
    """Raise ConfigError where every backup was to be opened, and no identity opened any: that is a wrong set-up."""
    sealed = [backup.sealed for backup in found if backup.sealed is not None]
    if sealed and len(sealed) == len(found):
        sealed[0].add_hint("without it, stored bytes are compared with their digests by drd verify --sample 100%")
        raise sealed[0].during("verify", "")


def _select(ports: Ports, wanted: Sequence[str]) -> dict[str, set[str] | None]:
    """Return the sources that are meant, each with the ids that are meant, None for all of them."""
    known = ports.catalog.sources()
    if not wanted:
        return dict.fromkeys(known)
    out: dict[str, set[str] | None] = {}
    for name in wanted:
        if name in known:
            out[name] = None
            continue
        try:
            entry = ports.catalog.entry(name)
        except NoSuchBackup as error:
            error.add_hint(f"sources there: {', '.join(known) or 'none'}")
            raise
        if (ids := out.setdefault(entry.source, set())) is not None:
            ids.add(entry.id)
    return out


class _SourceRun:
    """Verifies backups of one source, holding few whole manifests at a time.

    ``heads`` are the backups that are not known to be damaged, ``read`` what was read whole, ``bad`` the objects that
    were read before and are no good, by key: whatever refers to one cannot be restored. ``removed`` are ids of backups
    that a prune took away meanwhile.
    """

    def __init__(self, ports: Ports, source: str, survey: Survey, bad: Mapping[str, Problem], *, deep: bool) -> None:
        self.heads = {entry.id: entry.backup for entry in survey.entries if entry.backup is not None}
        self.read: dict[str, Reading] = {}
        self.removed: set[str] = set()
        self.notices: list[Notice] = []
        self._ports = ports
        self._source = source
        self._bad = bad
        self._deep = deep
        self._sealed: dict[str, ConfigError] = {}
        self._sizes = _Sizes(ports)

    def verify(self, ids: set[str] | None) -> list[VerifiedBackup]:
        """Verify these backups, or all of the source, in the order of their ids."""
        catalog = self._ports.catalog
        entries = catalog.stream(self._source) if ids is None else self._with_ancestors(ids)
        out: dict[str, VerifiedBackup] = {}
        for entry in entries:
            self._ports.cancel.raise_if_cancelled()
            problems = self._entry(entry)
            if problems and self._was_removed(entry):
                continue
            out[entry.id] = VerifiedBackup(entry.id, self._source, tuple(problems), self._sealed.get(entry.id))
            self._ports.progress(Progress(self._source, "look through", detail=entry.id))
        if ids is None:
            out |= {lost.id: lost for lost in self._lost(self.heads.keys() - out.keys())}
        for backup_id, backup in out.items():  # again: an ancestor may have turned out to be damaged after it
            if not backup.problems and (problems := _chain_problems(self.heads[backup_id], self.heads)):
                out[backup_id] = replace(backup, problems=tuple(problems))
        if self.removed:
            names = ", ".join(sorted(self.removed))
            text = f"{self._source}: removed while it was verified, so nothing is said of it: {names}"
            self.notices.append(Notice("removed-meanwhile", text))
        return [backup for backup_id, backup in sorted(out.items()) if ids is None or backup_id in ids]

    def _lost(self, unseen: set[str]) -> Iterator[VerifiedBackup]:
        """Yield the backups that the index still tells of, though their manifests are gone."""
        for backup_id in sorted(unseen):
            self.heads.pop(backup_id, None)
            if self._ports.catalog.disown(self._source, backup_id):
                key, effect = layout.manifest_key(self._source, backup_id), f"backup {backup_id} cannot be restored"
                problem = Problem(key, "is missing: other hands than drd's took it away", effect)
                yield VerifiedBackup(backup_id, self._source, (problem,))

    def _was_removed(self, entry: CatalogEntry) -> bool:
        """Whether a backup with problems was removed while it was looked at, by drd: then it is none, and not damaged.

        What other hands took away is a problem that is named.
        """
        if entry.backup is None or not is_removed(self._ports, entry.backup):
            return False
        if self._ports.catalog.disown(self._source, entry.id):
            return False
        self.heads.pop(entry.id, None)
        self.read.pop(entry.id, None)
        self.removed.add(entry.id)
        return True

    def _with_ancestors(self, ids: set[str]) -> Iterator[CatalogEntry]:
        """Yield the wanted backups; look into the manifests of their ancestors, which must be whole too."""
        for backup_id in sorted(ids):
            head = self.heads.get(backup_id)
            with suppress(DrdError):  # said of the backup itself
                for ancestor in chain(head, self.heads) if head else ():
                    entry = self._ports.catalog.read(self._source, ancestor.id)
                    if entry is None or entry.backup is None:
                        self.heads.pop(ancestor.id, None)
            entry = self._ports.catalog.read(self._source, backup_id)
            if entry is not None:
                yield entry

    def _entry(self, entry: CatalogEntry) -> list[Problem]:
        backup = entry.backup
        if backup is None:
            self.heads.pop(entry.id, None)
            effect = f"backup {entry.id} cannot be restored"
            if entry.distrusted:
                effect = "the backup does not count: nothing is restored from it"
            return [Problem(layout.manifest_key(entry.source, entry.id), entry.problem or "unreadable", effect)]
        self.heads.setdefault(backup.id, backup)
        problems = _chain_problems(backup, self.heads) + _missing_parts(backup, self._sizes)
        problems += self._known_bad(backup, {problem.subject for problem in problems})
        if self._deep and not problems and self._opens(backup):
            began_at = self._ports.now()
            problems = _deep(self._ports, backup, self._ancestors(backup))
            own = tuple(sorted({p.subject for p in problems} & set(_own_keys(backup))))
            self.read[backup.id] = Reading(backup.id, began_at, damaged=own[:MAX_DAMAGED])
        return problems

    def _opens(self, backup: Backup) -> bool:
        """Whether an identity here opens a backup; one from before a change of keys must not hide how others are."""
        try:
            if backup.encryption == "age":
                self._ports.codec.require_identity(backup.recipients)
        except ConfigError as error:
            self._sealed[backup.id] = error
            return False
        return True

    def _known_bad(self, backup: Backup, said: set[str]) -> list[Problem]:
        """Name what a backup refers to, in its own folder or an ancestor's, that was read and is no good."""
        keys = {part.key for artifact in backup.artifacts for part in artifact.parts} & self._bad.keys()
        effect = f"backup {backup.id} cannot be restored"
        return [replace(self._bad[key], effect=effect) for key in sorted(keys - said)]

    def _ancestors(self, backup: Backup) -> list[Backup]:
        """Return the whole manifests of what a backup builds on, oldest first."""
        found = [self._ports.catalog.read(self._source, head.id) for head in chain(backup, self.heads)]
        return [entry.backup for entry in found if entry is not None and entry.backup is not None]


def _own_keys(backup: Backup) -> list[str]:
    keys = (part.key for artifact in backup.artifacts for part in artifact.parts)
    return [key for key in keys if layout.owner_of(key) == backup.id]


def _leftovers(ports: Ports, source: str, unfinished: Sequence[str]) -> list[Leftover]:
    """Count what lies in folders without a manifest; while the source's lease is held they may be a running backup."""
    if not unfinished:
        return []
    ttl_s, now = ports.tuning.lease_ttl_s, ports.now()
    try:
        may_run = is_held(ports.store, f"source-{source}", ttl_s=ttl_s, now=now, holder=ports.holder)
    except StoreRefused:  # a role that may not read leases
        may_run = True
    out: list[Leftover] = []
    for backup_id in unfinished:
        sizes = [info.size_bytes for info in ports.store.list(layout.backup_prefix(source, backup_id))]
        out.append(Leftover(backup_id, source, len(sizes), sum(sizes), may_run and backup_id == unfinished[-1]))
    return out


def _chain_problems(backup: BackupHead, by_id: Mapping[str, BackupHead]) -> list[Problem]:
    """Name the ancestor that is missing, unreadable, not trusted or impossible."""
    try:
        chain(backup, by_id)
    except IntegrityError as error:
        found = error.subject in by_id
        subject = error.subject if found else layout.manifest_key(backup.source, error.subject)
        return [Problem(subject, error.message, f"backup {backup.id} cannot be restored")]
    return []


class _Sizes:
    """Sizes of stored objects, one listing a backup folder, remembered for the folders of one chain at a time."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._known: dict[str, dict[str, int]] = {}

    def settle_on(self, backup: Backup) -> None:
        """List the folders that a backup refers to, and forget all others."""
        folders = {layout.backup_prefix(backup.source, owner) for owner in (backup.id, *needed_by(backup))}
        self._known = {folder: sizes for folder, sizes in self._known.items() if folder in folders}
        for folder in folders - self._known.keys():
            self._known[folder] = {info.key: info.size_bytes for info in self._ports.store.list(folder)}

    def of(self, key: str) -> int | None:
        """Return the size of an object of that backup, or None when it is missing."""
        return self._known["/".join(key.split("/")[:3]) + "/"].get(key)


def _missing_parts(backup: Backup, sizes: _Sizes) -> list[Problem]:
    """Check presence and size of every object the manifest names."""
    effect = f"backup {backup.id} cannot be restored"
    sizes.settle_on(backup)
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


def _deep(ports: Ports, backup: Backup, ancestors: Sequence[Backup]) -> list[Problem]:
    """Read every byte: digests, decryption, decompression, then the engine's own format."""
    out: list[Problem] = []
    meter = Meter(ports.progress, backup.source, "verify", backup.plain_bytes)
    with (
        ports.reader(backup) as artifacts,
        ports.work(backup.source, backup.id, ancestors=ancestors) as ctx,
    ):
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
    keys = {part.key for artifact in backup.artifacts for part in artifact.parts}
    named = {p.message for p in out if p.subject in keys}  # the format said the same of the file it belongs to
    return list({(p.subject, p.message): p for p in out if p.subject in keys or p.message not in named}.values())


def _problem(backup: Backup, error: DrdError) -> Problem:
    return Problem(error.subject or backup.id, error.message, f"backup {backup.id} cannot be restored")
