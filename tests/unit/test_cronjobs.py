"""Schedules as CronJobs: `drd plan --kubernetes`, beside the daemon's plans, the chart, and Kubernetes' own schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from drd.cli.main import build_parser, main
from drd.config import load_text
from drd.daemon.cronjobs import line_of, name_of
from drd.timing import Timing, parse_cron, share_of
from tests.support import charts, cluster_rules
from tests.support.cluster_rules import Declared, Object

OUTSIDE = Declared({"Secret": {"drd", "drd-identity"}, "ConfigMap": {"drd"}, "ServiceAccount": {"drd"}})
OPTIONS = ("--image", "registry.example.net/drd:0.1.0", "--namespace", "backup", "--prefix", "demo-drd")
SECRETS = ("--secret", "drd", "--secret-files", "drd-identity=/run/secrets/drd", "--service-account", "drd")
CRON_LINES = ["0 * * * *", "@daily", "30 1 * * *", "50 23 * * mon", "*/15 * * * *", "10-20/5 3 * * *", "0 0 1 * *"]
CRON_LINES += ["5,35 8-18 * * mon-fri", "59 23 * * *", "17 */6 * * *", "0 2 29 2 *", "@weekly", "3 4 1,15 jan-jun sun"]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """Give the chart's example of CronJobs as a file, with every form of cron line in it."""
    config = charts.case("cronjob-per-source")["config"]
    config["sources"]["ticks"] = {"type": "clickhouse", "url": "http://admin@clickhouse:8123"}
    config["schedules"] |= {
        f"line-{number}": {"cron": line, "jitter": "100m", "sources": ["trading-postgres", "ticks"]}
        for number, line in enumerate(CRON_LINES)
    }
    file = tmp_path / "drd.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def planned(file: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[Object]:
    assert main(["plan", "--kubernetes", "--config", str(file), *OPTIONS, *more]) == 0
    return charts.objects({"plan": capsys.readouterr().out})


def test_manifests_fit_kubernetes_and_each_other(configuration, capsys):
    """Every CronJob is what each release of Kubernetes takes, is restricted, and refers to what the options name."""
    things = planned(configuration, capsys, *SECRETS)
    assert len(things) > 30
    assert cluster_rules.problems(things, OUTSIDE) == []
    some = {thing["metadata"]["labels"]["app.kubernetes.io/component"]: thing for thing in things}
    assert sorted(some) == ["backup", "drill", "prune", "verify"]  # all of a kind differ in times and names alone
    for version in cluster_rules.VERSIONS:
        assert [p for thing in some.values() for p in cluster_rules.schema_problems(thing, version)] == []
    for thing in things:
        assert cluster_rules.restriction_problems(cluster_rules.template_of(thing)["spec"]) == []


def test_commands_parse_and_name_one_source_each(configuration, capsys):
    """What a pod is told to do is a command line of drd, for one source or one drill."""
    sources = load_text(configuration.read_text("utf-8"), configuration, {}).sources
    for thing in planned(configuration, capsys):
        (container,) = cluster_rules.containers(thing)
        args = build_parser().parse_args(container["args"])
        assert callable(args.run)
        assert (container["args"][-1] in sources) != (args.verb == "drill")


def test_the_pods_configuration_is_valid_with_its_variables(configuration, capsys):
    """The variables that tell ClickHouse and Redis where the pod is are keys of the configuration."""
    (container,) = cluster_rules.containers(planned(configuration, capsys)[0])
    environ = {
        item["name"]: item.get("value", "10.1.2.3").replace("$(POD_IP)", "10.1.2.3") for item in container["env"]
    }
    config = load_text(configuration.read_text("utf-8"), Path("/etc/drd/drd.yaml"), environ)
    assert config.sources["ticks"].gateway.listen == "10.1.2.3:0"
    assert config.sources["trading_redis.eu"].holder.listen == "10.1.2.3"


def essence(thing: Object) -> dict[str, Any]:
    spec = thing["spec"]
    job = spec["jobTemplate"]["spec"]
    (container,) = cluster_rules.containers(thing)
    return {
        "name": thing["metadata"]["name"],
        "times": parse_cron(spec["schedule"]),
        "zone": spec["timeZone"],
        "late": spec["startingDeadlineSeconds"],
        "deadline": job["activeDeadlineSeconds"],
        "failures": job["podFailurePolicy"],
        "args": container["args"],
        "pod": cluster_rules.template_of(thing)["spec"]["securityContext"],
        "container": container["securityContext"],
        "variables": container["env"],
    }


def test_the_chart_lays_the_same_cron_jobs(configuration, capsys):
    """`drd plan` and the chart agree on name, times, zone, deadlines, command and security of every CronJob."""
    config = yaml.safe_load(configuration.read_text("utf-8"))
    values = {**charts.case("cronjob-per-source"), "config": config}
    laid = [t for t in charts.objects(charts.render(values)) if t["kind"] == "CronJob"]
    ours = {thing["metadata"]["name"]: essence(thing) for thing in planned(configuration, capsys)}
    assert {thing["metadata"]["name"]: essence(thing) for thing in laid} == ours


def test_json_is_one_list(configuration, capsys):
    """With --json all manifests are one object, as kubectl takes it."""
    assert main(["plan", "--kubernetes", "--json", "--config", str(configuration), *OPTIONS]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "List"
    assert {item["kind"] for item in document["items"]} == {"CronJob"}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"schedules": {"often": {"interval": "15m"}}}, (), "schedules.often.interval: Kubernetes"),
        ({"drills": {"often": {"interval": "7d"}}}, (), "drills.often.interval: Kubernetes"),
        ({"schedules": None, "drills": None}, (), "the configuration has no schedules"),
        ({}, ("--secret-files", "drd-identity"), "--secret-files 'drd-identity'"),
        ({}, ("--namespace", "Backup"), "--namespace 'Backup' is no name of Kubernetes"),
        ({}, ("--prefix", "9"), "--prefix '9' is no name"),
    ],
)
def test_what_cannot_be_laid_is_refused(configuration, capsys, change, options, message):
    """An interval, nothing to do, or a wrong name ends with exit 2 and says what is wrong; nothing is printed."""
    config = charts.merged(yaml.safe_load(configuration.read_text("utf-8")), change)
    configuration.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["plan", "--kubernetes", "--config", str(configuration), *OPTIONS, *options]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_a_thousand_sources_are_spread(tmp_path, capsys):
    """A thousand sources of one hourly schedule start in every minute of the hour, and each always in the same."""
    sources = {f"db-{n:04}": {"type": "postgres", "url": f"postgresql://drd@pg-{n}/shop"} for n in range(1000)}
    file = tmp_path / "drd.yaml"
    schedules = {"hourly": {"cron": "0 * * * *", "jitter": "1h"}}
    document = {"store": {"type": "s3", "bucket": "drd-backups"}, "sources": sources, "schedules": schedules}
    file.write_text(json.dumps(document), encoding="utf-8")
    assert main(["plan", "--kubernetes", "--json", "--config", str(file), *OPTIONS]) == 0
    first = json.loads(capsys.readouterr().out)["items"]
    assert first[7]["spec"]["schedule"] == f"{int(60 * share_of('backup/hourly/db-0007'))} * * * *"
    starts = [int(thing["spec"]["schedule"].split()[0]) for thing in first]
    per_minute = [starts.count(minute) for minute in range(60)]
    assert len(first) == 1000
    assert min(per_minute) >= 5
    assert max(per_minute) <= 35


def test_a_line_moves_by_the_share_that_the_daemon_uses():
    """The start of a daily job is moved by jitter times share, past midnight where every day is meant, else not."""
    timing = Timing(cron=parse_cron("50 23 * * *"), jitter_s=3600)
    by = int(60 * share_of("backup/nightly/shop"))
    assert by > 10
    moved = 23 * 60 + 50 + by - 1440
    assert line_of(parse_cron("50 23 * * *"), "backup/nightly/shop", timing) == f"{moved} 0 * * *"
    assert line_of(parse_cron("50 23 * * sun"), "backup/nightly/shop", timing) == "59 23 * * 0"
    assert line_of(parse_cron("0 1 * * *"), "x", Timing(cron=parse_cron("0 1 * * *"))) == "0 1 * * *"


def test_names_are_taken_by_kubernetes_and_stay_apart():
    """Long or odd names are shortened and end in digits of their own."""
    odd = [name_of(("drd", "backup", "hourly", name)) for name in ("a_b", "a.b", "a-b", "x" * 63, "x" * 62)]
    assert len(set(odd)) == 5
    assert all(len(name) <= 52 for name in odd)
    assert odd[2] == "drd-backup-hourly-a-b"
