"""A ClickHouse server: HTTP and native ports, users with passwords, BACKUP to S3, Disk and File."""

from __future__ import annotations

import http.client
import json
import secrets
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from devstack import obtain
from devstack.errors import DevstackError
from devstack.server import Server, private_file
from devstack.workspace import Workspace

_LAUNCHER = Path(__file__).with_name("clickhouse_launcher.py")


class ClickHouse(Server):
    """ClickHouse 26.7 as a real server on loopback.

    Users: ``admin`` (everything that this build can grant), ``reader`` (SELECT only, so BACKUP is refused), and those
    of ``grants`` (statements by name), all with the password ``password``. Disk ``backups`` and ``File`` backups lie in
    ``backups_dir``, which servers may share.
    ``max_memory_bytes`` caps the server. Not in this build: SQL users, ON CLUSTER, Replicated tables, HTTPS.
    """

    kind = "clickhouse"
    port_names: ClassVar[tuple[str, ...]] = ("port", "native")

    def __init__(
        self,
        workspace: Workspace,
        *,
        name: str | None = None,
        password: str | None = None,
        backups_dir: Path | None = None,
        max_memory_bytes: int = 4 << 30,
        extra_config: str = "",
        grants: Mapping[str, Sequence[str]] | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        self._library = obtain.libchdb()
        super().__init__(workspace, name=name, ready_timeout_s=ready_timeout_s)
        self.user = "admin"
        self.password = password or secrets.token_urlsafe(18)
        self.reader_user = "reader"
        self.data_dir = self.dir / "data"
        self.backups_dir = backups_dir or self.dir / "backups"
        self._max_memory_bytes = max_memory_bytes
        self._extra_config = extra_config
        self._grants = grants or {}

    @property
    def url(self) -> str:
        """HTTP URL with the user and without the password."""
        return f"http://{self.user}@{self.host}:{self.port}"

    @property
    def native_port(self) -> int:
        """Port of the native protocol."""
        return self.ports["native"]

    def prepare(self) -> None:
        """Write configuration, users and, once, the metadata that system logs need after a restart."""
        self.backups_dir.mkdir(mode=0o700, exist_ok=True)
        metadata = self.data_dir / "metadata"
        metadata.mkdir(mode=0o700, parents=True, exist_ok=True)
        system = metadata / "system.sql"
        if not system.exists():
            system.write_text(f"ATTACH DATABASE _ UUID '{uuid.uuid4()}'\nENGINE = Atomic\n", encoding="utf-8")
        private_file(self.dir / "users.xml", _users(self.password, self._grants))
        private_file(self.dir / "config.xml", self._config())

    def argv(self) -> Sequence[str]:
        """Return the launcher's command line; ``-I`` keeps the caller's Python settings out of it."""
        return [
            sys.executable,
            "-I",
            str(_LAUNCHER),
            str(self._library),
            str(self.data_dir),
            str(self.dir / "config.xml"),
        ]

    def probe(self) -> str | None:
        """Ask for a number over HTTP as admin."""
        try:
            said = self.query("SELECT 1", timeout_s=5.0).strip()
        except DevstackError as error:
            return str(error)
        return None if said == "1" else f"SELECT 1 gave {said!r}"

    def query(
        self,
        sql: str,
        *,
        user: str | None = None,
        password: str | None = None,
        timeout_s: float = 300.0,
        settings: Mapping[str, object] | None = None,
    ) -> str:
        """Run one statement over HTTP and return the answer's text (TSV unless the SQL names a FORMAT).

        ``settings`` are ClickHouse's. Raises :class:`DevstackError` with the server's first line.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        headers = {"X-ClickHouse-User": user or self.user, "X-ClickHouse-Key": password or self.password}
        options = {"wait_end_of_query": 1, **(settings or {})}
        try:
            connection.request("POST", f"/?{urlencode(options)}", body=sql.encode(), headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise DevstackError(f"{self.name}: {error}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise DevstackError(f"{self.name}: {text.strip()[:500]}")
        return text

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Run one SELECT (without FORMAT) and return its rows."""
        text = self.query(f"{sql} FORMAT JSONEachRow", settings={"output_format_json_quote_64bit_integers": 0})
        return [json.loads(line) for line in text.splitlines()]

    def fresh_database(self) -> str:
        """Return a database name that is not in use, without creating it."""
        return f"t_{uuid.uuid4().hex[:12]}"

    def _config(self) -> str:
        backups = escape(str(self.backups_dir))
        return f"""<clickhouse>
  <listen_host>{self.host}</listen_host>
  <http_port>{self.port}</http_port>
  <tcp_port>{self.native_port}</tcp_port>
  <users_config>{escape(str(self.dir / "users.xml"))}</users_config>
  <keep_alive_timeout>2</keep_alive_timeout>
  <max_server_memory_usage>{self._max_memory_bytes}</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
  <shutdown_wait_backups_and_restores>0</shutdown_wait_backups_and_restores>
  <backups>
    <allowed_path>{backups}/</allowed_path>
    <allowed_disk>backups</allowed_disk>
    <remove_backup_files_after_failure>true</remove_backup_files_after_failure>
  </backups>
  <storage_configuration>
    <disks><backups><type>local</type><path>{backups}/</path></backups></disks>
  </storage_configuration>
  <query_log><database>system</database><table>query_log</table><flush_interval_milliseconds>2000</flush_interval_milliseconds></query_log>
  <backup_log><database>system</database><table>backup_log</table><flush_interval_milliseconds>2000</flush_interval_milliseconds></backup_log>
  {self._extra_config}
</clickhouse>
"""


def _users(password: str, grants: Mapping[str, Sequence[str]]) -> str:
    """Users: ``default`` is the launcher's own and may do no more than it needs."""
    limited = "".join(
        f"""
    <{name}>
      <password>{escape(password)}</password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>{"".join(f"<query>{escape(statement)}</query>" for statement in statements)}</grants>
    </{name}>"""
        for name, statements in {"reader": ["GRANT SELECT ON *.*"], **grants}.items()
    )
    return f"""<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT READ ON FILE</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
      </grants>
    </default>
    <admin>
      <password>{escape(password)}</password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
      <named_collection_control>1</named_collection_control>
      <show_named_collections>1</show_named_collections>
      <show_named_collections_secrets>1</show_named_collections_secrets>
    </admin>{limited}
  </users>
</clickhouse>
"""
