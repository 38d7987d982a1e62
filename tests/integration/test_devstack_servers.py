"""devstack's servers answer, keep their data over a crash, and leave nothing behind."""

from __future__ import annotations

import pytest

from devstack.clickhouse import ClickHouse
from devstack.errors import DevstackError
from devstack.postgres import Postgres
from devstack.process import descendants, is_alive
from devstack.redis import Redis
from devstack.s3 import SeaweedS3

pytestmark = pytest.mark.integration


def test_postgres_answers_with_password_and_collation_c(postgres: Postgres, pg_database: str):
    """A fresh database is UTF-8 with collation C, like the platform's."""
    with postgres.connect(pg_database) as connection:
        row = connection.execute(
            "SELECT current_user, pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = %s",
            [pg_database],
        ).fetchone()
    assert row == ("admin", "UTF8", "C")


def test_redis_pair_is_two_servers(empty_redis_source: Redis, empty_redis_target: Redis):
    """What is written to the source is not on the target, and append-only files are on."""
    empty_redis_source.client().set("k", "v")
    assert empty_redis_target.client().get("k") is None
    assert empty_redis_source.client().config_get("appendonly") == {"appendonly": "yes"}


def test_clickhouse_backup_to_s3_restores_on_the_other_server(
    clickhouse_source: ClickHouse, clickhouse_target: ClickHouse, clickhouse_database: str, s3: SeaweedS3, bucket: str
):
    """The launcher's server can BACKUP to S3, which a bare clickhouse local cannot."""
    database = clickhouse_database
    clickhouse_source.query(f"CREATE DATABASE {database}")
    clickhouse_source.query(f"CREATE TABLE {database}.t (x UInt64) ENGINE = MergeTree ORDER BY x")
    clickhouse_source.query(f"INSERT INTO {database}.t SELECT number FROM numbers(1000)")
    place = f"S3('{s3.url}/{bucket}/b', '{s3.admin.access_key_id}', '{s3.admin.secret_access_key}')"
    assert "BACKUP_CREATED" in clickhouse_source.query(f"BACKUP DATABASE {database} TO {place}")
    assert "RESTORED" in clickhouse_target.query(f"RESTORE DATABASE {database} FROM {place}")
    assert clickhouse_target.rows(f"SELECT sum(x) AS s FROM {database}.t") == [{"s": 499500}]


def test_clickhouse_wrong_password_is_refused(clickhouse_source: ClickHouse):
    """Passwords are real."""
    with pytest.raises(DevstackError, match="516"):
        clickhouse_source.query("SELECT 1", password="wrong")


def test_crash_and_restart_keep_data_and_port(start_redis, start_postgres):
    """A killed server starts again on its port with what it had."""
    redis, postgres = start_redis(), start_postgres()
    redis.client().set("k", "v")
    with postgres.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
        connection.execute("CHECKPOINT")
    before = redis.port, postgres.port
    for server in (redis, postgres):
        server.kill()
        assert server.process_id is None
        server.start()
    assert (redis.port, postgres.port) == before
    assert redis.client().get("k") == b"v"
    with postgres.connect() as connection:
        assert connection.execute("SELECT x FROM t").fetchone() == (1,)


def test_paused_server_is_silent_until_resumed(start_redis):
    """A paused server accepts and does not answer; resumed, it does."""
    redis = start_redis()
    redis.pause()
    assert "Timeout" in (redis.probe() or "")
    redis.resume()
    assert redis.probe() is None


def test_stop_ends_children_and_remove_ends_the_folder(start_postgres):
    """No process of the server's tree outlives stop, no file outlives remove."""
    postgres = start_postgres()
    tree = [postgres.process_id, *descendants(postgres.process_id)]
    assert len(tree) > 3
    postgres.stop()
    assert not any(is_alive(process) for process in tree)
    postgres.remove()
    assert not postgres.dir.exists()


def test_standby_follows(start_postgres):
    """A standby is read-only and has the primary's rows."""
    primary = start_postgres()
    with primary.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS x")
    standby = primary.standby().start()
    try:
        with standby.connect() as connection:
            assert connection.execute("SELECT x, pg_is_in_recovery() FROM t").fetchone() == (7, True)
    finally:
        standby.remove()


def test_a_server_that_cannot_start_shows_its_log(start_redis):
    """The error carries what the server itself said."""
    with pytest.raises(DevstackError, match="no-such-option"):
        start_redis(options={"no-such-option": "1"})


@pytest.mark.parametrize("versioned", [False, True])
def test_a_bucket_goes_with_all_that_is_in_it(s3: SeaweedS3, versioned: bool):
    """Old versions and delete markers do not keep a bucket from going."""
    bucket = s3.fresh_bucket()
    client = s3.client()
    if versioned:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"1", b"2"):
        client.put_object(Bucket=bucket, Key="a/b", Body=body)
    client.put_object(Bucket=bucket, Key="gone", Body=b"3")
    client.delete_object(Bucket=bucket, Key="gone")
    s3.drop_bucket(bucket)
    assert bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("admin", {"put", "get", "list", "delete"}),
        ("objects", {"put", "get", "list", "delete"}),
        ("reader", {"get", "list"}),
        ("writer", {"put", "delete"}),
    ],
)
def test_s3_identities_may_what_they_may(s3: SeaweedS3, bucket: str, who: str, allowed: set[str]):
    """Each identity of the store has exactly its rights."""
    from botocore.exceptions import ClientError

    s3.client().put_object(Bucket=bucket, Key="k", Body=b"x")
    client = s3.client(getattr(s3, who))
    calls = {
        "put": lambda: client.put_object(Bucket=bucket, Key="k2", Body=b"x"),
        "get": lambda: client.get_object(Bucket=bucket, Key="k"),
        "list": lambda: client.list_objects_v2(Bucket=bucket),
        "delete": lambda: client.delete_object(Bucket=bucket, Key="k2"),
    }
    done = set()
    for name, call in calls.items():
        try:
            call()
        except ClientError:
            continue
        done.add(name)
    assert done == allowed
