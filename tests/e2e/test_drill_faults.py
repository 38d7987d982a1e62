"""Planted faults: each is caught by a drill, named, and judged as what it is; and nothing is left of the scratch."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from drd.engines.redis.rdb.crc import crc64
from tests.e2e.conftest import MakeDrill
from tests.support.drd_site import Site
from tests.support.drill_site import details, judged, left_behind, outcomes, settings_of, until_said
from tests.support.forged import forge
from tests.support.trading_site import CLICKHOUSE, POSTGRES, REDIS, SOURCES, BackedUp

EMPTY_RDB = b"REDIS0010\xff"


def largest_part(site: Site, source: str) -> Path:
    return max((site.store_dir / "backups" / source).rglob("*.age"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("source", SOURCES)
def test_one_flipped_bit(make_drill: MakeDrill, source: str) -> None:
    """A bit flips in what is stored of each engine: the drill fails and names the object."""
    site = make_drill(source)
    part = largest_part(site, source)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 0x10
    part.write_bytes(data)
    run = judged(site, "failed", 21)
    assert part.name in details(run)


def test_a_missing_part(make_drill: MakeDrill) -> None:
    """An object is gone: the drill fails and names it."""
    site = make_drill(REDIS)
    part = largest_part(site, REDIS)
    part.unlink()
    assert part.name in details(judged(site, "failed", 21))


def test_rows_that_are_not_those_of_the_fingerprint(make_drill: MakeDrill, backed_up: BackedUp) -> None:
    """Rows were lost between fingerprint and backup, every digest fits: the comparison names the table."""
    site = make_drill(POSTGRES)

    def one_row_more(data: bytes) -> bytes:
        document = json.loads(data)
        item = next(value for name, value in document["items"].items() if "orders" in name)
        item["rows"] += 1
        return json.dumps(document).encode()

    forge(site, POSTGRES, backed_up.ids[POSTGRES], "fingerprint.json", one_row_more)
    run = judged(site, "failed", 21)
    assert outcomes(run)["content"] == "failed"
    assert "orders: rows expected" in details(run)


def test_a_byte_that_restore_and_count_do_not_notice(make_drill: MakeDrill, backed_up: BackedUp) -> None:
    """A byte of a ClickHouse column is wrong and every digest of drd fits: reading the parts back finds it."""
    site = make_drill(CLICKHOUSE)

    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            column = max((m for m in packed.getmembers() if m.name.endswith(".bin")), key=lambda m: m.size)
        changed[column.offset_data + column.size // 2] ^= 1
        return bytes(changed)

    forge(site, CLICKHOUSE, backed_up.ids[CLICKHOUSE], "clickhouse/backup.tar", flipped)
    run = judged(site, "failed", 21)
    assert re.search(r"CHECK TABLE|checksum|damaged", details(run), re.IGNORECASE), details(run)


def test_an_empty_redis_that_started_healthy(make_drill: MakeDrill, backed_up: BackedUp) -> None:
    """The snapshot is a valid, empty one: the server is up and well, and the drill fails."""
    site = make_drill(REDIS)
    rdb = EMPTY_RDB + crc64(EMPTY_RDB).to_bytes(8, "little")
    forge(site, REDIS, backed_up.ids[REDIS], "dump.rdb", lambda _data: rdb)
    run = judged(site, "failed", 21)
    assert outcomes(run)["server starts"] == "passed"
    assert outcomes(run)["content"] == "failed"


def test_a_server_of_another_version(make_drill: MakeDrill, backed_up: BackedUp) -> None:
    """There is no server of the backup's version: unverified, and the versions are named."""
    site = make_drill(POSTGRES)
    forge(site, POSTGRES, backed_up.ids[POSTGRES], engine_version="12.22")
    run = judged(site, "unverified", 22)
    assert run["error"]["code"] == "scratch"
    assert "PostgreSQL 12" in details(run)


@pytest.mark.parametrize("where", ["dropped", "stale", "syntax", "wrong", "canary"])
def test_what_a_suite_finds(make_drill: MakeDrill, where: str) -> None:
    """A table that is not there and stale rows fail; a question the server does not understand is unverified."""
    check, verdict, words = {
        "dropped": ({"sql": "SELECT count(*) FROM trades", "at_least": 1}, "failed", "trades"),
        "stale": ({"sql": "SELECT max(created_at) FROM orders", "within": "1s"}, "failed", "stale"),
        "syntax": ({"sql": "SELEKT 1", "equals": 1}, "unverified", "syntax error"),
        "wrong": ({"sql": "SELECT count(*) FROM orders", "equals": -1}, "failed", "expected equal to -1"),
        "canary": ({"sql": "SELECT username FROM users LIMIT 2", "rows": [["a"], ["b"]]}, "failed", "rows differ"),
    }[where]
    site = make_drill(POSTGRES, {"name": "the planted one", **check})
    run = judged(site, str(verdict), 21 if verdict == "failed" else 22)
    assert outcomes(run)["the planted one"] == verdict
    assert [n for n, outcome in outcomes(run).items() if outcome != "passed"] == ["the planted one"]
    assert str(words) in details(run)


def test_a_scratch_server_that_dies_half_way(make_drill: MakeDrill) -> None:
    """The server ends in the middle of the checks: unverified, whatever the check after it would have said."""
    shutdown = 'REDISCLI_AUTH=$DRD_SCRATCH_PASSWORD redis-cli -u "$DRD_SCRATCH_URL" shutdown nosave; true'
    site = make_drill(
        REDIS,
        {"name": "end it", "command": ["sh", "-c", shutdown]},
        {"name": "ask it", "keys": "*", "at_least": 1},
    )
    run = judged(site, "unverified", 22)
    assert "the scratch server ended in the phase check" in details(run)


def test_what_makes_a_drill_impossible(make_drill: MakeDrill, scratch_root: Path) -> None:
    """No identity, too little time, too few bytes: unverified each time, said in the phase in which it showed."""
    site = make_drill(REDIS, budgets={"time": "0.2s"})
    assert "the budget of 0.2 s was used up" in details(judged(site, "unverified", 22))
    settings_of(site)["budgets"] = {"bytes": 10}
    assert "the budget is 10" in details(judged(site, "unverified", 22))
    settings_of(site).pop("budgets")
    del site.config["encryption"]["identity"]
    run = judged(site, "unverified", 22)
    assert "identity" in details(run)
    assert run["error"]["phase"] == "fetch"
    assert left_behind(scratch_root) == []


def test_a_store_that_is_away(make_drill: MakeDrill, backed_up: BackedUp) -> None:
    """Nothing can be read: unverified, exit 22, with the store's own words."""
    site = make_drill(REDIS)
    site.config["store"] = {
        "type": "s3",
        "bucket": "nowhere",
        "endpoint_url": "http://127.0.0.1:1",
        "access_key_id": "x",
        "secret_access_key": {"env": "POSTGRES_PASSWORD"},
        "patience": "1s",
    }
    run = site("drill", "now", "--json")
    assert run.rc == 22, run.described
    assert run.json["verdict"] == "unverified"
    assert run.json["errors"][0]["code"].startswith("store")


def test_a_newest_backup_that_cannot_be_used(make_drill: MakeDrill, backed_up: BackedUp) -> None:
    """The newest manifest is damaged: the drill takes what a restore would, and fails, naming the newer one."""
    site = make_drill(REDIS)
    older = site.store_dir / "backups" / REDIS / backed_up.ids[REDIS]
    newer = older.parent / f"2099{backed_up.ids[REDIS][4:]}"
    shutil.copytree(older, newer)
    (newer / "manifest.json").write_text("{")
    run = judged(site, "failed", 21)
    assert run["backup"] == backed_up.ids[REDIS]
    assert newer.name in details(run)


def test_two_of_one_drill_exclude_each_other(make_drill: MakeDrill) -> None:
    """While one runs, the second is refused with exit 11; afterwards it may run."""
    site = make_drill(REDIS, {"name": "take a while", "command": ["sleep", "6"]})
    first = site.start("drill", "now")
    until_said(first, "provision …")
    second = site("drill", "now", "--json")
    assert second.rc == 11, second.described
    assert second.json["errors"][0]["code"] == "lease_held"
    assert first.finish().rc == 0
