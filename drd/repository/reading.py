"""The way out: parts are fetched ahead, and each is verified whole before a byte of it is used.

Order of checks: size and SHA-256 of what is stored (before it is decrypted), age, zstd, then size and SHA-256 of
the plain bytes. A part that was swapped with another fails the first of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from drd.cancel import CancelToken
from drd.closing import Closing
from drd.errors import Cancelled, IntegrityError
from drd.model import Artifact, Backup, Part
from drd.protocols import Store
from drd.repository import layout
from drd.repository.chunking import MIB
from drd.repository.codec import Codec
from drd.repository.parts import PartCache, fetch_part, fetch_raw, require_raw_size
from drd.repository.writing import DEFAULT_MEMORY_LIMIT_BYTES

_POLL_S = 0.2  # how soon a blocked reader notices a cancellation
_CLOSED = "the backup was closed while it was being read"
_RAW_PIECE_BYTES = 8 * MIB


@dataclass(frozen=True, slots=True)
class _Piece:
    """``start`` to ``stop`` of one part: what one fetch returns."""

    part: Part
    start: int
    stop: int

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop == self.part.plain_bytes


class _Ahead:
    """The memory that fetching ahead may take, shared by all streams of a reader."""

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes
        self._lock = threading.Lock()

    def take(self, size: int, *, must: bool) -> bool:
        """Charge ``size``; without ``must``, only if it fits. A stream's next piece must, so none ever starves."""
        with self._lock:
            if not must and size > self._left_bytes:
                return False
            self._left_bytes -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left_bytes += size


class PartReader(Closing):
    """Reads the artifacts of one backup; implements :class:`~drd.protocols.ArtifactReader`, a context manager.

    Args:
        store: where parts are.
        codec: decodes them; holds the identity if the backup is encrypted.
        backup: what the manifest says.
        workers: how many threads fetch and decode, over all open streams.
        memory_limit_bytes: plain bytes fetched ahead plus recently used parts kept for small ranges. Besides it,
            each open stream holds one part, and each worker the encoded copies of its part.
        cancel: stops it; blocked reads raise Cancelled.

    Raises ConfigError at once when the backup is encrypted and no identity here opens it.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        backup: Backup,
        *,
        workers: int,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        cancel: CancelToken,
    ) -> None:
        if backup.encryption == "age":
            codec.require_identity(backup.recipients)
        self._store = store
        self._codec = codec
        self._backup = backup
        self._artifacts = {artifact.name: artifact for artifact in backup.artifacts}
        self._workers = max(1, workers)
        self._cancel = cancel
        self._ahead = _Ahead(memory_limit_bytes // 2)
        self._cache = PartCache(memory_limit_bytes // 2)
        self._checked_raw: set[str] = set()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="drd-get")

    def names(self) -> Sequence[str]:
        """Return the artifact names, in the manifest's order."""
        return list(self._artifacts)

    def size(self, name: str) -> int:
        """Return the plain size; raises IntegrityError when the backup has no such artifact."""
        return self._artifact(name).plain_bytes

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> PartStream:
        """Read an artifact, or ``length`` bytes of it from ``start``; past its end there are none."""
        artifact = self._artifact(name)
        stop = None if length is None else start + length
        return PartStream(self, _pieces(artifact, start, stop), raw=artifact.raw)

    def close(self) -> None:
        """Stop fetching; returns when no thread is left. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._cache.clear()

    # What streams call

    def start(self, piece: _Piece, *, raw: bool, must: bool) -> Future[memoryview] | None:
        """Begin to fetch a piece; None when it does not fit into the memory and is not needed yet."""
        size = piece.stop - piece.start
        if not self._ahead.take(size, must=must):
            return None
        if not raw and not piece.is_whole and (held := self._cache.held(piece.part.key)) is not None:
            at_hand: Future[memoryview] = Future()  # a gateway asks for thousands of ranges of some bytes each
            at_hand.set_result(memoryview(held)[piece.start : piece.stop])
            return at_hand
        try:
            return self._pool.submit(self._fetch, piece, raw)
        except RuntimeError as error:  # the pool was shut down
            self._ahead.give_back(size)
            raise Cancelled(_CLOSED) from error

    def wait(self, future: Future[memoryview]) -> memoryview:
        """Return what was fetched; raises what the fetch raised, or Cancelled."""
        self._cancel.raise_if_cancelled()
        while not future.done():
            wait([future], _POLL_S)
            self._cancel.raise_if_cancelled()
        if future.cancelled():
            raise Cancelled(_CLOSED)
        return future.result()

    def done_with(self, piece: _Piece) -> None:
        """Note that a piece's memory is free again."""
        self._ahead.give_back(piece.stop - piece.start)

    @property
    def window(self) -> int:
        """How many pieces a stream may have under way."""
        return self._workers + 1

    def _fetch(self, piece: _Piece, raw: bool) -> memoryview:  # noqa: FBT001 - submitted positionally
        self._cancel.raise_if_cancelled()
        part = piece.part
        if raw:
            if part.key not in self._checked_raw:
                require_raw_size(self._store, part, self._backup.id)
                self._checked_raw.add(part.key)
            return memoryview(fetch_raw(self._store, part, piece.start, piece.stop, self._backup.id))
        if piece.is_whole and part.key not in self._cache:
            return memoryview(self._decode(part))
        whole = self._cache.get(part.key, lambda: self._decode(part))
        return memoryview(whole)[piece.start : piece.stop]

    def _decode(self, part: Part) -> bytes:
        return fetch_part(
            self._store, self._codec, part, encrypted=layout.is_encrypted_key(part.key), backup_id=self._backup.id
        )

    def _artifact(self, name: str) -> Artifact:
        artifact = self._artifacts.get(name)
        if artifact is None:
            raise IntegrityError(f"backup {self._backup.id} has no artifact {name}", subject=self._backup.id)
        return artifact


class PartStream(Closing):
    """A range of one artifact, in order; implements :class:`~drd.protocols.ArtifactStream`.

    For one thread at a time. Nothing is fetched before the first read, so a stream may be opened early.
    """

    def __init__(self, reader: PartReader, pieces: Iterator[_Piece], *, raw: bool) -> None:
        self._reader = reader
        self._pieces = pieces
        self._raw = raw
        self._waiting: _Piece | None = next(pieces, None)  # cut, not yet begun
        self._under_way: deque[tuple[_Piece, Future[memoryview]]] = deque()
        self._held: _Piece | None = None  # the piece whose memory ``_left`` views
        self._left = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes (all that is left for -1), ``b""`` at the end; never short before it."""
        if 0 <= size <= len(self._left):
            return bytes(self._take(size))
        out: list[memoryview] = []
        missing = size
        while (missing > 0 or size < 0) and self._advance():
            out.append(self._take(len(self._left) if size < 0 else missing))
            missing -= len(out[-1])
        return b"".join(out)

    def chunks(self) -> Iterator[memoryview]:
        """Yield what is left in pieces of at most one part, without copying."""
        while self._advance():
            yield self._take(len(self._left))

    def close(self) -> None:
        """Stop prefetching; idempotent."""
        self._waiting = None
        self._left = memoryview(b"")
        self._let_go()
        while self._under_way:
            piece, future = self._under_way.popleft()
            future.cancel()
            future.add_done_callback(lambda _f, piece=piece: self._reader.done_with(piece))  # type: ignore[misc]

    def _take(self, size: int) -> memoryview:
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def _advance(self) -> bool:
        """Make ``_left`` hold something; False at the end."""
        while not self._left:
            self._let_go()
            self._fetch_ahead()
            if not self._under_way:
                return False
            piece, future = self._under_way[0]
            self._left = self._reader.wait(future)
            self._under_way.popleft()
            self._held = piece
            self._fetch_ahead()
        return True

    def _fetch_ahead(self) -> None:
        while self._waiting is not None and len(self._under_way) < self._reader.window:
            must = not self._under_way and self._held is None
            future = self._reader.start(self._waiting, raw=self._raw, must=must)
            if future is None:
                return
            self._under_way.append((self._waiting, future))
            self._waiting = next(self._pieces, None)

    def _let_go(self) -> None:
        if self._held is not None:
            self._reader.done_with(self._held)
            self._held = None


def _pieces(artifact: Artifact, start: int, stop: int | None) -> Iterator[_Piece]:
    """Cut a range of an artifact into what is fetched at once: parts, and bounded pieces of raw parts."""
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"not a range: {start} to {stop}")
    return _cut(artifact, start, artifact.plain_bytes if stop is None else stop)


def _cut(artifact: Artifact, start: int, stop: int) -> Iterator[_Piece]:
    offset = 0
    for part in artifact.parts:
        begin, end = max(start - offset, 0), min(stop - offset, part.plain_bytes)
        if end <= 0:
            return
        step = _RAW_PIECE_BYTES if artifact.raw else part.plain_bytes
        while begin < end:
            cut = min(end, begin + step)
            yield _Piece(part, begin, cut)
            begin = cut
        offset += part.plain_bytes
