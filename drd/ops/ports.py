"""What every operation is handed: its ports and how much it may use of the machine."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from drd.cancel import CancelToken, deadline
from drd.errors import Cancelled, SourceError, TargetError
from drd.model import Backup, Fingerprint, Progress
from drd.ops.bounded import LOOK_GRACE_S, run_bounded
from drd.ops.spool import spool_directory
from drd.protocols import Ancestor, ArtifactReader, Clock, Engine, Format, Replacer, Store, WorkContext
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.lease import Holder, StoreLease, acquire
from drd.repository.reading import PartReader
from drd.repository.repository import Repository

Answer = TypeVar("Answer")

NO_DEADLINE_S = 30 * 86400.0
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
STALL_S = 600.0
"""How long an engine may wait for a server that makes no progress, where its own settings say nothing."""


@dataclass(frozen=True)
class Tuning:
    """How much of the machine an operation may use.

    ``memory_limit_bytes`` bounds the parts in flight of all sources together; ``spool_limit_bytes`` bounds the
    spool of each source. ``jobs`` is the parallelism asked of client tools.
    """

    workers: int
    part_size_bytes: int
    memory_limit_bytes: int
    spool_root: Path | None
    spool_limit_bytes: int
    jobs: int
    lease_ttl_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Chaining:
    """When backups of a source build on each other: a full one every ``full_every_s``, at most ``max_chain`` on it.

    ``base``: each builds on the newest one, or all of them on the last full one.
    """

    full_every_s: float
    max_chain: int
    base: Literal["newest", "full"] = "newest"


@dataclass(frozen=True)
class Source:
    """A database to back up or to restore into: its name, the engine bound to it, and how it is to be worked on.

    ``deadline_s`` bounds one backup or restore as a whole; ``jobs`` is the parallelism asked of client tools, None
    for the general one. ``replacer`` puts a backup in the place of the data that this server holds.
    ``odd_fall`` is by what share (0.3: 30 %) rows or bytes may fall before a backup is odd, None for never.
    ``chaining`` is None where every backup is a full one.
    ``narrowed``, set where the engine restores a part of a backup alone, returns what of the backup's fingerprint that
    part must be equal to.
    """

    name: str
    engine: Engine
    deadline_s: float
    jobs: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    replacer: Replacer | None = None
    odd_fall: float | None = None
    chaining: Chaining | None = None
    narrowed: Callable[[Fingerprint, ArtifactReader, WorkContext], Fingerprint] | None = None


@dataclass(frozen=True)
class Ports:
    """Everything an operation talks to. ``progress`` may be called from any thread and must be quick."""

    store: Store
    codec: Codec
    repository: Repository
    catalog: Catalog
    formats: Callable[[str], Format]
    tuning: Tuning
    holder: Holder
    now: Clock
    monotonic: Callable[[], float]
    cancel: CancelToken
    progress: Callable[[Progress], None]

    def reader(self, backup: Backup, *, share: int = 1, cancel: CancelToken | None = None) -> PartReader:
        """Open the artifacts of a backup; ``share`` is how many such readers work side by side."""
        return PartReader(
            self.store,
            self.codec,
            backup,
            workers=self.tuning.workers,
            memory_limit_bytes=max(self.tuning.memory_limit_bytes // share, self.tuning.part_size_bytes),
            cancel=cancel or self.cancel,
        )

    def lease(self, name: str) -> StoreLease:
        """Take the lease called ``name``, to be used as a context manager, as :func:`drd.repository.lease.acquire`."""
        return acquire(
            self.store,
            name,
            ttl_s=self.tuning.lease_ttl_s,
            now=self.now,
            monotonic=self.monotonic,
            holder=self.holder,
            cancel=self.cancel,
        )

    @contextmanager
    def work(
        self,
        source: str,
        backup_id: str,
        *,
        deadline_s: float = NO_DEADLINE_S,
        jobs: int | None = None,
        ancestors: Sequence[Backup] = (),
    ) -> Iterator[WorkContext]:
        """Lend a private spool directory and the rest of a work context; the directory is gone afterwards.

        ``ancestors`` are the backups that this one builds on, oldest first.
        The context's token is cancelled with the run, or when ``deadline_s`` have passed; the latter is raised as
        :class:`~drd.errors.SourceError`.
        """
        try:
            with (
                self._limited(source, deadline_s) as cancel,
                spool_directory(self.tuning.spool_root, backup_id) as spool,
            ):
                yield WorkContext(
                    backup_id=backup_id,
                    source=source,
                    cancel=cancel,
                    progress=self.progress,
                    spool_dir=spool,
                    spool_limit_bytes=self.tuning.spool_limit_bytes,
                    jobs=jobs or self.tuning.jobs,
                    direct_prefix=layout.direct_prefix(source, backup_id),
                    deadline_s=min(deadline_s, STALL_S),
                    now=self.now,
                    ancestors=tuple(Ancestor(found, partial(self.reader, found, cancel=cancel)) for found in ancestors),
                )
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            where = self.tuning.spool_root or "the temporary folder"
            raise SourceError(
                f"the spool ({where}) is full: {error.strerror}",
                subject=source,
                hint="free space there, or set spool.dir to another disk; drd needs at most spool.limit",
            ) from error

    def look(self, source: Source, question: Callable[[], Answer]) -> Answer:
        """Ask a server something that changes nothing; ends with its deadline, or soon after a cancellation."""
        with self._limited(source.name, source.deadline_s) as cancel:
            return run_bounded(question, cancel, LOOK_GRACE_S)

    @contextmanager
    def _limited(self, subject: str, deadline_s: float) -> Iterator[CancelToken]:
        """Lend a token that ends with the run, or after ``deadline_s``; the latter is raised as SourceError."""
        with deadline(self.cancel, deadline_s) as cancel:
            try:
                yield cancel
            except (Cancelled, SourceError, TargetError) as error:
                if not cancel.expired:
                    raise
                raise SourceError(
                    f"not done within its deadline of {deadline_s:.0f} s, and stopped",
                    subject=subject,
                    hint=error.hint or "look what the server waits for, or raise the source's deadline",
                ) from error
