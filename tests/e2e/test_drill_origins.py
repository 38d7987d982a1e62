"""Drills of backups whose parts lie in the bucket as a server wrote them, or in the clear."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.e2e.conftest import MakeDrill, MakeSite, write_suite
from tests.support.drd_site import Site
from tests.support.drill_site import ONE, details, judged, outcomes, with_drills
from tests.support.trading_site import CLICKHOUSE, REDIS, Platform, chain_of_numbers


def test_increments_that_the_server_wrote_itself(make_site: MakeSite, platform: Platform, scratch_root: Path) -> None:
    """Mode direct: an increment and its base are proven through drd, as the scratch server gets no key of the bucket.

    One byte that differs in the base's data fails the drill of the increment, and names the object.
    """
    site = make_site(CLICKHOUSE, store="s3")
    site.sources[CLICKHOUSE]["mode"] = "direct"
    kinds = ["full", "incremental", "incremental"]
    database, ids = chain_of_numbers(site, platform.clickhouse, kinds, rows=50_000)
    count = {"name": "rows of three days", "sql": f"SELECT count() FROM {database}.t", "equals": 150_000}
    suite = write_suite(site, CLICKHOUSE, count)
    with_drills(site, scratch_root, **{ONE: {"select": ["latest"], "suite": suite, "runtime": "process"}})
    run = only_run(site, 0)
    assert (run["verdict"], run["backup"], run["chain"]) == ("passed", ids[2], ids[:1]), details(run)
    assert set(outcomes(run).values()) == {"passed"}
    assert {"content", "schema", "CHECK TABLE", "rows of three days"} <= set(outcomes(run))

    client, bucket = platform.s3.client(), site.config["store"]["bucket"]
    listed = client.list_objects_v2(Bucket=bucket, Prefix=f"trading/backups/{CLICKHOUSE}/{ids[0]}/")["Contents"]
    key = max((item for item in listed if item["Key"].endswith(".bin")), key=lambda item: item["Size"])["Key"]
    data = bytearray(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    data[len(data) // 2] ^= 1
    client.put_object(Bucket=bucket, Key=key, Body=bytes(data))
    run = only_run(site, 21)
    assert run["verdict"] == "failed"
    assert "damaged" in details(run), details(run)


def only_run(site: Site, rc: int) -> dict[str, Any]:
    """Drill, demand the exit code, and return the one run."""
    done = site("drill", "now", "--json")
    assert done.rc == rc, done.described
    (run,) = done.json["runs"]
    return dict(run)


def test_what_lies_there_in_the_clear_proves_nothing(make_drill: MakeDrill, platform: Platform, tmp_path: Path) -> None:
    """Where encryption is configured a backup in the clear is refused, also by name; old ones count by choice alone."""
    site = make_drill(REDIS)
    (good,) = (line["id"] for line in site("list", REDIS, "--json").succeeds().json["backups"])
    careless = site.at(tmp_path / "careless")
    del careless.config["encryption"]
    careless.config["sources"] = {REDIS: platform.sources()[REDIS]}
    clear = careless("backup", "now", "--json").succeeds().json["backups"][0]["id"]

    run = judged(site, "failed", 21)
    assert run["backup"] == good, "the newest that counts was drilled"
    assert {name for name, outcome in outcomes(run).items() if outcome != "passed"} == {"newest backup is usable"}
    assert re.search(f"{clear}: .*is not encrypted, though", details(run))

    run = judged(site, "failed", 21, "--backup", clear)
    assert (run["backup"], run["checks"]) == (None, []), "no server was started for it"
    assert "is not encrypted, though" in details(run)

    site.config["encryption"]["accept_clear_before"] = "2999-01-01T00:00:00Z"
    run = judged(site, "passed", 0)
    assert run["backup"] == clear
