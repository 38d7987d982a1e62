"""Other servers than Redis 7: 6.2, which knows no rdb-only and no functions, and Valkey 9 with its own format."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from drd.engines.redis import RedisFormat
from drd.errors import TargetError
from drd.model import compare_fingerprints
from tests.support.redis_world import Taken, engine, fill

pytestmark = pytest.mark.integration


def same(taken: Taken, other) -> bool:
    """Whether the engine's server is equal to the backup."""
    return (
        compare_fingerprints(taken.result.fingerprint, other.fingerprint(taken.result.fingerprint, taken.context)) == []
    )


@pytest.mark.parametrize("way", ["replication", "keys"])
def test_redis_6_goes_through_the_spool_and_into_redis_7_and_back(start_redis, tmp_path, way):
    """A 6.2 server is spooled within the limit, restores into 6.2 and 7; a backup of 7 is refused by 6.2 by name."""
    old, new = start_redis(name="six", version="redis-6.2"), start_redis(name="seven")
    fill(old, functions=False, big_value_bytes=8 << 20)
    taken = Taken(engine(old), tmp_path, spool_limit_bytes=1 << 20)
    assert taken.result.engine_version.startswith("6.2")
    assert list(tmp_path.iterdir()) == []
    for server in (new, old):
        server.flush()
        engine(server, restore_via=way).restore(taken.backup, taken.reader, taken.context)
        assert same(taken, engine(server))
    newer = Taken(engine(new), tmp_path)
    old.flush()
    with pytest.raises(TargetError, match=r"RDB version 10 \(from 7\.0.*Redis 6\.2.* cannot read"):
        engine(old, restore_via=way).restore(newer.backup, newer.reader, newer.context)


@pytest.fixture
def valkey_tools(tmp_path, start_redis):
    """A folder with valkey-check-rdb, which is the server under another name."""
    server = start_redis(name="valkey-tools", version="valkey-9", append_only=False)
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "valkey-check-rdb").symlink_to(Path(server.program))
    assert shutil.which("valkey-check-rdb", path=str(folder))
    return folder


@pytest.mark.parametrize("own_tool", [True, False])
@pytest.mark.parametrize("way", ["replication", "keys"])
def test_valkey_9(start_redis, tmp_path, valkey_tools, way, own_tool):
    """Valkey's format with hashes whose fields expire comes back, checked by its own tool or by drd's reader."""
    settings = {"tools_dir": valkey_tools} if own_tool else {}
    source, target = (start_redis(name=name, version="valkey-9") for name in ("valkey-a", "valkey-b"))
    fill(source, functions=False)
    with source.client(3) as client:
        client.hset("expiring fields", mapping={"a": 1, "b": 2})
        client.execute_command("HEXPIRE", "expiring fields", 1000, "FIELDS", 1, "a")
    taken = Taken(engine(source, **settings), tmp_path)
    assert (taken.result.facts["rdb_magic"], taken.result.facts["rdb_version"]) == ("VALKEY", 80)
    assert taken.result.engine_version.startswith("9.")
    assert ("valkey" in str(taken.result.tools)) is own_tool
    assert taken.result.fingerprint.items["db3"]["persistent_keys"] is None  # such a hash may vanish by itself
    into = engine(target, restore_via=way, **settings)
    into.restore(taken.backup, taken.reader, taken.context)
    assert same(taken, into)
    with target.client(3) as client:
        assert client.execute_command("HTTL", "expiring fields", "FIELDS", 2, "a", "b")[1] == -1
    assert RedisFormat().verify(taken.backup, taken.reader, taken.context) == []


def test_valkey_and_redis_do_not_mix_where_they_cannot(start_redis, tmp_path):
    """A Valkey 9 backup is refused by Redis 7 by name; a Redis 7.0 backup goes into Valkey 9."""
    valkey, redis = start_redis(name="valkey", version="valkey-9"), start_redis(name="redis")
    fill(redis, functions=False)
    from_redis, from_valkey = Taken(engine(redis), tmp_path), Taken(engine(valkey), tmp_path)
    redis.flush()
    with pytest.raises(TargetError, match=r"RDB version 80 .*Redis 7\.0.* cannot read"):
        engine(redis).restore(from_valkey.backup, from_valkey.reader, from_valkey.context)
    engine(valkey).restore(from_redis.backup, from_redis.reader, from_redis.context)
    assert same(from_redis, engine(valkey))
