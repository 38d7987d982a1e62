"""The PostgreSQL engine around devstack's servers, for tests: dump, restore, compare."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devstack.postgres import Postgres
from drd.cancel import CancelToken
from drd.engines.postgres.engine import PostgresEngine
from drd.engines.postgres.settings import PostgresSettings
from drd.model import FINGERPRINT_ARTIFACT, Backup, Difference, DumpResult, RestoreResult, Secret, compare_fingerprints
from drd.protocols import WorkContext
from tests.support.artifacts import MemoryReader, MemorySink, backup_of, work_context


@dataclass
class Dumped:
    """A dump in memory, as an operation would have stored it."""

    result: DumpResult
    artifacts: dict[str, bytes]
    backup: Backup

    @property
    def reader(self) -> MemoryReader:
        return MemoryReader(self.artifacts)


def engine_for(
    server: Postgres, database: str = "postgres", *, databases: tuple[str, ...] = (), **more: Any
) -> PostgresEngine:
    """Bind an engine to a devstack server."""
    password = more.pop("password", Secret(server.password))
    user = more.pop("user", None)
    url = more.pop("url", None) or url_of(server, database, user=user)
    return PostgresEngine(
        PostgresSettings(url=str(url), password=password, databases=databases, tools_dir=server.bin_dir, **more)
    )


def url_of(server: Postgres, database: str, *, user: object = None) -> str:
    """Write a URL for a database of any name."""
    quoted = "".join(c if c.isalnum() and c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in database)
    return server.url(quoted, user=str(user) if user else None)


def dump_of(engine: PostgresEngine, spool: Path, sink: MemorySink | None = None, **context: Any) -> Dumped:
    """Dump into memory; the fingerprint is stored as an operation would."""
    sink = sink or MemorySink()
    result = engine.dump(sink, in_spool(spool, **context))
    artifacts = dict(sink.artifacts)
    artifacts[FINGERPRINT_ARTIFACT] = json.dumps(asdict(result.fingerprint)).encode()
    return Dumped(result, artifacts, backup_of("postgres", result, artifacts))


def restore_of(engine: PostgresEngine, dumped: Dumped, spool: Path, **context: Any) -> RestoreResult:
    """Restore what was dumped."""
    return engine.restore(dumped.backup, dumped.reader, in_spool(spool, **context))


def differences(engine: PostgresEngine, dumped: Dumped, spool: Path) -> list[Difference]:
    """Compare a live database with the fingerprint of the dump."""
    found = engine.fingerprint(dumped.result.fingerprint, in_spool(spool))
    return compare_fingerprints(dumped.result.fingerprint, found)


def in_spool(spool: Path, **context: Any) -> WorkContext:
    """Make a context with a private folder of its own below ``spool``."""
    folder = spool / f"work-{len(list(spool.iterdir()))}"
    folder.mkdir()
    return work_context(folder, **{"cancel": CancelToken(), **context})


def schema_text(server: Postgres, database: str) -> str:
    """Return what ``pg_dump --schema-only`` says, without what differs from run to run."""
    done = subprocess.run(
        [server.bin_dir / "pg_dump", "--schema-only", "--dbname", url_of(server, database)],
        env={"PGPASSWORD": server.password, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", done.stdout)
