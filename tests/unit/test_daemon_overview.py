"""The overview is kept warm: complete at first, then told only what is new, and honest when the store is away."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from drd.daemon import overview as module
from drd.daemon.overview import Watched
from drd.daemon.warm_drills import RUNS_KEPT
from drd.daemon.web.page import render
from drd.errors import StoreForbidden, StoreUnavailable
from drd.model import Finding
from drd.ops.remarks import remarks
from drd.ops.status import status
from drd.repository import layout
from drd.repository.signing import Signing, Trust, generate_signing_key
from tests.support.overview_site import OverviewSite, board_of, job_view


@pytest.fixture
def site(tmp_path: Path) -> OverviewSite:
    """Give a repository in memory."""
    found = OverviewSite(tmp_path)
    found.ports.repository.open_or_create(found.now)
    return found


def test_it_says_all_there_is_of_every_source(site: OverviewSite) -> None:
    """Backups, ages, objectives, drills, jobs and sources that only the store knows are all in one overview."""
    first = site.backup("shop")
    site.later(hours=1)
    second = site.backup("shop", parent=first.id, kind="incremental")
    site.backup("old-name")
    run = site.drill("shop")
    site.board = board_of(
        job_view("backup", "shop"),
        job_view("backup", "shop", schedule="nightly", gap_s=86400),
        job_view("drill", "nightly"),
    )
    kept = site.overviews(Watched("shop", "postgres", 1800.0), Watched("cache", "redis"))
    assert kept.refresh() == ""
    site.later(minutes=10)
    found = kept.now()
    shop, cache, old = found.sources
    assert [view.name for view in found.sources] == ["shop", "cache", "old-name"]
    assert [head.id for head in shop.backups] == [first.id, second.id]
    assert (shop.status.age_s, shop.status.within_rpo, shop.status.configured) == (600.0, True, True)
    assert (shop.longest_gap_s, len(shop.jobs)) == (3600.0, 2)
    assert shop.next_backup_at == site.board.jobs[0].next_run_at
    assert [item.id for item in (*shop.drills, *found.drills, shop.status.last_drill)] == [run.id] * 3
    assert (cache.engine, cache.status.backups, cache.status.newest) == ("redis", 0, None)
    assert (old.status.configured, old.engine) == (False, "postgres")
    assert found.recoverable_to is None  # the cache has no backup
    assert (found.error, found.notices, found.board) == ("", (), site.board)


def test_only_what_is_new_is_read_again(site: OverviewSite) -> None:
    """A refresh without news reads no manifest and no report; a new backup and a new run are seen, an old one gone."""
    made = []
    for _ in range(5):
        made.append(site.backup("shop"))
        site.later(minutes=1)
    site.drill("shop")
    kept = site.overviews("shop")
    kept.refresh()
    site.read_keys()
    kept.refresh()
    assert [key for key in site.read_keys() if "manifest" in key or "drills" in key] == []
    site.later(minutes=1)
    new, run = site.backup("shop"), site.drill("shop")
    site.store.remove(layout.manifest_key("shop", made[0].id))
    kept.refresh(["shop"])
    (shop,) = kept.now().sources
    assert [head.id for head in shop.backups] == [item.id for item in (*made[1:], new)]
    assert shop.drills[0].id == run.id
    assert len(shop.drills) == 2
    assert site.read_keys().count(layout.drill_key("nightly", run.id)) == 1


def test_a_backup_under_way_is_seen_when_it_is_published(site: OverviewSite) -> None:
    """Its folder was there before, so the list of folders alone tells nothing new."""
    done = site.backup("shop")
    site.later(minutes=1)
    under_way = replace(done, id=layout.new_backup_id(site.now), recovery_point=site.now)
    part = layout.part_key("shop", under_way.id, "a", 0, encrypted=False)
    site.store.plant(part, b"x")
    kept = site.overviews("shop")
    kept.refresh()
    assert kept.now().sources[0].status.unfinished == 1
    site.ports.catalog.publish(under_way)
    kept.refresh()
    status = kept.now().sources[0].status
    assert (status.unfinished, status.backups, status.newest.id) == (0, 2, under_way.id)


def test_a_store_that_is_away_leaves_what_was_known(site: OverviewSite) -> None:
    """Before the first answer nothing is claimed; later the last overview stays, with the error and its time."""
    kept = site.overviews("shop")
    assert (kept.now().sources, kept.now().error) == ((), module.NOT_YET)

    def away(_method: str, _key: str) -> None:
        raise StoreUnavailable("no answer from the store")

    site.store.before = away
    assert kept.refresh() == "no answer from the store"
    assert (kept.now().sources, kept.now().error) == ((), "no answer from the store")
    site.store.before = lambda _method, _key: None
    site.backup("shop")
    kept.refresh()
    at = site.now
    site.store.before = away
    site.later(hours=1)
    kept.refresh()
    found = kept.now()
    assert (found.at, found.error) == (at, "no answer from the store")
    assert (found.sources[0].status.backups, found.sources[0].status.age_s) == (1, 3600.0)
    site.store.before = lambda _method, _key: None
    assert kept.refresh() == kept.now().error == ""
    assert kept.now().at == site.now


def test_one_source_that_may_not_be_read_hides_no_other(site: OverviewSite) -> None:
    """A right that is missing for one folder is a notice; the other sources are seen."""
    site.backup("shop")
    site.backup("secret")

    def refuse(_method: str, key: str) -> None:
        if "backups/secret" in key:
            raise StoreForbidden("not for you")

    site.store.before = refuse
    kept = site.overviews("secret", "shop")
    assert kept.refresh() == ""
    found = kept.now()
    assert [(view.name, view.status.backups) for view in found.sources] == [("secret", 0), ("shop", 1)]
    assert [(notice.code, "not for you" in notice.message) for notice in found.notices] == [("source-unreadable", True)]


def test_a_role_that_may_not_read_drills_still_sees_its_backups(site: OverviewSite) -> None:
    """Page, overview and ``drd status`` answer by what is stored; what was proven is not known, which is not never."""
    site.backup("shop")
    site.drill("shop")

    def refuse(method: str, key: str) -> None:
        if method == "get" and key.startswith("drills/"):
            raise StoreForbidden("not for you")

    site.store.before = refuse
    kept = site.overviews("shop")
    assert kept.refresh() == ""
    found = kept.now()
    assert [view.status.backups for view in found.sources] == [1]
    assert [notice.code for notice in found.notices] == ["drill-reports-unread"]
    page = render(found, site.now)
    assert "Yes, by what is stored." in page
    for word in ("never", "No drill has"):
        assert word not in page
    report = status(site.ports, [("shop", None)])
    assert report.recoverable_to == site.now
    assert report.drills_unread
    said = [(remark.code, remark.urgency) for remark in remarks(report)]
    assert said == [("drill-reports-unread", "look")]


def test_a_newest_backup_that_is_damaged_is_not_the_newest(site: OverviewSite) -> None:
    """The newest manifest is read whole: one with a good head and a damaged rest is counted as damaged."""
    good = site.backup("shop")
    site.later(minutes=1)
    bad = site.backup("shop")
    key = layout.manifest_key("shop", bad.id)
    data = site.store.contents()[key]
    site.store.plant(key, data.replace(b'"artifacts": [', b'"artifacts": ['.replace(b"[", b"[ "), 1)[:-9] + b"}\n")
    kept = site.overviews("shop")
    kept.refresh()
    status = kept.now().sources[0].status
    assert (status.newest.id, status.backups, status.damaged) == (good.id, 1, 1)


def test_many_sources_are_looked_at_in_turns(site: OverviewSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat lists a few sources, the longest unseen first, and always those of which something is new."""
    monkeypatch.setattr(module, "SOURCES_A_TURN", 4)
    names = [f"s{n:02d}" for n in range(10)]
    for name in names:
        site.backup(name)
    kept = site.overviews(*names)
    kept.refresh()
    assert all(view.status.backups == 1 for view in kept.now().sources)
    for name in names:
        site.later(seconds=60)
        site.backup(name)
    counts = []
    for _ in range(3):
        site.later(seconds=60)
        kept.refresh(["s09"])
        counts.append(sum(view.status.backups == 2 for view in kept.now().sources))
    assert counts == [4, 7, 10]
    assert kept.now().sources[9].status.backups == 2


def test_of_old_drills_the_numbers_are_kept(site: OverviewSite) -> None:
    """The newest run is there whole, older ones without what passed; not more than some of each source."""
    wrong = Finding("rows", "failed", "3 tables differ")
    for index in range(RUNS_KEPT + 3):
        site.later(minutes=10)
        checks = (Finding("restored", "passed", "whole"), wrong)
        site.drill("shop", verdict="failed", checks=checks) if index == 5 else site.drill("shop")
    kept = site.overviews("shop")
    kept.refresh()
    found = kept.now().sources[0].drills
    assert len(found) == RUNS_KEPT
    assert (len(found[0].checks), found[0].environment) == (9, {"runtime": "process"})
    assert (len(found[1].checks), found[1].environment, found[1].rto_s) == (0, {}, 60.5)
    assert [run.checks for run in found if run.verdict == "failed"] == [(wrong,)]


def test_reports_that_nobody_trusted_signed_prove_nothing(site: OverviewSite) -> None:
    """Where signatures are demanded, a planted report is a notice and no drill."""
    private, public = generate_signing_key()
    trust = Trust((public,))
    signing = Signing(lambda: private, trust)
    site.drill("shop")
    site.ports = replace(site.ports, catalog=type(site.ports.catalog)(site.store, signing))
    site.later(minutes=1)
    signed = site.drill("shop")
    kept = site.overviews("shop")
    kept.refresh()
    found = kept.now()
    assert [run.id for run in found.drills] == [signed.id]
    assert [notice.code for notice in found.notices] == ["drill-reports-unusable"]


def test_thousands_of_backups_fit_in_some_megabytes(site: OverviewSite) -> None:
    """What is kept of a backup stays under a kilobyte, whatever its manifest says."""
    for index in range(600):
        site.later(minutes=10)
        site.backup(f"s{index % 5}", facts={"note": "x" * 3000}, labels={"team": "y" * 500})
    kept = site.overviews(*(f"s{n}" for n in range(5)))
    tracemalloc.start()
    kept.refresh()
    site.store.calls.clear()
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(view.backups) for view in kept.now().sources) == 600
    assert size_bytes / 600 < 1500


def test_what_was_read_back_is_asked_for_when_something_was_done(site: OverviewSite) -> None:
    """A heartbeat lists a folder and reads nothing; after a job the record of what was read is looked at."""
    site.backup("shop")
    kept = site.overviews("shop")
    kept.refresh()
    site.store.calls.clear()
    kept.refresh()
    assert not any("verified" in key or "manifest" in key for key in site.read_keys())
    kept.refresh(["shop"])
    assert any("verified" in key for key in site.read_keys())
