"""Back up a real Redis and restore it into another: the straight path, every type, both wire forms, both ways in."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from drd.engines.redis import RedisFormat
from drd.errors import TargetError, TargetNotEmpty
from drd.model import FINGERPRINT_ARTIFACT, compare_fingerprints
from tests.support.artifacts import MemoryReader
from tests.support.redis_world import Taken, digest, engine, fill

pytestmark = pytest.mark.integration
DEBUG = {"enable-debug-command": "local"}


@pytest.fixture
def source(start_redis):
    return start_redis(name="src", options=DEBUG)


@pytest.fixture
def target(start_redis):
    return start_redis(name="dst", append_only=True, options=DEBUG)


@pytest.mark.parametrize("way", ["replication", "keys"])
def test_everything_comes_back(source, target, tmp_path, way):
    """All types, encodings, databases, expiries and functions are equal by DEBUG DIGEST, also after a restart."""
    fill(source, big_value_bytes=20 << 20)
    taken = Taken(engine(source), tmp_path)
    into = engine(target, restore_via=way)
    assert into.inspect(taken.backup, taken.reader).empty
    into.restore(taken.backup, taken.reader, taken.context)
    assert digest(target) == digest(source)
    assert (
        compare_fingerprints(taken.result.fingerprint, into.fingerprint(taken.result.fingerprint, taken.context)) == []
    )
    with target.client() as client:
        assert client.fcall("answer", 0) == 42
        assert client.config_get("masterauth")["masterauth"] == target.password
        assert client.info("replication")["role"] == "master"
        assert client.config_get("repl-timeout")["repl-timeout"] == "60"
    target.stop()
    target.start()
    assert digest(target) == digest(source)


@pytest.mark.parametrize("diskless", ["yes", "no"])
def test_both_wire_forms(start_redis, tmp_path, diskless):
    """Mark-delimited and length-prefixed snapshots are both read whole; diskless, the server writes no file."""
    server = start_redis(name="forms", append_only=False, options={"repl-diskless-sync": diskless})
    fill(server, keys=50)
    taken = Taken(engine(server), tmp_path)
    assert RedisFormat().verify(taken.backup, taken.reader, taken.context) == []
    assert taken.result.rows == sum(server.client(db).dbsize() for db in (0, 3, 15))
    assert (server.dir / "dump.rdb").exists() is (diskless == "no")  # as for any replica of such a server


def test_an_empty_server(source, target, tmp_path):
    """A server without a key makes a backup that restores to a server without a key."""
    taken = Taken(engine(source), tmp_path)
    assert taken.result.rows == 0
    assert taken.result.fingerprint.items == {}
    engine(target).restore(taken.backup, taken.reader, taken.context)
    assert (
        compare_fingerprints(
            taken.result.fingerprint, engine(target).fingerprint(taken.result.fingerprint, taken.context)
        )
        == []
    )


def test_the_recovery_point_is_close_and_not_before_the_state(source, tmp_path):
    """The recovery point lies between the last write before the snapshot and the end of the backup."""
    fill(source, keys=10)
    before = datetime.now(UTC)
    taken = Taken(engine(source), tmp_path)
    assert before - timedelta(milliseconds=50) <= taken.result.recovery_point <= datetime.now(UTC)


def test_a_target_with_data_is_refused_untouched(source, target, tmp_path):
    """A target that holds a key, or only a function library, is refused and keeps what it has."""
    fill(source, keys=5)
    taken = Taken(engine(source), tmp_path)
    with target.client(5) as client:
        client.set("mine", "1")
    state = engine(target).inspect(taken.backup, taken.reader)
    assert not state.empty
    assert "db5 with 1 keys" in state.detail
    with pytest.raises(TargetNotEmpty, match="db5 with 1 keys"):
        engine(target).restore(taken.backup, taken.reader, taken.context)
    with target.client(5) as client:
        assert client.get("mine") == b"1"
        client.flushall()
        client.function_load("#!lua name=other\nredis.register_function('f', function() return 1 end)\n")
    with pytest.raises(TargetNotEmpty, match="1 function libraries"):
        engine(target).restore(taken.backup, taken.reader, taken.context)


def test_keys_that_expired_since_do_not_count_as_loss(source, target, tmp_path):
    """A key whose time ran out between backup and restore is no difference, in both ways of restoring."""
    with source.client() as client:
        client.set("stays", "1")
        client.set("goes", "1", px=900)
    taken = Taken(engine(source), tmp_path)
    assert taken.result.fingerprint.items["db0"]["expires"] == 1
    time.sleep(1.0)
    for way in ("keys", "replication"):
        target.flush()
        into = engine(target, restore_via=way)
        into.restore(taken.backup, taken.reader, taken.context)
        found = into.fingerprint(taken.result.fingerprint, taken.context)
        assert compare_fingerprints(taken.result.fingerprint, found) == []
        with target.client() as client:
            assert client.keys() == [b"stays"]


def test_a_changed_and_a_missing_key_are_found(source, target, tmp_path):
    """The fingerprint tells a value that differs, a key that is gone and one that is new."""
    fill(source, keys=20)
    taken = Taken(engine(source), tmp_path)
    into = engine(target)
    into.restore(taken.backup, taken.reader, taken.context)
    expected = taken.result.fingerprint
    with target.client(3) as client:
        client.hset("hash:small", "f", "changed")
    with target.client(15) as client:
        client.delete("integer")
    with target.client(7) as client:
        client.set("new", 1)
    facts = {(d.name, d.fact) for d in compare_fingerprints(expected, into.fingerprint(expected, taken.context))}
    assert facts == {
        ("db3", "sample_digest"),
        ("db15", "sample_digest"),
        ("db15", "persistent_keys"),
        ("db7", "exists"),
    }


def test_a_newer_snapshot_is_refused_by_name(source, target, tmp_path):
    """A backup of an RDB version the target does not know is refused before anything is touched."""
    fill(source, keys=5)
    taken = Taken(engine(source), tmp_path)
    newer = replace(taken.backup, facts=taken.backup.facts | {"rdb_version": 12}, engine_version="7.4.1")
    with pytest.raises(TargetError, match=r"RDB version 12 \(from 7\.4\.1\).*Redis 7\.0") as caught:
        engine(target).inspect(newer, taken.reader)
    assert "7.4.1" in caught.value.hint
    with target.client() as client:
        assert client.dbsize() == 0


def test_a_flipped_bit_and_a_cut_are_found_at_rest(source, tmp_path):
    """Verification names a snapshot with one wrong bit, and one that ends early."""
    fill(source, keys=40)
    taken = Taken(engine(source), tmp_path)
    good = taken.artifacts["dump.rdb"]
    fingerprint = json.dumps(asdict(taken.result.fingerprint)).encode()
    for position in (12, 500, len(good) // 2, len(good) - 3):
        bad = bytearray(good)
        bad[position] ^= 4
        reader = MemoryReader({"dump.rdb": bytes(bad), FINGERPRINT_ARTIFACT: fingerprint})
        assert RedisFormat().verify(taken.backup, reader, taken.context), position
    reader = MemoryReader({"dump.rdb": good[:-20], FINGERPRINT_ARTIFACT: fingerprint})
    assert RedisFormat().verify(taken.backup, reader, taken.context)
    reader = MemoryReader({"dump.rdb": good, FINGERPRINT_ARTIFACT: fingerprint})
    assert RedisFormat().verify(taken.backup, reader, taken.context) == []
