"""Take a backup of one or several sources.

The order of steps is the promise: parts first, the manifest last and only if absent, so that a backup exists if
and only if its manifest exists; what a killed run left is swept by the next run of the same source.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from drd.errors import Cancelled, DrdError, IntegrityError, StoreError, StoreForbidden
from drd.model import (
    FINGERPRINT_ARTIFACT,
    Artifact,
    Backup,
    DumpResult,
    Notice,
    Part,
    Progress,
)
from drd.ops.bounded import BACKUP_GRACE_S, run_bounded
from drd.ops.chains import Basis, KindAsked, choose_basis, parent_of, require_still_there
from drd.ops.failures import of_source
from drd.ops.observe import Meter, ObservedSink
from drd.ops.oddness import mark_oddness
from drd.ops.ports import Ports, Source
from drd.ops.side_by_side import MAX_AT_ONCE, side_by_side
from drd.protocols import ArtifactSink, Lease, WorkContext
from drd.repository.layout import new_backup_id, owner_of
from drd.repository.writing import PartSink

Outcome = Literal["ok", "partial", "failed", "cancelled"]
DIRECT_ARTIFACT_PREFIX = "clickhouse/"


@dataclass(frozen=True, slots=True)
class SourceReport:
    """How the backup of one source went: ``backup`` when it exists, else ``error``.

    ``kind_reason`` says in a clause why the backup is a full or an incremental one; empty where it is always full.
    """

    source: str
    engine: str
    outcome: Outcome
    duration_s: float
    backup: Backup | None = None
    error: DrdError | None = None
    notices: tuple[Notice, ...] = ()
    kind_reason: str = ""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """How a run went, source by source in the order asked."""

    started_at: datetime
    duration_s: float
    sources: tuple[SourceReport, ...]

    @property
    def outcome(self) -> Outcome:
        """Return ``ok`` when all sources are backed up, ``partial`` when some, else ``cancelled`` or ``failed``."""
        done = sum(report.backup is not None for report in self.sources)
        if done == len(self.sources):
            return "ok"
        if any(report.outcome == "cancelled" for report in self.sources):
            return "cancelled"
        return "partial" if done else "failed"


def back_up(ports: Ports, sources: Sequence[Source], *, kind: KindAsked = "auto") -> BackupReport:
    """Back up every source, side by side; a source that fails does not stop the others.

    ``kind`` says whether a backup may, must not or must build on an earlier one.

    Raises a :class:`~drd.errors.DrdError` only for what concerns all of them, such as an unreachable store.
    """
    started_at, started = ports.now(), ports.monotonic()
    ports.catalog.signing.require_key()  # found out now, and not after hours of dumping
    info = ports.repository.open_or_create(started_at)
    share = max(1, min(len(sources), MAX_AT_ONCE))
    reports = side_by_side(sources, lambda source: _report_of(ports, source, info.id, kind, share))
    return BackupReport(started_at, ports.monotonic() - started, tuple(reports))


def _report_of(ports: Ports, source: Source, repository_id: str, kind: KindAsked, share: int) -> SourceReport:
    """Back up one source and turn a deliberate error into its report."""
    started = ports.monotonic()
    try:
        backup, reason, notices = back_up_source(ports, source, repository_id, kind=kind, share=share)
    except DrdError as error:
        outcome: Outcome = "cancelled" if isinstance(error, Cancelled) else "failed"
        of_source(error, "backup", source.name)
        ports.progress(Progress(source.name, outcome))
        return SourceReport(source.name, source.engine.kind, outcome, ports.monotonic() - started, error=error)
    ports.progress(Progress(source.name, "done", backup.plain_bytes, backup.plain_bytes))
    took = ports.monotonic() - started
    return SourceReport(source.name, source.engine.kind, "ok", took, backup, notices=notices, kind_reason=reason)


def back_up_source(
    ports: Ports, source: Source, repository_id: str, *, kind: KindAsked = "auto", share: int = 1
) -> tuple[Backup, str, tuple[Notice, ...]]:
    """Back up one source under its lease and publish the manifest.

    Returns it with the reason for its kind and what a person should know. Raises :class:`~drd.errors.DrdError`; then
    nothing that looks like a backup exists, and what was stored so far has been removed, or will be swept by the next
    run.
    """
    ports.cancel.raise_if_cancelled()
    probe = ports.look(source, source.engine.probe)
    with hold_lease(ports, source.name) as lease:
        return back_up_under(ports, source, repository_id, lease, probe.size_bytes, kind=kind, share=share)


def back_up_under(
    ports: Ports,
    source: Source,
    repository_id: str,
    lease: Lease,
    size_bytes: int | None,
    *,
    kind: KindAsked = "auto",
    share: int = 1,
) -> tuple[Backup, str, tuple[Notice, ...]]:
    """Do what :func:`back_up_source` does for one who holds the source's lease; ``size_bytes`` is an estimate."""
    notices = sweep(ports, source.name)
    started_at, started = ports.now(), ports.monotonic()
    basis = choose_basis(ports, source, kind, repository_id, started_at)
    backup_id = new_backup_id(started_at)
    try:
        with (
            ports.work(
                source.name, backup_id, deadline_s=source.deadline_s, jobs=source.jobs, ancestors=basis.chain
            ) as ctx,
            _part_sink(ports, ctx, basis, share) as sink,
        ):
            meter = Meter(ports.progress, source.name, "dump", size_bytes)
            observed = ObservedSink(sink, meter)
            result = run_bounded(lambda: source.engine.dump(observed, ctx), ctx.cancel, BACKUP_GRACE_S)
            _write_fingerprint(sink, result)
            artifacts = sink.finish() + _direct_artifacts(ports, ctx, result, basis)
        parent = parent_of(backup_id, basis, result.kind, artifacts)
        finished_at = started_at + timedelta(seconds=ports.monotonic() - started)  # the clock may have been set
        backup = _describe(
            ports, source, backup_id, started_at, result, artifacts, parent, repository_id, lease, sink, finished_at
        )
        backup, odd = mark_oddness(ports, source, backup)
        ports.cancel.raise_if_cancelled()
        if parent is not None:
            require_still_there(ports, basis)
        backup = _publish(ports, lease, backup)
    except BaseException as error:
        _undo(ports, source.name, backup_id, error)
        raise
    lonely = basis.parent is not None and parent is None
    reason = f"it shares nothing with {basis.chain[-1].id}" if lonely else basis.reason
    notices += basis.notices + _new(result.notices, basis) + odd
    return backup, reason, notices + _renew_index(ports, source.name)


def _new(notices: tuple[Notice, ...], basis: Basis) -> tuple[Notice, ...]:
    """Leave out what was told when the backup before was taken, and lasts: its manifest says so, and drd check does."""
    told = basis.parent.warnings if basis.parent else ()
    return tuple(notice for notice in notices if not (notice.standing and notice.code in told))


def _renew_index(ports: Ports, source: str) -> tuple[Notice, ...]:
    """Keep lists quick; the backup exists already, and no failure of this, nor an interruption, takes it away."""
    try:
        ports.catalog.renew_index(source)
    except (StoreError, IntegrityError, Cancelled) as error:
        text = f"the index of {source} was not renewed, so lists read more than they need: {error.message}"
        return (Notice("index-not-renewed", text),)
    return ()


def _publish(ports: Ports, lease: Lease, backup: Backup) -> Backup:
    """Write the manifest, unless the lease was lost, however long that takes.

    Another drd may take the lease over between the question and the manifest's arrival (this process was suspended,
    or the store was away), and sweep the parts, as it sees no manifest. It takes the lease before it looks, so
    asking again finds it out; then, or when there is no answer, the manifest must not stand.
    """
    lease.ensure()
    published = ports.catalog.publish(backup)
    try:
        lease.ensure()
    except DrdError:
        ports.catalog.withdraw(backup)
        raise
    return published


def hold_lease(ports: Ports, name: str) -> AbstractContextManager[Lease]:
    """Hold the right to add and remove backups of a source; raises :class:`~drd.errors.LeaseError` when it is taken."""
    return ports.lease(f"source-{name}")


def _part_sink(ports: Ports, ctx: WorkContext, basis: Basis, share: int) -> PartSink:
    tuning = ports.tuning
    return PartSink(
        ports.store,
        ports.codec,
        source=ctx.source,
        backup_id=ctx.backup_id,
        workers=tuning.workers,
        part_size=tuning.part_size_bytes,
        memory_limit_bytes=max(tuning.memory_limit_bytes // share, tuning.part_size_bytes),
        cancel=ctx.cancel,
        reuse=basis.reuse,
        ancestry=basis.parent.artifacts if basis.parent else (),
    )


def sweep(ports: Ports, source: str) -> tuple[Notice, ...]:
    """Remove what earlier runs of this source left unfinished; the caller holds the source's lease.

    A store that does not let this role delete is no failure: backing up needs no such right. It is a notice.
    """
    try:
        swept = ports.catalog.sweep(source)
    except StoreError as error:
        if error.retryable:
            raise
        if isinstance(error, StoreForbidden) and error.op != "delete":
            text = "this role may not read manifests: what interrupted runs left is for drd prune --apply elsewhere"
            return (Notice("not-swept", text),)
        return (Notice("sweep-refused", f"unfinished uploads of {source} could not be removed: {error.message}"),)
    if not swept.ids:
        return ()
    text = f"removed {swept.objects} objects ({swept.bytes} bytes) of {len(swept.ids)} unfinished backup(s)"
    return (Notice("swept", text),)


def _undo(ports: Ports, source: str, backup_id: str, error: BaseException) -> None:
    """Remove what a failed backup stored; where that fails as well, say who will do it."""
    locked_until = None
    try:
        locked_until = ports.catalog.locked_until(source, backup_id)
        ports.catalog.discard(source, backup_id)
        if locked_until is not None and isinstance(error, DrdError):
            held = f"what was uploaded is hidden, and takes space until {locked_until:%Y-%m-%d %H:%M} UTC (object lock)"
            error.add_hint(held)
    except IntegrityError:  # the manifest was stored although its put reported an error
        if isinstance(error, DrdError):
            error.hint = f"the manifest of {backup_id} was stored all the same: verify it with drd verify {backup_id}"
    except (StoreError, Cancelled):  # interrupted: the store does not wait out its hiccups any more
        if isinstance(error, DrdError):
            later = "what was uploaded is not a backup and will be swept by the next run that may"
            if locked_until is not None:
                later += f" after {locked_until:%Y-%m-%d %H:%M} UTC, when its object lock ends"
            error.add_hint(later)


def _write_fingerprint(sink: ArtifactSink, result: DumpResult) -> None:
    writer = sink.open(FINGERPRINT_ARTIFACT)
    writer.write(json.dumps(dataclasses.asdict(result.fingerprint), separators=(",", ":")).encode())
    writer.close()


def _direct_artifacts(ports: Ports, ctx: WorkContext, result: DumpResult, basis: Basis) -> tuple[Artifact, ...]:
    """List what the server wrote into the bucket itself, and needs of the parent: one raw artifact an object."""
    if not result.direct_objects:
        return ()
    found = tuple(
        Artifact(
            DIRECT_ARTIFACT_PREFIX + info.key.removeprefix(ctx.direct_prefix),
            (Part(info.key, info.size_bytes, info.size_bytes, "", ""),),
            raw=True,
        )
        for info in ports.store.list(ctx.direct_prefix)
    )
    if not found:
        raise IntegrityError(
            f"the server reported a finished backup, but the store holds nothing below {ctx.direct_prefix}",
            hint="the server writes to another bucket or prefix: check the source's direct.url",
        )
    return found + _base_artifacts(result, basis)


def _base_artifacts(result: DumpResult, basis: Basis) -> tuple[Artifact, ...]:
    """List what a backup that the server built on the parent cannot be restored without, where it lies."""
    out: list[Artifact] = []
    have = {artifact.name: artifact.parts for artifact in basis.parent.artifacts} if basis.parent else {}
    for name, key in result.base_objects.items():
        parts = have.get(DIRECT_ARTIFACT_PREFIX + key)
        if parts is None:
            raise IntegrityError(f"the server built on {key}, which the backup before does not list")
        out.append(Artifact(DIRECT_ARTIFACT_PREFIX + name, parts, raw=True))
    return tuple(out)


def _describe(
    ports: Ports,
    source: Source,
    backup_id: str,
    started_at: datetime,
    result: DumpResult,
    artifacts: tuple[Artifact, ...],
    parent: Backup | None,
    repository_id: str,
    lease: Lease,
    sink: PartSink,
    finished_at: datetime,
) -> Backup:
    """Put together what the manifest will say."""
    own = (part for artifact in artifacts if artifact.raw for part in artifact.parts if owner_of(part.key) == backup_id)
    raw_bytes = sum(part.stored_bytes for part in own)
    return Backup(
        id=backup_id,
        source=source.name,
        engine=source.engine.kind,
        engine_version=result.engine_version,
        kind="full" if parent is None else "incremental",
        parent=None if parent is None else parent.id,
        started_at=started_at,
        finished_at=finished_at,
        recovery_point=result.recovery_point,
        window_start=None,
        artifacts=artifacts,
        compression="zstd",
        encryption="age" if ports.codec.encrypted else "none",
        recipients=ports.codec.recipients,
        plain_bytes=sum(artifact.plain_bytes for artifact in artifacts),
        stored_bytes=sink.bytes_stored + raw_bytes,
        rows=result.rows,
        lease_generation=lease.generation,
        repository_id=repository_id,
        tools=result.tools,
        labels=dict(source.labels),
        facts=result.facts,
        warnings=tuple(sorted({notice.code for notice in result.notices})),
    )
