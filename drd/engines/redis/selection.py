"""Restore some keys of a backup alone: those whose names match patterns of Redis's own SCAN and KEYS."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from drd.engines.redis.fingerprint import COMPARED, SAMPLE_KEYS, count_facts, item_name, sample_facts
from drd.engines.redis.rdb.canonical import key_digest
from drd.engines.redis.rdb.scan import SAMPLE_VALUE_BYTES
from drd.engines.redis.rdb.values import has_field_expiry
from drd.engines.redis.rdb.walk import Counts, Walk
from drd.errors import ConfigError
from drd.model import Fingerprint, Json
from drd.protocols import ArtifactReader
from drd.selection import Selection

VALUE_LIMIT_BYTES = 512 << 20
"""The largest value that a server takes by default (proto-max-bulk-len)."""

Matcher = Callable[[bytes], bool]


def matcher(selection: Selection) -> Matcher | None:
    """Return what says whether a key is to be restored, None when all are."""
    if not selection.keys:
        return None
    pattern = re.compile(
        b"|".join(_as_regex(text.encode("utf-8", "surrogateescape")) for text in selection.keys), re.DOTALL
    )
    return lambda name: pattern.fullmatch(name) is not None


def expected_of(selection: Selection, artifacts: ArtifactReader, snapshots: Sequence[str], now_ms: int) -> Fingerprint:
    """Read the snapshots and return the fingerprint of the chosen keys; raises ConfigError when there are none.

    Keys that have expired are left out, as the restore leaves them out.
    """
    chosen = matcher(selection)
    counts: dict[int, Counts] = {}
    samples: dict[int, list[tuple[bytes, int]]] = {}
    for snapshot in snapshots:
        with artifacts.open(snapshot) as stream:
            walk = Walk(stream.chunks(), values=True, keep_limit_bytes=VALUE_LIMIT_BYTES)
            for entry in walk.entries():
                if chosen is None or not chosen(entry.name):
                    continue
                if entry.expires_ms is not None and entry.expires_ms <= now_ms:
                    continue
                total = counts.setdefault(entry.db, Counts())
                total.keys += 1
                total.expires += entry.expires_ms is not None
                total.field_expires += has_field_expiry(walk.magic, entry.kind)
                sample = samples.setdefault(entry.db, [])
                small = len(entry.value) <= SAMPLE_VALUE_BYTES
                if entry.expires_ms is None and small and len(sample) < SAMPLE_KEYS:
                    digest = key_digest(entry.name, entry.kind, entry.value)
                    if digest is not None:
                        sample.append((entry.name, digest))
    if not counts:
        asked = ", ".join(repr(pattern) for pattern in selection.keys)
        raise ConfigError(f"no key of the backup matches {asked}", hint="quote the pattern from the shell: 'user:*'")
    items: dict[str, dict[str, Json]] = {
        item_name(db): count_facts(total, exact=True) | sample_facts(samples.get(db, []))
        for db, total in sorted(counts.items())
    }
    return Fingerprint("redis", items, COMPARED)


def _as_regex(glob: bytes) -> bytes:
    """Translate a pattern as stringmatchlen() of Redis reads it; an open bracket ends where the pattern does."""
    out, at = [], 0
    while at < len(glob):
        char = glob[at : at + 1]
        at += 1
        if char == b"*":
            out.append(b".*")
        elif char == b"?":
            out.append(b".")
        elif char == b"\\" and at < len(glob):
            out.append(re.escape(glob[at : at + 1]))
            at += 1
        elif char == b"[":
            piece, at = _bracket(glob, at)
            out.append(piece)
        else:
            out.append(re.escape(char))
    return b"(?:" + b"".join(out) + b")"


def _bracket(glob: bytes, at: int) -> tuple[bytes, int]:
    """Translate what follows ``[``; return the regular expression and where the pattern goes on."""
    negated = glob[at : at + 1] == b"^"
    at += negated
    parts: list[bytes] = []
    while at < len(glob) and glob[at : at + 1] != b"]":
        if glob[at : at + 1] == b"\\" and at + 1 < len(glob):
            at += 1
            parts.append(re.escape(glob[at : at + 1]))
            at += 1
        elif glob[at + 1 : at + 2] == b"-" and at + 2 < len(glob):
            first, last = sorted((glob[at : at + 1], glob[at + 2 : at + 3]))
            parts.append(re.escape(first) + b"-" + re.escape(last))
            at += 3
        else:
            parts.append(re.escape(glob[at : at + 1]))
            at += 1
    if not parts:
        return (b"." if negated else b"(?!)"), at + 1
    return b"[" + (b"^" if negated else b"") + b"".join(parts) + b"]", at + 1
