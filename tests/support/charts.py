"""Charts rendered by Helm's own code, without a cluster.

``python -m tests.support.charts`` writes the renders that tests compare with (tests/golden/helm), for `make chart`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "drd"
EXAMPLES = ROOT / "helm" / "examples"
GOLDEN = ROOT / "tests" / "golden" / "helm"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
RELEASE, NAMESPACE = "demo", "backup"

helm.disable_logging()


def case_names() -> list[str]:
    """Return the names of the values that cover every mode and every optional part."""
    return sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


def case(name: str) -> dict[str, Any]:
    """Return the values of one case."""
    return values_of((CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8"))


def values_of(text: str) -> dict[str, Any]:
    """Read values as Helm does."""
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def render(values: Mapping[str, Any], chart: Path = CHART) -> dict[str, str]:
    """Return each template's text as an installation would have it; raises HelmError, also for the schema."""
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(dict(values))
        return loaded.render(dict(values), name=RELEASE, namespace=NAMESPACE)


def objects(rendered: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the objects of a render, in the order of its templates."""
    return [
        document
        for path, text in sorted(rendered.items())
        if not path.endswith("NOTES.txt")
        for document in yaml.load_all(text, Loader=LOADER)  # a SafeLoader
        if document
    ]


def refusal(values: Mapping[str, Any]) -> str:
    """Return why the chart refuses values; fails where it takes them."""
    try:
        render(values)
    except helm.HelmError as error:
        return str(error)
    raise AssertionError("the chart took these values")


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with changes laid over them, mapping into mapping; a null removes what is there."""
    out = dict(values)
    for key, value in changes.items():
        below = out.get(key)
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return out


def assembled(example: str, folder: Path) -> Path:
    """Copy an example with drd's chart as its dependency in place, as ``helm dependency build`` would have it."""
    target = folder / example
    shutil.copytree(EXAMPLES / example, target)
    shutil.copytree(CHART, target / "charts" / "drd")
    return target


def golden_text(name: str) -> str:
    """Return what tests/golden/helm keeps of a case; what comes from config/ by name, as it is compared with that."""
    things = objects(render(case(name)))
    for thing in things:
        if thing["kind"] == "PrometheusRule":
            thing["spec"]["groups"] = [group["name"] for group in thing["spec"]["groups"]]
        if "drd.json" in thing.get("data", {}):
            thing["data"]["drd.json"] = "config/grafana/drd.json"
    return yaml.safe_dump_all(things, sort_keys=False, width=140, allow_unicode=True)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for stem in case_names():
        (GOLDEN / f"{stem}.yaml").write_text(golden_text(stem), encoding="utf-8")
