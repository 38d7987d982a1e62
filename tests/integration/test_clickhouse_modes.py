"""ClickHouse by the other two ways: straight into the bucket, and over a shared volume."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest

from devstack.ports import free_port
from drd.engines.clickhouse.engine import ClickHouseEngine
from drd.engines.clickhouse.format import ClickHouseFormat
from drd.engines.clickhouse.settings import DirectAccess
from drd.errors import ConfigError, SourceError, TargetError
from drd.model import Artifact, Secret, compare_fingerprints
from tests.support.artifacts import MemoryReader, MemorySink, work_context
from tests.support.clickhouse_world import add_big_file, dump, engine, fill, settings_of, unfinished

pytestmark = pytest.mark.integration


@pytest.fixture
def world(clickhouse_source, clickhouse_database):
    """A filled database on the source, with one large file."""
    fill(clickhouse_source, clickhouse_database)
    add_big_file(clickhouse_source, clickhouse_database)
    return clickhouse_database


@pytest.fixture
def access(s3, bucket):
    """The bucket as the server reaches it."""
    return DirectAccess(f"{s3.url}/{bucket}/pre", Secret(s3.admin.access_key_id), Secret(s3.admin.secret_access_key))


def raw_artifacts(s3, bucket, prefix: str) -> dict[str, bytes]:
    """Read what the server wrote, as the operation would list it."""
    client = s3.client()
    out = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"pre/{prefix}"):
        for item in page.get("Contents", []):
            name = "clickhouse/" + item["Key"].removeprefix(f"pre/{prefix}")
            out[name] = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
    return out


@pytest.mark.parametrize("restored_by", ["direct", "gateway"])
def test_direct(clickhouse_source, clickhouse_target, s3, bucket, access, world, tmp_path, restored_by):
    """The server writes to the bucket; verify passes; the bucket or the gateway brings it back, equal."""
    source = engine(clickhouse_source, world, mode="direct", direct=access)
    ctx = work_context(tmp_path)
    result, backup, artifacts = dump(source, tmp_path)
    assert result.direct_objects
    assert artifacts.artifacts == {}
    raw = raw_artifacts(s3, bucket, ctx.direct_prefix)
    reader = MemoryReader(raw)
    backup = replace(backup, artifacts=tuple(Artifact(name, (), raw=True) for name in raw))
    assert ClickHouseFormat().verify(backup, reader, ctx) == []
    more = {"mode": "direct", "direct": access} if restored_by == "direct" else {}
    target = engine(clickhouse_target, **more)
    target.restore(backup, reader, ctx)
    found = target.fingerprint(result.fingerprint, ctx)
    assert compare_fingerprints(result.fingerprint, found) == []
    assert result.rows is not None
    assert result.rows > 60_000
    assert ClickHouseFormat().runbook(backup).values["CLICKHOUSE_DIRECT_PREFIX"] == ctx.direct_prefix


def test_direct_with_a_wrong_key(clickhouse_source, s3, bucket, world, tmp_path):
    """A refused bucket is an error of the source, without the secret; the check finds it too."""
    bad = DirectAccess(f"{s3.url}/{bucket}", Secret(s3.admin.access_key_id), Secret("Wr0ng-secret-of-the-bucket"))
    poor = engine(clickhouse_source, world, mode="direct", direct=bad, s3_retry_attempts=1)
    with pytest.raises(SourceError) as caught:
        dump(poor, tmp_path)
    assert "Wr0ng-secret" not in f"{caught.value} {caught.value.hint}"
    assert {i.name: i.outcome for i in poor.check()}["way to the bucket"] == "failed"
    assert unfinished(clickhouse_source) == 0


def test_direct_to_a_bucket_that_is_not_there(clickhouse_source, clickhouse_target, s3, bucket, world, tmp_path):
    """A URL that leads nowhere is named in one line with a remedy: by check, by a backup and by a restore."""
    keys = (Secret(s3.admin.access_key_id), Secret(s3.admin.secret_access_key))
    good = {"mode": "direct", "direct": DirectAccess(f"{s3.url}/{bucket}/pre", *keys)}
    away = f"http://127.0.0.1:{free_port()}/{bucket}"
    lost = {"mode": "direct", "direct": DirectAccess(away, *keys), "s3_retry_attempts": 1}
    poor = engine(clickhouse_source, world, **lost)
    with pytest.raises(SourceError) as caught:
        dump(poor, tmp_path)
    _, backup, _ = dump(engine(clickhouse_source, world, **good), tmp_path)
    raw = raw_artifacts(s3, bucket, work_context(tmp_path).direct_prefix)
    backup = replace(backup, artifacts=tuple(Artifact(name, (), raw=True) for name in raw))
    with pytest.raises(TargetError) as missed:
        engine(clickhouse_target, **lost).restore(backup, MemoryReader(raw), work_context(tmp_path))
    (checked,) = (item for item in poor.check() if item.name == "way to the bucket")
    assert checked.outcome == "failed"
    told = [(error.value.message, error.value.hint) for error in (caught, missed)]
    for message, hint in (*told, (checked.detail, checked.hint)):
        assert message.startswith(f"ClickHouse cannot use the bucket at {away}: ")
        assert "Connection refused" in message
        assert "Poco" not in message
        assert "18446744073709551615" not in message
        assert "direct: in drd.yaml" in hint
    assert unfinished(clickhouse_source) == 0
    assert unfinished(clickhouse_target) == 0


def test_disk(clickhouse_source, clickhouse_target, world, tmp_path):
    """Over the shared volume both ways; both leave the volume as it was."""
    shared = {"mode": "disk", "disk_path": clickhouse_source.backups_dir}
    before = sorted(clickhouse_source.backups_dir.iterdir())
    result, backup, artifacts = dump(engine(clickhouse_source, world, **shared), tmp_path)
    assert sorted(clickhouse_source.backups_dir.iterdir()) == before
    assert ClickHouseFormat().verify(backup, artifacts, work_context(tmp_path)) == []
    target = engine(clickhouse_target, **shared)
    target.restore(backup, artifacts, work_context(tmp_path))
    assert sorted(clickhouse_source.backups_dir.iterdir()) == before
    found = target.fingerprint(result.fingerprint, work_context(tmp_path))
    assert compare_fingerprints(result.fingerprint, found) == []


def test_a_backup_by_disk_is_restored_through_the_gateway(clickhouse_source, clickhouse_target, world, tmp_path):
    """What lies in the artifacts does not depend on the mode: a target without the volume can restore it."""
    shared = {"mode": "disk", "disk_path": clickhouse_source.backups_dir}
    result, backup, artifacts = dump(engine(clickhouse_source, world, **shared), tmp_path)
    target = engine(clickhouse_target)
    target.restore(backup, artifacts, work_context(tmp_path))
    found = target.fingerprint(result.fingerprint, work_context(tmp_path))
    assert compare_fingerprints(result.fingerprint, found) == []


def test_disk_that_is_not_allowed_or_not_seen(clickhouse_source, world, tmp_path):
    """A disk the server does not allow, a folder drd does not see: each said with its remedy."""
    other = engine(clickhouse_source, world, mode="disk", disk_path=tmp_path, disk_name="default")
    with pytest.raises(SourceError) as caught:
        dump(other, tmp_path)
    assert "allowed_disk" in caught.value.hint
    unseen = engine(clickhouse_source, world, mode="disk", disk_path=tmp_path)
    with pytest.raises(SourceError, match="is not there"):
        dump(unseen, tmp_path)
    assert {i.name: i.outcome for i in unseen.check()}["shared volume"] == "failed"
    with pytest.raises(ConfigError, match="disk_path"):
        dump(engine(clickhouse_source, world, mode="disk"), tmp_path)


def test_a_lost_store_cleans_the_volume(clickhouse_source, world, tmp_path):
    """When packing fails, what the server wrote is removed from the volume."""
    shared = {"mode": "disk", "disk_path": clickhouse_source.backups_dir}
    before = sorted(clickhouse_source.backups_dir.iterdir())
    lost = SourceError("planted")
    with pytest.raises(SourceError, match="planted"):
        dump(engine(clickhouse_source, world, **shared), tmp_path, MemorySink(fail_after_bytes=1 << 20, error=lost))
    assert sorted(clickhouse_source.backups_dir.iterdir()) == before


def test_check_and_probe_of_a_healthy_source(clickhouse_source, s3, access, world):
    """Every way is tried for real; nothing fails, what cannot be saved is a warning; nothing is left."""
    from datetime import UTC, datetime

    before = sorted(clickhouse_source.backups_dir.iterdir())
    for more in (
        {},
        {"mode": "disk", "disk_path": clickhouse_source.backups_dir},
        {"mode": "direct", "direct": access},
    ):
        checked = ClickHouseEngine(settings_of(clickhouse_source, world, **more), lambda: datetime.now(UTC))
        outcomes = {item.name: (item.outcome, item.detail) for item in checked.check()}
        assert [i for i in outcomes.items() if i[1][0] == "failed"] == []
        assert "clock skew" in outcomes["server"][1]
        assert outcomes["users, roles, functions"][0] == "warning"
    assert sorted(clickhouse_source.backups_dir.iterdir()) == before
    probe = engine(clickhouse_source, world).probe()
    assert probe.version.startswith("26.")
    assert (probe.size_bytes or 0) > 40_000_000


def test_tables_that_name_their_database_follow_a_new_name(start_clickhouse, tmp_path):
    """Restored beside the original, a Buffer writes into the restored table; a Distributed one is named."""
    here = "<host>127.0.0.1</host><port>9000</port>"
    cluster = f"<remote_servers><c><shard><replica>{here}</replica></shard></c></remote_servers>"
    server = start_clickhouse(extra_config=cluster)
    db, run = "d", server.query
    other = f"{db}_\u00e9 it's"
    run(f"CREATE DATABASE {db}")
    run(f"CREATE TABLE {db}.t (v UInt32) ENGINE = MergeTree ORDER BY v")
    run(f"CREATE TABLE {db}.`b 1` AS {db}.t ENGINE = Buffer({db}, t, 1, 1, 1, 1, 1, 1, 1)")
    run(f"CREATE TABLE {db}.far AS {db}.t ENGINE = Buffer('default', t, 1, 1, 1, 1, 1, 1, 1)")
    run(f"CREATE TABLE {db}.m AS {db}.t ENGINE = Distributed(c, {db}, t, v)")
    run(f"INSERT INTO {db}.t VALUES (1)")
    result, backup, artifacts = dump(engine(server, db), tmp_path)
    target = engine(server, path=f"/{quote(other)}")
    done = target.restore(backup, artifacts, work_context(tmp_path))
    assert (
        compare_fingerprints(result.fingerprint, target.fingerprint(result.fingerprint, work_context(tmp_path))) == []
    )
    run(f"INSERT INTO `{other}`.`b 1` VALUES (2)")
    run(f"OPTIMIZE TABLE `{other}`.`b 1`")
    assert run(f"SELECT v FROM `{other}`.t ORDER BY v").split() == ["1", "2"]
    assert run(f"SELECT v FROM {db}.t").split() == ["1"]
    far = f"SELECT countIf(engine_full LIKE '%default%') FROM system.tables WHERE name = 'far' AND database != '{db}'"
    assert run(far).strip() == "1"
    said = [notice.message for notice in done.notices if notice.code == "points-elsewhere"]
    assert len(said) == 1
    assert f"m (Distributed of {db})" in said[0]
    assert "b 1" not in said[0]


def test_what_reaches_out_is_cut_off_in_a_scratch_server(
    clickhouse_source, clickhouse_target, clickhouse_database, tmp_path
):
    """A drill makes tables that hold nothing of those that reach out, beside all others, and they are equal."""
    clickhouse_source.query(f"CREATE DATABASE {clickhouse_database}")
    for table in ("outside (v UInt8) ENGINE = URL('http://127.0.0.1:1/x', CSV)", "t ENGINE = Log AS SELECT 1 AS v"):
        clickhouse_source.query(f"CREATE TABLE {clickhouse_database}.{table}")
    result, backup, artifacts = dump(engine(clickhouse_source, clickhouse_database), tmp_path)
    into = engine(clickhouse_target, clickhouse_database, outside="cut_off")
    into.restore(backup, artifacts, work_context(tmp_path))
    found = clickhouse_target.query(f"SELECT engine FROM system.tables WHERE database = '{clickhouse_database}'")
    assert sorted(found.split()) == ["Log", "Null"]
    assert compare_fingerprints(result.fingerprint, into.fingerprint(result.fingerprint, work_context(tmp_path))) == []
