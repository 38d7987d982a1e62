"""``drd check`` for a ClickHouse source: one line an item, nothing raised, nothing changed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from drd.engines.clickhouse import access, disk, rights
from drd.engines.clickhouse.client import SOURCE, Server, ServerRefusal, told
from drd.engines.clickhouse.dump import choose_databases
from drd.engines.clickhouse.packindex import NoArtifacts, PackIndex
from drd.engines.clickhouse.packing import MANIFEST_KEY
from drd.engines.clickhouse.quoting import literal, shown
from drd.engines.clickhouse.route import open_gateway, using_bucket
from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.engines.clickhouse.spaces import BackupSpace
from drd.errors import DrdError
from drd.model import CheckItem
from drd.protocols import Clock

OLDEST = (23, 8)
_DEFINITION_ONLY = [
    "Kafka", "RabbitMQ", "NATS", "MySQL", "PostgreSQL", "MongoDB", "Redis", "S3", "S3Queue", "AzureBlobStorage",
    "AzureQueue", "HDFS", "URL", "File", "JDBC", "ODBC", "SQLite", "Hive", "Iceberg", "DeltaLake", "Hudi",
    "Buffer", "Set", "Join", "EmbeddedRocksDB", "MaterializedPostgreSQL", "KeeperMap",
]  # fmt: skip
_PROBE_KEY = "probe"


def check(server: Server, settings: ClickHouseSettings, clock: Clock | None) -> Sequence[CheckItem]:
    """Run every check that the ones before it leave possible."""
    out: list[CheckItem] = []
    if not _try(out, "server", lambda: _server(server, clock), hint="is the url right, and the server up?"):
        return out
    names: list[str] = []
    if _try(out, "databases", lambda: f"{', '.join(choose_databases(server, settings))}"):
        names += choose_databases(server, settings)
        _try(out, "tables", lambda: "looked at", extra=lambda: _tables(server, settings))
    _try(out, "right to back up", lambda: _rights(server, names), hint="GRANT BACKUP ON *.* TO the user")
    _try(out, "users, roles, functions", lambda: "looked at", extra=lambda: _access(server))
    if settings.mode == "gateway":
        _try(out, "way to the gateway", lambda: "looked at", extra=lambda: _gateway(server, settings))
    elif settings.mode == "disk":
        _try(out, "shared volume", lambda: _volume(server, settings))
    else:
        _try(out, "way to the bucket", lambda: _direct(server, settings), hint="see direct: in drd.yaml")
    return out


def _try(
    out: list[CheckItem],
    name: str,
    look: Callable[[], str],
    *,
    extra: Callable[[], list[CheckItem]] | None = None,
    hint: str = "",
) -> bool:
    """Add an item for what ``look`` says (or the items of ``extra``), or for the error it raised."""
    try:
        with told(SOURCE):
            items = extra() if extra else [CheckItem(name, "ok", look())]
    except DrdError as error:
        out.append(CheckItem(name, "failed", error.message, error.hint or hint))
        return False
    out.extend(items)
    return True


def _server(server: Server, clock: Clock | None) -> str:
    version = server.version()
    numbers = tuple(int(n) for n in version.split(".")[:2])
    if numbers < OLDEST:
        raise SOURCE.refused(
            f"ClickHouse {version} is older than {OLDEST[0]}.{OLDEST[1]}",
            hint="BACKUP of whole databases to S3 is too new",
        )
    row = server.rows("SELECT toUnixTimestamp64Milli(now64(3)) AS ms, currentUser() AS user")[0]
    if clock is None:
        return f"ClickHouse {version} at {server.address.netloc} as {row['user']}"
    skew = abs(clock().timestamp() - int(row["ms"]) / 1000)
    if skew > 300:
        raise SOURCE.failed(
            f"the clocks of the server and of this machine differ by {skew:.0f} s", hint="set both by NTP"
        )
    return f"ClickHouse {version} at {server.address.netloc} as {row['user']}, clock skew {skew:.1f} s"


def _rights(server: Server, names: Sequence[str]) -> str:
    """Ask for the right to back up these databases; a server that cannot tell tries it with a table of its own."""
    missing = rights.lacking(server, ["BACKUP"], names) if names else None
    if missing is None:
        server.execute("BACKUP TABLE system.one TO Null")
    elif missing:
        raise SOURCE.refused(f"the user lacks the right to BACKUP {', '.join(names)}")
    return "BACKUP is allowed"


def _tables(server: Server, settings: ClickHouseSettings) -> list[CheckItem]:
    """Warn of tables whose data BACKUP does not hold."""
    names = {"names": choose_databases(server, settings), "engines": _DEFINITION_ONLY}
    rows = server.rows(
        "SELECT database, name, engine FROM system.tables "
        "WHERE database IN {names:Array(String)} AND engine IN {engines:Array(String)}",
        names,
    )
    out = [
        CheckItem(
            f"table {shown(r['database'], r['name'])}",
            "warning",
            f"engine {r['engine']}: its definition is saved, data kept outside MergeTree is not",
            "back up what it points to by itself",
        )
        for r in rows
    ]
    fresh = server.rows(
        "SELECT database, name FROM system.tables WHERE database IN {names:Array(String)} "
        "AND engine = 'MaterializedView' AND create_table_query ILIKE '% REFRESH %'",
        names,
    )
    out += [
        CheckItem(
            f"view {shown(r['database'], r['name'])}",
            "warning",
            "refreshable materialized view: ClickHouse leaves its data out and refreshes it after a restore",
        )
        for r in fresh
    ]
    return out or [CheckItem("tables", "ok", "every table's data can be backed up")]


def _access(server: Server) -> list[CheckItem]:
    kinds, notice = access.savable(server)
    if notice:
        return [
            CheckItem(
                "users, roles, functions",
                "warning",
                notice.message,
                "GRANT ACCESS MANAGEMENT, or keep them by SQL scripts",
            )
        ]
    return [CheckItem("users, roles, functions", "ok", f"{', '.join(kinds)} are saved")]


def _gateway(server: Server, settings: ClickHouseSettings) -> list[CheckItem]:
    """Open a gateway for a moment and let the server read from it."""
    name = "way to the gateway"
    server_ms = int(server.rows("SELECT toUnixTimestamp64Milli(now64(3)) AS ms")[0]["ms"])
    offset_s = server_ms / 1000 - time.monotonic()
    space = BackupSpace(PackIndex(()), NoArtifacts())
    with open_gateway(
        space, settings, lambda: datetime.fromtimestamp(time.monotonic() + offset_s, UTC), SOURCE
    ) as gateway:
        server.scrub.add(gateway.secret_access_key, gateway.access_key_id)
        keys = f"{literal(gateway.access_key_id)}, {literal(gateway.secret_access_key)}"
        reason = "no request arrived"
        try:
            server.rows(
                f"SELECT * FROM s3({literal(gateway.url + _PROBE_KEY)}, {keys}, 'RawBLOB', 'data String')",  # noqa: S608 - quoted
                settings={"s3_retry_attempts": 1, "s3_connect_timeout_ms": round(settings.connect_timeout_s * 1000)},
            )
        except ServerRefusal as refusal:  # "no such key" is the expected answer
            reason = refusal.text
            if refusal.number == 497:
                return [
                    CheckItem(
                        name, "warning", f"not tried: {refusal.text}", "GRANT READ ON S3, CREATE TEMPORARY TABLE ON *.*"
                    )
                ]
        if not gateway.requests and gateway.refusal is None:
            return [
                CheckItem(
                    name, "failed", f"ClickHouse cannot reach {gateway.base_url} (gateway): {reason}",
                    "set gateway_listen and gateway_advertise to what the server reaches; open it in the firewall",
                )
            ]  # fmt: skip
        return [CheckItem(name, "ok", f"ClickHouse reaches {gateway.base_url}")]


def _volume(server: Server, settings: ClickHouseSettings) -> str:
    """Let the server back up a constant to the disk and look for it on drd's side."""
    volume = disk.Volume.of(settings, SOURCE)
    folder = f"drd-check-{secrets.token_hex(6)}"
    try:
        server.execute(f"BACKUP TABLE system.one TO Disk({literal(settings.disk_name)}, {literal(folder)})")
        if not (volume.root / folder / MANIFEST_KEY).is_file():
            raise SOURCE.failed(
                f"the server wrote to its disk {settings.disk_name}, but {volume.root} does not show it",
                hint="mount the same volume on both sides and name drd's folder in disk_path",
            )
    finally:
        leftover = volume.remove(folder)
    if leftover:
        raise SOURCE.failed(leftover.message, hint="drd needs to delete what the server writes there")
    return f"disk {settings.disk_name} is {volume.root}"


def _direct(server: Server, settings: ClickHouseSettings) -> str:
    """Let the server list the bucket; writing is tried by the first backup."""
    if settings.direct is None:
        raise SOURCE.refused("mode direct needs the bucket as the ClickHouse server reaches it")
    keys = [settings.direct.access_key_id.reveal(), settings.direct.secret_access_key.reveal()]
    server.scrub.add(*keys)
    where = f"{settings.direct.url.rstrip('/')}/drd-check-{secrets.token_hex(6)}"
    spelled = f"{literal(where)}, {literal(keys[0])}, {literal(keys[1])}"
    try:
        server.rows(
            f"SELECT * FROM s3({spelled}, 'RawBLOB', 'data String')",  # noqa: S608 - quoted
            settings={"s3_retry_attempts": 1, "s3_connect_timeout_ms": round(settings.connect_timeout_s * 1000)},
        )
    except ServerRefusal as refusal:
        text = refusal.text.lower()
        if "404" not in text and "not exist" not in text and "no such key" not in text and "nosuchkey" not in text:
            with using_bucket(settings.direct.url, SOURCE):
                raise
    return f"ClickHouse reaches {settings.direct.url}"
