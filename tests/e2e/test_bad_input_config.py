"""A command line or configuration that is wrong: exit 2, the path, and what was probably meant; nothing is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.drd_site import Site
from tests.support.trading_site import REDIS

pytestmark = pytest.mark.e2e

CONFIG = """
store: {type: local, path: store}
sources:
  trading-redis: {type: redis, url: "redis://127.0.0.1:1", password: {env: REDIS_PASSWORD}}
"""
INTO = ["restore", "--at", "now", "--into", "redis://127.0.0.1:1"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give a site whose configuration tests write as text; it needs no server."""
    made = Site(tmp_path, {}, env={"REDIS_PASSWORD": "secret-of-redis-51ad"}, secrets=["secret-of-redis-51ad"])
    made.config_file.write_text(CONFIG)
    return made


def test_unknown_source(site: Site) -> None:
    """A source that is not configured is named, with those that are."""
    for verb in (["backup", "now"], ["check"], ["restore", "--at", "now", "--source"]):
        run = site(*verb, "trading-redsi", write_config=False)
        run.fails(2, verb[0], "no source is called trading-redsi", hint=REDIS)
    assert not (site.folder / "store").exists()


@pytest.mark.parametrize(
    ("wrong", "path", "suggestion"),
    [
        ("stor: {}", "stor: unknown key", "did you mean store?"),
        ("pipeline: {levle: 3}", "pipeline.levle: unknown key", "did you mean level?"),
        ("pipeline: {level: 99}", "pipeline.level: got 99", "at most 19"),
        ("schedules: {s: {cron: '61 * * * *'}}", "schedules.s.cron: got '61 * * * *'", "0 to 59"),
    ],
)
def test_wrong_keys(site: Site, wrong: str, path: str, suggestion: str) -> None:
    """An unknown key or a bad value is said with its path and what is allowed, by every verb."""
    site.config_file.write_text(f"{CONFIG}{wrong}\n")
    site("list", write_config=False).fails(2, str(site.config_file), path, suggestion, hint="drd config schema")


def test_several_problems_at_once(site: Site) -> None:
    """All problems are said in one go, one line each, still in one error."""
    site.config_file.write_text(CONFIG.replace("password", "pasword").replace("redis://", "rediss//"))
    run = site("config", "validate", write_config=False)
    assert run.rc == 2, run.described
    assert "2 problems" in run.err
    assert "sources.trading-redis.pasword: unknown key; did you mean password?" in run.err
    assert "sources.trading-redis.url: got 'rediss//127.0.0.1:1'" in run.err
    assert run.err.count("✗") == run.err.count("exit 2") == 1


def test_two_sources_with_one_name(site: Site) -> None:
    """The second of two keys with one name does not silently win."""
    double = '  trading-redis: {type: redis, url: "redis://127.0.0.1:2"}\n'
    site.config_file.write_text(CONFIG + double)
    site("list", write_config=False).fails(2, "line 5: trading-redis is given twice (first on line 4)")


def test_secret_that_cannot_be_read(site: Site) -> None:
    """An unset variable or a missing file is exit 2 with the key's path; verbs that need no secret go on."""
    del site.env["REDIS_PASSWORD"]
    run = site("backup", "now", write_config=False)
    run.fails(2, "sources.trading-redis.password: environment variable REDIS_PASSWORD is not set", hint="export")
    site("config", "validate", write_config=False).fails(2, "REDIS_PASSWORD is not set")
    site("status", write_config=False).succeeds()
    site.config_file.write_text(CONFIG.replace("{env: REDIS_PASSWORD}", "{file: /nowhere/password}"))
    site("backup", "now", write_config=False).fails(2, "sources.trading-redis.password", "/nowhere/password")


def test_password_in_a_url(site: Site) -> None:
    """A password in a URL is refused and masked: URLs are printed."""
    site.secrets.add("hunter2-in-url")
    site.config_file.write_text(CONFIG.replace("redis://", "redis://:hunter2-in-url@"))
    site("list", write_config=False).fails(2, "sources.trading-redis.url")


def test_no_configuration(site: Site) -> None:
    """Without any configuration drd says where it looked; a named file must exist."""
    site.config_file.unlink()
    site("list", write_config=False).fails(2, str(site.config_file), "$DRD_CONFIG")
    site("list", "--config", "other.yaml", write_config=False).fails(2, "other.yaml", "--config")
    site.env["DRD_CONFIG"] = ""
    site("list", write_config=False).fails(2, "./drd.yaml", "/etc/drd/drd.yaml", hint="drd.example.yaml")


def test_broken_yaml(site: Site) -> None:
    """YAML that cannot be read is exit 2 with the line."""
    site.config_file.write_text(CONFIG + "  - [")
    site("list", write_config=False).fails(2, str(site.config_file))


@pytest.mark.parametrize(
    ("args", "said", "hint"),
    [
        ([], "VERB", "drd --help"),
        (["frobnicate"], "frobnicate", "drd --help"),
        (["backup"], "required: now", "drd backup --help"),
        (["backup", "now", "--fast"], "--fast", "--help"),
        ([*INTO, "--password-env", "A", "--password-file", "B"], "--password-env or --password-file, not both", ""),
        (["restore", "--at", "now", "--password-env", "A"], "--into URL", ""),
        (["show"], "BACKUP", "drd show --help"),
    ],
)
def test_wrong_command_lines(site: Site, args: list[str], said: str, hint: str) -> None:
    """A wrong command line is an error like every other, and JSON says it too."""
    run = site(*args, write_config=False)
    assert run.rc == 2, run.described
    assert len(run.failures) == 1, run.described
    assert said in run.failures[0].headline, run.described
    assert hint in run.failures[0].hint, run.described


def test_error_as_json(site: Site) -> None:
    """With --json the error is one document on standard output, and the lines for people on standard error."""
    run = site("backup", "now", "nosuch", "--json", write_config=False)
    assert run.rc == 2
    error = json.loads(run.out)["error"]
    assert error == error | {"code": "config", "op": "backup", "subject": "nosuch", "exit_code": 2}
    assert error["message"] == "no source is called nosuch"
    assert error["hint"] == f"configured sources: {REDIS}"
    assert "✗ backup: no source is called nosuch\n" in run.err


def test_environment_overrides(site: Site) -> None:
    """A wrong override is said with the variable's name."""
    site.env["DRD_PIPELINE__LEVEL"] = "many"
    site("list", write_config=False).fails(2, "pipeline.level", "DRD_PIPELINE__LEVEL")
    site.env["DRD_PIPELINE__LEVEL"] = "3"
    assert site("config", "show", "--json", write_config=False).succeeds().json["pipeline"]["level"] == 3
