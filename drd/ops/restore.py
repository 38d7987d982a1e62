"""Restore sources to a time, into targets that must be empty.

Planning looks at every target before anything is written: one that holds data refuses the whole run untouched.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from drd.errors import Cancelled, DrdError, IntegrityError, StoreForbidden, TargetNotEmpty
from drd.model import (
    FINGERPRINT_ARTIFACT,
    Backup,
    Difference,
    Fingerprint,
    Notice,
    Progress,
    TargetState,
    compare_fingerprints,
)
from drd.ops.bounded import LOOK_GRACE_S, RESTORE_GRACE_S, run_bounded
from drd.ops.choosing import choose_backups
from drd.ops.failures import of_source
from drd.ops.observe import Meter, ObservedReader
from drd.ops.ports import Ports, Source
from drd.ops.presence import unless_removed
from drd.ops.side_by_side import MAX_AT_ONCE, side_by_side
from drd.protocols import ArtifactReader
from drd.repository.restores import Restores

Outcome = Literal["ok", "planned", "partial", "failed", "cancelled"]
TargetFactory = Callable[[str, Backup], Source]
MAX_FINGERPRINT_BYTES = 256 << 20
MAX_NAMED_DIFFERENCES = 5


@dataclass(frozen=True, slots=True)
class PlannedRestore:
    """One source's way back: which backup, how far before the asked time, and into what.

    ``passed_over`` names newer backups that could not be used, with the reason; ``ancestors`` are what the backup
    builds on, oldest first.
    """

    source: str
    backup: Backup
    gap_s: float
    into: Source
    target: TargetState
    passed_over: tuple[tuple[str, str], ...] = ()
    notices: tuple[Notice, ...] = ()
    ancestors: tuple[Backup, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    """What took the place of live data: the restore's id, and what the old data is kept as (names, or a backup)."""

    restore: str
    old: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestoredSource:
    """How one source's restore went. ``checked`` says whether the target was read back and compared.

    ``passed_over`` names newer backups that could not be used, with the reason. ``replaced`` is set when the target
    held data, which is kept.
    """

    source: str
    backup: Backup
    gap_s: float
    target: str
    outcome: Outcome
    duration_s: float
    checked: bool = False
    check_s: float = 0.0
    error: DrdError | None = None
    notices: tuple[Notice, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()
    replaced: Replaced | None = None


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """How a run went, source by source."""

    at: datetime
    restores: tuple[RestoredSource, ...]
    duration_s: float

    @property
    def outcome(self) -> Outcome:
        """Return ``ok``, ``planned`` (dry run), ``partial``, ``cancelled`` or ``failed``."""
        outcomes = [restore.outcome for restore in self.restores]
        if all(outcome == "planned" for outcome in outcomes):
            return "planned"
        if all(outcome == "ok" for outcome in outcomes):
            return "ok"
        if "cancelled" in outcomes:
            return "cancelled"
        return "partial" if "ok" in outcomes else "failed"


def plan(ports: Ports, at: datetime, sources: Sequence[str], target_of: TargetFactory) -> list[PlannedRestore]:
    """Choose each source's newest backup not later than ``at`` and look at its target; changes nothing.

    Raises :class:`~drd.errors.NoRecoveryPath` with the recoverable window when a source has none.
    """
    out: list[PlannedRestore] = []
    for choice in choose_backups(ports, at, sources):
        try:
            into = target_of(choice.source, choice.backup)
            with ports.reader(choice.backup) as artifacts:
                state = ports.look(into, partial(into.engine.inspect, choice.backup, artifacts))
        except DrdError as error:
            of_source(error, "restore", choice.source)
            raise
        doubts = _doubts(ports, choice.backup)
        out.append(
            PlannedRestore(
                choice.source,
                choice.backup,
                choice.gap_s,
                into,
                state,
                choice.passed_over,
                doubts,
                choice.ancestors,
            )
        )
    return out


def _doubts(ports: Ports, backup: Backup) -> tuple[Notice, ...]:
    """Say what a person should know of a backup before it is trusted.

    Whoever may write to the bucket could put a backup of their own there; one in the clear takes not even a recipient.
    """
    out: list[Notice] = []
    if ports.catalog.signing.sealing is not None and backup.encryption == "none":
        text = f"{backup.id} is not encrypted; it counts because of encryption.accept_clear_before"
        out.append(Notice("not-encrypted", text))
    if ports.catalog.signing.trust is not None:
        if backup.signature is None:
            text = f"{backup.id} is not signed; it counts because of signing.accept_unsigned_before"
            out.append(Notice("not-signed", text))
        if any(artifact.raw for artifact in backup.artifacts):
            text = f"{backup.id} holds objects that the server wrote itself: the signature covers their names and sizes"
            out.append(Notice("content-not-signed", f"{text}, not their content"))
    if (restore := _kept_for(ports, backup)) is not None:
        text = (
            f"{backup.id} holds what the restore {restore} took the place of; what was there before has an earlier time"
        )
        out.append(Notice("kept-by-restore", text))
    return tuple(out)


def _kept_for(ports: Ports, backup: Backup) -> str | None:
    """Return the restore in place that took this backup of the data it replaced, which may be what was ruined."""
    try:
        records, _ = Restores(ports.store).all()
    except StoreForbidden:  # a role that is not to see them
        return None
    return next((one.id for one in records if one.kept == backup.id and one.phase == "replaced"), None)


def refuse_unless_empty(planned: Sequence[PlannedRestore]) -> None:
    """Raise :class:`~drd.errors.TargetNotEmpty` naming the first target that holds data."""
    for item in planned:
        if not item.target.empty:
            raise TargetNotEmpty(
                f"{_held(item.target)}. Nothing was changed",
                op="restore",
                subject=item.source,
                hint="restore beside it and swap with --replace, elsewhere with --into URL, or empty the target first",
            )


def _held(target: TargetState) -> str:
    """Say what a target holds, in a sentence that names it."""
    if not target.detail:
        return f"{target.description} holds data"
    return target.detail if " holds " in target.detail else f"{target.description} holds {target.detail}"


def restore(ports: Ports, at: datetime, planned: Sequence[PlannedRestore], *, check: bool = True) -> RestoreReport:
    """Restore every planned source, side by side, and compare each with its fingerprint unless told not to.

    Raises :class:`~drd.errors.TargetNotEmpty` before anything is written.
    """
    refuse_unless_empty(planned)
    started = ports.monotonic()
    share = max(1, min(len(planned), MAX_AT_ONCE))
    done = side_by_side(planned, lambda item: IntoEmpty(ports, item, share, check=check).report())
    return RestoreReport(at, tuple(done), ports.monotonic() - started)


def as_planned(at: datetime, planned: Sequence[PlannedRestore]) -> RestoreReport:
    """Return the report of a dry run."""
    items = tuple(
        RestoredSource(p.source, p.backup, p.gap_s, p.target.description, "planned", 0.0, passed_over=p.passed_over)
        for p in planned
    )
    return RestoreReport(at, items, 0.0)


class Attempt(ABC):
    """One restore of one source, and what is known of it so far."""

    def __init__(self, ports: Ports, item: PlannedRestore, share: int, *, check: bool) -> None:
        self._ports = ports
        self._item = item
        self._share = share
        self._check = check
        self.notices: list[Notice] = []
        self.check_s = 0.0
        self.restored_bytes = item.backup.plain_bytes
        self.replaced: Replaced | None = None

    @abstractmethod
    def go(self) -> None:
        """Restore, and compare when that is asked for; raises DrdError."""

    def report(self) -> RestoredSource:
        """Restore, tell how it ended, and turn a deliberate error into its report."""
        ports, item = self._ports, self._item
        started = ports.monotonic()
        error: DrdError | None = None
        outcome: Outcome = "ok"
        try:
            self.go()
            ports.progress(Progress(item.source, "done", self.restored_bytes, self.restored_bytes))
        except DrdError as raised:
            error = of_source(unless_removed(ports, item.backup, raised), "restore", item.source)
            outcome = "cancelled" if isinstance(raised, Cancelled) else "failed"
            ports.progress(Progress(item.source, outcome))
        return RestoredSource(
            item.source,
            item.backup,
            item.gap_s,
            item.target.description,
            outcome,
            ports.monotonic() - started,
            checked=self._check and error is None,
            check_s=self.check_s,
            error=error,
            notices=(*item.notices, *self.notices),
            passed_over=item.passed_over,
            replaced=self.replaced,
        )


class IntoEmpty(Attempt):
    """A restore into a target that is empty."""

    def go(self) -> None:
        """Restore, and read back what was restored."""
        ports, item = self._ports, self._item
        ports.cancel.raise_if_cancelled()
        with (
            ports.work(
                item.source,
                item.backup.id,
                deadline_s=item.into.deadline_s,
                jobs=item.into.jobs,
                ancestors=item.ancestors,
            ) as ctx,
            ports.reader(item.backup, share=self._share, cancel=ctx.cancel) as artifacts,
        ):
            # a damaged one stops before anything is written
            expected = read_fingerprint(artifacts) if self._check else None
            if expected is not None and item.into.narrowed is not None:
                expected = item.into.narrowed(expected, artifacts, ctx)
            meter = Meter(ports.progress, item.source, "restore", item.backup.plain_bytes)
            observed, engine = ObservedReader(artifacts, meter), item.into.engine
            done = run_bounded(lambda: engine.restore(item.backup, observed, ctx), ctx.cancel, RESTORE_GRACE_S)
            self.notices += done.notices
            if item.into.narrowed is not None:  # a part: what was read of the backup is nearest to its size
                self.restored_bytes = meter.done_bytes
            restored = ports.monotonic()
            if expected is not None:
                ports.progress(Progress(item.source, "compare"))
                found = run_bounded(lambda: engine.fingerprint(expected, ctx), ctx.cancel, LOOK_GRACE_S)
                demand_equal(item, compare_fingerprints(expected, found))
                self.check_s = ports.monotonic() - restored


def demand_equal(item: PlannedRestore, differences: Sequence[Difference], *, hint: str = "") -> None:
    """Raise :class:`~drd.errors.IntegrityError` naming the differences, unless there are none."""
    if not differences:
        return
    named = "; ".join(
        f"{d.name}: {d.fact} expected {_short(d.expected)}, found {_short(d.found)}"
        for d in differences[:MAX_NAMED_DIFFERENCES]
    )
    more = len(differences) - MAX_NAMED_DIFFERENCES
    raise IntegrityError(
        f"restored, but not equal to the fingerprint taken at backup time: {named}"
        + (f"; and {more} more" if more > 0 else ""),
        subject=item.source,
        hint=hint
        or f"look at {item.target.description} before you use it; "
        f"an earlier backup may be right: drd list {item.source}",
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"


def read_fingerprint(artifacts: ArtifactReader) -> Fingerprint:
    """Read the fingerprint taken at backup time; raises :class:`~drd.errors.IntegrityError` when it is not one."""
    if artifacts.size(FINGERPRINT_ARTIFACT) > MAX_FINGERPRINT_BYTES:
        raise IntegrityError("the fingerprint is larger than any that drd writes")
    with artifacts.open(FINGERPRINT_ARTIFACT) as stream:
        data = stream.read()
    try:
        document = json.loads(data)
        return Fingerprint(
            engine=document["engine"],
            items=dict(document["items"]),
            compared=tuple(document["compared"]),
            version=int(document["version"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"the fingerprint is not readable: {error}") from error
