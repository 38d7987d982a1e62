"""Chains of backups of a real ClickHouse: what they share, every day's state, and what a lost ancestor does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest

from devstack.clickhouse import ClickHouse
from devstack.s3 import SeaweedS3
from drd.cancel import CancelToken
from drd.engines.clickhouse.format import ClickHouseFormat
from drd.engines.clickhouse.settings import DirectAccess
from drd.errors import IntegrityError
from drd.model import Backup, Secret
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.chains import KindAsked
from drd.ops.ports import Chaining, Ports, Source
from drd.ops.prune import prune
from drd.ops.runbook import FolderLocation, S3Location, runbook
from drd.ops.verify import verify
from drd.repository.codec import Codec, generate_identity
from drd.repository.layout import owner_of
from drd.repository.retention import Policy
from drd.stores.local import LocalStore
from drd.stores.s3 import S3Store
from drd.stores.s3_settings import S3Settings
from tests.support.bare_shell import BareShell
from tests.support.clickhouse_world import add_big_file, engine, fill
from tests.support.ports import make_ports

pytestmark = pytest.mark.integration

MIB = 1 << 20
DAY = """
INSERT INTO {db}.ticks SELECT 'okx', 'SOLUSDT', toDateTime64('2026-03-01 00:00:00', 6) + 86400 * {day} + number / 10,
  150 + number / 1e6, (sipHash64(number, {day}) % 100000) / 1000, 1, number, false FROM numbers({rows})
"""


@dataclass
class Market:
    """A database that lives on from day to day, with its backups in a folder."""

    server: ClickHouse
    target: ClickHouse
    database: str
    ports: Ports
    folder: Path
    mode: dict[str, object] = field(default_factory=dict)
    max_chain: int = 9
    truths: dict[str, dict[str, str]] = field(default_factory=dict)

    def live_on(self, day: int, *, rows: int = 200_000) -> None:
        """Add a day of ticks, in a partition of its own."""
        self.server.query(DAY.format(db=self.database, day=day, rows=rows))

    def backup(self, kind: KindAsked = "auto") -> Backup:
        """Take a backup and remember what the database holds."""
        chaining = Chaining(86400.0, self.max_chain, "full" if self.mode.get("mode") == "direct" else "newest")
        source = Source("market", engine(self.server, self.database, **self.mode), 120.0, chaining=chaining)
        (report,) = back_up(self.ports, [source], kind=kind).sources
        assert report.backup, report.error
        self.truths[report.backup.id] = self.found(self.server)
        return report.backup

    def found(self, server: ClickHouse) -> dict[str, str]:
        """Read every table that merges do not change."""
        out: dict[str, str] = {}
        for name in ("ticks", "big", "log", "performance_metrics"):
            out[name] = server.query(f"SELECT count(), sum(cityHash64(*)) FROM {self.database}.{name}").strip()
        return out

    def restored(self, at: datetime) -> str:
        """Restore to a time on the other server, compared with the fingerprint; return the backup that was used."""
        self.target.query(f"DROP DATABASE IF EXISTS {self.database} SYNC")
        there = Source("market", engine(self.target, **self.mode), 120.0)
        planned = restoring.plan(self.ports, at, ["market"], lambda _s, _b: there)
        report = restoring.restore(self.ports, at, planned).restores[0]
        if report.error:
            raise report.error
        return report.backup.id

    def demand(self, backup: Backup) -> None:
        """Demand that the other server holds what this one held when the backup was taken."""
        assert self.found(self.target) == self.truths[backup.id]


@pytest.fixture
def market(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, clickhouse_database: str, tmp_path: Path
) -> Market:
    fill(clickhouse_source, clickhouse_database)
    add_big_file(clickhouse_source, clickhouse_database, megabytes=17)
    folder = tmp_path / "store"
    ports = make_ports(LocalStore(folder), tmp_path)
    tuning = replace(ports.tuning, part_size_bytes=MIB, memory_limit_bytes=32 * MIB)
    ports = replace(ports, tuning=tuning, formats=lambda _kind: ClickHouseFormat())
    market = Market(clickhouse_source, clickhouse_target, clickhouse_database, ports, folder)
    for day in range(3):
        market.live_on(day)
    return market


def test_days_of_a_database(market: Market, tmp_path: Path) -> None:
    """Full, a day more, a day more and all merged: little is stored, and each comes back to its own state."""
    made = [market.backup()]
    market.live_on(5, rows=50_000)
    made.append(market.backup())
    market.live_on(6, rows=50_000)
    market.live_on(6, rows=50_000)
    market.server.query(f"OPTIMIZE TABLE {market.database}.ticks PARTITION 20260307 FINAL")
    market.server.query(f"ALTER TABLE {market.database}.ticks DROP PARTITION 20260301")
    made.append(market.backup())
    assert [backup.kind for backup in made] == ["full", "incremental", "incremental"]
    assert [backup.parent for backup in made[1:]] == [made[0].id, made[1].id]
    for backup in made[1:]:
        own = sum(p.stored_bytes for a in backup.artifacts for p in a.parts if owner_of(p.key) == backup.id)
        assert own < 0.15 * made[0].stored_bytes
    assert verify(market.ports, [], deep=False).outcome == "ok"
    assert verify(market.ports, [made[-1].id], deep=True).outcome == "ok"
    for backup in made:
        assert market.restored(backup.recovery_point) == backup.id
        market.demand(backup)
    assert prune(market.ports, {"market": Policy(keep_last=1)}, apply=True).sources[0].removed == ()
    _by_runbook(market, made[-1], tmp_path)
    _without_an_ancestor(market, made)


def _by_runbook(market: Market, backup: Backup, tmp_path: Path) -> None:
    """Restore the newest of a chain by the printed script, in a shell without drd."""
    script = runbook(backup, FolderLocation(str(market.folder)), ClickHouseFormat())
    assert backup.parent is not None
    assert backup.parent in script
    market.target.query(f"DROP DATABASE IF EXISTS {market.database} SYNC")
    env = {
        "CLICKHOUSE_URL": f"http://{market.target.host}:{market.target.port}",
        "CLICKHOUSE_USER": market.target.user,
        "CLICKHOUSE_PASSWORD": market.target.password,
        "CLICKHOUSE_BACKUPS": str(market.target.backups_dir),
        "DRD_WORK": str(tmp_path / "work"),
    }
    BareShell(tmp_path / "bare").run(script, env).succeeds()
    market.demand(backup)


def _without_an_ancestor(market: Market, made: list[Backup]) -> None:
    """Lose a shared part, then a manifest: verify names both, and restore makes nothing up."""
    full, second, third = made
    shared = next(p.key for a in third.artifacts for p in a.parts if owner_of(p.key) == full.id)
    shutil.move(market.folder / shared, market.folder / "aside")
    damaged = {item.id: item for item in verify(market.ports, [], deep=False).backups if item.problems}
    assert {full.id, third.id} <= set(damaged)
    assert shared in {problem.subject for problem in damaged[third.id].problems}
    with pytest.raises(IntegrityError):
        market.restored(third.recovery_point)
    left = market.target.query(f"SELECT count() FROM system.databases WHERE name = '{market.database}'")
    assert left.strip() == "0"
    shutil.move(market.folder / "aside", market.folder / shared)
    manifest = f"backups/market/{second.id}/manifest.json"
    (market.folder / manifest).unlink()
    (problem,) = next(item for item in verify(market.ports, [], deep=False).backups if item.id == third.id).problems
    assert (problem.subject, problem.effect) == (manifest, f"backup {third.id} cannot be restored")
    assert market.restored(third.recovery_point) == full.id
    market.demand(full)
    again = market.backup()
    assert (again.kind, again.parent) == ("incremental", full.id)


def test_a_host_that_can_only_encrypt_builds_on_what_it_cannot_read(market: Market) -> None:
    """With a recipient and no identity, the second backup shares the first one's parts; the identity restores both."""
    identity, recipient = generate_identity()
    whole = market.ports
    market.ports = replace(whole, codec=Codec(1, (recipient,)))
    first = market.backup()
    market.live_on(5, rows=50_000)
    second = market.backup()
    assert (second.kind, second.parent) == ("incremental", first.id)
    own = sum(p.stored_bytes for a in second.artifacts for p in a.parts if owner_of(p.key) == second.id)
    assert own < 0.15 * first.stored_bytes
    market.ports = replace(whole, codec=Codec(1, (recipient,), (identity,)))
    assert market.restored(second.recovery_point) == second.id
    market.demand(second)


def test_a_shared_volume_shares_parts_too_and_with_the_gateway(market: Market) -> None:
    """Backups by disk build on each other, and on those that came through the gateway: the files are the same."""
    first = market.backup()
    market.live_on(5, rows=50_000)
    market.mode = {"mode": "disk", "disk_path": market.server.backups_dir}
    second = market.backup("incremental")
    market.live_on(6, rows=50_000)
    third = market.backup("incremental")
    assert [second.parent, third.parent] == [first.id, second.id]
    assert market.restored(third.recovery_point) == third.id
    market.demand(third)


@pytest.fixture
def direct_market(
    clickhouse_source: ClickHouse,
    clickhouse_target: ClickHouse,
    clickhouse_database: str,
    s3: SeaweedS3,
    bucket: str,
    tmp_path: Path,
) -> Iterator[Market]:
    """Give a database with some megabytes that the server itself backs up into a bucket."""
    fill(clickhouse_source, clickhouse_database)
    add_big_file(clickhouse_source, clickhouse_database, megabytes=9)
    keys = Secret(s3.admin.access_key_id), Secret(s3.admin.secret_access_key)
    store = S3Store(
        S3Settings(bucket=bucket, prefix="pre", endpoint_url=s3.url, access_key_id=keys[0], secret_access_key=keys[1])
    )
    ports = replace(make_ports(store, tmp_path), formats=lambda _kind: ClickHouseFormat())
    market = Market(clickhouse_source, clickhouse_target, clickhouse_database, ports, tmp_path / "none")
    market.mode = {"mode": "direct", "direct": DirectAccess(f"{s3.url}/{bucket}/pre", *keys)}
    yield market
    store.close()


def test_the_server_builds_on_the_last_full_backup_in_the_bucket(
    direct_market: Market, s3: SeaweedS3, bucket: str, aws_cli: Path, tmp_path: Path
) -> None:
    """Mode direct: each stores what is new since the full one; all come back by all ways; a lost file is named."""
    market = direct_market
    full = market.backup()
    market.live_on(5, rows=50_000)
    second = market.backup()
    market.live_on(6, rows=50_000)
    third = market.backup("incremental")
    assert [(b.kind, b.parent) for b in (full, second, third)] == [
        ("full", None),
        ("incremental", full.id),
        ("incremental", full.id),
    ]
    assert third.stored_bytes < 0.3 * full.stored_bytes
    assert third.plain_bytes > full.plain_bytes
    secret = s3.admin.secret_access_key.encode()
    assert secret not in market.ports.store.get(f"{third.facts['direct_prefix']}.backup")
    assert verify(market.ports, [], deep=True).outcome == "ok"
    for backup in (full, third, second):
        assert market.restored(backup.recovery_point) == backup.id
        market.demand(backup)
    direct = market.mode
    market.mode = {}
    assert market.restored(third.recovery_point) == third.id
    market.demand(third)
    market.mode = direct
    (pruned,) = prune(market.ports, {"market": Policy(keep_last=1)}, apply=True).sources
    assert pruned.removed == (second.id,)
    _directly_by_runbook(market, third, s3, bucket, aws_cli, tmp_path)

    needed = next(p.key for a in third.artifacts for p in a.parts if p.key.endswith(".bin") and full.id in p.key)
    whole = market.ports.store.get(needed)
    market.ports.store.put(needed, whole[:-1] + bytes([whole[-1] ^ 1]))
    found = {item.id: item for item in verify(market.ports, [third.id], deep=True).backups}
    assert any("of the base: the bytes are not" in problem.message for problem in found[third.id].problems)
    market.ports.store.delete([needed])
    damaged = {item.id for item in verify(market.ports, [], deep=False).backups if item.problems}
    assert damaged == {full.id, third.id}
    again = market.backup()
    assert again.kind == "full"
    market.max_chain = 0
    assert market.backup().kind == "full"


def _directly_by_runbook(
    market: Market, backup: Backup, s3: SeaweedS3, bucket: str, aws_cli: Path, tmp_path: Path
) -> None:
    """Restore an increment by the printed script: the server reads both backups in the bucket."""
    location = S3Location(bucket, "pre", s3.url, "us-east-1", path_style=True)
    script = runbook(backup, location, ClickHouseFormat())
    market.target.query(f"DROP DATABASE IF EXISTS {market.database} SYNC")
    env = {
        "CLICKHOUSE_URL": f"http://{market.target.host}:{market.target.port}",
        "CLICKHOUSE_USER": market.target.user,
        "CLICKHOUSE_PASSWORD": market.target.password,
        "AWS_ACCESS_KEY_ID": s3.admin.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.admin.secret_access_key,
        "DRD_WORK": str(tmp_path / "work"),
    }
    BareShell(tmp_path / "bare", [aws_cli]).run(script, env).succeeds()
    market.demand(backup)


def test_cancelled_while_it_builds_leaves_the_parent_whole(market: Market) -> None:
    """An incremental backup that is cut off is none, and the one before restores."""
    first = market.backup()
    market.live_on(5)
    calls = 0
    cancel = CancelToken()

    def progress(_step: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            cancel.cancel()

    whole = market.ports
    source = Source("market", engine(market.server, market.database), 120.0, chaining=Chaining(86400.0, 9))
    market.ports = replace(whole, cancel=cancel, progress=progress)
    (report,) = back_up(market.ports, [source]).sources
    assert report.outcome == "cancelled"
    market.ports = whole
    assert verify(whole, [], deep=False).outcome == "ok"
    assert market.restored(first.recovery_point) == first.id
    market.demand(first)
