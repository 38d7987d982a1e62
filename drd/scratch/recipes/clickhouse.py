"""A ClickHouse that forgets: no TTL merges, nobody to talk to but drd, external engines restored as nothing.

Sources: ClickHouse src/Core/SettingsChangesHistory.cpp (``restore_replace_external_…`` since 24.8 and 24.11),
src/Common/RemoteHostFilter.cpp (``remote_url_allow_hosts`` holds for url, s3, remote, mysql and their kin).
"""

from __future__ import annotations

import hashlib
import http.client
import re
import signal
from xml.sax.saxutils import escape

from drd.model import EngineKind
from drd.scratch.recipes.recipe import USER, NotReady, Place, Recipe

_EXTERNAL_TO_NULL = (
    ((24, 8), "restore_replace_external_engines_to_null"),
    ((24, 8), "restore_replace_external_table_functions_to_null"),
    ((24, 12), "restore_replace_external_dictionary_source_to_null"),
)
_TIMEOUT_S = 5.0


class ClickHouseRecipe(Recipe):
    """ClickHouse: of the same month or later, since newer servers read what older ones wrote."""

    engine: EngineKind = "clickhouse"
    title = "ClickHouse"
    programs = ("clickhouse", "clickhouse-server")
    users = ("clickhouse", "nobody")
    stop_signal = signal.SIGKILL
    ports = (8123, 9000)
    image = "clickhouse/clickhouse-server:{release}"

    def fits(self, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
        """Ask for the release of the same month, or a later one."""
        return have[:2] >= want[:2]

    def release(self, version: tuple[int, ...]) -> str:
        """Return year and month."""
        return ".".join(map(str, version[:2]))

    def files(self, place: Place) -> dict[str, str]:
        """Return server and user configuration, and the password for people."""
        return {"password": place.password + "\n", "config.xml": _config(place), "users.xml": _users(place)}

    def command(self, place: Place, program: str) -> list[str]:
        """Start it from the file."""
        verb = ["server"] if program.endswith("clickhouse") else []
        return [program, *verb, f"--config-file={place.folder}/config.xml"]

    def url(self, host: str, port: int) -> str:
        """Return the HTTP URL."""
        return f"http://{USER}@{host}:{port}"

    def ask(self, host: str, port: int, password: str) -> str:
        """Ask for the version over HTTP."""
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        try:
            headers = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": password}
            connection.request("POST", "/", body=b"SELECT version()", headers=headers)
            answer = connection.getresponse()
            text = answer.read(4096).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise NotReady(text.splitlines()[0] if text else f"HTTP {answer.status}")
        return text

    def connect(self, host: str, port: int, password_from: str) -> str:
        """Return a curl line, which needs no client of ClickHouse's own."""
        header = f'-H "X-ClickHouse-Key: $({password_from})" -H "X-ClickHouse-User: {USER}"'
        return f"curl {header} --data-binary 'SHOW DATABASES' http://{host}:{port}/"


def _config(place: Place) -> str:
    host, data, folder = re.escape(place.host), escape(str(place.data)), escape(str(place.folder))
    return f"""<clickhouse>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>{place.listen}</listen_host>
  <http_port>{place.ports[0]}</http_port>
  <tcp_port>{place.ports[1]}</tcp_port>
  <path>{data}/</path>
  <tmp_path>{data}/temporary/</tmp_path>
  <user_files_path>{data}/user_files/</user_files_path>
  <format_schema_path>{data}/format_schemas/</format_schema_path>
  <access_control_path>{data}/access/</access_control_path>
  <users_config>{folder}/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <timezone>UTC</timezone>
  <keep_alive_timeout>3</keep_alive_timeout>
  <max_server_memory_usage>{place.memory_bytes * 9 // 10}</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <mlock_executable>false</mlock_executable>
  <shutdown_wait_backups_and_restores>0</shutdown_wait_backups_and_restores>
  <send_crash_reports><enabled>false</enabled></send_crash_reports>
  <remote_url_allow_hosts><host_regexp>^{escape(host)}(:[0-9]+)?$</host_regexp></remote_url_allow_hosts>
  <merge_tree><max_number_of_merges_with_ttl_in_pool>0</max_number_of_merges_with_ttl_in_pool></merge_tree>
</clickhouse>
"""


def _users(place: Place) -> str:
    digest = hashlib.sha256(place.password.encode()).hexdigest()
    silent = "".join(f"<{name}>1</{name}>" for since, name in _EXTERNAL_TO_NULL if place.version >= since)
    return f"""<clickhouse>
  <profiles><default>{silent}</default></profiles>
  <quotas><default/></quotas>
  <users>
    <{USER}>
      <password_sha256_hex>{digest}</password_sha256_hex>
      <networks><ip>127.0.0.1</ip><ip>{place.host}</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
      <named_collection_control>1</named_collection_control>
      <show_named_collections>1</show_named_collections>
    </{USER}>
  </users>
</clickhouse>
"""
