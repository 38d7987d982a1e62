"""Say how much of what is stored was read back, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from drd import wording
from drd.model import BackupHead
from drd.ops.ports import Ports
from drd.ops.sampling import load
from drd.repository.verified import Reading


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of ``total_bytes`` stored for a source, ``read_bytes`` were read back by drd verify since they were written.

    ``oldest_read_at`` is when the least recently read of them were; every backup of which all was read counts.
    ``damaged`` is how many objects were no good when they were last read. ``unknown`` says why nothing is known.
    """

    source: str
    total_bytes: int
    read_bytes: int
    oldest_read_at: datetime | None
    damaged: int
    unknown: str = ""


def coverage(ports: Ports, source: str, heads: Sequence[BackupHead]) -> Coverage:
    """Return the coverage of a source, of which ``heads`` are all backups. Raises store errors that may pass."""
    known, notice = load(ports, source)
    read_bytes = damaged = 0
    times: list[datetime] = []
    for head in heads:
        reading = known.get(head.id, Reading(head.id))
        damaged += len(reading.damaged)
        if reading.read_at is not None:
            times.append(reading.read_at)
            read_bytes += head.stored_bytes
        else:
            read_bytes += min(reading.read_bytes, head.stored_bytes)
    total = sum(head.stored_bytes for head in heads)
    return Coverage(source, total, read_bytes, min(times, default=None), damaged, notice.message if notice else "")


def coverage_words(covered: Coverage) -> str:
    """Say how much of a source was read back, and when."""
    if covered.unknown:
        return covered.unknown
    share = 100 * covered.read_bytes // covered.total_bytes if covered.total_bytes else 100
    words = f"{share} % of {wording.size(covered.total_bytes)} read back"
    if covered.oldest_read_at:
        words += f", the oldest on {wording.point(covered.oldest_read_at)}"
    if covered.damaged:
        words += f", {wording.plural(covered.damaged, 'object')} damaged"
    return words
