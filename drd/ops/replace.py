"""Restore into the place of live data: beside it first, compared, and only then swapped; the old data is kept.

The order of steps is the promise. The record goes into the store before anything is made on the server, so that
whoever comes next finds what a killed run left; the live data is touched by the swap alone, and a failure before
it or in it leaves the live data as it was. The source's lease is held from the first step to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from drd.errors import Cancelled, CatalogError, DrdError, StoreError, TargetError
from drd.model import Notice, Progress, Recovered, compare_fingerprints
from drd.ops.backup import back_up_under, hold_lease
from drd.ops.bounded import LOOK_GRACE_S, RESTORE_GRACE_S, run_bounded
from drd.ops.failures import of_source
from drd.ops.observe import Meter, ObservedReader
from drd.ops.ports import Ports, Source
from drd.ops.restore import (
    Attempt,
    IntoEmpty,
    PlannedRestore,
    Replaced,
    RestoredSource,
    RestoreReport,
    demand_equal,
    read_fingerprint,
)
from drd.ops.side_by_side import MAX_AT_ONCE, side_by_side
from drd.protocols import ArtifactReader, Engine, Lease, Replacer, WorkContext
from drd.repository.layout import new_backup_id
from drd.repository.pins import Pins
from drd.repository.restores import Phase, RestoreRecord, Restores

Steps = Mapping[str, Sequence[str]]


def survey(ports: Ports, planned: Sequence[PlannedRestore]) -> Steps:
    """Say, for each source whose target holds data, how it would be replaced; changes nothing.

    Raises :class:`~drd.errors.TargetError` for one that cannot be.
    """
    out: dict[str, Sequence[str]] = {}
    for item in planned:
        if not item.target.empty:
            try:
                with ports.reader(item.backup) as artifacts:
                    question = partial(replacer_of(item.into).survey, item.backup, artifacts)
                    out[item.source] = ports.look(item.into, question)
            except DrdError as error:
                of_source(error, "restore", item.source)
                raise
    return out


def restore_in_place(ports: Ports, at: datetime, planned: Sequence[PlannedRestore]) -> RestoreReport:
    """Restore every planned source, side by side: into an empty target as ever, else in the place of what it holds."""
    started = ports.monotonic()
    share = max(1, min(len(planned), MAX_AT_ONCE))

    def one(item: PlannedRestore) -> RestoredSource:
        if item.target.empty:
            return IntoEmpty(ports, item, share, check=True).report()
        return _InPlace(ports, item, share).report()

    return RestoreReport(at, tuple(side_by_side(planned, one)), ports.monotonic() - started)


def recover_interrupted(ports: Ports, targets: Sequence[Source]) -> list[tuple[str, Notice]]:
    """End what killed runs left of their restores in place, on these servers; returns notices by source.

    Raises :class:`~drd.errors.LeaseError` while another drd is at it.
    """
    records = [record for record in Restores(ports.store).all()[0] if record.interrupted]
    out: list[tuple[str, Notice]] = []
    for target in targets:
        mine = [record for record in records if record.source == target.name]
        if target.replacer is not None and mine:
            with hold_lease(ports, target.name):
                out += [(target.name, notice) for record in mine for notice in recover(ports, target, record)]
    return out


def recover(ports: Ports, target: Source, record: RestoreRecord) -> list[Notice]:
    """End one interrupted restore; the caller holds the lease."""
    replacer = replacer_of(target)
    try:
        found = ports.look(target, lambda: replacer.recover(record.id))
    except DrdError as error:
        of_source(error, "restore", target.name)
        raise
    replaced = found.replaced if found.replaced is not None else record.kept is not None
    phase: Phase = "replaced" if replaced else "failed"
    text = f"the restore {record.id} was interrupted and undone; the data is as it was before"
    if record.phase == "undoing":
        # A backup that is the way back stays one: whatever of it was loaded may be loaded again.
        phase = "replaced" if replaced or replacer.keeps == "backup" else "undone"
        text = f"going back from the restore {record.id} was interrupted; to end it: drd restore undo {record.id}"
    elif replaced:
        text = f"the restore {record.id} had put its data in place; to go back: drd restore undo {record.id}"
    if phase == "failed":
        unpin_all(ports, record)
    Restores(ports.store).put(record.now(phase, ports.now()))
    return [Notice("restore-recovered", text), *found.notices]


def unpin_all(ports: Ports, record: RestoreRecord) -> None:
    """Let retention decide again about the backups that a restore pinned as a way back."""
    pins = Pins(ports.store)
    for backup_id in pins.made_by(record.source, record.id) | ({record.kept} if record.kept else set()):
        pins.unpin(record.source, backup_id)


def replacer_of(target: Source) -> Replacer:
    """Return what replaces the data of this target; raises TargetError where nothing can."""
    if target.replacer is None:
        raise TargetError(
            f"a {target.engine.kind} target cannot be replaced in place", hint="restore elsewhere with --into URL"
        )
    return target.replacer


def put_backup_back(
    ports: Ports, target: Source, record: RestoreRecord, lease: Lease, notices: list[Notice]
) -> RestoreRecord:
    """Load the backup that keeps a restore's old data; what is there now is backed up before and is what is kept then.

    The caller holds the lease. Returns the record, still being undone, with what is kept now; the pin of what was
    kept before is the caller's to take away once that is written.
    """
    if record.kept is None:
        raise CatalogError(f"the restore {record.id} was interrupted before the old data was saved: it is untouched")
    saved: list[str] = []

    def save_old(engine: Engine) -> None:
        made, _, told = back_up_under(ports, replace(target, engine=engine), ports.repository.open().id, lease, None)
        Pins(ports.store).pin(made.source, made.id, ports.now(), restore=record.id)
        notices.extend(told)
        saved.append(made.id)

    _load(ports, target, record.id, record.kept, save_old)
    return record.now("undoing", ports.now(), kept=saved[0])


def _load(ports: Ports, target: Source, restore_id: str, kept: str, save_old: Callable[[Engine], None]) -> None:
    """Put the backup ``kept`` in the place of what the server holds."""
    backup, replacer = ports.catalog.get(kept), replacer_of(target)
    with (
        ports.work(target.name, backup.id, deadline_s=target.deadline_s, jobs=target.jobs) as ctx,
        ports.reader(backup, cancel=ctx.cancel) as artifacts,
    ):
        replacer.stage(restore_id, backup, artifacts, ctx)
        try:
            replacer.swap(restore_id, backup, artifacts, ctx, save_old)
        except BaseException:
            replacer.recover(restore_id)
            raise


class _InPlace(Attempt):
    """One restore in place, from the lease to the last line of its record."""

    def __init__(self, ports: Ports, item: PlannedRestore, share: int) -> None:
        super().__init__(ports, item, share, check=True)
        self._replacer = replacer_of(item.into)
        self._records = Restores(ports.store)
        self._pinned: str | None = None

    def go(self) -> None:
        """Replace; raises DrdError, and then the live data is as it was unless the error's hint says otherwise."""
        ports, item = self._ports, self._item
        ports.cancel.raise_if_cancelled()
        repository_id = ports.repository.open().id
        with hold_lease(ports, item.source) as lease:
            for left in self._records.interrupted(item.source):
                self.notices += recover(ports, item.into, left)
            now = ports.now()
            self._record = RestoreRecord(
                new_backup_id(now), item.source, item.backup.engine, item.backup.id, "staging", now, now
            )
            self._records.put(self._record)
            try:
                with (
                    ports.work(
                        item.source, item.backup.id, deadline_s=item.into.deadline_s, jobs=item.into.jobs
                    ) as ctx,
                    ports.reader(item.backup, share=self._share, cancel=ctx.cancel) as artifacts,
                ):
                    self._stage(artifacts, ctx)
                    lease.ensure()
                    self._enter("swapping")
                    old = self._swap(artifacts, ctx, lambda engine: self._save_old(engine, repository_id, lease))
            except BaseException as error:
                self._take_back(error)
                raise
            self._settle(old)

    def _stage(self, artifacts: ArtifactReader, ctx: WorkContext) -> None:
        """Restore beside the live data and demand that it is equal to what was backed up."""
        item, replacer, restore_id = self._item, self._replacer, self._record.id
        expected = read_fingerprint(artifacts)
        meter = Meter(self._ports.progress, item.source, "restore beside", item.backup.plain_bytes)
        observed = ObservedReader(artifacts, meter)
        self.notices += run_bounded(
            lambda: replacer.stage(restore_id, item.backup, observed, ctx), ctx.cancel, RESTORE_GRACE_S
        )
        started = self._ports.monotonic()
        self._ports.progress(Progress(item.source, "compare"))
        found = run_bounded(lambda: replacer.fingerprint(restore_id, expected, ctx), ctx.cancel, LOOK_GRACE_S)
        earlier = f"nothing was changed; an earlier backup may be right: drd list {item.source}"
        demand_equal(item, compare_fingerprints(expected, found), hint=earlier)
        self.check_s = self._ports.monotonic() - started

    def _swap(self, artifacts: ArtifactReader, ctx: WorkContext, save_old: Callable[[Engine], None]) -> Sequence[str]:
        item, replacer, restore_id = self._item, self._replacer, self._record.id
        ctx.cancel.raise_if_cancelled()
        self._ports.progress(Progress(item.source, "swap"))
        return run_bounded(
            lambda: replacer.swap(restore_id, item.backup, artifacts, ctx, save_old), ctx.cancel, RESTORE_GRACE_S
        )

    def _save_old(self, engine: Engine, repository_id: str, lease: Lease) -> None:
        """Back the live data up, where that is how it is kept; from here on the record names the way back."""
        live = replace(self._item.into, engine=engine)
        saved, _, notices = back_up_under(self._ports, live, repository_id, lease, None)
        self._pinned = saved.id
        Pins(self._ports.store).pin(saved.source, saved.id, self._ports.now(), restore=self._record.id)
        self.notices += notices
        self._enter("swapping", kept=saved.id)

    def _settle(self, old: Sequence[str]) -> None:
        """Note that the restore is in place; that the store does not take the note does not make it less so."""
        kept = (self._record.kept,) if self._record.kept else tuple(old)
        self.replaced = Replaced(self._record.id, kept)
        try:
            self._enter("replaced")
        except (StoreError, Cancelled) as error:
            text = f"the data is in place, but the record of the restore could not be written: {error.message}"
            self.notices.append(Notice("record-not-written", text))

    def _take_back(self, error: BaseException) -> None:
        """Leave the live data as it was after a failure; where that does not work, say who will do it."""
        try:
            found = self._replacer.recover(self._record.id)
            interrupted = isinstance(error, Cancelled)  # nothing is read from the store any more
            if found.replaced and self._record.kept and not interrupted:  # read back wrongly, or not at all
                _load(self._ports, self._item.into, self._record.id, self._record.kept, lambda _engine: None)
                found = Recovered(replaced=False)
            if found.replaced and isinstance(error, Cancelled):
                error.message = "interrupted when the restored data had taken its place"
            if found.replaced and isinstance(error, DrdError):
                error.add_hint(f"its data is in place all the same; to go back: drd restore undo {self._record.id}")
            if not found.replaced and self._pinned:  # known, not looked for: after an interruption nothing is read
                Pins(self._ports.store).unpin(self._item.source, self._pinned)
            self._enter("replaced" if found.replaced else "failed")
        except (DrdError, Cancelled) as failure:
            if isinstance(error, DrdError):
                error.add_hint(
                    f"what it made could not all be removed ({failure.message}); run drd restore undo {self._record.id}"
                )

    def _enter(self, phase: Phase, *, kept: str | None = None) -> None:
        self._record = self._record.now(phase, self._ports.now(), kept=kept)
        self._records.put(self._record)
