"""Suites and surroundings that try to get more out of a drill than a verdict: each is refused, bounded, or kept out."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from drd.config import load
from drd.config_suite import load_suite
from drd.errors import ConfigError
from tests.e2e.conftest import MakeDrill, write_suite
from tests.support.drill_site import Runtime, details, judged, outcomes, recorded, settings_of
from tests.support.trading_site import POSTGRES, REDIS, SOURCES, Platform

pytestmark = pytest.mark.faults

ELSEWHERE = {
    "PGHOSTADDR": "192.0.2.1",
    "PGHOST": "192.0.2.1",
    "PGPORT": "1",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "PGTARGETSESSIONATTRS": "standby",
    "PGUSER": "nobody",
    "PGSERVICE": "production",
    "PGSERVICEFILE": "pg_service.conf",
    "DOCKER_HOST": "tcp://192.0.2.1:1",
    "CLICKHOUSE_HOST": "192.0.2.1",
    "REDIS_URL": "redis://192.0.2.1",
}


def all_passed(run: dict[str, Any]) -> None:
    """Demand that no check did anything but pass."""
    assert set(outcomes(run).values()) == {"passed"}, details(run)


def test_the_environment_leads_nowhere(make_drill: MakeDrill, process_runtime: Runtime) -> None:
    """Variables that lead libpq and other clients elsewhere do not lead a drill there."""
    site = process_runtime.use(make_drill(REDIS), sources=list(SOURCES))
    (site.folder / "pg_service.conf").write_text("[production]\nhost=192.0.2.1\nport=1\nuser=nobody\n")
    site.env |= ELSEWHERE
    document = site("drill", "now", "--json").succeeds().json
    assert [run["verdict"] for run in document["runs"]] == ["passed"] * 3


def test_no_key_can_name_a_target(make_drill: MakeDrill, platform: Platform) -> None:
    """Neither a drill, its limits, scratch settings nor a suite has a word for another server or a way to one."""
    keys = ("url", "target", "into", "host", "network", "environment", "volumes", "privileged", "command", "password")
    for key in keys:
        site = make_drill(REDIS)
        drill, scratch = settings_of(site), site.config["scratch"]
        for place in (drill, drill.setdefault("limits", {}), scratch, scratch.setdefault("docker", {})):
            if place is scratch.get("docker") and key == "host":
                continue  # of the engine; see the next test
            place[key] = platform.redis_target.url
            site.config_file.write_text(yaml.safe_dump(site.config))
            with pytest.raises(ConfigError, match=rf"\b{key}\b"):
                load(site.config_file)
            del place[key]
        if key != "command":
            suite = write_suite(site, REDIS, {"name": "a", "keys": "*", "at_least": 1, key: "x"})
            with pytest.raises(ConfigError, match=rf"\b{key}\b"):
                load_suite(Path(suite))


def test_a_database_is_no_docker_engine(make_drill: MakeDrill, platform: Platform) -> None:
    """An engine's address that is a database's, and an image that is a URL: unverified, and nothing arrives there."""
    site = make_drill(REDIS)
    with platform.redis_target.client() as client:
        client.set("mine", "untouched")
        before = client.dbsize()
        address = platform.redis_target.url.removeprefix("redis://")
        settings_of(site)["runtime"] = "docker"
        for docker in ({"host": f"tcp://{address}"}, {"host": "nonsense"}, {"host": "ssh://root@192.0.2.1"}):
            site.config["scratch"]["docker"] = docker
            judged(site, "unverified", 22)
        settings_of(site)["runtime"] = "process"
        settings_of(site)["limits"] = {"images": {"redis": platform.redis_target.url}}
        judged(site, "unverified", 22)
        assert (client.get("mine"), client.dbsize()) == (b"untouched", before)


def test_what_a_suite_may_not_do_in_sql(make_drill: MakeDrill, process_runtime: Runtime) -> None:
    """Several statements, statements that write, and ones that give nothing are refused; nothing changes."""
    checks = [
        {"name": "ends its transaction", "sql": "COMMIT; DELETE FROM orders; SELECT 1", "equals": 1},
        {
            "name": "deletes",
            "sql": "WITH gone AS (DELETE FROM orders RETURNING id) SELECT count(*) FROM gone",
            "at_least": 0,
        },
        {"name": "gives nothing", "sql": "SET search_path TO nowhere", "no_rows": True},
        {"name": "a table", "sql": "SELECT o.*, repeat('x', 100000) FROM orders o, orders p", "no_rows": True},
        {"name": "still there", "sql": "SELECT count(*) > 0 FROM orders", "equals": True},
    ]
    run = judged(process_runtime.use(make_drill(POSTGRES, *checks)), "failed", 21)
    found = outcomes(run)
    assert [found[check["name"]] for check in checks] == ["unverified", "unverified", "unverified", "failed", "passed"]
    assert "multiple commands" in details(run)
    assert "read-only transaction" in details(run)
    assert next(c["duration_s"] for c in run["checks"] if c["name"] == "a table") < 10


def test_complaints_hold_no_row(make_drill: MakeDrill, process_runtime: Runtime) -> None:
    """A server quotes the row that it stumbles over: the report does not, unless the suite shows rows."""
    cast = {"name": "a cast", "sql": "SELECT count(username::int) FROM users", "equals": 0}
    dated = {"name": "a date", "sql": "SELECT count(email::date) FROM users", "equals": 0}
    site = process_runtime.use(make_drill(POSTGRES, cast, dated))
    hidden = details(judged(site, "unverified", 22))
    assert 'invalid input syntax for type integer: "…"' in hidden
    assert "@" not in hidden, hidden
    settings_of(site)["suite"] = write_suite(site, POSTGRES, cast, show_rows=True)
    assert re.search(r'type integer: "\w+', details(judged(site, "unverified", 22)))


def test_a_command_cannot_outgrow_its_server(make_drill: MakeDrill, process_runtime: Runtime) -> None:
    """One that forks without end, leaves children behind, and prints a gigabyte: bounded, and all of it ended."""
    forks = "fork() { fork | fork & }; fork; sleep 2"
    leaves = "for n in 1 2 3; do setsid sh -c 'sleep 3600 & sleep 3600' & done; true"
    prints = "yes $(head -c 4000 /dev/zero | tr '\\0' x) | head -c 1000000000; true"
    for name, command in (("leaves", leaves), ("prints", prints), ("forks", forks)):
        began = time.monotonic()
        limits = {"pids": 200}
        site = make_drill(REDIS, {"name": name, "command": ["bash", "-c", command]}, limits=limits)
        run = process_runtime.use(site)("drill", "now")
        assert run.rc == 0 or (name == "forks" and run.rc == 22), run.described  # ended for its limit, or in time
        assert time.monotonic() - began < 60
        assert process_runtime.left() == []


def test_a_command_has_none_of_drds_secrets(make_drill: MakeDrill, runtime: Runtime, platform: Platform) -> None:
    """Beside the scratch server nothing of drd's environment is seen, and as root's drd neither are its files."""
    site = make_drill(REDIS)
    names = "|".join(sorted(platform.environment))
    look = f"! env | grep -E '^({names})=' && ! cat {site.identity_file} && ! cat /etc/shadow"
    site = runtime.use(make_drill(REDIS, {"name": "look", "command": ["sh", "-c", look]}))
    all_passed(judged(site, "passed", 0))


ODD = ["a\x1b[31mred", "zero\u0000byte", "\u202eright to left", "x" * 5000, "\u2028", "<b>&amp;"]


def test_names_of_any_letters(make_drill: MakeDrill, process_runtime: Runtime) -> None:
    """Whatever a suite calls its checks is told and kept without control characters, and nothing stumbles."""
    checks = [{"name": name, "redis": ["ECHO", name], "equals": "no"} for name in ODD]
    with pytest.raises(ConfigError, match="unicode"):
        load_suite(Path(write_suite(make_drill(REDIS), REDIS, {**checks[0], "name": "\ud800"})))
    site = process_runtime.use(make_drill(REDIS, *checks))
    run = site("drill", "now")
    assert "Traceback" not in run.text
    assert "\x1b" not in run.text
    assert "\u202e" not in run.text
    assert run.rc in {21, 22}, run.described
    found = recorded(site)
    assert len([check for check in found["checks"] if check["outcome"] in {"failed", "unverified"}]) == len(ODD)
    assert "\x1b" not in site("drill", "show", found["run"]).succeeds().text
    site("drill", "show", found["run"], "--html", str(site.folder / "r.html")).succeeds()
    assert not {"\0", "\x1b", "\u202e"} & set((site.folder / "r.html").read_text())
