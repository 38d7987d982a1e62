"""PostgreSQL's half of ``drd runbook``: psql, tar and pg_restore."""

from __future__ import annotations

import re
from pathlib import Path

from drd.engines.postgres.connection import TEXT_FORM
from drd.model import Backup, EngineRunbook

_SHELL = Path(__file__).with_name("runbook.sh")
_OLDEST_MAJOR = 12


def runbook(backup: Backup) -> EngineRunbook:
    """Return what restores decoded dumps into a server that lacks their databases."""
    found = [re.fullmatch(r"db-(\d+)/toc\.dat", artifact.name) for artifact in backup.artifacts]
    numbers = sorted(int(match[1]) for match in found if match)
    server = backup.facts.get("server_major")
    return EngineRunbook(
        programs=("tar", "psql", "pg_restore"),
        settings=(
            ("PGHOST, PGPORT", "the PostgreSQL server to restore into: of the same major version or newer"),
            ("PGUSER", "a superuser of it"),
            ("PGPASSWORD", "and its password (or ~/.pgpass)"),
            ("PG_JOBS", "(tables to load side by side; 4)"),
            ("PG_COMPARE", "(no: do not count the rows of every table at the end)"),
        ),
        values={
            "PG_FOLDERS": " ".join(f"db-{number}" for number in numbers),
            "PG_TOOL_MAJOR": str(_major(backup.tools.get("pg_dump", ""))),
            "PG_SERVER_MAJOR": str(server if isinstance(server, int) else _OLDEST_MAJOR),
            "PG_TEXT_FORM": " ".join(f"-c {name}={value}" for name, value in TEXT_FORM.items()),
        },
        shell=_SHELL.read_text(encoding="utf-8"),
    )


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else _OLDEST_MAJOR
