"""The ends of an ancestor's streams of rows, kept as they are when the stream only grew behind them.

Where a stream ended, its last part ended as well, at no place that the rule of :mod:`drd.repository.rows` would choose
again once more rows follow. Cut by that rule alone, each table that grew would store its last part once more, which for
many small additions is most of what an incremental backup stores. So a part begins by looking whether it begins with
what was such an end before, and if so ends there.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Mapping

from drd.model import Artifact, Part
from drd.repository import layout


class Tails:
    """Where streams of the parent, or of the parent's ancestors, ended. Never changed, so any thread may look.

    Args:
        artifacts: those of the parent.
        reuse: the parts that may be referred to, by plain SHA-256; the others are passed over.
    """

    def __init__(self, artifacts: Iterable[Artifact], reuse: Mapping[str, Part]) -> None:
        self._known = {artifact.name: found for artifact in artifacts if (found := list(_ends(artifact.parts, reuse)))}

    def size_at(self, name: str, offset: int, buffer: mmap.mmap, filled: int) -> int:
        """Return the size of a former end that ``buffer`` begins with, 0 for none.

        Looked for are those that began about where this part does: nearer to ``offset`` than the buffer is long.
        Nearly all that do not fit are told by one byte: a row ends where they end.
        """
        for begin, size, digest in self._known.get(name, ()):
            if size <= filled and abs(begin - offset) < len(buffer) and buffer[size - 1] == 0x0A:
                with memoryview(buffer) as whole, whole[:size] as rows:
                    if hashlib.sha256(rows).hexdigest() == digest:
                        return size
        return 0


def _ends(parts: tuple[Part, ...], reuse: Mapping[str, Part]) -> Iterable[tuple[int, int, str]]:
    """Yield offset, size and digest of the parts that some backup ended its rows with.

    Those are followed by a part that another backup stored, or by the end mark alone, or by nothing.
    """
    offset = 0
    for index, part in enumerate(parts):
        after = parts[index + 1 : index + 3]
        ended = len(after) < 2 or layout.owner_of(after[0].key) != layout.owner_of(part.key)
        if ended and part.plain_sha256 in reuse:
            yield offset, part.plain_bytes, part.plain_sha256
        offset += part.plain_bytes
