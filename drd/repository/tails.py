"""The parts of an ancestor's streams of rows, met again and kept as they are.

A part that begins with what was a part before ends there, without a look at the rule of :mod:`drd.repository.rows`:
what did not change is then read for nothing but its digest. And ends that the rule would not choose again are kept.
Where a stream ended, its last part ended as well; cut by that rule alone, each table that grew would store its last
part once more, which for many small additions is most of what an incremental backup stores.
"""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping

from drd.model import Artifact, Part

NONE = (0, "")
"""No part that is known."""


class Tails:
    """Where parts of the parent's streams, wherever they lie, began and ended. Never changed, so any thread may look.

    Args:
        artifacts: those of the parent.
        reuse: the parts that may be referred to, by plain SHA-256; the others are passed over.
    """

    def __init__(self, artifacts: Iterable[Artifact], reuse: Mapping[str, Part]) -> None:
        self._known = {artifact.name: found for artifact in artifacts if (found := list(_of(artifact.parts, reuse)))}

    def known(self, name: str, offset: int, buffer: mmap.mmap, filled: int) -> tuple[int, str]:
        """Return size and SHA-256 of a known part that ``buffer`` begins with; :data:`NONE` for none.

        Looked for are those that began about where this part does, the nearest first: nearer to ``offset`` than the
        buffer is long. Nearly all that do not fit are told by one byte: a row ends where they end.
        """
        parts = self._known.get(name, [])
        first = bisect_right(parts, offset - len(buffer), key=_begin)
        last = bisect_left(parts, offset + len(buffer), key=_begin)
        for _, size, digest in sorted(parts[first:last], key=lambda part: abs(part[0] - offset)):
            if size <= filled and buffer[size - 1] == 0x0A:
                with memoryview(buffer) as whole, whole[:size] as rows:
                    if hashlib.sha256(rows).hexdigest() == digest:
                        return size, digest
        return NONE


def _begin(part: tuple[int, int, str]) -> int:
    return part[0]


def _of(parts: tuple[Part, ...], reuse: Mapping[str, Part]) -> Iterator[tuple[int, int, str]]:
    """Yield offset, size and digest of the parts that may be referred to, by their offsets."""
    offset = 0
    for part in parts:
        if part.plain_sha256 in reuse:
            yield offset, part.plain_bytes, part.plain_sha256
        offset += part.plain_bytes
