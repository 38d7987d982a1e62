"""Users of ClickHouse with limited rights: what they lack is named first, and what the documentation names suffices."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack.clickhouse import ClickHouse
from drd.engines.clickhouse.client import TARGET, ServerRefusal, as_drd_error
from tests.conftest import StartClickHouse
from tests.support import clickhouse_world
from tests.support.drd_site import ROOT, Site
from tests.support.replace_site import replace_site

pytestmark = pytest.mark.integration

DB = "shop"
PAGE = (ROOT / "docs" / "replace.md").read_text(encoding="utf-8")
NAMED = [line.removesuffix(" TO drd") for line in PAGE.splitlines() if line.startswith("GRANT ")]
REPLACE = ("restore", "--at", "now", "--replace")


@pytest.fixture
def server(start_clickhouse: StartClickHouse) -> ClickHouse:
    """Give a server with a database of every kind of table, and limited users."""
    grants = {
        "drd": NAMED,
        "saver": [f"GRANT SELECT, BACKUP ON {DB}.*", "GRANT SELECT ON system.*"],
        "blind": ["GRANT SELECT ON system.*"],
        "late": [NAMED[0].replace(" ALTER VIEW,", "").replace(" SYSTEM TTL MERGES", " SYSTEM FLUSH"), NAMED[1]],
    }
    made = start_clickhouse(grants=grants)
    clickhouse_world.fill(made, DB, rows=500)
    return made


def test_limited_users(server: ClickHouse, tmp_path: Path) -> None:
    """A backup takes few rights; without those of a replacement it is refused untouched, with them it works."""
    source = {"type": "clickhouse", "url": server.url, "databases": [DB]}
    site = replace_site(tmp_path, "shop", source, server.password)

    def as_user(name: str) -> Site:
        other = site.at(tmp_path / name)
        other.sources["shop"]["url"] = f"http://{name}@{server.host}:{server.port}"
        return other

    as_user("saver")("check").succeeds()
    as_user("saver")("backup", "now").succeeds()
    checked = as_user("reader")("check")
    assert checked.rc == 13
    assert "lacks the right to BACKUP shop" in checked.out
    as_user("blind")("backup", "now").fails(13, "does not show it to this user", hint="GRANT BACKUP, SELECT")

    server.query(f"INSERT INTO {DB}.log VALUES (7)")
    lacking = "SYSTEM TTL MERGES, ALTER VIEW MODIFY QUERY"
    as_user("late")(*REPLACE).fails(13, f"lacks {lacking}", hint=f"GRANT {lacking} ON *.* TO late")
    as_user("reader")(*REPLACE, "--dry-run").fails(13, "lacks INSERT, CREATE, DROP", hint="TABLE ENGINE ON * TO reader")
    assert site("restore", "list", "--json").succeeds().json["restores"] == []

    restore = as_user("drd")(*REPLACE, "--json").succeeds().json["restores"][0]["replaced"]["restore"]
    assert server.query(f"SELECT count() FROM {DB}.log").strip() == "1000"
    as_user("drd")("restore", "undo", restore).succeeds()
    assert server.query(f"SELECT count() FROM {DB}.log").strip() == "1001"
    as_user("drd")("restore", "drop-old", restore).succeeds()
    left = server.query("SELECT name FROM system.databases WHERE startsWith(name, 'drd_') OR match(name, '^shop_')")
    assert left == ""


@pytest.mark.parametrize(
    ("right", "grant"),
    [
        ("CREATE DATABASE ON drd_new_k3f9qa_shop.*", "CREATE DATABASE ON *.*"),
        ("TABLE ENGINE ON Atomic", "TABLE ENGINE ON *"),
        ("SYSTEM MERGES ON drd_new_k3f9qa_shop.`.inner_id.9aa6`", "SYSTEM MERGES ON *.*"),
        ("SELECT(name, total_rows) ON system.parts", "SELECT ON *.*"),
        ("SELECT ON `a b`.`c d`", "SELECT ON *.*"),
        ("READ ON S3", "READ ON S3"),
    ],
)
def test_the_grant_to_type(right: str, grant: str) -> None:
    """A refusal for want of a right says what to grant, not only for the one table that was met first."""
    text = f"u: Not enough privileges. To execute this query, it's necessary to have the grant {right}. (ACCESS_DENIED)"
    assert as_drd_error(ServerRefusal(497, text), TARGET).hint.startswith(f"GRANT {grant} TO u ")
