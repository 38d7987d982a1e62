"""What every operation is handed: its ports and how much it may use of the machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from drd.cancel import CancelToken
from drd.errors import ConfigError
from drd.model import Backup, Progress
from drd.protocols import Clock, Engine, Format, Store, WorkContext
from drd.repository import layout
from drd.repository.catalog import Catalog
from drd.repository.codec import Codec
from drd.repository.lease import Holder
from drd.repository.reading import PartReader
from drd.repository.repository import Repository


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


@dataclass(frozen=True)
class Source:
    """A configured database: its name, the engine bound to it, and what the configuration says about it."""

    name: str
    engine: Engine
    deadline_s: float
    labels: dict[str, str] = field(default_factory=dict)
    rpo_s: float | None = None


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

    def reader(self, backup: Backup, *, share: int = 1) -> PartReader:
        """Open the artifacts of a backup; ``share`` is how many such readers work side by side."""
        return PartReader(
            self.store,
            self.codec,
            backup,
            workers=self.tuning.workers,
            memory_limit_bytes=max(self.tuning.memory_limit_bytes // share, self.tuning.part_size_bytes),
            cancel=self.cancel,
        )

    @contextmanager
    def work(self, source: str, backup_id: str, *, deadline_s: float) -> Iterator[WorkContext]:
        """Lend a private spool directory and the rest of a work context; the directory is gone afterwards."""
        root = self.tuning.spool_root
        try:
            if root is not None:
                root.mkdir(parents=True, exist_ok=True)
            spool = Path(tempfile.mkdtemp(prefix=f"drd-{backup_id}-", dir=root))
        except OSError as error:
            where = root or tempfile.gettempdir()
            raise ConfigError(
                f"cannot make a spool directory below {where}: {error.strerror}",
                hint="set spool.dir to a directory drd may write to",
            ) from error
        try:
            yield WorkContext(
                backup_id=backup_id,
                source=source,
                cancel=self.cancel,
                progress=self.progress,
                spool_dir=spool,
                spool_limit_bytes=self.tuning.spool_limit_bytes,
                jobs=self.tuning.jobs,
                direct_prefix=layout.direct_prefix(source, backup_id),
                deadline_s=deadline_s,
                now=self.now,
            )
        finally:
            shutil.rmtree(spool, ignore_errors=True)
