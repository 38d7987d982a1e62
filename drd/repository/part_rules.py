"""What a manifest may say of a part: where it lies, how large it is, and whose it can be."""

from __future__ import annotations

from drd.model import Part
from drd.repository import layout
from drd.repository.chunking import MAX_PART_BYTES
from drd.repository.fields import Fields, Malformed, is_sha256, is_usable_key


def is_earlier(ancestor_id: str, backup_id: str) -> bool:
    """Whether an id is that of a backup that another one can build on."""
    if not layout.is_backup_id(ancestor_id) or ancestor_id == backup_id:
        return False
    return layout.backup_time(ancestor_id) <= layout.backup_time(backup_id)


class PartRules:
    """What a part of one backup may say: where it may lie, and how large it may be."""

    def __init__(self, source: str, backup_id: str, *, encrypted: bool) -> None:
        self._prefix = layout.source_prefix(source)
        self._suffix = ".zst.age" if encrypted else ".zst"
        self._backup_id = backup_id
        self._owners: dict[str, bool] = {backup_id: True}

    def part(self, fields: Fields, *, raw: bool) -> Part:
        """Take a part; raises Malformed for one that cannot be."""
        part = Part(
            key=fields.text("key"),
            plain_bytes=fields.count("plain_bytes"),
            stored_bytes=fields.count("stored_bytes"),
            plain_sha256=fields.text("plain_sha256"),
            stored_sha256=fields.text("stored_sha256"),
        )
        fields.require_nothing_else()
        self._require_key(part.key, raw=raw)
        if raw:
            good = part.plain_bytes == part.stored_bytes and not part.plain_sha256 and not part.stored_sha256
        else:
            good = (
                0 < part.plain_bytes <= MAX_PART_BYTES
                and 0 < part.stored_bytes <= 2 * MAX_PART_BYTES
                and is_sha256(part.plain_sha256)
                and is_sha256(part.stored_sha256)
            )
        if not good:
            raise Malformed(f"has impossible sizes or digests for {part.key}")
        return part

    def _require_key(self, key: str, *, raw: bool) -> None:
        if not is_usable_key(key):
            raise Malformed(f"refers to an unusable key: {key[:120]!r}")
        owner, _, rest = key.removeprefix(self._prefix).partition("/")
        if not key.startswith(self._prefix) or not rest or rest == "manifest.json":
            raise Malformed(f"refers to {key!r}, which is no part of this source")
        if owner not in self._owners:
            self._owners[owner] = is_earlier(owner, self._backup_id)
        if not self._owners[owner]:
            raise Malformed(f"refers to {key!r}, which is in no earlier backup")
        if not raw and not key.endswith(self._suffix):
            raise Malformed(f"refers to {key!r}, which is not encrypted as the rest is")
