"""A backup that a prune removes while it is read is no damaged backup: not to verify, to a restore, nor to a drill."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.drills.suite import Drill
from drd.errors import NoSuchBackup
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.drill import Request, drill
from drd.ops.export import export
from drd.ops.ports import Ports, Source
from drd.ops.prune import prune
from drd.ops.sampling import Budget
from drd.ops.verify import verify
from drd.repository.retention import Policy
from tests.support.engine import DictEngine
from tests.support.hooked_store import HookedStore
from tests.support.ports import make_ports
from tests.support.scratch_standin import StandinBinder, StandinRuntime


class Site:
    """Two backups, the older of which goes as soon as the first object of it besides its manifest is read."""

    def __init__(self, folder: Path, goes: Callable[[Site], object]) -> None:
        self.store = HookedStore()
        self.ports: Ports = make_ports(self.store, folder)
        self.at = datetime.now(UTC) - timedelta(hours=2)
        for hours in (0, 1):
            engine = DictEngine({"t": b"1\n" * 9, "u": b"2\n"}, at=self.at + timedelta(hours=hours))
            assert back_up(self.ports, [Source("shop", engine, 60.0)]).outcome == "ok"
        found = [entry.backup for entry in self.ports.catalog.entries("shop") if entry.backup]
        self.old, self.new = sorted(found, key=lambda backup: backup.recovery_point)
        self.names = [part.key for artifact in self.old.artifacts for part in artifact.parts]
        self._goes = goes
        self.store.before = self._look

    def _look(self, method: str, key: str) -> None:
        if method == "get" and key in self.names:
            self.store.before = lambda _method, _key: None
            self._goes(self)


def pruned(site: Site) -> None:
    """Remove the older one, as retention does."""
    report = prune(site.ports, {"shop": Policy(keep_last=1)}, apply=True)
    assert report.sources[0].removed == (site.old.id,)


def lost(site: Site) -> None:
    """Lose a part, whose backup stays."""
    for key in site.names:
        site.store.remove(key)


@pytest.fixture
def site_of(tmp_path: Path) -> Callable[[Callable[[Site], object]], Site]:
    return lambda goes: Site(tmp_path, goes)


@pytest.mark.parametrize("how", ["deep", "sample"])
def test_verify_says_that_it_was_removed(site_of: Callable[..., Site], how: str) -> None:
    """What a prune took away in the middle is named in a notice; the rest is verified, and nothing is damaged."""
    site = site_of(pruned)
    report = verify(site.ports, [], deep=how == "deep", sample=Budget(share=1.0) if how == "sample" else None)
    assert report.outcome == "ok"
    assert [backup.id for backup in report.backups] == [site.new.id]
    if how == "deep":
        assert [(n.code, site.old.id in n.message) for n in report.notices] == [("removed-meanwhile", True)]
    assert [item.damaged for item in report.coverage] == [0]
    assert verify(site.ports, [], deep=True).outcome == "ok"


def test_verify_still_names_what_is_lost(site_of: Callable[..., Site]) -> None:
    """Parts that go while the manifest stays, and a manifest that other hands take, are problems as before."""
    report = verify(site_of(lost).ports, [], deep=True)
    assert [backup.outcome for backup in report.backups if backup.problems] == ["damaged"]

    def taken(site: Site) -> None:
        site.store.remove(f"backups/shop/{site.old.id}/manifest.json")
        site.store.remove(site.names[-1])

    assert verify(site_of(taken).ports, [], deep=True).outcome == "damaged"


def test_a_restore_says_that_it_was_removed(site_of: Callable[..., Site], tmp_path: Path) -> None:
    """It fails as one that has no backup (exit 10), with what to do, into a server and into files; else as damaged."""
    for goes, code in ((pruned, 10), (lost, 20)):
        site = site_of(goes)
        target = DictEngine()
        planned = restoring.plan(site.ports, site.at, ["shop"], lambda _s, _b: Source("shop", target, 60.0))  # noqa: B023
        assert planned[0].backup.id == site.old.id
        error = restoring.restore(site.ports, site.at, planned).restores[0].error
        assert error is not None
        assert error.exit_code == code
        assert ("drd pin" in error.hint) is (code == 10)
        assert not target.tables
    site = site_of(pruned)
    with pytest.raises(NoSuchBackup, match="was removed while it was being read"):
        export(site.ports, site.old, tmp_path / "out")


def test_a_drill_of_it_proves_nothing(site_of: Callable[..., Site]) -> None:
    """The verdict is unverified, as nothing is known of a backup that is gone; of one that lost parts it is failed."""
    for goes, verdict in ((pruned, "unverified"), (lost, "failed")):
        site = site_of(goes)
        report = drill(
            site.ports,
            Drill("nightly", ("shop",)),
            StandinRuntime(),
            StandinBinder(),
            Request(backup=site.old.id),
            lambda _tick: None,
        )
        assert [run.verdict for run in report.runs] == [verdict]
