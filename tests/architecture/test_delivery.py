"""What is published, and when: the workflow's image, chart and bill of materials."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
WORKFLOW = yaml.load(TEXT, Loader=yaml.BaseLoader)  # noqa: S506  # all is text: `on` stays a word
TAGGED = "startsWith(github.ref, 'refs/tags/v')"


def steps(job: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = WORKFLOW["jobs"][job]["steps"]
    return found


def test_nothing_is_pushed_but_for_a_tag():
    """Logging in, pushing the image and pushing the chart each ask for a tag, and the tests come first."""
    assert set(WORKFLOW["jobs"]["image"]["needs"]) == set(WORKFLOW["jobs"]) - {"image"}
    assert WORKFLOW["on"]["push"]["tags"] == ["v*"]
    (build,) = (step for step in steps("image") if "build-push-action" in step.get("uses", ""))
    assert build["with"]["push"] == "${{ " + TAGGED + " }}"
    for step in steps("image"):
        if "login" in step.get("uses", "") or "helm push" in step.get("run", ""):
            assert step["if"] == TAGGED


def test_the_image_is_built_as_the_dockerfile_takes_it():
    """Each build argument of the workflow is one of the Dockerfile's, and both architectures are built."""
    (build,) = (step for step in steps("image") if "build-push-action" in step.get("uses", ""))
    given = {line.split("=")[0] for line in build["with"]["build-args"].split("\n") if line}
    known = set(re.findall(r"(?m)^ARG (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8")))
    assert given <= known
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"


def test_dependencies_are_audited_by_the_targets_that_people_call():
    """The workflow runs make sbom and make audit, which read the lock of what the image installs."""
    ran = " ".join(step.get("run", "") for step in steps("dependencies"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("sbom", "audit"):
        assert f"make {target}" in ran
        recipe = re.search(rf"(?ms)^{target}:.*?\n\n", makefile)
        assert recipe is not None
        assert "requirements.lock" in recipe[0]
    assert "--strict" in makefile


def test_versions_agree():
    """Chart, its application version, the image's label and the package are of one version."""
    chart = yaml.safe_load((ROOT / "helm" / "drd" / "Chart.yaml").read_text(encoding="utf-8"))
    package = re.search(r'(?m)^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    image = re.search(r"(?m)^ARG VERSION=(.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert package is not None
    assert image is not None
    assert chart["appVersion"] == chart["version"] == package[1] == image[1]
