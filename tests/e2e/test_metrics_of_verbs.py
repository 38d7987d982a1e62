"""Verbs that no daemon runs leave their metrics in a file and in a real Pushgateway, and fail at that without harm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from devstack.pushgateway import Pushgateway
from devstack.workspace import Workspace
from tests.e2e.conftest import MakeSite
from tests.support.services import present
from tests.support.trading_site import POSTGRES, REDIS

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def gateway(workspace: Workspace) -> Iterator[Pushgateway]:
    """Give a Pushgateway."""
    with present():
        server = Pushgateway(workspace).start()
    yield server
    server.stop()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what a text says, by name and labels; without the labels of a push."""
    return {
        (s.name, tuple(sorted((k, v) for k, v in s.labels.items() if k not in {"job", "instance"}))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name.startswith("drd_") and "le" not in s.labels  # which it spells in its own way
    }


def test_a_backup_and_a_failure_are_written_and_pushed(
    make_site: MakeSite, gateway: Pushgateway, tmp_path: Path
) -> None:
    """File and gateway say the same of a good run; after a failed one the last success stands in both."""
    site = make_site(REDIS, POSTGRES)
    file = tmp_path / "drd.prom"
    site.config["metrics"] = {
        "textfile": str(file),
        "pushgateway": {"url": gateway.url, "job": "drd-e2e", "labels": {"instance": "host/1"}},
    }
    run = site("backup", "now", "--json").succeeds()
    sizes = {line["source"]: line["plain_bytes"] for line in run.json["backups"]}
    written, pushed = samples(file.read_text()), samples(gateway.metrics())
    for source in (REDIS, POSTGRES):
        key = (("source", source),)
        assert written["drd_backups", key] == 1
        assert written["drd_backup_plain_bytes", key] == sizes[source]
        assert written["drd_backup_last_attempt_success", key] == 1
        assert time.time() - 300 < written["drd_backup_last_success_timestamp_seconds", key] < time.time()
    assert written.items() <= pushed.items()
    assert 'instance="host/1",job="drd-e2e"' in gateway.metrics()
    assert {name for name, _ in written if name.startswith(("drd_job", "drd_leader", "process_", "python_"))} == set()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".prom", ".tmp"))] == ["drd.prom"]

    site.sources[REDIS]["url"] = "redis://127.0.0.1:1"
    assert site("backup", "now", REDIS).rc == 13
    assert samples(file.read_text())["drd_backup_last_attempt_success", (("source", REDIS),)] == 0
    site.store_dir.rename(site.folder / "elsewhere")
    (site.folder / "store").write_text("a store that cannot be used")
    assert site("backup", "now").rc == 12
    for found in (samples(file.read_text()), samples(gateway.metrics())):
        for source in (REDIS, POSTGRES):
            key = (("source", source),)
            assert found["drd_backup_last_attempt_success", key] == 0
            name = "drd_backup_last_success_timestamp_seconds"
            assert found[name, key] == written[name, key]


def test_prune_verify_and_drill_are_pushed(make_site: MakeSite, gateway: Pushgateway, scratch_root: Path) -> None:
    """By an option alone: each verb's own numbers arrive beside those of the others."""
    site = make_site(REDIS)
    site.config["scratch"] = {"dir": str(scratch_root)}
    site.config["drills"] = {"proof": {"runtime": "process"}}
    site.config["metrics"] = {"pushgateway": {"url": "http://127.0.0.1:1", "job": "drd-verbs"}}
    push = ("--push-gateway", gateway.url)
    site("backup", "now", *push).succeeds()
    for verb in (("prune", "--apply"), ("verify",), ("drill", "now")):
        site(*verb, *push).succeeds()
    found = samples(gateway.metrics())
    key = (("source", REDIS),)
    assert found["drd_prune_kept_backups", key] == 1
    assert found["drd_prune_last_success_timestamp_seconds", key] > 0
    assert found["drd_verify_last_success_timestamp_seconds", key] > 0
    assert found["drd_drill_verdict", (("drill", "proof"), ("source", REDIS), ("verdict", "passed"))] == 1
    assert found["drd_backups", key] == 1


def test_what_cannot_be_sent_changes_nothing(make_site: MakeSite, tmp_path: Path) -> None:
    """No gateway, a folder that is not there, a name that nobody reads, a URL that is none: a warning, exit 0."""
    site = make_site(REDIS)
    away = site("backup", "now", "--push-gateway", "http://127.0.0.1:1").succeeds()
    assert "warning: the Pushgateway http://127.0.0.1:1: cannot be reached" in away.err
    nowhere = site("backup", "now", "--metrics-file", str(tmp_path / "none" / "drd.prom")).succeeds()
    assert "metrics cannot be written" in nowhere.err
    assert "does not end in .prom" in site("prune", "--metrics-file", str(tmp_path / "drd.txt")).succeeds().err
    wrong = site("verify", "--push-gateway", "ftp://127.0.0.1", "--log-format", "json").succeeds()
    assert '"event": "metrics.unsent"' in wrong.err
