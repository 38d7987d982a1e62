"""What the shipped alert rules promise about themselves: tested both ways, explained, and about metrics that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from drd.cli.main import build_parser
from drd.daemon.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "config" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
FILES = ("drd_rules_test.yml", "drd_rules_slow_test.yml")
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((SHIPPED / "drd_rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
CASES: list[dict[str, Any]] = [
    case for name in FILES for case in yaml.safe_load((SHIPPED / name).read_text(encoding="utf-8"))["tests"]
]
ALWAYS = "DrdWatchdog"


def name_of(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


def test_alerts_have_names_of_their_own() -> None:
    """No two rules are of one name, and none is called as what drd itself tells Alertmanager."""
    names = [name_of(rule) for rule in RULES]
    assert len(names) == len(set(names)) > 25
    told = {"DrdBackupFailed", "DrdBackupShrunken", "DrdDrillNotPassed", "DrdDrillReport"}
    assert not told & set(names)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_an_alert_is_tested_both_ways(rule: dict[str, Any]) -> None:
    """One case makes it fire, one keeps it quiet, and each case says which it is; the watchdog is never quiet."""
    name = name_of(rule)
    fires, quiet = 0, 0
    for case in CASES:
        (asked,) = case["promql_expr_test"]
        if asked["expr"] == f'ALERTS{{alertname="{name}", alertstate="firing"}}':
            assert case["name"].startswith(f"{name} {'fires' if asked['exp_samples'] else 'stays quiet'} "), case[
                "name"
            ]
            assert case["input_series"] or name == ALWAYS or "at all" in case["name"]
            fires += bool(asked["exp_samples"])
            quiet += not asked["exp_samples"]
    assert fires, "no case fires"
    assert quiet or name == ALWAYS, "no case stays quiet"


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_an_alert_says_all_that_a_person_needs(rule: dict[str, Any]) -> None:
    """Severity, a label to route by, summary, description, what to do, and a page of its own that is in the index."""
    labels, notes = rule["labels"], rule["annotations"]
    if name_of(rule) == ALWAYS:
        assert labels == {"severity": "none", "drd": "watchdog"}
    else:
        assert labels["severity"] in {"critical", "warning"}
        assert labels["drd"] == "state"
        assert notes["action"]
        assert rule["for"]
    assert len(notes["summary"]) < 110
    assert len(notes["description"]) > 80
    page = ROOT / notes["runbook_url"]
    assert page.parent == RUNBOOKS
    assert f"`{name_of(rule)}`" in page.read_text(encoding="utf-8")
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| \[{page.stem}\]\({page.name}\) \|.*`{name_of(rule)}`", index, re.MULTILINE)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_texts_name_only_labels_that_the_alert_has(rule: dict[str, Any]) -> None:
    """A label that the expression does not keep would be an empty word in a mail."""
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    grouped = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    kept = {label.strip() for labels in grouped[:1] for label in labels.split(",")} or {"job", "instance"}
    if name_of(rule) == "DrdReplicaDown":  # the series of up itself, not those that it is compared with
        kept = {"job", "instance"}
    assert used <= kept


@pytest.mark.parametrize("rule", [rule for rule in RULES if "action" in rule["annotations"]], ids=name_of)
def test_what_to_do_can_be_typed(rule: dict[str, Any]) -> None:
    """Each command of drd in an alert's action is one that drd understands."""
    action = re.sub(r"\{\{.*?\}\}", "NAME", rule["annotations"]["action"])
    for command in action.split("; "):
        if command.startswith("drd "):
            assert callable(build_parser().parse_args(shlex.split(command)[1:]).run)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_an_alert_asks_for_metrics_that_drd_has(rule: dict[str, Any]) -> None:
    """Each drd_ name of an expression is one of drd's metrics, and every label it groups by is one of theirs."""
    labels = {family.name: set(family.labels) for family in FAMILIES}
    named = set(re.findall(r"\bdrd_\w+", rule["expr"]))
    assert named <= labels.keys()
    if named:
        known = {"job", "namespace", "instance", "exported_job"}.union(*(labels[name] for name in named))
        for kept in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"]):
            assert {label.strip() for label in kept.split(",")} <= known


def test_every_runbook_belongs_to_an_alert() -> None:
    """No page is left over from an alert that is gone."""
    named = {ROOT / rule["annotations"]["runbook_url"] for rule in RULES}
    assert set(RUNBOOKS.glob("*.md")) - {RUNBOOKS / "README.md"} == named
    explained = set(re.findall(r"`(Drd\w+)`", (RUNBOOKS / "README.md").read_text(encoding="utf-8")))
    assert explained == {name_of(rule) for rule in RULES}


def test_the_page_on_monitoring_lists_every_alert() -> None:
    """docs/monitoring.md has a line for each alert with its severity and its runbook."""
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    listed = {found[:3] for found in re.findall(r"(?m)^\| \[`(Drd\w+)`\]\(([\w/.-]+)\) \| (\w+) \|", text)}
    assert listed == {
        (name_of(rule), rule["annotations"]["runbook_url"].removeprefix("docs/"), rule["labels"]["severity"])
        for rule in RULES
    }
