"""What the wiring refuses before an engine is made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from drd import config
from drd.errors import ConfigError
from drd.wiring_engines import engine_of

STORE = 'bucket: drd, endpoint_url: "http://127.0.0.1:9", access_key_id: a, secret_access_key: b'
SOURCE = 'type: clickhouse, url: "http://127.0.0.1:9", databases: [d], mode: direct'


def noon() -> datetime:
    return datetime(2026, 11, 22, 12, tzinfo=UTC)


def load(tmp_path: Path, *, store: str = "", source: str = "") -> config.Config:
    path = tmp_path / "drd.yaml"
    path.write_text(f"store: {{type: s3, {STORE}{store}}}\nsources:\n  c: {{{SOURCE}{source}}}\n")
    return config.load(path, {})


def test_temporary_keys_are_not_handed_to_a_server(tmp_path: Path) -> None:
    """ClickHouse takes no session token: with temporary keys, mode direct asks for keys of its own."""
    loaded = load(tmp_path, store=", session_token: t")
    with pytest.raises(ConfigError, match="temporary keys") as raised:
        engine_of(loaded.sources["c"], loaded, noon)
    assert "direct.access_key_id" in raised.value.hint
    own = load(tmp_path, store=", session_token: t", source=", direct: {access_key_id: c, secret_access_key: d}")
    assert engine_of(own.sources["c"], own, noon).kind == "clickhouse"
