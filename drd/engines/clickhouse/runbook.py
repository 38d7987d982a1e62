"""ClickHouse's half of ``drd runbook``: the server's own RESTORE, asked for by curl."""

from __future__ import annotations

from pathlib import Path

from drd.engines.clickhouse.access import KINDS
from drd.engines.clickhouse.increments import prefix_recorded
from drd.model import Backup, EngineRunbook

_SHELL = Path(__file__).with_name("runbook.sh")
_METADATA = "clickhouse/metadata/"


def runbook(backup: Backup) -> EngineRunbook:
    """Return what lays the backup where the server reads it, or names the bucket, restores it and checks all tables."""
    direct = backup.facts.get("mode") == "direct"
    prefix = backup.facts.get("direct_prefix")
    access = backup.facts.get("access")
    return EngineRunbook(
        programs=("curl",) if direct else ("curl", "tar", "find"),
        settings=(
            ("CLICKHOUSE_URL", "the server to restore into, such as http://127.0.0.1:8123 (its databases absent)"),
            ("CLICKHOUSE_USER", "who may RESTORE there (default: default)"),
            ("CLICKHOUSE_PASSWORD", "and the password"),
            *(_DIRECT if direct else _PACKED),
        ),
        values={
            "CLICKHOUSE_VERSION": backup.engine_version,
            "CLICKHOUSE_DIRECT": "yes" if direct else "no",
            "CLICKHOUSE_DIRECT_PREFIX": prefix if isinstance(prefix, str) else "",
            "CLICKHOUSE_DIRECT_BASE_PREFIX": prefix_recorded(backup) or "",
            "CLICKHOUSE_DATABASES": "\n".join(_databases(backup)),
            "CLICKHOUSE_ACCESS": " ".join(kind for kind in access if kind in KINDS) if isinstance(access, list) else "",
        },
        shell=_SHELL.read_text(encoding="utf-8"),
    )


_PACKED = (
    ("CLICKHOUSE_BACKUPS", "a folder the server reads backups from (backups, allowed_path), with room for this one"),
    ("CLICKHOUSE_SERVER_PATH", "(the same folder as the server sees it, if that is another path)"),
    ("CLICKHOUSE_DISK", "(the name of the disk that the folder is, if it is an allowed_disk)"),
)
_DIRECT = (
    ("CLICKHOUSE_S3_URL", "(the bucket's URL as the server sees it, if that differs: http://host:port/bucket)"),
    ("CLICKHOUSE_S3_KEY", "(a key for the server; default: AWS_ACCESS_KEY_ID)"),
    ("CLICKHOUSE_S3_SECRET", "(and its secret)"),
)


def _databases(backup: Backup) -> list[str]:
    """Return the databases of a direct backup as the server spells them in file names; others are told by the tar."""
    names = [a.name.removeprefix(_METADATA) for a in backup.artifacts if a.raw and a.name.startswith(_METADATA)]
    return sorted({name.split("/")[0].removesuffix(".sql") for name in names})
