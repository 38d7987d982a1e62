"""The shipped dashboard is one to Grafana's own types and to Prometheus' own parser."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import obtain
from devstack.prometheus import promtool
from tests.support import dashboard
from tests.support.services import present

pytestmark = pytest.mark.integration

CHECK = Path(__file__).with_name("dashboard.ts")
FILLED = {"job": ".*", "source": ".*", "drill": ".*", "__rate_interval": "1m", "__range": "1h"}
TYPES = {
    "stat": "Stat",
    "timeseries": "TimeSeries",
    "state-timeline": "StateTimeline",
    "table": "Table",
    "bargauge": "BarGauge",
}


def written(folder: Path, name: str, document: dict[str, Any]) -> None:
    """Write a dashboard as TypeScript: the whole of it as what it must be, and each panel as its own kind."""
    lines = [CHECK.read_text(encoding="utf-8"), f"export const all: Whole = {json.dumps(document)};"]
    for panel in document["panels"]:
        if panel["type"] != "row":
            lines.append(f"export const p{panel['id']}: {TYPES[panel['type']]} = {json.dumps(panel)};")
    (folder / f"{name}.ts").write_text("\n".join(lines), encoding="utf-8")


def test_it_is_a_dashboard_to_grafanas_types(tmp_path: Path) -> None:
    """TypeScript at its strictest accepts it, options and fields of each panel included, and notices four slips."""
    with present():
        modules = obtain.grafana_schema() / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    written(tmp_path, "shipped", dashboard.load())
    broken = dashboard.load()
    by_type = {panel["type"]: panel for panel in broken["panels"]}
    by_type["stat"]["options"]["colorMode"] = "rainbow"
    by_type["timeseries"]["fieldConfig"]["defaults"]["custom"]["drawStyle"] = "lines"
    by_type["table"]["targets"][0]["legend"] = "x"
    broken["refreshh"] = "1m"
    written(tmp_path, "broken", broken)
    options = ["--strict", "--noEmit", "--skipLibCheck", "--target", "es2022", "--module", "nodenext"]
    argv = ["node", str(modules / "typescript" / "bin" / "tsc"), *options, "shipped.ts", "broken.ts"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    assert [line for line in said if not line.startswith("broken.ts")] == [], done.stderr
    for word in ('"rainbow"', '"lines"', '"legend"', '"refreshh"'):
        assert sum(word in line for line in said) == 1, done.stdout
    assert len(said) == 4, done.stdout


def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    """Each expression, its variables filled in, is one to promtool."""
    with present():
        tool = promtool()
    rules = [
        {"record": f"dashboard:{number}", "expr": query.filled(**FILLED)}
        for number, query in enumerate(dashboard.queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([tool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
