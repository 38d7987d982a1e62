"""Chains of backups of a real PostgreSQL: what they share, every day's state, and what a lost ancestor does."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest

from devstack import truth
from devstack.load import load_postgres
from devstack.postgres import Postgres
from drd.engines.postgres.format import PostgresFormat
from drd.errors import IntegrityError
from drd.model import Backup
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.chains import KindAsked
from drd.ops.ports import Chaining, Ports, Source
from drd.ops.prune import prune
from drd.ops.runbook import FolderLocation, runbook
from drd.ops.verify import verify
from drd.repository.layout import owner_of
from drd.repository.retention import Policy
from drd.stores.local import LocalStore
from tests.support.bare_shell import BareShell
from tests.support.changed_shop import ranges_of
from tests.support.ports import make_ports
from tests.support.postgres_engine import engine_for

pytestmark = pytest.mark.integration

MIB = 1 << 20


@dataclass
class Shop:
    """The trading platform's database, that lives on from day to day, with its backups in a folder."""

    server: Postgres
    database: str
    ports: Ports
    folder: Path
    read_changed: bool = False
    truths: dict[str, truth.Truth] = field(default_factory=dict)

    def live_on(self, day: int) -> None:
        """Add 2 % orders; change 0.1 % of those that were made last, and remove three old ones."""
        with self.server.connect(self.database) as session:
            (orders,) = session.execute("SELECT count(*) FROM orders").fetchone() or (0,)
            session.execute(
                "INSERT INTO orders SELECT md5(%s || n)::uuid, user_id, exchange, symbol, side, order_type, quantity,"
                " price, status, filled_quantity, avg_fill_price, now(), now()"
                " FROM (SELECT *, row_number() OVER () n FROM orders LIMIT %s) o",
                (f"day {day} ", orders // 50),
            )
            session.execute(
                "UPDATE orders SET status = 'cancelled' WHERE id IN"
                " (SELECT id FROM orders ORDER BY created_at DESC, id LIMIT %s)",
                (orders // 1000,),
            )
            session.execute("DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 3)")

    def backup(self, kind: KindAsked = "auto") -> Backup:
        """Take a backup and remember what the database holds."""
        engine = engine_for(self.server, self.database, read_changed=self.read_changed)
        source = Source("shop", engine, 120.0, chaining=Chaining(86400.0, 9))
        (report,) = back_up(self.ports, [source], kind=kind).sources
        assert report.backup, report.error
        self.truths[report.backup.id] = truth.of_postgres(self.server, self.database)
        return report.backup

    def restored(self, at: datetime, into: str) -> str:
        """Restore to a time, compared with the fingerprint, into a new database; return the backup that was used."""
        target = Source("shop", engine_for(self.server, into), 120.0)
        planned = restoring.plan(self.ports, at, ["shop"], lambda _s, _b: target)
        report = restoring.restore(self.ports, at, planned).restores[0]
        if report.error:
            raise report.error
        return report.backup.id

    def demand(self, backup: Backup, database: str) -> None:
        """Demand that a database holds what the shop held when the backup was taken."""
        found = truth.of_postgres(self.server, database)
        assert {name.partition(".")[2]: facts for name, facts in found.items()} == {
            name.partition(".")[2]: facts for name, facts in self.truths[backup.id].items()
        }


@pytest.fixture
def shop(postgres: Postgres, pg_database: str, tmp_path: Path) -> Shop:
    with postgres.connect(pg_database) as session:
        load_postgres(session, scale=0.4)
    folder = tmp_path / "store"
    ports = make_ports(LocalStore(folder), tmp_path)
    tuning = replace(ports.tuning, part_size_bytes=MIB, memory_limit_bytes=32 * MIB, spool_limit_bytes=64 * MIB)
    ports = replace(ports, tuning=tuning, formats=lambda _kind: PostgresFormat())
    return Shop(postgres, pg_database, ports, folder)


@pytest.mark.parametrize("read", ["all", "changed"])
def test_days_of_a_database(shop: Shop, tmp_path: Path, read: str) -> None:
    """Full, changes, incremental, changes, incremental: little is stored, and each day comes back to its own state."""
    shop.read_changed = read == "changed"
    made = [shop.backup()]
    for day in (1, 2):
        shop.live_on(day)
        made.append(shop.backup())
    assert [backup.kind for backup in made] == ["full", "incremental", "incremental"]
    assert [ranges_of(backup)[0] > 0 for backup in made] == [shop.read_changed] * 3
    assert [backup.parent for backup in made[1:]] == [made[0].id, made[1].id]
    for backup in made[1:]:
        assert backup.stored_bytes < 0.45 * made[0].stored_bytes
    assert verify(shop.ports, [], deep=True).outcome == "ok"
    for number, backup in enumerate(made):
        database = f"{shop.database}_back_{number}"
        try:
            assert shop.restored(backup.recovery_point, database) == backup.id
            shop.demand(backup, database)
        finally:
            shop.server.drop_database(database)
    assert prune(shop.ports, {"shop": Policy(keep_last=1)}, apply=True).sources[0].removed == ()
    _by_runbook(shop, made[-1], tmp_path)
    _without_an_ancestor(shop, made)


def _by_runbook(shop: Shop, backup: Backup, tmp_path: Path) -> None:
    """Restore the newest of a chain by the printed script, in a shell without drd."""
    script = runbook(backup, FolderLocation(str(shop.folder)), PostgresFormat())
    assert backup.parent is not None
    assert backup.parent in script
    shell = BareShell(tmp_path / "bare", [shop.server.bin_dir / name for name in ("psql", "pg_restore")])
    kept = f"{shop.database}_kept"
    with shop.server.connect() as session:
        session.execute(f'ALTER DATABASE "{shop.database}" RENAME TO "{kept}"'.encode())
    try:
        env = {"PGHOST": shop.server.host, "PGPORT": str(shop.server.port), "PGUSER": shop.server.user}
        shell.run(script, env | {"PGPASSWORD": shop.server.password, "DRD_WORK": str(tmp_path / "work")}).succeeds()
        shop.demand(backup, shop.database)
    finally:
        shop.server.drop_database(shop.database)
        with shop.server.connect() as session:
            session.execute(f'ALTER DATABASE "{kept}" RENAME TO "{shop.database}"'.encode())


def _without_an_ancestor(shop: Shop, made: list[Backup]) -> None:
    """Lose a shared part, then a manifest: verify names both, and restore never goes past the time or makes it up."""
    full, second, third = made
    shared = next(p.key for a in third.artifacts for p in a.parts if owner_of(p.key) == full.id)
    shutil.move(shop.folder / shared, shop.folder / "aside")
    damaged = {item.id: item for item in verify(shop.ports, [], deep=False).backups if item.problems}
    assert third.id in damaged
    assert full.id in damaged
    assert shared in {problem.subject for problem in damaged[third.id].problems}
    database = f"{shop.database}_lost"
    with pytest.raises(IntegrityError):
        shop.restored(third.recovery_point, database)
    with shop.server.connect() as session:
        assert not session.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).fetchall()
    shutil.move(shop.folder / "aside", shop.folder / shared)
    manifest = f"backups/shop/{second.id}/manifest.json"
    (shop.folder / manifest).unlink()
    (problem,) = next(item for item in verify(shop.ports, [], deep=False).backups if item.id == third.id).problems
    assert (problem.subject, problem.effect) == (manifest, f"backup {third.id} cannot be restored")
    try:
        assert shop.restored(third.recovery_point, database) == full.id
        shop.demand(full, database)
    finally:
        shop.server.drop_database(database)
    again = shop.backup()
    assert again.parent == full.id
    assert verify(shop.ports, [again.id], deep=True).outcome == "ok"
