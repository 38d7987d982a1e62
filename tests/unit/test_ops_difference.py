"""What changed between two backups, and the warning that a fresh one holds oddly less."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drd.cli.difference import _print
from drd.cli.main import main
from drd.errors import ConfigError, StoreRefused
from drd.model import Fingerprint
from drd.ops.backup import SourceReport, back_up
from drd.ops.difference import BackupDifference, Change, compare, difference
from drd.ops.ports import Ports, Source
from drd.repository.codec import Codec, recipient_of
from drd.stores.local import LocalStore
from drd.stores.memory import MemoryStore
from drd.stores.wrappers.faulty import Fault, FaultyStore
from tests.golden.make_v1 import IDENTITY
from tests.support.engine import DictEngine
from tests.support.ports import make_ports

NOW = datetime.now(UTC)
OLD = {"orders": b"1\n2\n3\n4\n", "prices": b"a\n", "gone": b"x\n", "same": b"s\n"}
NEW = {"orders": b"1\n", "prices": b"b\n", "new": b"n\nn\n", "same": b"s\n"}


def take(ports: Ports, tables: dict[str, bytes], hour: int, odd_fall: float | None = 0.3) -> SourceReport:
    at = NOW - timedelta(hours=hour)
    source = Source("shop", DictEngine(tables, at=at), 60.0, odd_fall=odd_fall)
    report = back_up(dataclasses.replace(ports, now=lambda: at), [source]).sources[0]
    assert report.error is None
    return report


def test_tables_that_appeared_disappeared_and_changed(tmp_path: Path) -> None:
    """Each table is named with its rows before and after; the same rows with other content are told too."""
    ports = make_ports(MemoryStore(), tmp_path)
    before, after = (take(ports, tables, hour).backup for tables, hour in ((OLD, 2), (NEW, 1)))
    assert before is not None
    assert after is not None
    found = difference(ports, before, after)
    assert found.changes is not None
    assert [(c.name, c.kind, c.rows, c.content) for c in found.changes] == [
        ("gone", "disappeared", (1, None), True),
        ("new", "appeared", (None, 2), True),
        ("orders", "changed", (4, 1), True),
        ("prices", "changed", (1, 1), True),
    ]
    assert found.unchanged == 1
    assert difference(ports, before, before).changes == ()
    with pytest.raises(ConfigError, match="redis"):
        difference(ports, before, dataclasses.replace(after, engine="redis"))


def test_facts_that_are_not_known_are_no_difference() -> None:
    """A count or digest that one side lacks says nothing; bytes that differ do."""
    old = Fingerprint("clickhouse", {"t": {"rows": 5, "content": None, "bytes": 10}}, ("rows", "content"))
    new = Fingerprint("clickhouse", {"t": {"rows": None, "content": "ab", "bytes": 10}}, ("rows", "content"))
    assert compare(old, new) == []
    new.items["t"]["bytes"] = 11
    assert [(c.kind, c.bytes, c.content) for c in compare(old, new)] == [("changed", (10, 11), False)]


def test_a_table_read_in_other_ranges_is_not_said_to_differ(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A digest over ranges says nothing of one over others: with as many rows, whether they are the same is open."""
    ranged = {"rows": 5, "sha256": "aa", "range_rows": [3, 2]}

    def told(**other: object) -> list[tuple[str, bool | None]]:
        old = Fingerprint("postgres", {"t": dict(ranged)}, ("rows", "sha256"))
        new = Fingerprint("postgres", {"t": ranged | {"sha256": "bb"} | other}, ("rows", "sha256"))  # type: ignore[dict-item]
        return [(change.kind, change.content) for change in compare(old, new)]

    assert told() == [("changed", True)]
    assert told(range_rows=[5]) == [("unknown", None)]
    assert told(range_rows=None) == [("unknown", None)]
    assert told(range_rows=[5], sha256="aa") == []
    assert told(range_rows=[5], rows=6) == [("changed", False)]
    ports = make_ports(MemoryStore(), tmp_path)
    backup = take(ports, OLD, 1).backup
    assert backup is not None
    change = Change("t", "unknown", (5, 5), (None, None), content=None)
    found = BackupDifference(backup, backup, (change,), 3)
    monkeypatch.setenv("NO_COLOR", "1")
    _print(found)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  ?  t     5          –     as many rows, perhaps other content: read in other ranges",
        "0 differences; 3 unchanged; 1 not compared",
    ]


def test_without_the_identity_there_are_totals(tmp_path: Path) -> None:
    """Names are encrypted: a host that cannot read them compares totals, and says so."""
    ports = make_ports(MemoryStore(), tmp_path, codec=Codec(1, (recipient_of(IDENTITY),)))
    before, after = (take(ports, tables, hour).backup for tables, hour in ((OLD, 2), (NEW, 1)))
    assert before is not None
    assert after is not None
    found = difference(ports, before, after)
    assert (found.changes, [notice.code for notice in found.notices]) == (None, ["not-decrypted"])


def test_a_backup_that_lost_rows_says_so_and_keeps_saying_so(tmp_path: Path) -> None:
    """The notice comes with the backup, its code stays in the manifest; without a threshold there is none."""
    ports = make_ports(MemoryStore(), tmp_path)
    assert take(ports, OLD, 4).notices == ()
    report = take(ports, {"orders": b"1\n"}, 3)
    assert report.backup is not None
    assert "fewer-rows" in report.backup.warnings
    assert report.backup == ports.catalog.get(report.backup.id)
    (notice,) = [notice for notice in report.notices if notice.code == "fewer-rows"]
    assert "7 before, 1 now" in notice.message
    assert "drd show --diff" in notice.message
    assert take(ports, {}, 2, odd_fall=None).notices == ()


def test_a_role_that_cannot_read_manifests_is_not_stopped(tmp_path: Path) -> None:
    """Where earlier manifests cannot be read the backup is taken all the same, with a notice."""
    store = MemoryStore()
    take(make_ports(store, tmp_path), OLD, 3)
    blind = FaultyStore(store, [Fault("get", key_contains="manifest.json", error=lambda: StoreRefused("no right"))])
    assert [notice.code for notice in take(make_ports(blind, tmp_path), {}, 2).notices] == ["not-compared"]


@pytest.fixture
def drd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give ``drd(*words)``: what the verb prints, over a local store with two backups."""
    store = LocalStore(tmp_path / "store")
    for tables, hour in ((OLD, 2), (NEW | {"orders": b""}, 1)):
        take(make_ports(store, tmp_path), tables, hour)
    config = tmp_path / "drd.yaml"

    def run(*words: str, oddness: str = "30%") -> str:
        config.write_text(f"store: {{type: local, path: store}}\noddness: {{fall: {oddness}}}\n")
        assert main([*words, "--config", str(config)]) == 0
        return capsys.readouterr().out

    return run


def test_list_and_show_tell_it(drd: Callable[..., str]) -> None:
    """``list`` shows growth and names what fell, with the command to look closer, which shows the tables."""
    document = json.loads(drd("list", "--json"))["backups"]
    assert [line["growth"] is None for line in document] == [True, False]
    assert [[fall["code"] for fall in line["odd"]] for line in document] == [[], ["fewer-rows"]]
    text = drd("list")
    assert "7 before, 4 now" in text
    words = text[text.index("drd show --diff") :].split("\n")[0].split()
    shown = drd(*words[1:])
    assert "- " in shown
    for line in ("gone", "disappeared", "4 → 0", "other content", "4 differences; 1 unchanged"):
        assert line in shown
    changes = {change["name"]: change for change in json.loads(drd(*words[1:], "--json"))["changes"]}
    assert changes["new"]["rows"] == {"before": None, "after": 2}
    assert "show --diff" not in drd("list", oddness="90%")
    assert "show --diff" not in drd("list", oddness="null")
