"""Object lock on a real, versioned store: what it holds, what prune says of it, and what a thief cannot destroy."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from devstack.s3 import Identity, SeaweedS3
from drd.errors import DrdError, SourceRefused, StoreRefused
from drd.model import Secret
from drd.ops.backup import back_up
from drd.ops.ports import Ports, Source
from drd.ops.prune import prune
from drd.ops.verify import verify
from drd.repository.retention import Policy
from drd.stores.s3 import S3Settings, S3Store
from drd.stores.s3_settings import ObjectLock
from drd.stores.times import utc_now
from tests.support.engine import BreakingEngine, DictEngine
from tests.support.ports import make_ports

pytestmark = pytest.mark.integration

LAST = Policy(keep_last=1)


@pytest.fixture
def locking_bucket(s3: SeaweedS3) -> str:
    """Give a bucket with object lock; what is locked in it goes with the session's server."""
    name = f"lock-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def store_of(
    s3: SeaweedS3,
    bucket: str,
    lock: ObjectLock | None,
    *,
    ends_in: timedelta | None = None,
    who: Identity | None = None,
) -> S3Store:
    """Make a store; with ``ends_in`` its clock is set so that what it locks for a day is free after that."""
    who = who or s3.keeper
    behind = timedelta(days=1) - ends_in if ends_in is not None else timedelta(0)
    settings = S3Settings(
        bucket=bucket,
        prefix="trading",
        endpoint_url=s3.url,
        access_key_id=Secret(who.access_key_id),
        secret_access_key=Secret(who.secret_access_key),
        object_lock=lock,
    )
    return S3Store(settings, clock=lambda: utc_now() - behind)


def take(ports: Ports, count: int) -> list[str]:
    """Take backups, an hour of recovery point apart; return their ids, oldest first."""
    ids = []
    for hour in range(count):
        at = datetime.now(UTC) - timedelta(hours=count - hour)
        report = back_up(ports, [Source("shop", DictEngine({"t": b"%d\n" % hour}, at=at), 60.0)])
        assert report.sources[0].backup, report.sources[0].error
        ids.append(report.sources[0].backup.id)
    return ids


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_backups_are_locked_and_leases_are_not(s3: SeaweedS3, locking_bucket: str, tmp_path: Path, mode: str) -> None:
    """Each object of a backup carries mode and date and refuses to go; leases, pins and drd.json stay free."""
    store = store_of(s3, locking_bucket, ObjectLock(mode, 30))  # type: ignore[arg-type]
    take(make_ports(store, tmp_path), 1)
    keys = [info.key for info in store.list("")]
    held = {key: store.stat(key).locked_until for key in keys}
    assert {key for key, until in held.items() if until} == {key for key in keys if key.startswith("backups/")}
    assert {key.partition("/")[0] for key in keys} >= {"backups", "leases", "drd.json"}
    for key in (key for key in keys if key.startswith("backups/")):
        until = held[key]
        assert until
        assert timedelta(days=29, hours=23) < until - datetime.now(UTC) <= timedelta(days=30)
        head = s3.client().head_object(Bucket=locking_bucket, Key=f"trading/{key}")
        assert head["ObjectLockMode"] == mode.upper()
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.client(s3.keeper).delete_object(Bucket=locking_bucket, Key=f"trading/{key}", VersionId=head["VersionId"])


def test_prune_waits_for_locks_and_then_removes(s3: SeaweedS3, locking_bucket: str, tmp_path: Path) -> None:
    """Locked backups stay whole and are reported with the date, not hidden; when the lock ends they go."""
    lock = ObjectLock("governance", 1)
    old = take(make_ports(store_of(s3, locking_bucket, lock, ends_in=timedelta(seconds=4)), tmp_path), 1)
    new = take(make_ports(store_of(s3, locking_bucket, lock), tmp_path), 2)
    ports = make_ports(store_of(s3, locking_bucket, lock), tmp_path)
    ends = ports.catalog.locked_until("shop", old[0])
    while ends is not None and datetime.now(UTC) <= ends:
        ports.cancel.sleep(0.2)
    for apply in (False, True):
        report = prune(ports, {"shop": LAST}, apply=apply)
        assert report.outcome == "ok"
        (source,) = report.sources
        assert {item.id for item in source.decision.remove} == {*old, new[0]}
        assert [item.id for item in source.locked] == [new[0]]
        assert source.locked[0].until > datetime.now(UTC) + timedelta(hours=23)
        assert source.removed == (tuple(old) if apply else ())
    assert [entry.id for entry in ports.catalog.entries()] == sorted(new)
    assert verify(ports, [], deep=True).outcome == "ok"


def test_a_failed_backup_says_what_stays(s3: SeaweedS3, locking_bucket: str, tmp_path: Path) -> None:
    """What it had uploaded is hidden by the clean-up and still held by the lock: the error says until when."""
    ports = make_ports(store_of(s3, locking_bucket, ObjectLock("governance", 3)), tmp_path)
    engine = BreakingEngine(lambda: any(ports.store.list("backups/")))
    error = back_up(ports, [Source("shop", engine, 60.0)]).sources[0].error
    assert isinstance(error, SourceRefused)
    day = datetime.now(UTC) + timedelta(days=3)
    assert f"takes space until {day:%Y-%m-%d}" in error.hint
    assert ports.catalog.unfinished("shop") == []
    kept = s3.client().list_object_versions(Bucket=locking_bucket, Prefix="trading/backups/")
    assert kept["Versions"]


def test_what_a_thief_hides_comes_back(s3: SeaweedS3, locking_bucket: str, tmp_path: Path) -> None:
    """Somebody deletes and overwrites all he can with stolen keys; the locked versions are all there, and restore."""
    ports = make_ports(store_of(s3, locking_bucket, ObjectLock("compliance", 3)), tmp_path)
    ids = take(ports, 2)
    thief, client = s3.client(s3.keeper), s3.client()
    for page in thief.get_paginator("list_object_versions").paginate(Bucket=locking_bucket, Prefix="trading/backups/"):
        for version in page.get("Versions", []):
            with pytest.raises(ClientError, match="AccessDenied"):
                thief.delete_object(Bucket=locking_bucket, Key=version["Key"], VersionId=version["VersionId"])
            thief.delete_object(Bucket=locking_bucket, Key=version["Key"])
    assert ports.catalog.entries() == []
    first = f"trading/backups/shop/{ids[0]}/manifest.json"
    thief.put_object(Bucket=locking_bucket, Key=first, Body=b"ransom note")
    # docs/bucket-policies.md: delete what is newer than the locked version
    for page in client.get_paginator("list_object_versions").paginate(Bucket=locking_bucket, Prefix="trading/backups/"):
        for marker in page.get("DeleteMarkers", []):
            client.delete_object(Bucket=locking_bucket, Key=marker["Key"], VersionId=marker["VersionId"])
        for version in page.get("Versions", []):
            head = client.head_object(Bucket=locking_bucket, Key=version["Key"], VersionId=version["VersionId"])
            if "ObjectLockMode" not in head:
                client.delete_object(Bucket=locking_bucket, Key=version["Key"], VersionId=version["VersionId"])
    assert [entry.id for entry in ports.catalog.entries()] == sorted(ids)
    assert verify(ports, [], deep=True).outcome == "ok"


def test_a_bucket_without_lock_is_told(s3: SeaweedS3, bucket: str, locking_bucket: str) -> None:
    """``check`` says whether the bucket has it, and a put that wants it says what is wrong."""

    def item(store: S3Store) -> tuple[str, str]:
        found = [item for item in store.check() if item.name == "store: object lock"]
        return (found[0].outcome, found[0].detail) if found else ("none", "")

    lock = ObjectLock("compliance", 7)
    assert item(store_of(s3, bucket, None, who=s3.admin)) == (
        "ok",
        "off: who may delete in this bucket can delete backups (see store.object_lock)",
    )
    assert item(store_of(s3, bucket, lock, who=s3.admin))[0] == "failed"
    assert item(store_of(s3, locking_bucket, None, who=s3.admin))[0] == "warning"
    assert item(store_of(s3, locking_bucket, lock, who=s3.admin)) == (
        "ok",
        "the bucket has it; backups are locked in mode compliance for 7 days",
    )
    with pytest.raises(StoreRefused) as caught:
        store_of(s3, bucket, lock).put("backups/x", b"1")
    assert "made with object lock enabled" in caught.value.hint


def test_hints_name_the_lock_only_where_it_can_matter(s3: SeaweedS3, bucket: str) -> None:
    """A refused read is about a right, a refused deletion maybe about a lock, a refused locked put about two rights."""
    store = store_of(s3, bucket, None, who=s3.reader)
    locked = store_of(s3, bucket, ObjectLock("governance", 1), who=s3.reader)
    blind = store_of(s3, bucket, None, who=s3.writer)

    def hint(call: object) -> str:
        with pytest.raises(DrdError) as caught:
            call()  # type: ignore[operator]
        return caught.value.hint

    assert "lock" not in hint(lambda: blind.get("k")) + hint(lambda: store.put("k", b"x"))
    assert "object lock" in hint(lambda: store.delete(["k"]))
    assert "s3:PutObjectRetention" in hint(lambda: locked.put("backups/k", b"x"))
