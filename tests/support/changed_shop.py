"""A database that lives on between backups of which each reads only the page ranges that changed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devstack.postgres import Postgres
from drd.engines.postgres.format import PostgresFormat
from drd.model import FINGERPRINT_ARTIFACT, Backup, Difference, Fingerprint, Notice, compare_fingerprints
from drd.ops import restore as restoring
from drd.ops.backup import back_up
from drd.ops.chains import KindAsked
from drd.ops.ports import Chaining, Ports, Source
from drd.stores.local import LocalStore
from tests.support.ports import make_ports
from tests.support.postgres_engine import engine_for, in_spool

MIB = 1 << 20
ROWS = 4000
# Pages are left room, so that a changed row may stay on its page.
_TABLE = """
CREATE TABLE book (
  id bigint PRIMARY KEY, side side NOT NULL DEFAULT 'buy', pad text NOT NULL DEFAULT repeat('x', 900)
) WITH (fillfactor = 80);
INSERT INTO book (id, side) SELECT n, (CASE n %% 2 WHEN 0 THEN 'buy' ELSE 'sell' END)::side
  FROM generate_series(1, %(rows)s) n;
"""


@dataclass
class ChangedShop:
    """One database, some 600 pages in the table ``book``, with its backups in a folder."""

    server: Postgres
    database: str
    ports: Ports
    work: Path
    settings: dict[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    taken: int = 0

    @classmethod
    def open(cls, server: Postgres, database: str, work: Path, **settings: Any) -> ChangedShop:
        """Make the table, analyzed; the store lies below ``work``."""
        with server.connect(database) as session:
            session.execute("CREATE TYPE side AS ENUM ('buy', 'sell')")
            for statement in _TABLE.split(";\n"):
                if statement.strip():
                    session.execute(statement.encode(), {"rows": ROWS} if "%(" in statement else None)
            session.execute("VACUUM ANALYZE book")
        (work / "spools").mkdir()
        ports = make_ports(LocalStore(work / "store"), work)
        tuning = replace(ports.tuning, part_size_bytes=MIB, memory_limit_bytes=32 * MIB, spool_limit_bytes=64 * MIB)
        return cls(
            server, database, replace(ports, tuning=tuning, formats=lambda _kind: PostgresFormat()), work, settings
        )

    def run(self, *statements: str) -> None:
        """Run statements, each a transaction of its own."""
        with self.server.connect(self.database) as session:
            for statement in statements:
                session.execute(statement.encode())

    def backup(self, kind: KindAsked = "auto") -> Backup:
        """Take a backup that reads only what changed."""
        engine = engine_for(self.server, self.database, read_changed=True, **self.settings)
        source = Source("shop", engine, 120.0, chaining=Chaining(86400.0, 99))
        self.taken += 1  # ids are told apart by the second, and the newest is built on
        later = timedelta(seconds=self.taken)
        ports = replace(self.ports, now=lambda: datetime.now(UTC) + later)
        (report,) = back_up(ports, [source], kind=kind).sources
        assert report.backup, report.error
        self.notices = report.notices
        return report.backup

    def differences(self, backup: Backup) -> list[Difference]:
        """Compare every row of the database as it is now with what the backup says that it holds."""
        with self.ports.reader(backup) as reader, reader.open(FINGERPRINT_ARTIFACT) as stream:
            said = json.loads(stream.read())
        stored = Fingerprint("postgres", said["items"], tuple(said["compared"]), said["version"])
        found = engine_for(self.server, self.database).fingerprint(stored, in_spool(self.work / "spools"))
        return compare_fingerprints(stored, found)

    def restored(self, backup: Backup, into: str) -> None:
        """Restore a backup, compared with its fingerprint, into a new database."""
        target = Source("shop", engine_for(self.server, into), 120.0)
        planned = restoring.plan(self.ports, backup.recovery_point, ["shop"], lambda _s, _b: target)
        report = restoring.restore(self.ports, backup.recovery_point, planned).restores[0]
        if report.error:
            raise report.error
        assert report.backup.id == backup.id


def ranges_of(backup: Backup) -> tuple[int, int]:
    """Return how many page ranges the tables of a backup's only database have, and how many of them it read."""
    databases = backup.facts["databases"]
    assert isinstance(databases, list)
    (facts,) = databases
    assert isinstance(facts, dict)
    ranges, read = facts.get("ranges", 0), facts.get("ranges_read", 0)
    assert isinstance(ranges, int)
    assert isinstance(read, int)
    return ranges, read
