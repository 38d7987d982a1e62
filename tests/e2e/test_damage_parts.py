"""A stored part that is damaged: verify names it, restore refuses it and leaves no half-made target behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.drd_site import Run, Site
from tests.support.trading_site import POSTGRES, SOURCES, BackedUp, Targets

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def twice(backed_up: BackedUp, tmp_path_factory: pytest.TempPathFactory) -> BackedUp:
    """Give a store with two backups of each source; tests copy it and damage the newer ones."""
    return backed_up.once_more(tmp_path_factory.mktemp("twice") / "site")


def flip(part: Path, _other: Path) -> None:
    """Turn over one bit in the middle."""
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def truncate(part: Path, _other: Path) -> None:
    """Cut off the last byte."""
    part.write_bytes(part.read_bytes()[:-1])


def remove(part: Path, _other: Path) -> None:
    """Delete the object."""
    part.unlink()


def swap(part: Path, other: Path) -> None:
    """Exchange it with another part, itself whole and readable."""
    mine = part.read_bytes()
    part.write_bytes(other.read_bytes())
    other.write_bytes(mine)


def parts_of(site: Site, source: str, backup_id: str) -> list[Path]:
    """Return the objects of a backup, the largest first."""
    folder = site.store_dir / "backups" / source / backup_id
    return sorted(folder.rglob("*.zst.age"), key=lambda path: -path.stat().st_size)


def problems(run: Run) -> dict[str, list[str]]:
    """Return the damaged objects that ``verify --json`` names, by backup."""
    return {line["id"]: [problem["subject"] for problem in line["problems"]] for line in run.json["backups"]}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("damage", [flip, truncate, remove, swap])
def test_damaged_part(
    twice: BackedUp,
    backed_up: BackedUp,
    targets: Targets,
    tmp_path: Path,
    source: str,
    damage: Callable[[Path, Path], None],
) -> None:
    """Whatever happens to the largest part: verify names it, restore exits 20 and the target is as it was."""
    site = twice.copy(tmp_path / "damaged")
    older, newer = backed_up.ids[source], twice.ids[source]
    largest, second = parts_of(site, source, newer)[:2]
    key, other = (str(part.relative_to(site.store_dir)) for part in (largest, second))
    damage(largest, second)

    if source == POSTGRES:  # sizes know nothing of engines
        quick = site("verify", source)
        assert quick.rc == (0 if damage is flip else 20), quick.described
        assert (key in quick.out) == (damage is not flip), quick.described
    deep = site("verify", source, "--deep", "--json")
    assert deep.rc == 20, deep.described
    assert deep.json["outcome"] == "damaged"
    assert problems(deep)[older] == [], deep.described
    assert key in problems(deep)[newer], deep.described

    before = targets.state(source)
    run = site("restore", "--at", "now", "--source", source, "--into", targets.url(source))
    failure = run.fails(20, f"restore {source}: ", hint="drd list")
    assert key in failure.headline or (damage is swap and other in failure.headline), run.described
    assert targets.state(source) == before, run.described

    if damage is flip:
        site(
            "restore", "--at", backed_up.recovery_point(source), "--source", source, "--into", targets.url(source)
        ).succeeds()
        assert targets.found(source) == targets.expected(source)


@pytest.mark.parametrize("source", SOURCES)
def test_damaged_fingerprint(twice: BackedUp, targets: Targets, tmp_path: Path, source: str) -> None:
    """A damaged fingerprint is found before anything is changed, and files with it are not written either."""
    site = twice.copy(tmp_path / "damaged")
    part = next(part for part in parts_of(site, source, twice.ids[source]) if "fingerprint.json" in part.parts)
    flip(part, part)
    before = targets.state(source)
    into = ("restore", "--at", "now", "--source", source, "--into")
    site(*into, targets.url(source)).fails(20, f"restore {source}: ", "fingerprint.json")
    assert targets.state(source) == before
    site(*into, str(tmp_path / "files")).fails(20, f"restore {source}: ", "fingerprint.json")
    assert list((tmp_path / "files").iterdir()) == []


def test_damaged_table_of_contents(twice: BackedUp, targets: Targets, tmp_path: Path) -> None:
    """Damage of pg_dump's own table of contents: exit 20, no database is left."""
    site = twice.copy(tmp_path / "damaged")
    part = next(part for part in parts_of(site, POSTGRES, twice.ids[POSTGRES]) if "toc.dat" in part.parts)
    flip(part, part)
    before = targets.state(POSTGRES)
    run = site("restore", "--at", "now", "--source", POSTGRES, "--into", targets.url(POSTGRES))
    run.fails(20, f"restore {POSTGRES}: ", "toc.dat")
    assert targets.state(POSTGRES) == before
