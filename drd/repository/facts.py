"""What an engine notes of an artifact in the manifest: JSON in the clear, bounded, of a shape known to it alone."""

from __future__ import annotations

import json

from drd.model import FACTS_SCHEMA_VERSION, SIGNED_SCHEMA_VERSION, UNSIGNED_SCHEMA_VERSION, Backup, Json
from drd.repository.fields import Fields, Malformed, parse_strictly

FACTS_FIELD = "facts"
MAX_FACTS_BYTES = 16 << 20
"""Of one artifact, as JSON: with 32 bytes for each of them, half a million ranges of a table."""


def as_read_back(facts: dict[str, Json]) -> dict[str, Json]:
    """Return a copy of facts, as a manifest will say them; raises Malformed for what it cannot hold."""
    return parse_strictly(_bounded(facts).encode("ascii"))


def facts_of(artifact: Fields, version: int) -> dict[str, Json]:
    """Take the facts of an artifact, in a manifest of that version, if there are any.

    Raises Malformed for empty ones, which are not written, and for too much. Where the version has none, they are left
    in their place, as any field that it does not know.
    """
    if version < FACTS_SCHEMA_VERSION or not artifact.has(FACTS_FIELD):
        return {}
    facts = artifact.json_map(FACTS_FIELD)
    if not facts:
        raise Malformed("has an artifact with empty facts")
    _bounded(facts)
    return facts


def schema_version_of(backup: Backup, *, signed: bool) -> int:
    """Return the lowest version that can say all that a backup's manifest says: the more drds can read it."""
    if any(artifact.facts for artifact in backup.artifacts):
        return FACTS_SCHEMA_VERSION
    return SIGNED_SCHEMA_VERSION if signed else UNSIGNED_SCHEMA_VERSION


def _bounded(facts: dict[str, Json]) -> str:
    try:
        text = json.dumps(facts, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Malformed(f"has facts that are no JSON: {error}") from error
    if len(text) > MAX_FACTS_BYTES:
        raise Malformed(f"has more than {MAX_FACTS_BYTES} bytes of facts of one artifact")
    return text
