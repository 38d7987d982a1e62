"""What the code base promises about its own shape: layers, sizes, who may read what."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from drd import protocols

ROOT = Path(__file__).parents[2]
MAX_MODULE_LINES = 400
MAX_PROTOCOL_METHODS = 7

PACKAGE = sorted((ROOT / "drd").rglob("*.py"))
MODULES = [*PACKAGE, *sorted((ROOT / "devstack").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

#: Who besides the configuration may read environment variables, and why.
READS_ENVIRONMENT = {
    "drd/config.py": "the one reader",
    "drd/wiring_daemon.py": "systemd names its socket there, and a job's process gets all but that",
    "drd/engines/children.py": "hands a named few on to child processes",
    "drd/cli/render.py": "NO_COLOR and TERM say what the terminal wants",
}
#: Who may read the wall clock; everyone else is handed one.
READS_CLOCK = {
    "drd/wiring.py": "hands the clock to everyone",
    "drd/wiring_drills.py": "hands it to scratch runtimes",
    "drd/wiring_notify.py": "hands the clock to notifiers, which work without the rest",
    "drd/stores/times.py": "the stores' one place, for the clock skew in check",
}
CONFIG_MODULES = ("drd.config",)
MAY_IMPORT_CONFIG = ("drd/config", "drd/wiring", "drd/cli/")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def attributes(path: Path) -> set[str]:
    """Return every dotted name a module uses, such as ``os.environ``."""
    return {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}


def imported(path: Path) -> set[str]:
    """Return every module and name a module imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_imports_run_one_way():
    """The import contracts of pyproject.toml hold."""
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_stays_small(path):
    """No module is longer than a person can keep in mind."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{lines} lines: find the second thing it does and move it out"


def test_every_test_says_what_it_shows():
    """Each test function has a docstring."""
    silent = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in TESTS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_test_files_are_found():
    """A file of tests whose name pytest would not collect is a test that never runs."""
    hidden = [
        name_of(path)
        for path in (ROOT / "tests").rglob("*.py")
        if not path.name.startswith("test_")
        and any(isinstance(n, ast.FunctionDef) and n.name.startswith("test_") for n in tree_of(path).body)
    ]
    assert hidden == []


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_only_the_configuration_reads_the_environment(path):
    """Settings come through drd.config; the few exceptions are listed with a reason."""
    reads = {"os.environ", "os.environb", "os.getenv", "os.getenvb"} & attributes(path)
    hidden = {"os.environ", "os.environb", "os.getenv"} & imported(path)
    assert not (reads | hidden) or name_of(path) in READS_ENVIRONMENT


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_nobody_reads_the_wall_clock_but_who_is_listed(path):
    """Operations, engines and the repository are handed a clock, so a test can set it."""
    used = attributes(path)
    reads = {name for name in used if name in {"datetime.now", "datetime.utcnow", "time.time", "datetime.datetime.now"}}
    assert not reads or name_of(path) in READS_CLOCK


def test_only_the_edge_knows_the_configuration():
    """Engines, stores, operations and the repository get values, never the configuration."""
    guilty = [
        name_of(path)
        for path in PACKAGE
        if not name_of(path).startswith(MAY_IMPORT_CONFIG)
        and any(module.startswith(CONFIG_MODULES) for module in imported(path))
    ]
    assert guilty == []


def test_exceptions_to_the_rules_still_exist():
    """A listed exception whose file is gone or no longer needs it is removed from the list."""
    for path in READS_ENVIRONMENT:
        assert {"os.environ", "os.getenv"} & attributes(ROOT / path), path
    for path in READS_CLOCK:
        assert (ROOT / path).is_file(), path
        assert "datetime.now" in attributes(ROOT / path), path


def test_protocols_stay_small():
    """A protocol has at most seven methods, dunders and attributes aside."""
    found = {
        name: [m for m, value in vars(kind).items() if inspect.isfunction(value) and not m.startswith("_")]
        for name, kind in vars(protocols).items()
        if getattr(kind, "_is_protocol", False) and kind.__module__ == protocols.__name__
    }
    assert "Store" in found
    assert "Engine" in found
    assert {name: methods for name, methods in found.items() if len(methods) > MAX_PROTOCOL_METHODS} == {}


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_no_module_is_a_drawer(path):
    """A module is named by what it is about."""
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
