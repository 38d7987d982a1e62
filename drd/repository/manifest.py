"""The manifest: the JSON object whose existence is the backup's existence.

It is read before anything else of a backup, maybe years later and maybe from a bucket that others can write to, so
:func:`from_json` believes nothing: version first, then the digest over the whole content, then every key, type and
bound, and only then a :class:`~drd.model.Backup` comes out. Hand-written rather than with a validation library, as
listing backups must start fast.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from drd.errors import IntegrityError
from drd.model import (
    MANIFEST_SCHEMA_VERSION,
    SIGNED_SCHEMA_VERSION,
    Artifact,
    Backup,
    BackupHead,
    BackupKind,
    EngineKind,
    Json,
    Part,
    Signature,
)
from drd.repository import layout
from drd.repository.facts import FACTS_FIELD, facts_of
from drd.repository.fields import Fields, Malformed, is_usable_key, parse_strictly, text_of_time
from drd.repository.part_rules import PartRules, is_earlier

MAX_MANIFEST_BYTES = 256 << 20
"""About 800,000 parts; more is refused unread."""

_DIGEST = "digest"
_SIGNATURE = "signature"
_BEGINNING = b'{\n"digest": "sha256:'
# A line of its own: no string holds a line end, and what lies inside the artifacts is indented.
_BEFORE_ARTIFACTS = b',\n"artifacts": [\n'
_HEAD_FIELDS = tuple(field.name for field in dataclasses.fields(BackupHead))
_ALIKE = (
    "engine",
    "engine_version",
    "compression",
    "encryption",
    "recipients",
    "repository_id",
    "tools",
    "labels",
    "warnings",
)
_ENGINES: tuple[EngineKind, ...] = ("postgres", "redis", "clickhouse")
_KINDS: tuple[BackupKind, ...] = ("full", "incremental")
_ENCRYPTIONS: tuple[Literal["none", "age"], ...] = ("none", "age")


def head_document(backup: BackupHead) -> dict[str, Json]:
    """Return what a manifest says of the backup as a whole, as JSON values."""
    document: dict[str, Json] = {
        "schema_version": backup.schema_version,
        "id": backup.id,
        "source": backup.source,
        "engine": backup.engine,
        "engine_version": backup.engine_version,
        "kind": backup.kind,
        "parent": backup.parent,
        "started_at": text_of_time(backup.started_at),
        "finished_at": text_of_time(backup.finished_at),
        "recovery_point": text_of_time(backup.recovery_point),
        "window_start": None if backup.window_start is None else text_of_time(backup.window_start),
        "compression": backup.compression,
        "encryption": backup.encryption,
        "recipients": list(backup.recipients),
        "plain_bytes": backup.plain_bytes,
        "stored_bytes": backup.stored_bytes,
        "rows": backup.rows,
        "lease_generation": backup.lease_generation,
        "repository_id": backup.repository_id,
        "tools": dict(backup.tools),
        "labels": dict(backup.labels),
        "facts": dict(backup.facts),
        "warnings": list(backup.warnings),
    }
    if backup.signature is not None:
        document[_SIGNATURE] = {"key": backup.signature.key, "value": backup.signature.value}
    return document


def to_document(backup: Backup) -> dict[str, Json]:
    """Return the manifest's content as JSON values; what ``drd show --json`` prints."""
    document = head_document(backup)
    document["artifacts"] = [_artifact_document(artifact) for artifact in backup.artifacts]
    return document


def content_digest(backup: Backup) -> str:
    """Return the SHA-256 of all that a manifest says, its signature left out: what a signature is of."""
    document = to_document(backup)
    document.pop(_SIGNATURE, None)
    return _digest_of(document)


def to_json(backup: Backup) -> bytes:
    """Return the manifest as it is stored: one line a field and one a part, so that people and diffs can read it.

    The same backup gives the same bytes. Its ``digest`` is the SHA-256 of the document without it, in compact JSON with
    sorted keys. Raises IntegrityError for content that :func:`from_json` would refuse to read back.
    """
    try:
        document = to_document(backup)
        lines = [f'"{_DIGEST}": "{_digest_of(document)}"']
        lines += [f'"{name}": {_dumps(value)}' for name, value in document.items() if name != "artifacts"]
        lines.append('"artifacts": [\n' + ",\n".join(map(_artifact_lines, backup.artifacts)) + "]")
    except (TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(f"the manifest of {backup.id} cannot be written as JSON: {error}") from error
    data = ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")
    from_json(data, key=layout.manifest_key(backup.source, backup.id))
    return data


def head_from_json(data: bytes, *, key: str) -> BackupHead | None:
    """Return the head of the manifest found at ``key``, of which ``data`` is at least the beginning.

    Checks the fields of the head as :func:`from_json` does, but neither the parts nor the digest: enough to list a
    backup, not to use it. None when it does not look as :func:`to_json` writes it; then only :func:`from_json` can tell
    what it is. Raises IntegrityError as that does.
    """
    end = data.find(_BEFORE_ARTIFACTS)
    if end < 0 or not data.startswith(_BEGINNING):
        return None
    try:
        document = parse_strictly(data[:end] + b"}")
        _require_version(document.get("schema_version"), key)
        fields = Fields(document, "manifest")
        fields.text(_DIGEST)
        head = _head(fields, key)
        fields.require_nothing_else()
    except Malformed as error:
        raise _unusable(key, error) from error
    return head


def head_of(backup: Backup) -> BackupHead:
    """Return what a manifest says of the backup as a whole, without the parts."""
    return BackupHead(**{name: getattr(backup, name) for name in _HEAD_FIELDS})


def split_document(head: BackupHead) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return :func:`head_document` in two: what most backups of a source have alike, and what is its own."""
    document = head_document(head)
    alike = {name: document.pop(name) for name in _ALIKE}
    return alike, document


def alike_of_document(fields: Fields) -> dict[str, Any]:
    """Return what backups have alike, for :func:`head_of_split`; raises Malformed."""
    alike = _alike(fields)
    fields.require_nothing_else()
    return alike


def head_of_split(own: dict[str, Json], alike: Mapping[str, Any], source: str) -> BackupHead:
    """Return the head of a backup of this source that :func:`split_document` took apart.

    Raises Malformed for any other, and IntegrityError for one of a newer version.
    """
    found = own.get("id")
    if not isinstance(found, str) or not layout.is_backup_id(found):
        raise Malformed("names no usable id")
    key = layout.manifest_key(source, found)
    _require_version(own.get("schema_version"), key)
    fields = Fields(own, "head")
    head = BackupHead(**_own(fields, key), **alike)
    fields.require_nothing_else()
    return head


def from_json(data: bytes, *, key: str) -> Backup:
    """Return the backup that a manifest found at ``key`` describes.

    Raises IntegrityError for everything else: damage, a version of the future (by name), an unknown or missing
    key, a value out of bounds, part keys outside the source's folder, an id or source other than the key's.
    """
    try:
        return _backup(Fields(_verified(data, key), "manifest"), key)
    except Malformed as error:
        raise _unusable(key, error) from error


def _unusable(key: str, error: Malformed) -> IntegrityError:
    return IntegrityError(
        f"the manifest {key} {error}: this backup cannot be used",
        subject=key,
        hint="restore another backup (drd list); a versioned bucket may hold an older, good copy of this object",
    )


def _artifact_document(artifact: Artifact) -> dict[str, Json]:
    facts: dict[str, Json] = {FACTS_FIELD: artifact.facts} if artifact.facts else {}
    parts: list[Json] = [_part_document(part) for part in artifact.parts]
    return {"name": artifact.name, "raw": artifact.raw, **facts, "parts": parts}


def _part_document(part: Part) -> dict[str, Json]:
    return {
        "key": part.key,
        "plain_bytes": part.plain_bytes,
        "stored_bytes": part.stored_bytes,
        "plain_sha256": part.plain_sha256,
        "stored_sha256": part.stored_sha256,
    }


def _artifact_lines(artifact: Artifact) -> str:
    parts = ",".join(f"\n  {_dumps(_part_document(part))}" for part in artifact.parts)
    facts = f'"{FACTS_FIELD}": {_dumps(artifact.facts)}, ' if artifact.facts else ""
    return f' {{"name": {_dumps(artifact.name)}, "raw": {_dumps(artifact.raw)}, {facts}"parts": [{parts}]}}'


def _dumps(value: Json) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _digest_of(document: dict[str, Json]) -> str:
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"


def _verified(data: bytes, key: str) -> dict[str, Json]:
    """Return the document without its digest, after the digest."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise Malformed(f"is larger than {MAX_MANIFEST_BYTES} bytes")
    document = parse_strictly(data)
    _require_version(document.get("schema_version"), key)
    said = document.pop(_DIGEST, None)
    try:
        if said != _digest_of(document):
            raise Malformed("was altered since it was written (digest differs)")
    except RecursionError as error:
        raise Malformed("is nested too deep") from error
    return document


def _require_version(version: Json, key: str) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise Malformed("has no schema version")
    if version > MANIFEST_SCHEMA_VERSION:
        raise IntegrityError(
            f"the manifest {key} has schema version {version}; this drd reads versions up to {MANIFEST_SCHEMA_VERSION}",
            subject=key,
            hint="upgrade drd: a newer one made this backup",
        )


def _backup(fields: Fields, key: str) -> Backup:
    head = _head(fields, key)
    found = fields.objects("artifacts")
    fields.require_nothing_else()
    artifacts = _artifacts(found, head)
    return Backup(**{name: getattr(head, name) for name in _HEAD_FIELDS}, artifacts=artifacts)


def _head(fields: Fields, key: str) -> BackupHead:
    return BackupHead(**_own(fields, key), **_alike(fields))


def _own(fields: Fields, key: str) -> dict[str, Any]:
    """Return those fields of a head in which backups of a source differ."""
    backup_id, source = fields.text("id"), fields.text("source")
    if not (layout.is_backup_id(backup_id) and layout.is_source_name(source)):
        raise Malformed("names no usable id and source")
    if layout.manifest_key(source, backup_id) != key:
        raise Malformed(f"belongs elsewhere, to {source} {backup_id}")
    parent = fields.optional_text("parent")
    if parent is not None and not is_earlier(parent, backup_id):
        raise Malformed("names a parent that is not an earlier backup")
    kind = fields.choice("kind", _KINDS)
    if (kind == "incremental") != (parent is not None):
        raise Malformed("is incremental without a parent, or full with one")
    return {
        "id": backup_id,
        "source": source,
        "kind": kind,
        "parent": parent,
        "started_at": fields.time("started_at"),
        "finished_at": fields.time("finished_at"),
        "recovery_point": fields.time("recovery_point"),
        "window_start": fields.optional_time("window_start"),
        "plain_bytes": fields.count("plain_bytes"),
        "stored_bytes": fields.count("stored_bytes"),
        "rows": fields.optional_count("rows"),
        "lease_generation": fields.count("lease_generation"),
        "facts": fields.json_map("facts"),
        "schema_version": (version := fields.count("schema_version")),
        "signature": _signature(fields) if _is_signed(fields, version) else None,
    }


def _alike(fields: Fields) -> dict[str, Any]:
    """Return the other fields of a head."""
    encryption = fields.choice("encryption", _ENCRYPTIONS)
    recipients = fields.texts("recipients")
    if (encryption == "age") != bool(recipients):
        raise Malformed("is encrypted to nobody, or names recipients without being encrypted")
    return {
        "engine": fields.choice("engine", _ENGINES),
        "engine_version": fields.text("engine_version"),
        "compression": fields.choice("compression", ("zstd",)),
        "encryption": encryption,
        "recipients": recipients,
        "repository_id": fields.text("repository_id"),
        "tools": fields.text_map("tools"),
        "labels": fields.text_map("labels"),
        "warnings": fields.texts("warnings"),
    }


def _is_signed(fields: Fields, version: int) -> bool:
    """Whether a signature stands there, or has to: version 2 is nothing else, later ones may do without."""
    return version == SIGNED_SCHEMA_VERSION or (version > SIGNED_SCHEMA_VERSION and fields.has(_SIGNATURE))


def _signature(fields: Fields) -> Signature:
    """Return what stands there; whether it is worth anything is found out by :mod:`drd.repository.signing`."""
    found = Fields(fields.json_map(_SIGNATURE), _SIGNATURE)
    signature = Signature(found.text("key"), found.text("value"))
    found.require_nothing_else()
    return signature


def _artifacts(found: list[Fields], head: BackupHead) -> tuple[Artifact, ...]:
    encrypted, version = head.encryption == "age", head.schema_version
    artifacts = tuple(
        _artifact(fields, PartRules(head.source, head.id, encrypted=encrypted), version) for fields in found
    )
    if len({artifact.name for artifact in artifacts}) != len(artifacts):
        raise Malformed("has two artifacts of one name")
    return artifacts


def _artifact(fields: Fields, rules: PartRules, version: int) -> Artifact:
    name, raw = fields.text("name"), fields.flag("raw")
    if not (is_usable_key(name) if raw else layout.is_artifact_name(name)):  # a server's own names may hold a %
        raise Malformed(f"has an unusable artifact name: {name[:120]!r}")
    parts = tuple(rules.part(part, raw=raw) for part in fields.objects("parts"))
    facts = facts_of(fields, version)
    fields.require_nothing_else()
    return Artifact(name, parts, raw, facts)
