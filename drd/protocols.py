"""Every protocol between drd's layers, and nothing else.

Implementations raise only :class:`~drd.errors.DrdError`; foreign exceptions are mapped at the adapter's edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from drd.cancel import CancelToken
from drd.events import Delivery, Event
from drd.model import (
    Answer,
    Backup,
    CheckItem,
    DumpResult,
    EngineKind,
    EngineRunbook,
    Finding,
    Fingerprint,
    Json,
    Notice,
    ObjectInfo,
    Probe,
    Problem,
    Progress,
    Question,
    Recovered,
    RestoreResult,
    ScratchEndpoint,
    ScratchSpec,
    TargetState,
)

BytesLike: TypeAlias = bytes | bytearray | memoryview
Cut: TypeAlias = Literal["size", "rows"]


class Store(Protocol):
    """Where objects live: flat keys, whole small objects, no multipart.

    Thread-safe. Keys are relative to the configured prefix; every method validates them
    (:func:`drd.repository.layout.validate_key`). Raises :class:`~drd.errors.StoreUnavailable` (may be tried
    again), :class:`~drd.errors.StoreRefused` (may not), and what each method names.
    """

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Store ``data`` whole and durably, and verify what the store says it received.

        Atomic: a reader sees the old object, none, or the new one. Idempotent without ``if_absent``; with it,
        raises :class:`~drd.errors.ObjectExists` when the key is taken, and exactly one of several racing puts wins.
        """

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return the object, or ``length`` bytes of it from ``start`` (fewer at its end, none past it).

        Raises :class:`~drd.errors.ObjectMissing`. The caller bounds ``length``: objects may be large.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Return size, modification time and lock; raises :class:`~drd.errors.ObjectMissing`."""

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, ascending by key (by code point), lazily.

        With ``delimiter`` ``/``, everything below the first delimiter after the prefix is one entry whose key
        ends with the delimiter and whose size is 0. Such an entry may be empty: some stores keep emptied folders.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete the objects; one that is missing is fine, any other refusal raises and names the key."""

    def check(self) -> Sequence[CheckItem]:
        """Try reachability, write, read back, conditional put, list, delete and clock skew with a probe object.

        Returns a line an item and raises nothing; the probe object is removed where deletion is allowed.
        """

    def close(self) -> None:
        """Release connections; idempotent. Other calls after it are undefined."""


class ArtifactWriter(Protocol):
    """One artifact being written; used by one thread at a time, closed or aborted exactly once."""

    def write(self, data: BytesLike) -> None:
        """Append; blocks while the pipeline is full, raises what a worker raised. The data is copied."""

    def begin_piece(self, size: int) -> None:
        """End the part here; the next ``size`` bytes are one part, or several alike: equal pieces are equal parts.

        Another piece begins behind it. For artifacts opened with ``cut="size"``.
        """

    def end_part(self) -> int:
        """End the part here, as if the stream ended; return how many parts there are so far. None is ever empty."""

    def refer(self, plain_sha256: str, plain_bytes: int) -> None:
        """End the part and append one that the parent has; raises IntegrityError where the sink does not hold it."""

    def note(self, facts: dict[str, Json]) -> None:
        """Say what the manifest shall hold of the artifact beside its parts; replaces an earlier note.

        It stands there in the clear, so no name of a table or the like may be in it.
        """

    def close(self) -> None:
        """End the artifact: its last part is on its way; errors of parts may still surface at the operation."""

    def abort(self) -> None:
        """Drop the artifact; nothing of it will be in the manifest."""


class ArtifactSink(Protocol):
    """Where a dump goes. Thread-safe: several artifacts may be open at once, each costs up to one part of memory."""

    def open(self, name: str, *, cut: Cut = "size") -> ArtifactWriter:
        """Begin an artifact; ``name`` is unique in a backup: safe segments joined by ``/``, never a table's name.

        ``cut`` says where parts may end: ``size``, by their size alone; ``rows``, after a newline, so that parts of
        lines that did not change since the last backup are the same parts again.
        """

    def holds(self, plain_sha256: str, plain_bytes: int) -> bool:
        """Whether the parent has a part of that content that :meth:`ArtifactWriter.refer` may name."""


class ArtifactStream(AbstractContextManager["ArtifactStream"], Protocol):
    """A range of an artifact being read. Every byte it returns has been verified."""

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes (all that is left for -1), ``b""`` at the end. Never short before the end."""

    def chunks(self) -> Iterator[memoryview]:
        """Yield what is left in pieces of at most one part, without copying."""

    def close(self) -> None:
        """Stop prefetching; idempotent."""


class ArtifactReader(Protocol):
    """The artifacts of one backup. Thread-safe: several may be open at once.

    Raises :class:`~drd.errors.IntegrityError` for a missing, truncated or altered part, before any byte of it is
    returned, and names the key.
    """

    def names(self) -> Sequence[str]:
        """Return the artifact names, in the manifest's order."""

    def size(self, name: str) -> int:
        """Return the plain size; raises :class:`~drd.errors.IntegrityError` when the backup has no such artifact."""

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> ArtifactStream:
        """Read an artifact from ``start``; recently decoded parts are cached, so small random ranges are cheap."""


@dataclass(frozen=True)
class Ancestor:
    """A backup that another one builds on: what its manifest says, and how to read its artifacts.

    ``open`` raises :class:`~drd.errors.ConfigError` when they are encrypted and no identity is configured here, which
    is usual where backups are made.
    """

    backup: Backup
    open: Callable[[], AbstractContextManager[ArtifactReader]]


@dataclass(frozen=True)
class WorkContext:
    """What an operation lends an engine for one dump, restore, fingerprint or verification.

    ``spool_dir`` exists, is private to this work and removed by the operation; an engine keeps at most
    ``spool_limit_bytes`` in it. ``jobs`` is how much parallelism to ask of client tools. ``direct_prefix`` is the
    key prefix (without the repository's own prefix, ending in ``/``) a server may write to itself.
    ``deadline_s`` bounds waits on a server that makes no progress. ``now`` reads the wall clock.

    ``ancestors``, oldest first, are in a dump the chain that the backup may build on (its parent last; none: it must
    be full), and in a restore or verification the chain that it does build on. Parts that an engine writes as they were
    are shared without its doing; one that leaves data out, since the parent has it, says so by ``DumpResult.kind``.
    """

    backup_id: str
    source: str
    cancel: CancelToken
    progress: Callable[[Progress], None]
    spool_dir: Path
    spool_limit_bytes: int
    jobs: int
    direct_prefix: str
    deadline_s: float
    now: Callable[[], datetime]
    ancestors: tuple[Ancestor, ...] = ()


class Engine(Protocol):
    """How one kind of database is dumped, restored and fingerprinted; bound to one server (or cluster) endpoint.

    The same class serves as source and as restore target; restoring elsewhere means an engine bound elsewhere.
    Source-side methods raise :class:`~drd.errors.SourceError`, target-side ones
    :class:`~drd.errors.TargetError`. It never sees a store, a key or a codec.
    """

    @property
    def kind(self) -> EngineKind:
        """Return the kind of database."""

    def probe(self) -> Probe:
        """Connect and learn the version and size; changes nothing."""

    def dump(self, sink: ArtifactSink, ctx: WorkContext) -> DumpResult:
        """Write the artifacts of one consistent backup, streaming, bounded in memory and disk.

        On an error, or when ``ctx.cancel`` fires, its children and server-side work are gone when it raises.
        """

    def inspect(self, backup: Backup, artifacts: ArtifactReader) -> TargetState:
        """Say where ``backup`` would go on this endpoint and whether that place is empty; changes nothing."""

    def restore(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> RestoreResult:
        """Restore into the empty endpoint; raises :class:`~drd.errors.TargetNotEmpty` untouched when it is not.

        After a failure it removes what it created where it can, and says so where it cannot.
        """

    def fingerprint(self, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Read everything the endpoint holds and return it comparable to ``expected`` (same names, same columns)."""

    def check(self) -> Sequence[CheckItem]:
        """Look at reachability, rights, versions, client tools, settings; a line an item, raises nothing."""


class Replacer(Protocol):
    """How an engine puts a backup in the place of live data: built beside it, compared, then swapped.

    Bound to one server, like an engine, and raises what an engine raises. Whatever it makes on the server carries the
    restore's id there and is found again by it alone, also by another process after a kill; it touches nothing else.
    ``keeps`` says how the old data is kept: ``beside`` under another name, or, on a server that has no other name, as
    a ``backup`` that :meth:`swap` asks for. The operation holds the source's lease all the while.
    """

    @property
    def keeps(self) -> Literal["beside", "backup"]:
        """Return how the old data is kept."""

    def survey(self, backup: Backup, artifacts: ArtifactReader) -> Sequence[str]:
        """Say what would be done, a line a step; raises TargetError when a right, room or the shape forbids it."""

    def stage(self, restore_id: str, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Sequence[Notice]:
        """Restore beside the live data, which goes on serving."""

    def fingerprint(self, restore_id: str, expected: Fingerprint, ctx: WorkContext) -> Fingerprint:
        """Read what :meth:`stage` made, comparable to ``expected``."""

    def swap(
        self,
        restore_id: str,
        backup: Backup,
        artifacts: ArtifactReader,
        ctx: WorkContext,
        save_old: Callable[[Engine], None],
    ) -> Sequence[str]:
        """Put the staged data in the place of the live data and return the names of the old, kept, copies.

        ``save_old`` backs the live data up with the engine that it is given; called, once, only where ``keeps`` is
        ``backup``, while nobody can write. After a failure the live data is where it was.
        """

    def recover(self, restore_id: str) -> Recovered:
        """End what an interrupted restore left: the live data serves, nothing staged is left. Idempotent."""

    def undo(self, restore_id: str) -> Sequence[str]:
        """Put the old data back and return the names under which what had replaced it is kept. Idempotent."""

    def drop_old(self, restore_id: str) -> Sequence[str]:
        """Remove the copies that the restore, or its undoing, keeps; return their names. Idempotent."""


class Format(Protocol):
    """What a kind of backup looks like at rest; stateless, needs no server."""

    @property
    def kind(self) -> EngineKind:
        """Return the kind of database."""

    def verify(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> list[Problem]:
        """Check the engine's own format (TOC, RDB, ClickHouse index) over the decoded artifacts; empty means well."""

    def runbook(self, backup: Backup) -> EngineRunbook:
        """Return how to restore decoded artifacts with stock tools only; see :class:`~drd.model.EngineRunbook`.

        Endpoints and secrets come from variables that a person sets; nothing of them is in it.
        """


class Examiner(Protocol):
    """What a kind of database can say of itself once it was restored; bound to one scratch server, changes no data.

    Raises :class:`~drd.errors.ScratchError` when the server is lost; what is wrong with the data is a finding.
    """

    def prepare(self, backup: Backup, cancel: CancelToken) -> str:
        """Return the server's version as it says it.

        Raises :class:`~drd.errors.ScratchError` when ``backup`` cannot be tried here: a server of another version, a
        client tool that is missing.
        """

    def examine(self, backup: Backup, artifacts: ArtifactReader, ctx: WorkContext) -> Iterator[Finding]:
        """Look at schema and integrity by the engine's own means; yield each finding as it is made, not timed."""

    def ask(self, question: Question, ctx: WorkContext) -> Answer:
        """Put a question of a suite.

        Raises :class:`~drd.errors.IntegrityError` when what it asks about is missing or unreadable, and
        :class:`~drd.errors.QuestionError` when the question itself is wrong.
        """


class ScratchServer(Protocol):
    """A running scratch server; gone, with all it held, when the block of :meth:`ScratchRuntime.start` is left."""

    endpoint: ScratchEndpoint

    def death(self) -> str:
        """Say why the server has ended (killed for its memory limit, exit code, last words); empty while it runs."""

    def log(self, limit_bytes: int = 8192) -> str:
        """Return the end of the server's own log."""

    def run(self, argv: Sequence[str], cancel: CancelToken) -> tuple[int, str]:
        """Run a command beside the server (in its container or its folder); return its exit code and bounded output.

        It finds the server by the environment: ``DRD_SCRATCH_URL``, ``DRD_SCRATCH_PASSWORD``.
        """

    def keep(self) -> None:
        """Let the server outlive the block, until it expires: for a person who wants to look inside."""


class ScratchRuntime(Protocol):
    """Where scratch servers come from. Only it mints endpoints that a drill may restore into.

    Raises :class:`~drd.errors.ScratchError` when a server cannot be had (no engine, no image or program, no room, not
    ready in time): the drill is then unverified, not failed.
    """

    @property
    def name(self) -> str:
        """``docker``, ``process``, ``kubernetes``."""

    def start(self, spec: ScratchSpec, cancel: CancelToken) -> AbstractContextManager[ScratchServer]:
        """Start an empty server and enter when it answers a query; leaving the block removes it, whatever came."""

    def reap(self, *, kept: bool = False) -> Sequence[str]:
        """Remove what drds that are gone left behind, and what has expired; return a line for each.

        With ``kept`` also the servers that were kept for a person.
        """

    def check(self) -> Sequence[CheckItem]:
        """Say whether scratch servers could be started here, per engine, with a remedy where not."""


class Notifier(Protocol):
    """Who is told of events. Its failure changes no outcome: it is a result, never an exception.

    Thread-safe; bounded in time whatever a receiver does.
    """

    def notify(self, events: Sequence[Event]) -> Delivery:
        """Tell every receiver all events; return how each of them took it. Raises nothing."""

    def check(self) -> Sequence[CheckItem]:
        """Say whether the receivers could be told now, without telling them anything; a line a receiver."""


class Clock(Protocol):
    """Reads the time, so that nothing below the daemon calls ``now()`` by itself."""

    def __call__(self) -> datetime:
        """Return the current time, aware, in UTC."""


class Lease(Protocol):
    """A held right to work on one thing; a context manager that renews itself until released."""

    generation: int

    def ensure(self) -> None:
        """Raise :class:`~drd.errors.LeaseError` when the lease was lost (call before publishing)."""

    def release(self) -> None:
        """Give it up; idempotent."""
