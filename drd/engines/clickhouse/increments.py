"""Increments of mode ``direct``: the server leaves out the files that a full backup in the same bucket has.

Each is built on the last full backup alone (``base_backup``), not on each other: a restore reads two backups, and both
places can be said at the restore, where ClickHouse lets one name one base. What is needed of the base is listed with
the backup, under :data:`FOLDER`, so that whoever looks at the backup sees all that it needs.
"""

from __future__ import annotations

from dataclasses import replace

from drd.engines.clickhouse.manifest import ServerManifest
from drd.engines.clickhouse.packindex import PackIndex
from drd.errors import IntegrityError, SourceError
from drd.model import Backup
from drd.protocols import WorkContext

FOLDER = "base/"
"""Where the base's objects are among those of a backup; ClickHouse itself writes ``data``, ``metadata``, ``shards``."""
PREFIX_FACT = "direct_prefix"
BASE_PREFIX_FACT = "direct_base_prefix"


def prefix_of_base(ctx: WorkContext) -> str | None:
    """Return where the full backup lies that the next one can be built on; None when there is none of mode direct."""
    if not ctx.ancestors:
        return None
    full = ctx.ancestors[-1].backup
    prefix = full.facts.get(PREFIX_FACT)
    return prefix if full.kind == "full" and full.facts.get("mode") == "direct" and isinstance(prefix, str) else None


def prefix_recorded(backup: Backup) -> str | None:
    """Return where the base of a backup lies in the bucket, as its manifest says it; None for a full one."""
    found = backup.facts.get(BASE_PREFIX_FACT)
    return found if isinstance(found, str) else None


def needed(manifest: ServerManifest, base: ServerManifest) -> dict[str, str]:
    """Name the objects of ``base`` that ``manifest`` needs, its own manifest among them: here, and there.

    Definitions of tables that did not change have their own names too, as who looks for tables looks for those.
    Raises :class:`~drd.errors.IntegrityError` when it is another base, or one that lacks a file.
    """
    if manifest.base_backup_uuid != base.uuid:
        raise IntegrityError(
            f"it is built on the backup {manifest.base_backup_uuid}, and the base at hand is {base.uuid}",
            hint="somebody put another backup in the base's place",
        )
    files = {(item.size, item.checksum): item for item in base.files}
    out = {f"{FOLDER}.backup": ".backup"}
    for item in manifest.files:
        if item.in_base:
            found = files.get((item.in_base, item.base_checksum))
            if found is None:
                raise IntegrityError(f"the base has no file that {item.name} could be built on")
            out[FOLDER + found.key] = found.key
            if item.name.startswith("metadata/") and item.in_base == item.size:
                out[item.name] = found.key
    return out


def refuse_secret(data: bytes, secret: str) -> None:
    """Raise :class:`~drd.errors.SourceError` for a server that writes the bucket's secret into its manifest.

    Older ones do so in increments (ClickHouse issue 72906).
    """
    if secret.encode() in data:
        raise SourceError(
            "this ClickHouse writes the bucket's secret key into a backup that is built on another; it was given up",
            hint="set max_chain: 0 for this source, or upgrade ClickHouse (its issue 72906)",
        )


def view_of_base(index: PackIndex) -> PackIndex | None:
    """Return the objects of the base alone, by its own keys; None when the backup has no base."""
    objects = {key.removeprefix(FOLDER): item for key, item in index.objects.items() if key.startswith(FOLDER)}
    return replace(index, objects=objects) if objects else None
