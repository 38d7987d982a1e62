"""Does a backup hold oddly less than the one before it? Pure functions over heads.

Rows are of the whole database in every backup. Plain bytes are too, except in an increment that a ClickHouse server
wrote to the bucket itself (mode direct), which holds what is new alone: such sizes are never compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from drd.model import BackupHead

Code = Literal["fewer-rows", "less-data"]
ODD_CODES = frozenset(get_args(Code))
"""Every way to be odd; also the codes of the notices of it."""


@dataclass(frozen=True, slots=True)
class Fall:
    """One number that fell by more than the threshold, from ``before`` in backup ``since`` to ``now``."""

    code: Code
    since: str
    before: int
    now: int

    @property
    def share(self) -> float:
        """How much is gone: 1.0 is everything."""
        return 1 - self.now / self.before


@dataclass(frozen=True, slots=True)
class Growth:
    """A backup beside the one before it; ``data`` is the change of plain bytes (0.02: 2 % more), None when unknown."""

    data: float | None
    falls: tuple[Fall, ...] = ()


def is_whole(head: BackupHead) -> bool:
    """Whether its plain bytes are those of the whole database."""
    return head.kind == "full" or head.engine != "clickhouse" or head.facts.get("mode") != "direct"


def falls(head: BackupHead, earlier: Iterable[BackupHead], threshold: float | None) -> tuple[Fall, ...]:
    """Return what fell by more than ``threshold`` (0.3: 30 %; None: never) since the newest of ``earlier`` that tells.

    ``earlier`` are the backups before it, newest first; no more of them are looked at than needed.
    """
    if threshold is None:
        return ()
    out: list[Fall] = []
    rows_known, bytes_known = head.rows is None, not is_whole(head)
    for other in earlier:
        if other.engine != head.engine:  # another database took the name
            break
        if not rows_known and other.rows is not None:
            rows_known = True
            out += _fall("fewer-rows", other.id, other.rows, head.rows or 0, threshold)
        if not bytes_known and is_whole(other):
            bytes_known = True
            out += _fall("less-data", other.id, other.plain_bytes, head.plain_bytes, threshold)
        if rows_known and bytes_known:
            break
    return tuple(out)


def growth(heads: Sequence[BackupHead], threshold: float | None) -> dict[str, Growth]:
    """Return the growth of each of one source's backups, by id; the order of ``heads`` does not matter."""
    ordered = sorted(heads, key=lambda head: (head.recovery_point, head.id))
    out: dict[str, Growth] = {}
    for index, head in enumerate(ordered):
        before = next((other for other in _back_from(ordered, index) if is_whole(other)), None)
        comparable = before is not None and is_whole(head) and before.engine == head.engine and before.plain_bytes
        data = head.plain_bytes / before.plain_bytes - 1 if before and comparable else None
        out[head.id] = Growth(data, falls(head, _back_from(ordered, index), threshold))
    return out


def _back_from(ordered: Sequence[BackupHead], index: int) -> Iterator[BackupHead]:
    return (ordered[at] for at in range(index - 1, -1, -1))


def _fall(code: Code, since: str, before: int, now: int, threshold: float) -> tuple[Fall, ...]:
    return (Fall(code, since, before, now),) if now < before * (1 - threshold) else ()
