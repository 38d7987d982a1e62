"""What a Redis held, in a form that another server can be compared with.

What equality proves: each database has the same number of keys that do not expire; no database has more expiring keys
than it had (they may have expired since); the function libraries are byte for byte the same; and up to 2,000 keys
without expiry, the first of the snapshot and so a random sample (all of them in a small database), have the same
content by a 128-bit digest. It does not prove the content of keys outside the sample by itself: that rests on the chain
of SHA-256 (parts), CRC-64 (snapshot, checked again by the server that loads it) and these counts. Taking it from a live
server makes that server serialise every key (a snapshot that is read and dropped), so unreadable memory would show.
Databases that hold hashes with expiring fields are compared without their key count, since such keys may vanish.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from drd.engines.redis.rdb.canonical import combine, dump_digest
from drd.engines.redis.rdb.scan import Scan
from drd.engines.redis.rdb.walk import Counts
from drd.errors import IntegrityError
from drd.model import Fingerprint, Json

COMPARED = ("persistent_keys", "expires_over", "sample_digest", "libraries_digest")
LIBRARIES = "functions"
SAMPLE_KEYS = 2000


def item_name(db: int) -> str:
    """Name a database as an item of the fingerprint."""
    return f"db{db}"


def from_scans(scans: Sequence[Scan]) -> Fingerprint:
    """Make the fingerprint of the shards' snapshots taken together."""
    counts = merged_counts(scans)
    exact = all(scan.exact for scan in scans)
    items: dict[str, dict[str, Json]] = {}
    for db in sorted(counts):
        sample = [pair for scan in scans for pair in scan.samples.get(db, [])[: SAMPLE_KEYS // len(scans)]]
        items[item_name(db)] = count_facts(counts[db], exact=exact) | sample_facts(sample)
    libraries = scans[0].libraries
    if libraries is None:
        items[LIBRARIES] = {"libraries": None, "libraries_digest": None}  # too large to have been looked at
    elif libraries:
        items[LIBRARIES] = libraries_facts(libraries)
    return Fingerprint("redis", items, COMPARED)


def merged_counts(scans: Iterable[Scan]) -> dict[int, Counts]:
    """Add up the counts of several shards by database."""
    out: dict[int, Counts] = {}
    for scan in scans:
        for db, counts in scan.databases.items():
            total = out.setdefault(db, Counts())
            total.keys += counts.keys
            total.expires += counts.expires
            total.field_expires += counts.field_expires
    return out


def count_facts(counts: Counts, *, exact: bool) -> dict[str, Json]:
    """Return the countable facts of a database; what cannot be compared is None."""
    comparable = exact and not counts.field_expires
    return {
        "rows": counts.keys,
        "expires": counts.expires,
        "persistent_keys": counts.keys - counts.expires if comparable else None,
        "expires_over": 0,
    }


def sample_facts(sample: Sequence[tuple[bytes, int]]) -> dict[str, Json]:
    """Return the facts of a sample of keys: pairs of name and digest."""
    return {
        "sample_keys": len(sample),
        "sample_digest": combine(digest for _, digest in sample),
        "sample_names": [b64encode(name).decode() for name, _ in sample],
    }


def libraries_facts(libraries: Iterable[bytes]) -> dict[str, Json]:
    """Return the facts of the function libraries, whatever their order."""
    codes = sorted(libraries)
    digest = sha256()
    for code in codes:
        digest.update(len(code).to_bytes(8, "little"))
        digest.update(code)
    return {"libraries": len(codes), "libraries_digest": digest.hexdigest()}


def found_facts(
    expected: dict[str, Json], counts: Counts, *, exact: bool, dump: Callable[[Sequence[bytes]], Sequence[bytes | None]]
) -> dict[str, Json]:
    """Return the facts of a live database in the form of those expected; ``dump`` reads keys by name (DUMP)."""
    facts = count_facts(counts, exact=exact)
    had = expected.get("expires")
    facts["expires_over"] = max(0, counts.expires - had) if isinstance(had, int) else 0
    names_fact = expected.get("sample_names")
    names = [b64decode(n) for n in names_fact if isinstance(n, str)] if isinstance(names_fact, list) else []
    digests, missing = [], 0
    for name, payload in zip(names, dump(names), strict=True):
        digest = _digest(name, payload)
        if digest is None:
            missing += 1
        else:
            digests.append(digest)
    return facts | {
        "sample_keys": len(digests),
        "sample_missing": missing,
        "sample_digest": combine(digests),
        "sample_names": names_fact,
    }


def aligned(expected: Fingerprint, found: Fingerprint) -> Fingerprint:
    """Return ``found`` without the facts that could not be known, or mean nothing, at backup time (None there)."""
    items = {
        name: facts
        | {c: None for c in expected.compared if name in expected.items and expected.items[name].get(c) is None}
        for name, facts in found.items.items()
    }
    return replace(found, items=items)


def _digest(name: bytes, payload: bytes | None) -> int | None:
    """Digest a key of the sample; one that is gone or unreadable makes the sums differ, which is the finding."""
    if payload is None:
        return None
    try:
        return dump_digest(name, payload)
    except IntegrityError:
        return None
