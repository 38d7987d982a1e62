"""drd dies at its first, second, … n-th change to the store: whatever n is, no harm is done."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import MakeSite
from tests.faults.subjects import RedisSubject
from tests.support.forked_drd import forked_drd

pytestmark = pytest.mark.faults


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_death_at_every_change(make_site: MakeSite, redis_pair: RedisSubject) -> None:
    """For every n: verify passes, the earlier backup exports as before, nothing half-made shows, a rerun works."""
    redis_pair.clear()
    redis_pair.fill(0.3)
    site = make_site(redis_pair)
    first = site("backup", "now", "--json").succeeds().json["backups"][0]["id"]
    pristine = site.folder / "pristine"
    site.store_dir.rename(pristine)
    at = json.loads(next(pristine.rglob("manifest.json")).read_text())["recovery_point"]
    expected: dict[str, bytes] = {}
    with forked_drd(site) as drd:
        for nth in itertools.count(1):
            shutil.copytree(pristine, site.store_dir)
            died = drd.dies(nth, "backup", "now")
            out = site.folder / f"out-{nth}"
            backups = drd("list")["backups"]
            checked = drd("verify", "--deep")
            drd("backup", "now")
            after = drd("verify")
            drd("restore", "--at", at, "--into", str(out))
            said = f"change {nth}: {backups}, {checked}, {after}"
            assert backups[0]["id"] == first, said
            assert {backup["outcome"] for backup in backups} == {"ok"}, said
            assert len(backups) == 1 or not died or checked["unfinished"] == [], said
            assert after["unfinished"] == [], said
            assert len(after["backups"]) == len(backups) + 1, said
            expected = expected or contents(out)
            assert contents(out) == expected, said
            shutil.rmtree(site.store_dir)
            shutil.rmtree(out)
            if not died:
                break
    assert nth > 6
    assert any(name.endswith("dump.rdb") for name in expected)
