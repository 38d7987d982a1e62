"""What lies in the repository besides code: no secrets, nothing unfinished, documents that agree with the code."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from drd import errors

ROOT = Path(__file__).parents[2]
#: Throw-away keys that the repository must hold, and why.
KNOWN_KEYS = {
    (
        "tests/golden/make_v1.py",
        "an age identity",
    ): "the golden repositories are encrypted to it, and hold made-up data",
}
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|HA" r"CK)\b")
SECRETS = {
    "an age identity": re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    "an AWS access key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]{16}"),
    "a token": re.compile(r"\b(ghp_[A-Za-z0-9]{36}|xox[abp]-[0-9A-Za-z-]{10,}|glpat-[\w-]{20})\b"),
}


def tracked() -> list[Path]:
    """Return the files under version control, or every file of an unpacked source archive that is not a by-product."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0:
        paths = [ROOT / name.decode() for name in done.stdout.split(b"\0") if name]
    else:
        paths = [
            p for p in ROOT.rglob("*") if not any(part.startswith((".", "__")) for part in p.relative_to(ROOT).parts)
        ]
    return [path for path in paths if path.is_file()]


def texts() -> list[tuple[str, str]]:
    found = []
    for path in tracked():
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_nothing_is_left_unfinished():
    """No note to a future self stands in for work that was not done."""
    assert [f"{name}: {match[0]}" for name, text in texts() for match in UNFINISHED.finditer(text)] == []


def test_no_secret_is_committed():
    """Nothing that looks like a real key is in the repository."""
    found = [
        f"{name}: {what}"
        for name, text in texts()
        for what, pattern in SECRETS.items()
        if pattern.search(text) and (name, what) not in KNOWN_KEYS
    ]
    assert found == []


def test_security_names_tests_that_exist():
    """Each test that SECURITY.md gives as proof is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    for path, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (path, test)


def test_error_codes_are_unique():
    """Each error class has its own code, so that a script can tell them apart."""
    codes = [kind.code for kind in error_classes()]
    assert len(codes) == len(set(codes))


def error_classes() -> list[type[errors.DrdError]]:
    return [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.DrdError)]


def documented_codes() -> dict[str, int]:
    """Read the table of codes in docs/exit-codes.md: code to exit code."""
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    return {m[1]: int(m[2]) for m in re.finditer(r"(?m)^\| `([a-z_]+)` \| (\d+) \|", text)}


def test_every_error_is_documented_with_its_exit_code():
    """docs/exit-codes.md and drd/errors.py say the same."""
    assert documented_codes() == {kind.code: kind.exit_code for kind in error_classes()}


def test_every_exit_code_is_explained():
    """Each exit code an error can end with has a line of its own in docs/exit-codes.md."""
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    explained = {int(number) for number in re.findall(r"(?m)^\| \*\*(\d+)\*\* \|", text)}
    assert {0, *(kind.exit_code for kind in error_classes())} <= explained


def test_the_readme_shows_both_commands():
    """The two commands that carry drd are on the first page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "drd backup now" in text
    assert "drd restore --at" in text


def test_documents_link_to_files_that_exist():
    """A relative link in a document leads somewhere."""
    broken = []
    for name, text in texts():
        if not name.endswith(".md"):
            continue
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            if not (ROOT / name).parent.joinpath(target).exists():
                broken.append(f"{name}: {target}")
    assert broken == []


def test_the_lock_file_pins_every_dependency():
    """Each dependency of pyproject.toml is pinned with hashes, and no registry is named."""
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    pinned = {m[1].lower() for m in re.finditer(r"(?m)^([A-Za-z0-9._-]+)==[^ ]+ .*\\\n +--hash=sha256:", lock)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.match(r"[A-Za-z0-9._-]+", item)[0].lower().replace("_", "-") for item in wanted}
    assert names - pinned == set(), "run make lock"
    assert not re.search(r"https?://|--index|--find-links|--extra-index", lock)


def test_ci_calls_the_targets_that_people_call():
    """.ci/run is make check, make test and make demo; the workflow runs .ci/run."""
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert [m[1] for m in re.finditer(r"(?m)^step (\w+)", run)] == ["check", "test", "demo"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert any(step.get("run") == ".ci/run" for step in workflow["jobs"]["all"]["steps"])


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check", "fmt", "bench", "clean", "help"])
def test_the_makefile_has_each_target(target):
    """Each documented target exists and is explained by make help."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"(?m)^{target}:.*## \S", makefile)
