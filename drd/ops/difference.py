"""What changed between two backups of a source: the first question after a disaster is when it was still right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from drd.errors import ConfigError
from drd.model import Backup, Fingerprint, Json, Notice
from drd.ops.ports import Ports
from drd.ops.restore import read_fingerprint

_RANGES = "range_rows"  # over what the digest of a table is, where that is not its whole stream


@dataclass(frozen=True, slots=True)
class Change:
    """One table (or database of keys) that is not as it was; rows and bytes are None where they are not known.

    ``content`` is true when other facts than rows and bytes tell that the content differs. It is None for the kind
    ``unknown``: tables with as many rows as before whose digests say nothing, as they were read in other ranges.
    """

    name: str
    kind: Literal["appeared", "disappeared", "changed", "unknown"]
    rows: tuple[int | None, int | None]
    bytes: tuple[int | None, int | None]
    content: bool | None


@dataclass(frozen=True, slots=True)
class BackupDifference:
    """What changed from ``before`` to ``after``; ``changes`` is None when only the totals can be known."""

    before: Backup
    after: Backup
    changes: tuple[Change, ...] | None
    unchanged: int
    notices: tuple[Notice, ...] = ()


def difference(ports: Ports, before: Backup, after: Backup) -> BackupDifference:
    """Compare two backups by the fingerprints taken with them.

    Without the identity that opens them there are totals only, and a notice says so. Raises
    :class:`~drd.errors.ConfigError` for backups of different kinds of databases, and
    :class:`~drd.errors.IntegrityError` for a damaged fingerprint.
    """
    if before.engine != after.engine:
        raise ConfigError(
            f"{before.id} is a backup of {before.engine} and {after.id} of {after.engine}",
            op="show",
            hint="compare two backups of one source: drd list SOURCE",
        )
    try:
        prints = [_fingerprint(ports, backup) for backup in (before, after)]
    except ConfigError as error:
        text = f"only totals are compared, as names are encrypted: {error.message}"
        return BackupDifference(before, after, None, 0, (Notice("not-decrypted", text),))
    changes = tuple(compare(*prints))
    both = len({*prints[0].items} & {*prints[1].items})
    return BackupDifference(before, after, changes, both - sum(c.kind in {"changed", "unknown"} for c in changes))


def compare(before: Fingerprint, after: Fingerprint) -> list[Change]:
    """List what differs, by name. A fact that either does not know is no difference."""
    out: list[Change] = []
    facts = sorted({*before.compared, *after.compared} - {"rows", "bytes"})
    for name in sorted({*before.items, *after.items}):
        old, new = before.items.get(name), after.items.get(name)
        rows, size = _pair(old, new, "rows"), _pair(old, new, "bytes")
        if old is None or new is None:
            out.append(Change(name, "appeared" if old is None else "disappeared", rows, size, content=True))
            continue
        differing = {fact for fact in facts if None not in (old.get(fact), new.get(fact)) and old[fact] != new[fact]}
        other_ranges = "sha256" in differing and old.get(_RANGES) != new.get(_RANGES)
        content = bool(differing - {"sha256"} if other_ranges else differing)
        if content or any(None not in pair and pair[0] != pair[1] for pair in (rows, size)):
            out.append(Change(name, "changed", rows, size, content=content))
        elif other_ranges:
            out.append(Change(name, "unknown", rows, size, content=None))
    return out


def _fingerprint(ports: Ports, backup: Backup) -> Fingerprint:
    with ports.reader(backup) as artifacts:
        return read_fingerprint(artifacts)


def _pair(old: dict[str, Json] | None, new: dict[str, Json] | None, fact: str) -> tuple[int | None, int | None]:
    return _count(old, fact), _count(new, fact)


def _count(facts: dict[str, Json] | None, fact: str) -> int | None:
    value = (facts or {}).get(fact)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
