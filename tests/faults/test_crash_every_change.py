"""drd dies at its first, second, … n-th change to the store: whatever n is, no harm is done."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import dying_drd
from tests.faults.conftest import MakeSite
from tests.faults.subjects import RedisSubject
from tests.support.drd_site import ROOT, Site

pytestmark = pytest.mark.faults

_AFTERWARDS = """
import contextlib, io, json, sys
from drd.cli.main import main
out = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(arguments)
    out.append([code, said.getvalue()])
print(json.dumps(out))
"""


def in_one_process(site: Site, *commands: list[str]) -> list[tuple[int, str]]:
    """Run several drd commands in one process (a start costs more than the work) and return code and output of each."""
    done = subprocess.run(
        [sys.executable, "-c", _AFTERWARDS, json.dumps(commands)],
        env={**site.env, "DRD_CONFIG": str(site.config_file), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=site.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out) for code, out in json.loads(done.stdout)]


def dies(site: Site, nth: int) -> bool:
    """Run a backup that ends at the n-th change; return whether it came that far."""
    done = subprocess.run(
        [sys.executable, dying_drd.__file__, str(nth), "backup", "now"],
        env={**site.env, "DRD_CONFIG": str(site.config_file), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=site.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, dying_drd.DIED}, done.stdout + done.stderr
    return done.returncode == dying_drd.DIED


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
    expected: dict[str, bytes] = {}
    for nth in itertools.count(1):
        shutil.copytree(pristine, site.store_dir)
        died = dies(site, nth)
        out = site.folder / f"out-{nth}"
        codes_and_output = in_one_process(
            site,
            ["list", "--json"],
            ["verify", "--deep", "--json"],
            ["backup", "now", "--json"],
            ["verify", "--json"],
            [
                "restore",
                "--at",
                json.loads((pristine_manifest(pristine)).read_text())["recovery_point"],
                "--into",
                str(out),
            ],
        )
        said = f"change {nth}: {codes_and_output}"
        assert [code for code, _ in codes_and_output] == [0] * 5, said
        listed, checked, _rerun, after, _restored = (output for _, output in codes_and_output)
        backups = json.loads(listed)["backups"]
        assert backups[0]["id"] == first, said
        assert {backup["outcome"] for backup in backups} == {"ok"}, said
        assert len(backups) == 1 or not died or json.loads(checked)["unfinished"] == [], said
        assert json.loads(after)["unfinished"] == [], said
        assert len(json.loads(after)["backups"]) == len(backups) + 1, said
        expected = expected or contents(out)
        assert contents(out) == expected, said
        shutil.rmtree(site.store_dir)
        shutil.rmtree(out)
        if not died:
            break
    assert nth > 6
    assert any(name.endswith("dump.rdb") for name in expected)


def pristine_manifest(store: Path) -> Path:
    """Return the manifest of the one backup of a local store."""
    return next(store.rglob("manifest.json"))
