"""``drd prune``, ``pin`` and ``retention.auto`` through the command line, on a real S3 store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.drd_site import Site
from tests.support.trading_site import REDIS

pytestmark = pytest.mark.e2e

LAST_ONE = {"keep_last": 1, "keep_within": None, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """Give a site with Redis alone, its store in S3, and rules that keep one backup."""
    made = make_site(REDIS, store="s3")
    made.config["retention"] = dict(LAST_ONE)
    return made


def ids(site: Site) -> list[str]:
    """List the backups there are."""
    return [item["id"] for item in site("list", "--json").succeeds().json["backups"]]


def test_plan_pin_and_apply(site: Site) -> None:
    """A plan removes nothing; a pin saves a backup from --apply; unpinned it goes, and the newest verifies."""
    for _ in range(2):
        site("backup", "now").succeeds()
    first, second = sorted(ids(site), key=lambda id_: site("show", id_, "--json").json["recovery_point"])
    plan = site("prune", "--json").succeeds().json
    assert not plan["applied"]
    assert [item["id"] for item in plan["remove"]] == [first]
    assert {item["id"]: item["reasons"] for item in plan["keep"]}[second]
    assert "drd prune --apply" in site("prune").succeeds().out
    assert len(ids(site)) == 2
    site("pin", first[-6:]).succeeds()
    site("prune", "--apply").succeeds()
    assert len(ids(site)) == 2
    site("unpin", first).succeeds()
    done = site("prune", "--apply", "--json").succeeds().json
    assert [(item["id"], item["removed"]) for item in done["remove"]] == [(first, True)]
    assert ids(site) == [second]
    site("verify", "--deep").succeeds()


def test_auto_prunes_after_a_success_only(site: Site) -> None:
    """With retention.auto the older backup goes after a successful one, and stays when the next one fails."""
    site("backup", "now").succeeds()
    site.config["retention"]["auto"] = True
    run = site("backup", "now", "--json").succeeds()
    assert [item["removed"] for item in run.json["prune"]["remove"]] == [True]
    (only,) = ids(site)
    site.sources[REDIS]["url"] = "redis://127.0.0.1:1"
    site("backup", "now").fails(13)
    assert ids(site) == [only]


def test_rules_that_keep_nothing_are_refused(site: Site) -> None:
    """A policy of zeros is a configuration error with its path, and removes nothing."""
    site("backup", "now").succeeds()
    site.config["retention"] = {**LAST_ONE, "keep_last": 0}
    run = site("prune", "--apply")
    run.fails(2, "retention.keep_last", "no rule keeps anything")
    assert run.text.count("no rule keeps anything") == 1
    site.config["retention"] = dict(LAST_ONE)
    assert len(ids(site)) == 1


def test_unknown_source(site: Site) -> None:
    """A source that is not configured is named, and nothing is done."""
    site("prune", "nobody", "--apply").fails(2, "nobody", hint="configured sources")
