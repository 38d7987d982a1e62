"""``--json`` of every verb: one document on standard output with the keys and types that DESIGN §7 promises."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.drd_site import Site
from tests.support.trading_site import ENGINES, POSTGRES, REDIS, SOURCES, BackedUp, Platform

pytestmark = pytest.mark.e2e

MAYBE_TEXT = (str, type(None))
MAYBE_NUMBER = (int, float, type(None))
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
BACKUP = {
    "id": str,
    "source": str,
    "engine": str,
    "kind": str,
    "parent": MAYBE_TEXT,
    "outcome": str,
    "recovery_point": str,
    "plain_bytes": int,
    "stored_bytes": int,
    "duration_s": (int, float),
    "warnings": list,
}


def demand(document: dict[str, Any], shape: dict[str, Any]) -> None:
    """Fail unless the document has all keys of the shape with values of these types."""
    for key, kind in shape.items():
        assert key in document, f"no {key} in {sorted(document)}"
        assert isinstance(document[key], kind), f"{key} is {document[key]!r}"
        assert kind is int or not isinstance(document[key], bool) or kind is bool, f"{key} is a truth value"


@pytest.fixture
def site(backed_up: BackedUp, tmp_path: Path) -> Site:
    """Give a site over the shared store, which it only reads."""
    return backed_up.site.at(tmp_path)


def test_backup_now(backed_up: BackedUp, platform: Platform) -> None:
    """``backup now``: a line a source, sizes, rows that are right, a time that lies inside the run."""
    document = backed_up.run.json
    assert document["outcome"] == "ok"
    assert [line["source"] for line in document["backups"]] == list(SOURCES)
    for line in document["backups"]:
        demand(line, BACKUP)
        assert line["engine"] == ENGINES[line["source"]]
        assert (line["kind"], line["parent"], line["outcome"]) == ("full", None, "ok")
        assert TIME.fullmatch(line["recovery_point"])
        assert 0 < line["stored_bytes"] < line["plain_bytes"]
        for warning in line["warnings"]:
            demand(warning, {"code": str, "message": str})
    rows = {line["source"]: line["rows"] for line in document["backups"]}
    truth = platform.truth
    assert rows[POSTGRES] == sum(n for name, (n, _) in truth.items() if name.startswith("trading_platform."))
    assert rows[REDIS] == truth["redis"][0]
    assert sum(rows.values()) == sum(n for n, _ in truth.values())


def test_list_and_show(site: Site, backed_up: BackedUp) -> None:
    """``list`` has the same lines; ``show`` is the manifest itself."""
    lines = site("list", "--json").succeeds().json["backups"]
    taken = {line["id"]: line for line in backed_up.run.json["backups"]}
    assert {line["id"] for line in lines} == set(taken)
    for line in lines:
        demand(line, BACKUP)
        assert (line.pop("growth"), line.pop("odd")) == (None, [])  # the first backup: nothing to compare it with
        of_the_run = {"warnings", "duration_s", "kind_reason"}
        assert {k: v for k, v in line.items() if k not in of_the_run} == {
            k: v for k, v in taken[line["id"]].items() if k not in of_the_run
        }
    one = site("list", REDIS, "--json").succeeds().json["backups"]
    assert [line["id"] for line in one] == [backed_up.ids[REDIS]]
    manifest = site("show", backed_up.ids[REDIS], "--json").succeeds().json
    shape = {"schema_version": int, "artifacts": list, "started_at": str, "finished_at": str, "repository_id": str}
    demand(manifest, shape | {"recipients": list, "tools": dict, "facts": dict, "lease_generation": int})
    for artifact in manifest["artifacts"]:
        demand(artifact, {"name": str, "parts": list})
        for part in artifact["parts"]:
            demand(part, {"key": str, "plain_bytes": int, "stored_bytes": int, "stored_sha256": str})
            assert (site.store_dir / part["key"]).stat().st_size == part["stored_bytes"]


def test_manifests_give_nothing_away(backed_up: BackedUp) -> None:
    """No manifest names a table, a key, a database's row or a secret; only the fingerprint does, encrypted."""
    documents = [path for path in backed_up.site.store_dir.rglob("*.json") if path.is_file()]
    assert len(documents) >= 4
    for path in documents:
        text = path.read_text()
        backed_up.site.demand_no_secret(text, str(path))
        for name in ("strategy_executions", "api_keys", "users", "password_hash"):
            assert name not in text, path


def test_verify(site: Site, backed_up: BackedUp) -> None:
    """``verify``: an outcome, and for each backup its problems, here none."""
    for more in ([], ["--deep"]):
        document = site("verify", *more, "--json").succeeds().json
        demand(document, {"outcome": str, "backups": list, "unfinished": list, "deep": bool})
        assert (document["outcome"], document["unfinished"], document["deep"]) == ("ok", [], bool(more))
        assert {(line["id"], line["outcome"]) for line in document["backups"]} == {
            (backup_id, "ok") for backup_id in backed_up.ids.values()
        }
        assert all(line["problems"] == [] for line in document["backups"])


def test_check(site: Site) -> None:
    """``check``: items of the store, the keys, the spool and every source, none failed."""
    document = site("check", "--json").succeeds().json
    demand(document, {"outcome": str, "items": list})
    for item in document["items"]:
        demand(item, {"name": str, "outcome": str, "detail": str, "hint": str})
        assert item["outcome"] in {"ok", "warning"}, item
        assert item["detail"], item
        assert item["hint"] or item["outcome"] == "ok", item
    names = [item["name"] for item in document["items"]]
    assert {"encryption", "identity", "spool", "repository"} <= set(names)
    assert set(SOURCES) <= {name.partition(":")[0] for name in names}
    assert any(name.startswith("store: ") for name in names)


def test_status(site: Site, backed_up: BackedUp) -> None:
    """``status``: per source the newest backup, its age, the window; what this release lacks is null."""
    document = site("status", "--json").succeeds().json
    assert [line["source"] for line in document["sources"]] == list(SOURCES)
    points = [datetime.fromisoformat(backed_up.recovery_point(source)) for source in SOURCES]
    assert datetime.fromisoformat(document["recoverable_to"]) == min(points)
    for line in document["sources"]:
        demand(line, {"backups": int, "damaged": int, "newest": dict, "age_s": (int, float), "window": dict})
        assert line["newest"]["id"] == backed_up.ids[line["source"]]
        assert line["window"]["start"] == line["window"]["end"] == line["newest"]["recovery_point"]
        assert line["age_s"] > 0
        assert (line["last_drill"], line["next_run"], line["configured"]) == (None, None, True)


def test_restore_dry_run(site: Site, backed_up: BackedUp) -> None:
    """``restore --dry-run``: the plan, with the gap between what was asked and what there is."""
    document = site("restore", "--at", "now", "--dry-run", "--json").succeeds().json
    assert document["outcome"] == "planned"
    at = datetime.fromisoformat(document["at"])
    for line in document["restores"]:
        demand(line, {"source": str, "backup": str, "target": str, "outcome": str, "duration_s": (int, float)})
        assert line["backup"] == backed_up.ids[line["source"]]
        gap = at - datetime.fromisoformat(line["recovery_point"])
        assert line["gap_s"] == pytest.approx(gap.total_seconds(), abs=0.002)
        assert line["outcome"] == "planned"


def test_runbook(site: Site, backed_up: BackedUp) -> None:
    """``runbook``: the script, whose syntax bash accepts, with every part and no secret."""
    document = site("runbook", backed_up.ids[REDIS], "--json").succeeds().json
    demand(document, {"id": str, "source": str, "script": str})
    plain = site("runbook", backed_up.ids[REDIS]).succeeds()
    assert plain.out == document["script"]
    assert plain.out.startswith("#!/usr/bin/env bash\n")


def test_config(site: Site) -> None:
    """``config show`` has every key and no secret; what it shows, and the file, fit ``config schema``."""
    schema = site("config", "schema").succeeds().json
    shown = site("config", "show", "--json").succeeds().json
    assert shown["sources"][REDIS]["password"] == {"env": "REDIS_PASSWORD"}
    assert shown["pipeline"]["part_size"] == "8MiB"
    jsonschema.Draft202012Validator(schema).validate(site.config)
    valid = site("config", "validate", "--json").succeeds().json
    assert (valid["outcome"], valid["file"]) == ("ok", str(site.config_file))
    site.config["sources"][REDIS]["password"] = site.env["REDIS_PASSWORD"]
    inline = site("config", "show").succeeds()
    assert "********" in inline.out
    assert "sources.trading-redis.password: the secret is written in the configuration" in inline.err


def test_keygen(site: Site) -> None:
    """``keygen``: a key pair that age knows, in a file of mode 600 that is never overwritten."""
    document = site("keygen", "--json", "--output", "key.txt").succeeds().json
    path = site.folder / "key.txt"
    assert path.stat().st_mode & 0o777 == 0o600
    identity = path.read_text().splitlines()[-1]
    assert identity.startswith("AGE-SECRET-KEY-1")
    assert document["recipient"] in path.read_text()
    site.secrets.add(identity)
    site("keygen", "--output", "key.txt").fails(2, "keygen: key.txt exists already; nothing was written")
    assert path.read_text().splitlines()[-1] == identity
    site("keygen", "--output", "no/such/folder/key.txt").fails(2, "cannot write", hint="--output")
