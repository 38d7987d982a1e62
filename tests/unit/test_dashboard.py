"""The shipped dashboard is whole: every panel explained and in its place, every name one of drd's metrics."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

from drd.daemon.families import FAMILIES
from tests.support import dashboard

STANDARD = {
    "up",
    "ALERTS",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
}
BUILT_IN = {"__rate_interval", "__range"}


def test_every_panel_is_explained_and_has_queries_of_its_own() -> None:
    """Title, description, unique ids and query names; all ask the data source that the reader chose."""
    shown = dashboard.panels()
    assert len(shown) > 40
    ids = Counter(panel["id"] for panel in dashboard.load()["panels"])
    assert ids.most_common(1)[0][1] == 1
    for panel in shown:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
        asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {(source["type"], source["uid"]) for source in asked} == {("prometheus", "${datasource}")}


def test_no_panel_lies_on_another() -> None:
    """The places fill a grid of 24 columns without overlapping."""
    places = [panel["gridPos"] for panel in dashboard.load()["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, two in combinations(places, 2):
        apart_x = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        assert apart_x or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]


def test_queries_use_metrics_and_variables_that_exist() -> None:
    """Each drd_ name is a metric or a histogram's part; each variable is one of the dashboard's or Grafana's own."""
    kinds = {family.name: family.kind for family in FAMILIES}
    known = set(kinds) | {
        f"{name}_{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    variables = {one["name"] for one in dashboard.load()["templating"]["list"]}
    used: set[str] = set()
    for query in dashboard.queries():
        bare = re.sub(r"\{[^}]*\}", "", query.expression)
        names = set(re.findall(r"\bdrd_\w+", bare))
        assert names <= known, query
        assert names or STANDARD & set(re.findall(r"\w+", bare)), query
        assert set(re.findall(r"\$(\w+)", query.expression)) <= variables | BUILT_IN, query
        used |= {re.sub(r"_(bucket|sum|count)$", "", name) if name not in kinds else name for name in names}
    shown_elsewhere = {  # on the same panels, by a name that says more
        "drd_recovery_point_age_seconds",  # as the time since the point, which goes on unscraped
        "drd_backup_last_success_timestamp_seconds",
        "drd_backup_last_attempt_timestamp_seconds",
        "drd_drill_last_run_timestamp_seconds",
        "drd_drill_expected_interval_seconds",
        "drd_verify_expected_interval_seconds",
    }
    assert set(kinds) - used == shown_elsewhere
