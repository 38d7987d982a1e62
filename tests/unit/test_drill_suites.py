"""Suite files: what is accepted, what is refused in which words; the shipped ones and the schema are current."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from drd.config_suite import load_suite, suite_schema_text
from drd.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "restore_drills").glob("*.yaml"))
SCHEMA = ROOT / "restore_drills" / "suite.schema.json"


def suite_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def check(tmp_path: Path, text: str) -> Path:
    return suite_of(tmp_path, f"version: 1\nsources:\n  shop:\n    - {{name: x, {text}}}\n")


def test_the_schema_file_is_current() -> None:
    """restore_drills/suite.schema.json is what the models generate; make schema writes it."""
    assert SCHEMA.read_text(encoding="utf-8") == suite_schema_text()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_suites_load_and_fit_the_schema(path: Path) -> None:
    """Each suite of the repository is accepted by drd and by any JSON Schema validator."""
    suite = load_suite(path)
    assert suite.by_source or suite.by_engine
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), yaml.safe_load(SCHEMA.read_text()))


def test_suites_of_all_engines_are_shipped() -> None:
    """There is one for the platform and a small one for each kind of database."""
    assert {path.stem for path in SHIPPED} == {"trading", "postgres", "redis", "clickhouse"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sql: SELECT 1", "exactly one of equals"),
        ("equals: 1", "exactly one of sql"),
        ("sql: SELECT 1, keys: a, equals: 1", "exactly one of sql"),
        ("sql: SELECT 1, equals: 1, at_least: 2", "exactly one of equals"),
        ("command: [sh], equals: 1", "has no effect on a command"),
        ("sql: SELECT 1, equals: 1, newest: true", "has no effect without within"),
        ("sql: SELECT 1, within: soon", "duration"),
        ("sql: SELECT 1, at_least: many", "a number"),
        ("sql: SELECT 1, no_rows: false", "allowed"),
        ("sqll: SELECT 1, equals: 1", "did you mean sql?"),
        ("redis: [], equals: 1", "not empty"),
    ],
)
def test_a_check_that_is_not_right_is_refused_with_its_path(tmp_path: Path, text: str, words: str) -> None:
    """Every mistake is a line with the path of the key and what is allowed there."""
    with pytest.raises(ConfigError) as caught:
        load_suite(check(tmp_path, text))
    assert words in caught.value.message
    assert "sources.shop[0]" in caught.value.message
    assert caught.value.exit_code == 2


def test_two_checks_of_one_name_are_refused(tmp_path: Path) -> None:
    """A report must be able to name a check."""
    path = suite_of(
        tmp_path,
        "version: 1\nengines:\n  redis:\n    - {name: a, keys: b, equals: 1}\n    - {name: a, keys: c, equals: 1}\n",
    )
    with pytest.raises(ConfigError, match="another check of that name"):
        load_suite(path)


@pytest.mark.parametrize("text", ["version: 2\nsources: {}", "version: 1", "a: [", "- 1", "version: 1\nversion: 1"])
def test_what_is_no_suite_is_refused(tmp_path: Path, text: str) -> None:
    """Another version, an empty one, no YAML, no mapping, a key twice."""
    with pytest.raises(ConfigError):
        load_suite(suite_of(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_suite(tmp_path / "nowhere.yaml")
