"""The three roles of docs/bucket-policies.md, as that page has them, on a real store that enforces them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devstack.s3 import Identity, SeaweedS3
from drd.cancel import CancelToken
from drd.drills import keeping
from drd.drills.history import History
from drd.errors import LeaseError, StoreRefused
from drd.model import Secret
from drd.ops import restore as restoring
from drd.ops.backup import back_up, hold_lease
from drd.ops.check import check
from drd.ops.ports import Ports, Source
from drd.ops.prune import prune, set_pin
from drd.ops.prune_drills import prune_reports
from drd.ops.status import status
from drd.ops.verify import verify
from drd.repository.layout import new_backup_id
from drd.repository.lease import Holder
from drd.repository.repository import UNREAD_ID
from drd.repository.retention import Policy
from drd.stores.s3 import S3Settings, S3Store
from drd.stores.s3_settings import ObjectLock
from drd.stores.wrappers.retry import RetryPolicy, RetryStore
from tests.support.engine import BreakingEngine, DictEngine
from tests.support.overviews import make_drill
from tests.support.ports import make_ports
from tests.support.roles import grant_roles

pytestmark = pytest.mark.integration

TABLES = {"orders": b"1\tbuy\n" * 20_000, "users": b"1\tann\n"}


class Roles:
    """A bucket under a policy that gives each role its statements; ``ports`` works as one of them."""

    def __init__(self, s3: SeaweedS3, bucket: str, folder: Path, *, backup: str) -> None:
        self._s3 = s3
        self.blind = backup == "blind"
        self.bucket = bucket
        self._folder = folder
        self.opened: list[S3Store] = []
        grant_roles(s3, bucket, backup=backup)

    def store(self, who: Identity, lock: ObjectLock | None = None) -> RetryStore:
        settings = S3Settings(
            bucket=self.bucket,
            prefix="trading",
            endpoint_url=self._s3.url,
            access_key_id=Secret(who.access_key_id),
            secret_access_key=Secret(who.secret_access_key),
            object_lock=lock,
        )
        self.opened.append(S3Store(settings))
        return RetryStore(self.opened[-1], cancel=CancelToken(), policy=RetryPolicy(patience_s=2.0))

    def ports(self, who: Identity, lock: ObjectLock | None = None) -> Ports:
        # as from another host, of which nothing can be known but what the store says
        holder = Holder(f"host-of-{who.name}", 1)
        return make_ports(self.store(who, lock), self._folder / who.name, holder=holder)


@pytest.fixture(params=["backup", "blind"])
def roles(request: pytest.FixtureRequest, s3: SeaweedS3, bucket: str, tmp_path: Path) -> Iterator[Roles]:
    """Give the roles, the backup one as documented or blind."""
    made = Roles(s3, bucket, tmp_path, backup=request.param)
    yield made
    for store in made.opened:
        store.close()


def take(ports: Ports, *, hours_ago: int = 0, tables: dict[str, bytes] | None = None) -> Any:
    engine = DictEngine(tables or TABLES, at=datetime.now(UTC) - timedelta(hours=hours_ago))
    return back_up(ports, [Source("shop", engine, 60.0)]).sources[0]


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(StoreRefused):
        call()


def test_each_role_does_its_job_and_no_other(s3: SeaweedS3, roles: Roles) -> None:
    """Backup backs up twice in a row; restore reads it all; prune removes; each is refused what is not its job."""
    backing, restoring_, pruning = (roles.ports(who) for who in (s3.backup, s3.restore, s3.prune))
    reports = [take(backing, hours_ago=2), take(backing, hours_ago=1)]
    assert [report.error for report in reports] == [None, None]
    ids = [report.backup.id for report in reports]
    assert [notice.code for notice in reports[1].notices] == (["not-swept"] if roles.blind else [])
    assert (reports[1].backup.repository_id == UNREAD_ID) is roles.blind

    part, manifest = f"backups/shop/{ids[0]}/names.json/000000.zst", f"backups/shop/{ids[0]}/manifest.json"
    for key in [part] + [manifest, "drd.json"] * roles.blind:
        refused(lambda key=key: backing.store.get(key))
        refused(lambda key=key: backing.store.stat(key))
    for key in (part, manifest, "drd.json"):
        refused(lambda key=key: backing.store.delete([key]))
    refused(lambda: pruning.store.get(part))
    refused(lambda: pruning.store.put(manifest, b"x"))
    refused(lambda: pruning.store.delete(["drd.json"]))
    assert isinstance(take(pruning).error, StoreRefused)
    refused(lambda: restoring_.store.put("backups/shop/x", b"x"))
    refused(lambda: restoring_.store.delete([manifest]))
    assert isinstance(prune(restoring_, {"shop": Policy(keep_last=1)}, apply=True).sources[0].error, StoreRefused)

    target, at = DictEngine(), datetime.now(UTC)
    planned = restoring.plan(restoring_, at, ["shop"], lambda _s, _b: Source("shop", target, 60.0))
    assert restoring.restore(restoring_, at, planned).outcome == "ok"
    assert target.tables == TABLES
    assert verify(restoring_, [], deep=True).outcome == "ok"

    set_pin(pruning, ids[0], pinned=True)
    set_pin(pruning, ids[0], pinned=False)
    report = prune(pruning, {"shop": Policy(keep_last=1)}, apply=True)
    assert (report.outcome, report.sources[0].removed) == ("ok", (ids[0],))
    assert {info.key.split("/")[2] for info in restoring_.store.list("backups/shop/")} == {ids[1]}
    assert verify(pruning, [], deep=False).outcome == "ok"


def test_reports_of_drills_stop_no_role(s3: SeaweedS3, roles: Roles) -> None:
    """Once a drill was kept, prune reads and tidies its reports, and backup, which may not, still says what it has."""
    backing, pruning = roles.ports(s3.backup), roles.ports(s3.prune)
    ids = [take(backing, hours_ago=hours).backup.id for hours in (3, 2, 1)]
    for hours, found in enumerate((ids[1], ids[0], ids[0])):
        at = datetime.now(UTC) - timedelta(hours=hours)
        run = replace(make_drill(None, at), id=new_backup_id(at), source="shop", backup=found)
        History(roles.store(s3.objects), backing.catalog.signing).record(run)
    if roles.blind:
        refused(lambda: status(backing, [("shop", None)]))
    else:
        said = status(backing, [("shop", None)])
        assert said.drills_unread
        assert said.recoverable_to is not None
    report = prune(pruning, {"shop": Policy(keep_last=1)}, apply=True)
    assert (report.outcome, report.sources[0].removed) == ("ok", (ids[0],))  # ids[1] is the newest proven one
    policy = keeping.Policy(keep_last=1, keep_within=timedelta(0))
    tidied = prune_reports(pruning, report, policy, apply=True)
    assert (tidied.error, len(tidied.removed), len(tidied.decision.keep)) == (None, 2, 1)


def test_what_a_failed_backup_leaves_is_for_prune(s3: SeaweedS3, roles: Roles) -> None:
    """The role cannot remove it and says so; prune sweeps it; neither makes it a backup."""
    backing, pruning = roles.ports(s3.backup), roles.ports(s3.prune)
    engine = BreakingEngine(lambda: any(pruning.store.list("backups/")))
    error = back_up(backing, [Source("shop", engine, 60.0)]).sources[0].error
    assert error
    assert "swept by the next run that may" in error.hint
    assert not pruning.catalog.entries()
    (orphan,) = prune(pruning, {"shop": Policy(keep_last=1)}, apply=True).sources[0].orphans
    assert orphan.swept
    assert not list(pruning.store.list("backups/"))


def test_leases_keep_two_backup_hosts_apart(s3: SeaweedS3, roles: Roles) -> None:
    """While one holds the lease, another and prune are refused; a released one is free at once for its own role."""
    backing, other, pruning = roles.ports(s3.backup), roles.ports(s3.backup), roles.ports(s3.prune)
    assert take(backing).error is None
    with hold_lease(backing, "shop"):
        assert isinstance(take(other).error, LeaseError)
        assert isinstance(prune(pruning, {"shop": Policy(keep_last=1)}, apply=True).sources[0].error, LeaseError)
    assert take(other).error is None
    assert prune(pruning, {"shop": Policy(keep_last=1)}, apply=True).outcome == "ok"
    found = take(backing).error
    if roles.blind:  # what another role released, it cannot know
        assert isinstance(found, LeaseError)
        assert "may not read by whom" in found.message
        assert "try again after" in found.hint
    else:
        assert found is None


def test_check_calls_a_missing_right_by_its_weight(s3: SeaweedS3, roles: Roles) -> None:
    """Under the backup role nothing fails, what it lacks on purpose is a warning; under restore writing fails."""
    assert take(roles.ports(s3.backup)).error is None
    found = {item.name: item.outcome for item in check(roles.ports(s3.backup), []).items}
    assert {name for name, outcome in found.items() if outcome == "failed"} == set()
    assert found["store: read back"] == found["store: delete"] == "warning"
    assert found["store: conditional put"] == "ok"
    assert (found["repository"] == "warning") is roles.blind
    assert {i.name: i.outcome for i in check(roles.ports(s3.restore), []).items}["store: write"] == "failed"


def test_the_backup_role_may_lock(s3: SeaweedS3, tmp_path: Path) -> None:
    """With ``LockBackups`` it locks what it puts, and prune, which sees the lock, leaves it."""
    bucket = f"{s3.fresh_bucket('roles')}-locked"
    s3.client().create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    roles = Roles(s3, bucket, tmp_path, backup="backup")
    lock = ObjectLock("governance", 3)
    ids = [take(roles.ports(s3.backup, lock), hours_ago=hours).backup.id for hours in (2, 1)]
    report = prune(roles.ports(s3.prune, lock), {"shop": Policy(keep_last=1)}, apply=True)
    assert report.outcome == "ok"
    assert [item.id for item in report.sources[0].locked] == ids[:1]
