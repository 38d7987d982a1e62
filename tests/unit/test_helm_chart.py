"""The chart: every mode and every optional part, against Kubernetes' schemas and against rules that they lack."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from drd.cli.main import build_parser
from drd.config import load_text, secret_refs
from tests.support import charts, cluster_rules
from tests.support.cluster_rules import Declared, Object

CASES = charts.case_names()
#: What the cases say exists already.
OUTSIDE = Declared(
    {
        "Secret": {"drd", "registry", "shop-db", "drd-page", "drd-identity", "drd-tls", "drd-example-net", "shop"},
        "ConfigMap": {"proxy", "company-ca"},
        "PersistentVolumeClaim": {"backups", "drd-cache"},
        "ServiceAccount": {"backup"},
    }
)


@pytest.fixture(scope="module")
def renders() -> dict[str, list[Object]]:
    return {name: charts.objects(charts.render(charts.case(name))) for name in CASES}


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("helm_generate", charts.ROOT / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def workloads(things: list[Object]) -> list[Object]:
    return [thing for thing in things if thing["kind"] in cluster_rules.WORKLOADS]


def one(things: list[Object], kind: str, name: str = "") -> Object:
    (found,) = (t for t in things if t["kind"] == kind and name in t["metadata"]["name"])
    return found


def test_generated_files_are_current():
    """The schema and the README's table are what `make chart` would write."""
    stale = [
        str(path)
        for path, text in generator().generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == []


def test_every_value_is_explained_and_in_the_schema():
    """Each value of values.yaml has a comment that the README's table is made from, and a place in the schema."""
    values = yaml.safe_load((charts.CHART / "values.yaml").read_text(encoding="utf-8"))
    readme = (charts.CHART / "README.md").read_text(encoding="utf-8")
    leaves = list(_leaves(values, ()))
    assert len(leaves) > 90
    missing = []
    for path in leaves:
        shown = [".".join(path[:n]) for n in range(1, len(path) + 1)]
        if not any(f"| `{name}` |" in readme for name in shown):
            missing.append(".".join(path))
    assert missing == []


def _leaves(node: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in _leaves(value, (*path, key))]
    return [path]


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_each_case_strictly(case):
    """Helm's lint, with --strict, finds nothing, for the oldest Kubernetes and the newest."""
    for version in ("v1.25.0", f"v{cluster_rules.VERSIONS[-1]}.0"):
        report = helm.lint(charts.CHART, charts.case(case), strict=True, kube_version=version)
        assert report["errors"] == []
        assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", cluster_rules.VERSIONS)
def test_objects_fit_the_schemas_of_kubernetes(renders, version):
    """Every object of every case is what that release takes, without unknown keys."""
    checked = [
        problem
        for things in renders.values()
        for thing in things
        if not thing["apiVersion"].startswith(cluster_rules.FOREIGN)
        for problem in cluster_rules.schema_problems(thing, version)
    ]
    assert checked == []


def test_the_cases_have_every_kind_of_object(renders):
    """Nothing that the chart can make is left out of the checks: every template gives something in some case."""
    used = {path for case in CASES for path, text in charts.render(charts.case(case)).items() if text.strip()}
    assert {f"drd/{p.relative_to(charts.CHART)}" for p in (charts.CHART / "templates").rglob("*.yaml")} <= used


@pytest.mark.parametrize("case", CASES)
def test_objects_fit_together(renders, case):
    """Names, labels, selectors, ports, probes, mounts, enums, cron lines and references are right."""
    assert cluster_rules.problems(renders[case], OUTSIDE) == []


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted(renders, case):
    """Each pod keeps to the Pod Security Standard "restricted" and writes to its volumes alone."""
    for thing in workloads(renders[case]):
        assert cluster_rules.restriction_problems(cluster_rules.template_of(thing)["spec"]) == []


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_valid(renders, case):
    """The rendered drd.yaml is taken by drd with the variables that the pod would have, and each of them is given."""
    text = one(renders[case], "ConfigMap", "-config")["data"]["drd.yaml"]
    config = load_text(text, Path("/etc/drd/drd.yaml"), {})
    assert [w for w in config.warnings if "secret is written" in w] == []
    for thing in workloads(renders[case]):
        (container,) = cluster_rules.containers(thing)
        environ = {item["name"]: str(item.get("value", "x")) for item in container.get("env", [])}
        environ = {name: value.replace("$(POD_IP)", "10.1.2.3") for name, value in environ.items()}
        inside = load_text(text, Path("/etc/drd/drd.yaml"), environ)
        for source in inside.sources.values():
            if source.type == "clickhouse" and source.mode == "gateway":
                assert source.gateway.listen.startswith("10.1.2.3:")
            if source.type == "redis":
                assert source.holder.listen != "127.0.0.1"
        named = {ref.shown()["env"] for _, ref in secret_refs(inside) if ref.kind == "env"}
        whole = any("secretRef" in item for item in container.get("envFrom", []))
        assert whole or named <= set(environ)


def test_values_reach_drd_as_they_were_written(renders):
    """Whole numbers stay whole, null stays null, and the suites lie where the configuration says."""
    things = renders["daemon-full"]
    config = load_text(one(things, "ConfigMap", "-config")["data"]["drd.yaml"], Path("/etc/drd/drd.yaml"), {})
    assert config.pipeline.part_size == 8 << 20
    assert config.oddness.fall is None
    suite = config.drills["nightly"].suite
    (container,) = cluster_rules.containers(one(things, "Deployment"))
    mount = next(m for m in container["volumeMounts"] if m["name"] == "drd-suites")
    assert suite == Path(mount["mountPath"]) / "shop.yaml"
    assert "shop.yaml" in one(things, "ConfigMap", "-suites")["data"]


@pytest.mark.parametrize("case", CASES)
def test_commands_are_drds_own(renders, case):
    """What the containers are told to do parses as drd's command line does."""
    for thing in workloads(renders[case]):
        for container in cluster_rules.containers(thing):
            assert callable(build_parser().parse_args(container["args"]).run)


@pytest.mark.parametrize("case", CASES)
def test_notes_name_commands_and_objects_that_exist(renders, case):
    """What NOTES tell people to type names objects of the release and verbs of drd."""
    notes = charts.render(charts.case(case))["drd/templates/NOTES.txt"]
    there = {f"{t['kind'].lower()}/{t['metadata']['name']}" for t in renders[case]}
    for line in notes.splitlines():
        for named in re.findall(r"\b((?:deployment|service|cronjob)/\S+)", line):
            assert named in there
        if " -- drd " in line:
            words = shlex.split(line.split(" -- drd ")[1], comments=True)
            assert callable(build_parser().parse_args(words).run)
    assert "leaves every backup" in notes


def test_the_alert_rules_are_the_repositorys(renders):
    """The PrometheusRule holds the groups of config/prometheus/drd_rules.yml, with runbooks that can be browsed."""
    ours = yaml.safe_load((charts.ROOT / "config" / "prometheus" / "drd_rules.yml").read_text(encoding="utf-8"))
    assert one(renders["sidecar"], "PrometheusRule")["spec"] == ours
    linked = one(renders["daemon-full"], "PrometheusRule")["spec"]["groups"]
    urls = {rule["annotations"]["runbook_url"] for group in linked for rule in group["rules"]}
    assert all(url.startswith("https://git.example.net/drd/blob/main/docs/runbooks/") for url in urls)
    assert [group["name"] for group in linked] == [group["name"] for group in ours["groups"]]


def test_the_dashboard_is_the_repositorys(renders):
    """The ConfigMap for Grafana's sidecar holds config/grafana/drd.json, byte for byte."""
    config_map = one(renders["daemon-full"], "ConfigMap", "-dashboard")
    assert config_map["data"]["drd.json"] == (charts.ROOT / "config" / "grafana" / "drd.json").read_text("utf-8")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_packaged_chart_is_whole(tmp_path):
    """What `helm package` makes renders by itself as the folder does: linked files are in it."""
    archive = Path(helm.package(charts.CHART, destination=tmp_path))
    values = charts.case("daemon-full")
    assert charts.objects(charts.render(values, archive)) == charts.objects(charts.render(values))


def test_prometheus_finds_the_job_and_the_token(renders):
    """The monitors make the job that the alerts expect, and bring the token that the daemon asks for."""
    full = one(renders["daemon-full"], "ServiceMonitor")["spec"]
    assert full["endpoints"][0]["authorization"]["credentials"] == {"name": "drd-page", "key": "token"}
    assert full["endpoints"][0]["scheme"] == "https"
    label = full["jobLabel"]
    assert one(renders["daemon-full"], "Service")["metadata"]["labels"][label] == "drd"
    (relabeling,) = one(renders["sidecar"], "PodMonitor")["spec"]["podMetricsEndpoints"][0]["relabelings"]
    assert relabeling == {"targetLabel": "job", "replacement": "drd"}


def test_network_policies_open_what_the_configuration_names(renders):
    """Egress is DNS and the ports of the configuration's own URLs; ingress is the page and the way back."""
    spec = one(renders["daemon-full"], "NetworkPolicy")["spec"]
    rules = [sorted(port["port"] for port in rule["ports"]) for rule in spec["egress"] if "ports" in rule]
    assert rules == [[53, 53], [9093], [5432, 5433, 6379, 8443, 26379, 26380], [8333], [443, 6443], [3128]]
    opened = [[port["port"] for port in rule["ports"]] for rule in spec["ingress"] if "ports" in rule]
    assert opened == [["drd-http"], [32768]]
    (scratch,) = (rule["to"][0] for rule in spec["egress"] if "ports" not in rule)
    assert [scratch] == [rule["from"][0] for rule in spec["ingress"] if "ports" not in rule]
    assert scratch["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "drd-scratch"}
    job = one(renders["cronjob"], "NetworkPolicy")["spec"]
    assert [sorted(port["port"] for port in rule["ports"]) for rule in job["egress"]] == [[53, 53], [5432, 6379], [443]]


def test_drills_in_pods_have_exactly_the_rights_that_are_documented(renders):
    """The Role is that of docs/drills-kubernetes.md, in the drills' namespace, and the pod has a token for it."""
    things = renders["daemon-full"]
    document = (charts.ROOT / "docs" / "drills-kubernetes.md").read_text(encoding="utf-8")
    wanted = next(
        block for block in re.findall(r"```yaml\n(.*?)```", document, re.DOTALL) if block.startswith("rules:")
    )
    role = one(things, "Role")
    assert role["rules"] == yaml.safe_load(wanted)["rules"]
    assert {t["metadata"]["namespace"] for t in things if t["kind"].startswith("Role")} == {"drd-drills"}
    assert one(things, "RoleBinding")["subjects"][0]["namespace"] == charts.NAMESPACE
    assert one(things, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert one(renders["daemon"], "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    (container,) = cluster_rules.containers(one(things, "Deployment"))
    assert {"name": "DRD_SCRATCH__KUBERNETES__OWN_ADDRESS", "value": "$(POD_IP)"} in container["env"]


def test_the_pod_outlives_the_daemons_grace(renders):
    """Kubernetes waits longer for the end than the daemon's own grace."""
    assert one(renders["daemon-full"], "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 150
    assert one(renders["daemon"], "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120


def test_a_changed_configuration_restarts_the_pod():
    """The checksum in the pod's template follows the configuration and the suites, and nothing else."""
    values = charts.case("daemon-full")

    def checksum(changes: dict[str, Any]) -> str:
        deployment = one(charts.objects(charts.render(charts.merged(values, changes))), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    same = checksum({})
    assert checksum({"service": {"port": 80}}) == same
    assert checksum({"config": {"daemon": {"grace": "2m"}}}) != same
    assert checksum({"suites": {"other.yaml": "version: 1"}}) != same


@pytest.mark.parametrize("case", CASES)
def test_renders_are_as_reviewed(case):
    """Each case renders as tests/golden/helm has it; `make chart` writes them anew, and git diff shows what changed."""
    assert (charts.GOLDEN / f"{case}.yaml").read_text(encoding="utf-8") == charts.golden_text(case)
