"""Metrics say what the overview and the counts say, under the documented names, and nothing where nothing is known."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from drd.counts import StoreCounts
from drd.daemon import metrics
from drd.daemon.families import FAMILIES
from drd.daemon.metrics import DrdCollector, registry_of
from drd.daemon.numbers import Numbers
from drd.daemon.overview import Watched
from drd.drills.suite import Objectives
from drd.events import Delivery, PeerResult
from drd.model import Json
from tests.support.overview_site import START, OverviewSite, board_of, job_run, job_view

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def site(tmp_path: Path) -> OverviewSite:
    """Give a repository in memory."""
    return OverviewSite(tmp_path)


class Scraped:
    """What a scrape returned: ``value`` of a name and its labels."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def scrape(collector: DrdCollector) -> Scraped:
    """Scrape as Prometheus does."""
    return Scraped(generate_latest(registry_of(collector, process=False)).decode())


def full(site: OverviewSite) -> tuple[DrdCollector, Numbers]:
    """Make a collector that has everything there is to say."""
    first = site.backup("shop", finished_at=START + timedelta(seconds=42), rows=7)
    site.later(minutes=30)
    site.backup("shop", parent=first.id, kind="incremental", warnings=("fewer-rows",), plain_bytes=900, stored_bytes=80,
                started_at=site.now - timedelta(seconds=5))  # fmt: skip
    site.drill("shop", objectives=Objectives(10.0, 3600.0))
    site.later(hours=1)
    backup, prune = job_view("backup", "shop"), job_view("prune", "shop", schedule="tidy")
    verify = job_view("verify", "shop", schedule="sample", gap_s=86400.0)
    failed = job_run(backup, "failed", at=site.now - timedelta(minutes=5), message="no answer")
    site.board = board_of(
        replace(backup, runs=(failed,), failures=1, running_since=site.now, phase="dump"),
        replace(prune, runs=(job_run(prune),)),
        replace(verify, runs=(job_run(verify),)),
        job_view("drill", "nightly", gap_s=86400.0),
        configured_at=START,
    )
    kept = site.overviews(Watched("shop", "postgres", 3600.0))
    kept.refresh()
    numbers = Numbers(StoreCounts())
    numbers.job_ended(failed)
    numbers.job_said(backup.job, {"event": "pruned", "source": "shop", "kept": 5, "removed": 2, "blocked": 1})
    numbers.job_said(backup.job, {"event": "pruned", "source": "shop", "kept": 4, "removed": 1, "blocked": 0})
    theirs = StoreCounts()
    theirs.operation("put", "ok", 0.3)
    theirs.retry("put")
    theirs.moved("put", 100)
    counts: Json = theirs.take()
    numbers.job_said(backup.job, {"event": "store", "counts": counts})
    numbers.told(Delivery(1, (PeerResult("a", "ok", 1, ""), PeerResult("b", "failed", 3, "refused"))))
    numbers.reloaded(ok=False)
    numbers.store_answered(site.now)
    numbers.store.skewed(-2.5)
    numbers.leads(leader=False, lost=True)
    site.later(minutes=10)
    return DrdCollector(kept.now, numbers), numbers


def test_everything_is_told_with_its_units(site: OverviewSite) -> None:
    """Times are Unix seconds, sizes bytes, ages seconds; each number is where its name says."""
    collector, _ = full(site)
    found = scrape(collector)
    newest_at = (START + timedelta(minutes=30)).timestamp()
    expected = {
        ("drd_backups", "shop"): 2,
        ("drd_backup_last_success_timestamp_seconds", "shop"): newest_at,
        ("drd_backup_last_attempt_timestamp_seconds", "shop"): (START + timedelta(minutes=85)).timestamp(),
        ("drd_backup_last_attempt_success", "shop"): 0,
        ("drd_backup_duration_seconds", "shop"): 5,
        ("drd_backup_plain_bytes", "shop"): 900,
        ("drd_backup_stored_bytes", "shop"): 80,
        ("drd_backup_odd", "shop"): 1,
        ("drd_source_stored_bytes", "shop"): 480,
        ("drd_recovery_point_timestamp_seconds", "shop"): newest_at,
        ("drd_recovery_point_age_seconds", "shop"): 70 * 60,
        ("drd_recovery_window_start_timestamp_seconds", "shop"): START.timestamp(),
        ("drd_recovery_point_objective_seconds", "shop"): 3600,
        ("drd_backup_expected_interval_seconds", "shop"): 3600,
        ("drd_prune_kept_backups", "shop"): 4,
        ("drd_prune_removed_backups_total", "shop"): 3,
        ("drd_prune_blocked_backups", "shop"): 0,
        ("drd_verify_last_success_timestamp_seconds", "shop"): START.timestamp() + 5,
    }
    assert {key: found.value(key[0], source=key[1]) for key in expected} == expected
    drill = {"drill": "nightly", "source": "shop"}
    assert found.value("drd_drill_verdict", **drill, verdict="passed") == 1
    assert found.value("drd_drill_verdict", **drill, verdict="failed") == 0
    assert found.value("drd_drill_rto_seconds", **drill) == 60.5
    assert found.value("drd_drill_over_objective", **drill) == 1
    assert found.value("drd_drill_phase_seconds", **drill, phase="restore") == 60
    assert found.value("drd_job_runs_total", kind="backup", outcome="failed") == 1
    assert found.value("drd_job_runs_total", kind="backup", outcome="ok") == 0
    assert found.value("drd_job_consecutive_failures", job="backup/hourly/shop") == 1
    assert found.value("drd_job_duration_seconds_count", kind="backup") == 1
    assert found.value("drd_store_operations_total", operation="put", outcome="ok") == 1
    assert found.value("drd_store_operation_duration_seconds_bucket", operation="put", le="0.5") == 1
    assert found.value("drd_store_retries_total", operation="put") == 1
    assert found.value("drd_store_bytes_total", direction="put") == 100
    assert found.value("drd_store_clock_skew_seconds") == -2.5
    assert found.value("drd_notifications_total", outcome="failed") == 1
    assert found.value("drd_config_reloads_total", outcome="failed") == 1
    assert found.value("drd_lease_held", lease="source-shop") == 1
    assert found.value("drd_lease_held", lease="drill-nightly") == 0
    assert found.value("drd_lease_lost_total") == 1


def test_every_family_is_told_and_documented(site: OverviewSite) -> None:
    """The document has a row for each metric, with labels and meaning as they are exported, and no other."""
    collector, _ = full(site)
    site.drill("shop")
    found = scrape(collector)
    told = {family.name.removesuffix("_total") for family in FAMILIES if family.name != "drd_sources_omitted"}
    assert told <= found.families.keys() - {"drd_sources_omitted"}
    for family in FAMILIES:
        samples = found.families[family.name.removesuffix("_total")].samples
        assert {tuple(sorted(s.labels.keys() - {"le"})) for s in samples} == {tuple(sorted(family.labels))}
    rows = re.findall(
        r"^\| `(drd_\w+)(?:\{([\w,]+)\})?` \| (\w+) \| (.+?) \|$", DOCUMENT.read_text("utf-8"), re.MULTILINE
    )
    documented = {(name, tuple(filter(None, labels.split(","))), kind, text) for name, labels, kind, text in rows}
    assert documented == {(family.name, family.labels, family.kind, family.help) for family in FAMILIES}


def test_openmetrics_is_well_formed(site: OverviewSite) -> None:
    """The strict parser of the newer format takes what is offered to it."""
    collector, _ = full(site)
    registry = registry_of(collector, process=True)
    names = {family.name for family in parse_openmetrics(openmetrics.generate_latest(registry).decode())}
    assert {"drd_backups", "drd_store_bytes", "process_resident_memory_bytes", "python_info"} <= names


def test_nothing_is_claimed_before_the_store_was_read(site: OverviewSite) -> None:
    """No series of a source is there: an alert on absence must not be kept quiet by zeros."""
    site.backup("shop")
    kept = site.overviews("shop")
    found = scrape(DrdCollector(kept.now, Numbers(StoreCounts())))
    assert [name for name in found.names() if "source" in name or "backup" in name or "overview" in name] == []
    assert found.value("drd_build_info", version=metrics.__version__) == 1


def test_a_source_without_backups_has_no_newest(site: OverviewSite) -> None:
    """It has zero backups and no time of a last success; one that only the store knows is told apart."""
    site.backup("old-name")
    kept = site.overviews("shop")
    kept.refresh()
    found = scrape(DrdCollector(kept.now, Numbers(StoreCounts())))
    assert found.value("drd_backups", source="shop") == 0
    assert found.value("drd_backup_last_success_timestamp_seconds", source="shop") is None
    assert found.value("drd_source_configured", source="shop") == 1
    assert found.value("drd_source_configured", source="old-name") == 0


@pytest.mark.parametrize("outcome", ["cancelled", "skipped"])
def test_what_was_called_off_is_no_failed_attempt(site: OverviewSite, outcome: str) -> None:
    """A drain, or another drd at work, says nothing of whether backups succeed."""
    site.backup("shop")
    site.later(hours=1)
    view = job_view("backup", "shop")
    site.board = board_of(replace(view, runs=(job_run(view, outcome, at=site.now),)))
    kept = site.overviews("shop")
    kept.refresh()
    assert (
        scrape(DrdCollector(kept.now, Numbers(StoreCounts()))).value("drd_backup_last_attempt_success", source="shop")
        == 1
    )


def test_labels_are_bounded(site: OverviewSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket full of strange folders cannot make endless series, and what is left out is counted."""
    monkeypatch.setattr(metrics, "MOST_SOURCES", 3)
    for number in range(5):
        site.backup(f"s{number}")
        site.drill(f"s{number}", id=f"20261122T12000{number}Z-aaaaaa")
    kept = site.overviews("s4")
    kept.refresh()
    found = scrape(DrdCollector(kept.now, Numbers(StoreCounts())))
    assert found.value("drd_sources_omitted") == 2
    sources = {dict(labels)["source"] for name, labels in found.samples if "source" in dict(labels)}
    assert sources == {"s4", "s0", "s1"}


@pytest.mark.parametrize(
    "event",
    [
        {"event": "store"},
        {"event": "store", "counts": {"operations": "many"}},
        {"event": "pruned", "source": "shop", "kept": "all", "removed": 0, "blocked": 0},
        {"event": "pruned", "source": ["shop"], "kept": 1, "removed": 0, "blocked": 0},
        {"event": "progress"},
    ],
)
def test_what_a_broken_job_says_counts_nothing(event: dict[str, Json]) -> None:
    """Listening goes on, and the numbers stay as they were."""
    numbers = Numbers(StoreCounts())
    numbers.job_said(job_view("backup", "shop").job, event)
    assert not numbers.store.totals()
    assert numbers.tally().pruned == {}
