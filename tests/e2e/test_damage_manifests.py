"""Manifests that are damaged or of a newer drd: shown as such, never chosen, never guessed at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.drd_site import Site
from tests.support.trading_site import CLICKHOUSE, REDIS, BackedUp, Targets

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def twice(backed_up: BackedUp, tmp_path_factory: pytest.TempPathFactory) -> BackedUp:
    """Give a store with two backups of each source; tests copy it and damage the newer one of Redis."""
    return backed_up.once_more(tmp_path_factory.mktemp("twice") / "site")


def manifest_of(site: Site, backup_id: str) -> Path:
    """Return the manifest of a backup of Redis."""
    return site.store_dir / "backups" / REDIS / backup_id / "manifest.json"


def flip(manifest: Path) -> None:
    """Change a number and leave the JSON well formed."""
    document = json.loads(manifest.read_text())
    document["rows"] ^= 1
    manifest.write_text(json.dumps(document))


def from_the_future(manifest: Path) -> None:
    """Give it a schema version that this drd does not know."""
    document = json.loads(manifest.read_text())
    document["schema_version"] = 99
    manifest.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "said"),
    [(flip, "digest differs"), (from_the_future, "schema version 99")],
)
def test_manifest_that_cannot_be_used(
    twice: BackedUp,
    backed_up: BackedUp,
    targets: Targets,
    tmp_path: Path,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    """It is listed as damaged and named by verify, show and status; restore takes the one before it and says so."""
    older, newer = backed_up.ids[REDIS], twice.ids[REDIS]
    site = twice.copy(tmp_path / "damaged")
    damage(manifest_of(site, newer))

    lines = {line["id"]: line for line in site("list", REDIS, "--json").succeeds().json["backups"]}
    assert (lines[older]["outcome"], lines[newer]["outcome"]) == ("ok", "damaged")
    assert said in lines[newer]["problem"]
    assert "manifest" in lines[newer]["problem"]
    verified = site("verify", REDIS, "--json")
    assert verified.rc == 20, verified.described
    assert {line["id"]: line["outcome"] for line in verified.json["backups"]} == {older: "ok", newer: "damaged"}
    site("show", newer).fails(20, "show", newer, said)
    status = next(s for s in site("status", "--json").succeeds().json["sources"] if s["source"] == REDIS)
    assert (status["backups"], status["damaged"], status["newest"]["id"]) == (1, 1, older)

    run = site("restore", "--at", "now", "--source", REDIS, "--into", targets.url(REDIS)).succeeds()
    assert f"{newer} is newer but cannot be used" in run.out, run.described
    assert targets.found(REDIS) == targets.expected(REDIS)


def test_nothing_but_damaged_manifests(copied: Site, backed_up: BackedUp, targets: Targets) -> None:
    """When no manifest can be used there is no path: exit 10, status says NO, the next backup works."""
    flip(manifest_of(copied, backed_up.ids[REDIS]))
    restore = ("restore", "--at", "now", "--source", REDIS, "--into", targets.url(REDIS))
    copied(*restore).fails(10, REDIS, "1 cannot be used")
    assert "Recoverable now: NO" in copied("status").succeeds().out
    copied("backup", "now", REDIS).succeeds()
    copied(*restore).succeeds()


def test_manifest_removed(copied: Site, backed_up: BackedUp) -> None:
    """Without its manifest a backup does not exist: it is unfinished, and the next run sweeps what it left."""
    gone = backed_up.ids[REDIS]
    manifest_of(copied, gone).unlink()
    listed = copied("list", "--json").succeeds()
    assert gone not in [line["id"] for line in listed.json["backups"]]
    copied("show", gone).fails(10, "never finished")
    assert copied("verify", "--json").succeeds().json["unfinished"] == [gone]
    run = copied("backup", "now", REDIS, "--json").succeeds()
    assert "swept" in [warning["code"] for warning in run.json["backups"][0]["warnings"]]
    assert not (copied.store_dir / "backups" / REDIS / gone).exists()


def test_the_script_of_a_broken_chain(twice: BackedUp, backed_up: BackedUp, tmp_path: Path) -> None:
    """It is printed, since parts may be there still, and says twice what is missing: in itself and beside (exit 20)."""
    parent, child = backed_up.ids[CLICKHOUSE], twice.ids[CLICKHOUSE]
    site = twice.copy(tmp_path / "broken")
    assert "WARNING" not in site("runbook", child).succeeds().text
    (site.store_dir / "backups" / CLICKHOUSE / parent / "manifest.json").unlink()
    run = site("runbook", child)
    assert run.rc == 20, run.described
    assert f"# WARNING: backup {child} needs {parent}" in run.out
    assert parent in run.err
    assert site("runbook", child, "--json").json["problem"].startswith(f"backup {child} needs {parent}")


def test_repository_of_a_newer_format(copied: Site) -> None:
    """A repository that a newer drd made is refused by name, by verbs that read and by those that write."""
    path = copied.store_dir / "drd.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))
    before = sorted(copied.store_dir.rglob("*"))
    for verb in (("backup", "now"), ("list",), ("restore", "--at", "now")):
        copied(*verb).fails(20, verb[0], "format version 9", hint="upgrade drd")
    assert sorted(copied.store_dir.rglob("*")) == before


def test_repository_description_damaged(copied: Site, targets: Targets) -> None:
    """Backups do not depend on ``drd.json``: damaged, it stops new backups but no restore."""
    (copied.store_dir / "drd.json").write_text("{")
    assert len(copied("list", "--json").succeeds().json["backups"]) == 3
    copied("restore", "--at", "now", "--source", REDIS, "--into", targets.url(REDIS)).succeeds()
    copied("backup", "now").fails(20, "drd.json", hint="move the object away")
