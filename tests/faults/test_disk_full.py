"""Full disks: real, small tmpfs file systems in a mount namespace of one drd process (root, or a user namespace)."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakeSite, RestoreSite, slow_down
from tests.faults.subjects import PostgresSubject
from tests.support.drd_site import Site
from tests.support.small_disk import left_on, small_disk

pytestmark = pytest.mark.faults


def nothing_listed(site: Site) -> bool:
    """Whether the store holds no backup."""
    return bool(site("list", "--json").succeeds().json == {"backups": []})


def test_spool_full_during_a_backup(make_site: MakeSite, pg: PostgresSubject) -> None:
    """A spool that fills while the store is slow ends the backup with 13 and says which folder to look at."""
    site = make_site(pg)
    disk = site.folder / "small-spool"
    site.config["spool"] = {"dir": str(disk), "limit": "64MiB"}
    slow_down(site, "300KiB")
    run = site.start("backup", "now", argv=small_disk(disk, "3m")).finish()
    run.fails(13, "backup pg", "the spool", "is full", hint="free space there")
    assert left_on(disk) == []
    assert nothing_listed(site)


def test_spool_without_room_for_anything(restore_site: RestoreSite, pg: PostgresSubject) -> None:
    """A restore that cannot write its few files to the spool says that it is full, and leaves no database."""
    site = restore_site(pg)
    disk = site.folder / "tiny-spool"
    site.config["spool"] = {"dir": str(disk), "limit": "16MiB"}
    run = site.start("restore", "--at", "now", *pg.into(), argv=small_disk(disk, "4k")).finish()
    run.fails(13, "restore pg", "the spool", "is full", hint="free space there")
    assert pg.target_digest() is None
    assert pg.leftovers() == []
    assert left_on(disk) == []


def test_local_store_full(make_site: MakeSite, pg: PostgresSubject) -> None:
    """A directory store on a full disk ends the backup with 12; no manifest, part or temporary file of it stays."""
    site = make_site(pg)
    disk = site.folder / "small-store"
    site.config["store"]["path"] = str(disk)
    run = site.start("backup", "now", argv=small_disk(disk, "3m")).finish()
    run.fails(12, "backup pg", "No space left on device")
    files = [path for path in left_on(disk) if "/backups/" in path]
    assert files == []
