"""What an increment of mode ``direct`` needs of the backup it is built on, without a server."""

from __future__ import annotations

import pytest

from drd.engines.clickhouse import increments
from drd.engines.clickhouse.manifest import ManifestFile, ServerManifest
from drd.errors import IntegrityError, SourceError


def _server_manifest(uuid: str, *files: ManifestFile, base: str = "") -> ServerManifest:
    return ServerManifest(list(files), base, uuid)


def test_what_is_needed_of_a_base() -> None:
    """Objects by size and checksum, whatever they are called; definitions under their own names; nothing made up."""
    full = _server_manifest(
        "u1",
        ManifestFile("data/d/t/all_1_1_0/a.bin", 9, "aa", "data/d/t/all_1_1_0/a.bin", 0),
        ManifestFile("metadata/d/t.sql", 5, "bb", "metadata/d/t.sql", 0),
        ManifestFile("data/d/log/x.bin", 3, "cc", "data/d/log/x.bin", 0),
    )
    grown = ManifestFile("data/d/log/x.bin", 7, "dd", "data/d/log/x.bin", 3, "cc")
    moved = ManifestFile("data/d/t/all_1_2_1/a.bin", 9, "aa", "data/d/t/all_1_2_1/a.bin", 9, "aa")
    same = ManifestFile("metadata/d/t.sql", 5, "bb", "metadata/d/t.sql", 5, "bb")
    new = ManifestFile("data/d/t/all_3_3_0/a.bin", 4, "ee", "data/d/t/all_3_3_0/a.bin", 0)
    assert increments.needed(_server_manifest("u2", grown, moved, same, new, base="u1"), full) == {
        "base/.backup": ".backup",
        "base/data/d/log/x.bin": "data/d/log/x.bin",
        "base/data/d/t/all_1_1_0/a.bin": "data/d/t/all_1_1_0/a.bin",
        "base/metadata/d/t.sql": "metadata/d/t.sql",
        "metadata/d/t.sql": "metadata/d/t.sql",
    }
    with pytest.raises(IntegrityError, match="the base at hand is u1"):
        increments.needed(_server_manifest("u2", moved, base="u9"), full)
    lost = ManifestFile("data/d/t/all_9_9_0/a.bin", 8, "ff", "data/d/t/all_9_9_0/a.bin", 8, "ff")
    with pytest.raises(IntegrityError, match="all_9_9_0"):
        increments.needed(_server_manifest("u2", lost, base="u1"), full)


def test_a_server_that_writes_the_secret_into_its_backup_is_found_out() -> None:
    """Older servers put the keys of the base's bucket into the manifest of an increment: such a backup is given up."""
    increments.refuse_secret(b"<config><base_backup>S3('http://h/b')</base_backup></config>", "s3cret-of-the-bucket")
    leaked = b"<base_backup>S3('http://h/b', 'k', 's3cret-of-the-bucket')</base_backup>"
    with pytest.raises(SourceError) as caught:
        increments.refuse_secret(leaked, "s3cret-of-the-bucket")
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert "max_chain: 0" in caught.value.hint
