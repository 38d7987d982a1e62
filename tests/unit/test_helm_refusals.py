"""What the chart refuses, so that nobody finds out at night; and what it must go on taking."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from pydantic import BaseModel

from drd.config_model import Config
from drd.config_values import SecretRef
from drd.timing import parse_cron
from tests.support import charts, cluster_rules

DAEMON = charts.case("daemon")
CRON = charts.case("cronjob")
PASSWORD = "hunter2-correct-horse"


def changed(base: dict[str, Any], text: str) -> dict[str, Any]:
    return charts.merged(base, yaml.safe_load(text))


UNKNOWN = [
    "{replicas: 2}",
    "{image: {registry: docker.io}}",
    "{cronjob: {schedule: '0 * * * *'}}",
    "{spool: {sizeLimit: 1Gi}}",
    "{networkPolicy: {egress: []}}",
    "{networkPolicy: {databases: {from: []}}}",
    "{serviceMonitor: {namespace: monitoring}}",
    "{secretEnv: {POSTGRES_PASSWORD: {secretName: shop, key: password}}}",
    "{secretFiles: [{secretName: x, mountPath: /x}]}",
    "{config: {sorces: {}}}",
    "{config: {daemon: {port: 8088}}}",
    "{config: {sources: {shop: {type: postgres, url: 'postgresql://a/b', paswort: {env: X}}}}}",
    "{config: {schedules: {hourly: {crom: '0 * * * *'}}}}",
]


@pytest.mark.parametrize("change", UNKNOWN)
def test_unknown_keys_are_refused(change):
    """A key that does not exist is an error of the schema, in the chart's values as in drd's configuration."""
    why = charts.refusal(changed(DAEMON, change))
    assert "additional properties" in why or "oneOf" in why or "missing propert" in why


WRONG = [
    ("{mode: job}", "/mode"),
    ("{replicaCount: 3}", "/replicaCount"),
    ("{image: {pullPolicy: Sometimes}}", "/image/pullPolicy"),
    ("{image: {digest: 'sha256:12'}}", "/image/digest"),
    ("{cronjob: {concurrencyPolicy: forbid}}", "/cronjob/concurrencyPolicy"),
    ("{cronjob: {backoffLimit: -1}}", "/cronjob/backoffLimit"),
    ("{spool: {type: hostPath}}", "/spool/type"),
    ("{spool: {size: 2GiB}}", "/spool/size"),
    ("{service: {type: External}}", "/service/type"),
    ("{service: {port: 0}}", "/service/port"),
    ("{suites: {'a/b.yaml': x}}", "invalid propertyName 'a/b.yaml'"),
    ("{config: {schedules: {hourly: {do: restore}}}}", "/config/schedules/hourly/do"),
]


@pytest.mark.parametrize(("change", "where"), WRONG)
def test_wrong_values_are_refused_by_their_path(change, where):
    """The schema says where the wrong value stands."""
    assert where in charts.refusal(changed(DAEMON, change))


def secret_fields(model: type[BaseModel] = Config) -> set[str]:
    """Return the name of each field of the configuration, at any depth, that holds a secret."""
    found: set[str] = set()
    for name, info in model.model_fields.items():
        text = repr(info.annotation) + repr(info.metadata)
        if SecretRef.__name__ in text:
            found.add(name)
        for other in _models(info.annotation):
            found |= secret_fields(other)
    return found


def _models(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for item in getattr(annotation, "__args__", ()) for model in _models(item)}


def test_the_chart_knows_every_secret_of_the_configuration():
    """The keys that the template guards are the fields of drd's models that hold secrets."""
    text = (charts.CHART / "templates" / "_checks.tpl").read_text(encoding="utf-8")
    listed = set(text.split('define "drd.secretKeys" -}}\n')[1].split("\n")[0].split())
    assert listed == secret_fields()


@pytest.fixture(scope="module")
def chart_without_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the chart as --skip-schema-validation has it."""
    folder = tmp_path_factory.mktemp("chart") / "drd"
    shutil.copytree(charts.CHART, folder, ignore=shutil.ignore_patterns("values.schema.json"))
    return folder


INLINE = [
    "{config: {sources: {trading-postgres: {password: PASSWORD}}}}",
    "{config: {store: {secret_access_key: PASSWORD}}}",
    "{config: {encryption: {identity: PASSWORD}}}",
    "{config: {encryption: {identity: [{env: X}, PASSWORD]}}}",
    "{config: {daemon: {token: PASSWORD}}}",
    "{config: {alertmanager: {urls: ['http://a'], credentials: PASSWORD}}}",
    "{config: {sources: {trading-postgres: {url: 'postgresql://admin:PASSWORD@pg/x'}}}}",
    "{config: {sources: {trading-postgres: {url: 'mysql://admin:PASSWORD@pg/x'}}}}",
    "{config: {sources: {trading-postgres: {url: 'postgresql://admin:PASSWORD@pg/x', oops: 1}}}}",
    "{config: {store: {endpoint_url: 's3://admin:PASSWORD@s3'}}}",
    "{config: {encryption: {recipients: [AGE-SECRET-KEY-1PASSWORD]}}}",
]


@pytest.mark.parametrize("change", INLINE)
def test_secrets_in_the_values_are_refused_and_not_repeated(change, chart_without_schema):
    """A secret written into config stops the release, also without the schema's help, and no message shows it."""
    values = changed(DAEMON, change.replace("PASSWORD", PASSWORD))
    assert PASSWORD not in charts.refusal(values)
    with pytest.raises(helm.HelmError, match="a secret is written in the values") as raised:
        charts.render(values, chart_without_schema)
    assert PASSWORD not in str(raised.value)


REFUSED = [
    (DAEMON, "{config: {store: null}}", "config.store: required"),
    (DAEMON, "{existingSecret: ''}", "config names the variable CLICKHOUSE_PASSWORD, and nothing gives it"),
    (DAEMON, "{ingress: {enabled: true, host: a.example, existingSecret: tls}}", "set config.daemon.token"),
    (DAEMON, "{config: {daemon: {token: {env: T}}}, ingress: {enabled: true}}", "host and existingSecret"),
    (DAEMON, "{replicaCount: 2, spool: {type: claim}}", "cannot be shared by 2 pods"),
    (DAEMON, "{serviceMonitor: {enabled: true}, podMonitor: {enabled: true}}", "scrape every pod twice"),
    (DAEMON, "{config: {daemon: {listen: '127.0.0.1:8088'}}, serviceMonitor: {enabled: true}}", "cannot be reached"),
    (
        DAEMON,
        "{config: {daemon: {token: {file: /run/t}}}, serviceMonitor: {enabled: true}}",
        "name its Secret by tokenSecret",
    ),
    (DAEMON, "{config: {drills: {d: {suite: suites/none.yaml}}}}", "suites/none.yaml is not among the values' suites"),
    (CRON, "{config: {schedules: {often: {interval: 15m}}}}", "config.schedules.often.interval: Kubernetes"),
    (CRON, "{config: {drills: {often: {interval: 7d}}}}", "config.drills.often.interval: Kubernetes"),
    (CRON, "{config: {schedules: {sunday: {cron: '0 1 * * 7'}}}}", "config.schedules.sunday.cron: Kubernetes"),
    (CRON, "{config: {schedules: {never: {cron: '0 1 *'}}}}", "config.schedules.never.cron: five fields"),
    (CRON, "{config: {schedules: null, drills: null}}", "nothing would ever run"),
    (CRON, "{spool: {type: claim}}", "spool.type: claim needs spool.existingClaim"),
    (CRON, "{podDisruptionBudget: {enabled: true}}", "mode cronjob has no Service"),
    (CRON, "{prometheusRule: {enabled: true}}", "mode cronjob has none"),
    (charts.case("sidecar"), "{networkPolicy: {enabled: true}}", "its policy, is yours"),
    (charts.case("sidecar"), "{podMonitor: {selector: null}}", "podMonitor.selector: required"),
]


@pytest.mark.parametrize(("base", "change", "message"), REFUSED)
def test_what_could_not_work_is_refused_in_words(base, change, message):
    """A combination that cannot work stops the release and says what to write instead."""
    assert message in charts.refusal(changed(base, change))


def test_two_schedules_that_would_share_a_name_are_refused():
    """Names of CronJobs are made of two names; where that is ambiguous, nothing is overwritten in silence."""
    base = changed(charts.case("cronjob-per-source"), "{config: {schedules: null, drills: null}}")
    clash = """config:
  sources: {a-b: {type: redis, url: "redis://r"}, b: {type: redis, url: "redis://r"}}
  schedules:
    x: {cron: "0 1 * * *", sources: [a-b]}
    x-a: {cron: "0 1 * * *", sources: [b]}
"""
    assert "give CronJobs of one name, demo-drd-backup-x-a-b: rename one" in charts.refusal(changed(base, clash))


def test_no_secret_of_the_surroundings_is_in_a_render(monkeypatch):
    """What stands in the environment of whoever renders is in no object: secrets are references."""
    monkeypatch.setenv("POSTGRES_PASSWORD", PASSWORD)
    for name in charts.case_names():
        rendered = "".join(charts.render(charts.case(name)).values())
        assert PASSWORD not in rendered
        assert "kind: Secret\n" not in rendered


def test_values_of_the_first_release_are_still_taken():
    """Every value that chart 0.1.0 had is one today: an upgrade with old values is not refused."""
    first = yaml.safe_load((charts.GOLDEN / "values-0.1.0.yml").read_text(encoding="utf-8"))
    charts.render(charts.merged(charts.merged(first, DAEMON), {"mode": "daemon"}))


def test_selectors_can_never_change():
    """Kubernetes refuses an upgrade that changes a Deployment's selector: it is that of the first release."""
    for name in ("daemon", "daemon-full"):
        things = charts.objects(charts.render(charts.case(name)))
        (deployment,) = (thing for thing in things if thing["kind"] == "Deployment")
        assert deployment["metadata"]["name"] == "demo-drd"
        assert deployment["spec"]["selector"]["matchLabels"] == {
            "app.kubernetes.io/name": "drd",
            "app.kubernetes.io/instance": "demo",
            "app.kubernetes.io/component": "daemon",
        }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 1 * * 7", "weekday '7'"),
        ("60 1 * * *", "minute '60'"),
        ("0 1 * *", "not five fields"),
        ("0 5-3 * * *", "hour '5-3'"),
        ("0 1 * foo *", "month 'foo'"),
        ("*/0 1 * * *", "minute '*/0'"),
    ],
)
def test_the_rules_see_wrong_cron_lines(line, problem):
    """The rules that renders are held to refuse what Kubernetes would."""
    (found,) = cluster_rules.cron_problems(line)
    assert problem in found
    assert cluster_rules.cron_problems("0,30 */2 1-15 jan-mar mon,wed") == []


BREAKS = [
    ("Deployment", lambda d: d["spec"]["selector"]["matchLabels"].update(x="y"), "selects nothing"),
    ("Service", lambda d: d["spec"]["ports"][0].update(targetPort="web"), "port web is none of"),
    ("Deployment", lambda d: d["spec"]["template"]["spec"].update(serviceAccountName="gone"), "ServiceAccount gone"),
    ("Deployment", lambda d: d["spec"]["strategy"].update(type="Rolling"), "strategy.type: Rolling"),
    ("Service", lambda d: d["spec"]["selector"].update(x="y"), "selects nothing"),
    ("ConfigMap", lambda d: d["metadata"].update(name="other"), "refers to ConfigMap demo-drd-config"),
    ("Service", lambda d: d["metadata"]["labels"].update(a="not a label"), "label a"),
]


@pytest.mark.parametrize(("kind", "break_it", "problem"), BREAKS)
def test_the_rules_see_objects_that_do_not_fit(kind, break_it, problem):
    """The rules that renders are held to find what is broken on purpose."""
    things = charts.objects(charts.render(DAEMON))
    break_it(next(thing for thing in things if thing["kind"] == kind))
    declared = cluster_rules.Declared({"Secret": {"drd"}})
    assert any(problem in found for found in cluster_rules.problems(things, declared))


def firings(line: str, start: datetime, days: int) -> list[datetime]:
    """Return when a line fires, by the plainest of readings."""
    cron = parse_cron(line)
    moments = (start + timedelta(minutes=n) for n in range(days * 1440))
    return [
        at
        for at in moments
        if at.minute in cron.minutes
        and at.hour in cron.hours
        and at.month in cron.months
        and (not cron.days or at.day in cron.days)
        and (not cron.weekdays or at.isoweekday() % 7 in cron.weekdays)
    ]


def test_jitter_moves_a_line_and_loses_no_run():
    """Moved by jitter, a line fires as often as before and later by less than the jitter."""
    lines = ["0 * * * *", "59 23 * * *", "30 1 * * *", "50 23 * * mon", "*/15 * * * *", "10-20/5 3 * * *", "0 0 1 * *"]
    base = changed(charts.case("cronjob-per-source"), "{config: {schedules: null, drills: null}}")
    schedules = {f"s{n}": {"cron": line, "jitter": "40m", "sources": ["s"]} for n, line in enumerate(lines)}
    source = {"s": {"type": "redis", "url": "redis://r"}}
    things = charts.objects(charts.render(charts.merged(base, {"config": {"sources": source, "schedules": schedules}})))
    moved = {t["metadata"]["name"].split("-")[3]: t["spec"]["schedule"] for t in things if t["kind"] == "CronJob"}
    assert len(set(moved.values())) > 4
    start = datetime(2026, 1, 1)  # noqa: DTZ001  # of no zone: only distances matter
    for number, line in enumerate(lines):
        before = firings(line, start, 62)
        after = firings(moved[f"s{number}"], start, 62)
        late = [b - a for a, b in zip(before, after, strict=False)] if before[0] <= after[0] else []
        wrapped = len(before) - len(after)
        assert abs(wrapped) <= 1, (line, moved[f"s{number}"])
        assert all(timedelta(0) <= gap < timedelta(minutes=41) for gap in late), (line, moved[f"s{number}"])
