"""The examples of sidecars: the charts that show how drd's container goes into somebody else's pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from drd.cli.main import build_parser
from drd.config import load_text
from tests.support import charts, cluster_rules
from tests.support.cluster_rules import Declared, Object

OUTSIDE = Declared({"Secret": {"shop-postgres", "market-clickhouse"}, "PersistentVolumeClaim": {"data"}})


@pytest.fixture(scope="module", params=["postgres-sidecar", "clickhouse-sidecar"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return charts.assembled(request.param, tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def things(example: Path) -> list[Object]:
    return charts.objects(charts.render({}, example))


def stateful_set(things: list[Object]) -> Object:
    (found,) = (thing for thing in things if thing["kind"] == "StatefulSet")
    return found


def container_of_drd(things: list[Object]) -> dict[str, Any]:
    (found,) = (item for item in cluster_rules.containers(stateful_set(things)) if item["name"] == "drd")
    return found


def test_examples_lint_and_fit_the_schemas(example, things):
    """Helm's lint, with --strict, is silent, and every Kubernetes release takes each object."""
    report = helm.lint(example, {}, strict=True, with_subcharts=True)
    assert [message for message in report["messages"] if message["severity"] > 1] == []
    for thing in things:
        if not thing["apiVersion"].startswith(cluster_rules.FOREIGN):
            for version in cluster_rules.VERSIONS:
                assert cluster_rules.schema_problems(thing, version) == []


def test_objects_of_examples_fit_together(things):
    """Names, selectors, ports, mounts and references are right; the volume of the claim template counts."""
    thing = stateful_set(things)
    claims = [claim["metadata"]["name"] for claim in thing["spec"].pop("volumeClaimTemplates")]
    spec = cluster_rules.template_of(thing)["spec"]
    spec["volumes"] += [{"name": name, "emptyDir": {}} for name in claims]
    assert cluster_rules.problems(things, OUTSIDE) == []
    spec["volumes"] = spec["volumes"][: -len(claims)]
    thing["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": name}} for name in claims]


def test_the_sidecar_runs_drds_daemon(things):
    """The container's command is drd's, and its configuration is valid with the variables it has."""
    container = container_of_drd(things)
    assert build_parser().parse_args(container["args"]).verb == "daemon"
    (text,) = (thing["data"]["drd.yaml"] for thing in things if "drd.yaml" in thing.get("data", {}))
    environ = {item["name"]: str(item.get("value", "x")) for item in container.get("env", [])}
    config = load_text(text, Path("/etc/drd/drd.yaml"), environ)
    for source in config.sources.values():
        assert "127.0.0.1" in source.url
        if source.type == "clickhouse":
            assert source.mode == "disk"
            assert source.disk is not None
            assert str(source.disk.path) in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_clickhouse_and_drd_share_the_volume_of_the_disk(tmp_path):
    """The server's disk, its allowed name and drd's configuration mean one folder of one volume, of one user."""
    things = charts.objects(charts.render({}, charts.assembled("clickhouse-sidecar", tmp_path)))
    spec = cluster_rules.template_of(stateful_set(things))["spec"]
    mounted = [{m["name"]: m["mountPath"] for m in c["volumeMounts"]}["backups"] for c in spec["containers"]]
    assert mounted == ["/backups", "/backups"]
    (xml,) = (thing["data"]["backups.xml"] for thing in things if "backups.xml" in thing.get("data", {}))
    assert "<path>/backups/</path>" in xml
    assert "<allowed_disk>backups</allowed_disk>" in xml
    assert all("runAsUser" not in c.get("securityContext", {}) for c in spec["containers"])
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"]


def test_drd_in_somebody_elses_pod_is_restricted(things):
    """The container of drd has no privileges and writes to volumes alone, and its user is not root."""
    spec = cluster_rules.template_of(stateful_set(things))["spec"]
    alone = {**spec, "containers": [container_of_drd(things)]}
    assert cluster_rules.restriction_problems(alone) == []


def test_a_changed_configuration_restarts_the_sidecar(example, things):
    """The annotation of the pod follows drd's configuration."""
    values = yaml.safe_load((example / "values.yaml").read_text(encoding="utf-8"))
    changed = charts.merged(values, {"drd": {"config": {"daemon": {"grace": "2m"}}}})
    before = cluster_rules.template_of(stateful_set(things))
    after = cluster_rules.template_of(stateful_set(charts.objects(charts.render(changed, example))))
    assert before["metadata"]["annotations"] != after["metadata"]["annotations"]
    assert after["spec"]["terminationGracePeriodSeconds"] == before["spec"]["terminationGracePeriodSeconds"] + 60
