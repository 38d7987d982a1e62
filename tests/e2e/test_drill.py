"""``drd drill`` on the trading platform's backups, in real scratch servers, with no source that could be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.drd_site import Site
from tests.support.drill_site import SESSION, TRADING_SUITE, with_drills
from tests.support.trading_site import CLICKHOUSE, POSTGRES, REDIS, SOURCES, BackedUp

ALWAYS = {
    POSTGRES: {"server starts", "restored", "stored bytes", "content", "schema", "indexes", "pg_amcheck"},
    REDIS: {"server starts", "restored", "stored bytes", "content", "redis-check-rdb", "every key"},
    CLICKHOUSE: {"server starts", "restored", "stored bytes", "content", "schema", "CHECK TABLE"},
}


@pytest.fixture
def drilled(copied: Site, scratch_root: Path) -> Site:
    """Give a site with the shipped suite, a copy of the store, and no source that could be reached."""
    return with_drills(
        copied,
        scratch_root,
        nightly={"suite": str(TRADING_SUITE), "runtime": "process", "objectives": {"rto": "30m", "rpo": "2d"}},
    )


def test_every_source_is_proven_from_the_store_and_the_identity_alone(drilled: Site, backed_up: BackedUp) -> None:
    """All servers away, no password set, no state: every check passes, and status, list and show tell of it."""
    document = drilled("drill", "now", "--json").succeeds().json
    assert document["verdict"] == "passed"
    assert [run["source"] for run in document["runs"]] == list(SOURCES)
    for run in document["runs"]:
        names = {check["name"] for check in run["checks"]}
        assert names >= ALWAYS[run["source"]]
        assert {check["outcome"] for check in run["checks"]} == {"passed"}, run["checks"]
        assert run["backup"] == backed_up.ids[run["source"]]
        assert set(run["phases"]) == {"choose", "provision", "fetch", "restore", "check"}
        assert run["rto_s"] == pytest.approx(sum(run["phases"].values()), abs=0.01)
        assert run["rpo_s"] > 0
        assert run["over_objective"] == []
    status = drilled("status").succeeds()
    assert "Proven by a drill" in status.out
    lines = drilled("status", "--json").json["sources"]
    assert [line["last_drill"]["verdict"] for line in lines] == ["passed"] * 3
    listed = drilled("drill", "list").succeeds()
    assert "1 of 1 backup proven" in listed.out
    page = drilled.folder / "report.html"
    drilled("drill", "show", document["runs"][0]["run"], "--html", str(page)).succeeds()
    text = page.read_text(encoding="utf-8")
    assert "✓ Passed: trading-postgres" in text
    assert "every order has a user" in text
    assert "http" not in text


def test_in_containers(copied: Site, scratch_root: Path, docker_host: str) -> None:
    """The same in containers of a Docker Engine: all three engines are proven, and no container is left."""
    from tests.support.scratch_sites import DockerSite  # its library is an extra

    docker = DockerSite(docker_host)
    site = with_drills(
        copied, scratch_root, **{f"boxed-{SESSION}": {"runtime": "docker", "limits": {"memory": "1GiB"}}}
    )
    site.config["scratch"] = {"docker": {"host": docker_host, "images": dict(docker.images), "pull": False}}
    document = site("drill", "now", "--json").succeeds().json
    assert [(run["source"], run["verdict"]) for run in document["runs"]] == [(name, "passed") for name in SOURCES]
    assert {run["environment"]["runtime"] for run in document["runs"]} == {"docker"}
    assert docker.leftovers() == []


def test_in_pods(copied: Site, scratch_root: Path, docker_host: str, tmp_path: Path) -> None:
    """The same in pods, through an API server of the tests; from outside the cluster what does not fetch is proven."""
    from tests.support.scratch_sites import KubernetesSite  # its library is an extra

    pods = KubernetesSite(docker_host, tmp_path)
    try:
        site = with_drills(copied, scratch_root, pods={"runtime": "kubernetes", "limits": {"memory": "1GiB"}})
        reach = {"kubeconfig": str(pods.api.kubeconfig), "images": dict(pods.images)}
        site.config["scratch"] = {"kubernetes": {**reach, "own_address": pods.own_address}}
        document = site("drill", "now", "--json").succeeds().json
        assert [(run["source"], run["verdict"]) for run in document["runs"]] == [(name, "passed") for name in SOURCES]
        assert {run["environment"]["runtime"] for run in document["runs"]} == {"kubernetes"}
        site.config["scratch"] = {"kubernetes": reach}
        document = site("drill", "now", "--json").json
        verdicts = {run["source"]: run["verdict"] for run in document["runs"]}
        assert verdicts == {POSTGRES: "passed", REDIS: "passed", CLICKHOUSE: "unverified"}
        assert pods.leftovers() == []
    finally:
        pods.api.close()
