"""A sink and a reader in memory, for engine tests that are not about the pipeline."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from drd.cancel import CancelToken
from drd.errors import IntegrityError
from drd.model import Artifact, Backup, DumpResult, EngineKind, Json
from drd.protocols import BytesLike, Cut, WorkContext


class MemoryWriter:
    """Collects one artifact."""

    def __init__(self, sink: MemorySink, name: str) -> None:
        self._sink = sink
        self._name = name
        self._data = bytearray()
        self._ends: list[int] = []
        self._facts: dict[str, Json] = {}

    def write(self, data: BytesLike) -> None:
        self._sink.before_write(self._name, len(data))
        self._data += data

    def begin_piece(self, size: int) -> None:
        del size  # one piece each

    def end_part(self) -> int:
        if len(self._data) > (self._ends[-1] if self._ends else 0):
            self._ends.append(len(self._data))
        return len(self._ends)

    def refer(self, plain_sha256: str, plain_bytes: int) -> None:
        self.end_part()
        if not self._sink.holds(plain_sha256, plain_bytes):
            raise IntegrityError(f"artifact {self._name} refers to a part that the backup before does not have")
        self._data += self._sink.parents[plain_sha256]
        self.end_part()

    def note(self, facts: dict[str, Json]) -> None:
        self._facts = dict(facts)

    def close(self) -> None:
        self.end_part()
        parts = [bytes(self._data[begin:end]) for begin, end in itertools.pairwise([0, *self._ends])]
        self._sink.finish(self._name, bytes(self._data), parts, self._facts)

    def abort(self) -> None:
        self._data.clear()


class MemorySink:
    """Keeps artifacts as bytes; ``fail_after_bytes`` makes writes raise, as a lost store would.

    ``parents`` are the parts that may be referred to, by their SHA-256. ``parts`` are those of each artifact, ended
    where the engine said so alone, and ``facts`` what it noted.
    """

    def __init__(
        self,
        fail_after_bytes: int | None = None,
        error: Exception | None = None,
        parents: Mapping[str, bytes] | None = None,
    ) -> None:
        self.artifacts: dict[str, bytes] = {}
        self.parts: dict[str, list[bytes]] = {}
        self.facts: dict[str, dict[str, Json]] = {}
        self.parents = parents or {}
        self.opened: set[str] = set()
        self.written = 0
        self._fail_after = fail_after_bytes
        self._error = error
        self._lock = threading.Lock()

    def open(self, name: str, *, cut: Cut = "size") -> MemoryWriter:
        del cut  # one piece each
        with self._lock:
            assert name not in self.opened, f"artifact {name} opened twice"
            self.opened.add(name)
        return MemoryWriter(self, name)

    def holds(self, plain_sha256: str, plain_bytes: int) -> bool:
        part = self.parents.get(plain_sha256)
        return part is not None and len(part) == plain_bytes

    def before_write(self, name: str, size: int) -> None:
        with self._lock:
            self.written += size
            if self._fail_after is not None and self.written > self._fail_after:
                raise self._error or IntegrityError(f"planted failure while writing {name}")

    def finish(self, name: str, data: bytes, parts: list[bytes], facts: dict[str, Json]) -> None:
        with self._lock:
            self.artifacts[name], self.parts[name], self.facts[name] = data, parts, facts


class MemoryStream:
    """Reads a slice of one artifact."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, size: int = -1) -> bytes:
        cut = len(self._data) if size < 0 else min(size, len(self._data))
        piece, self._data = bytes(self._data[:cut]), self._data[cut:]
        return piece

    def chunks(self) -> Iterator[memoryview]:
        while self._data:
            piece, self._data = self._data[: 1 << 20], self._data[1 << 20 :]
            yield piece

    def close(self) -> None:
        self._data = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryReader:
    """Reads what a :class:`MemorySink` kept."""

    def __init__(self, artifacts: dict[str, bytes]) -> None:
        self.artifacts = artifacts

    def names(self) -> Sequence[str]:
        return list(self.artifacts)

    def size(self, name: str) -> int:
        return len(self._get(name))

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> MemoryStream:
        data = self._get(name)
        return MemoryStream(data[start:] if length is None else data[start : start + length])

    def _get(self, name: str) -> bytes:
        if name not in self.artifacts:
            raise IntegrityError(f"the backup has no artifact {name}")
        return self.artifacts[name]


def work_context(
    spool_dir: Path,
    *,
    source: str = "src",
    cancel: CancelToken | None = None,
    jobs: int = 2,
    spool_limit_bytes: int = 256 << 20,
    deadline_s: float = 60.0,
) -> WorkContext:
    """Make a context for one piece of engine work."""
    return WorkContext(
        backup_id="20261122T181455Z-k3f9qa",
        source=source,
        cancel=cancel or CancelToken(),
        progress=lambda _p: None,
        spool_dir=spool_dir,
        spool_limit_bytes=spool_limit_bytes,
        jobs=jobs,
        direct_prefix=f"backups/{source}/20261122T181455Z-k3f9qa/clickhouse/",
        deadline_s=deadline_s,
        now=lambda: datetime.now(UTC),
    )


def backup_of(engine: EngineKind, result: DumpResult, artifacts: dict[str, bytes], source: str = "src") -> Backup:
    """Make the manifest content that an operation would make of a dump."""
    now = datetime.now(UTC)
    return Backup(
        id="20261122T181455Z-k3f9qa",
        source=source,
        engine=engine,
        engine_version=result.engine_version,
        kind=result.kind,
        parent=None,
        started_at=now,
        finished_at=now,
        recovery_point=result.recovery_point,
        window_start=None,
        artifacts=tuple(Artifact(name, ()) for name in artifacts),
        compression="zstd",
        encryption="none",
        recipients=(),
        plain_bytes=sum(map(len, artifacts.values())),
        stored_bytes=0,
        rows=result.rows,
        lease_generation=1,
        repository_id="test",
        tools=result.tools,
        facts=result.facts,
        warnings=tuple(n.code for n in result.notices),
    )
