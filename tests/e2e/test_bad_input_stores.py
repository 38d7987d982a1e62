"""Stores that are missing, refuse, or are away: exit 12, what is refused, and no half of a backup."""

from __future__ import annotations

import pytest

from devstack.ports import free_port
from tests.e2e.conftest import MakeSite
from tests.support.drd_site import Site
from tests.support.trading_site import POSTGRES, REDIS, Platform

pytestmark = pytest.mark.e2e


def use_identity(platform: Platform, site: Site, name: str) -> None:
    """Let the site work as another user of the S3 store."""
    who = next(who for who in platform.s3.identities if who.name == name)
    site.config["store"] = platform.s3_store(site.config["store"]["bucket"], who)


def keys(platform: Platform, site: Site) -> set[str]:
    """Return the keys in the site's bucket."""
    pages = platform.s3.client().get_paginator("list_objects_v2").paginate(Bucket=site.config["store"]["bucket"])
    return {item["Key"] for page in pages for item in page.get("Contents", [])}


@pytest.fixture
def s3_site(make_site: MakeSite) -> Site:
    """Give a site of one source with a bucket."""
    return make_site(REDIS, store="s3")


@pytest.mark.parametrize("verb", [("backup", "now"), ("status",), ("restore", "--at", "now")])
def test_bucket_missing(s3_site: Site, verb: tuple[str, ...]) -> None:
    """A bucket that does not exist: every verb says so by name, exit 12."""
    s3_site.config["store"]["bucket"] = "no-such-bucket"
    s3_site(*verb).fails(12, verb[0], "there is no bucket no-such-bucket", hint="store.bucket")


def test_bucket_missing_in_check(s3_site: Site) -> None:
    """Check says that the bucket is missing, and goes on to look at the sources."""
    s3_site.config["store"]["bucket"] = "no-such-bucket"
    run = s3_site("check", "--json")
    assert run.rc == 12, run.described
    items = {item["name"]: item for item in run.json["items"]}
    assert "no-such-bucket" in items["store: reach"]["detail"]
    assert items["store: reach"]["hint"]
    assert items[f"{REDIS}: reachable"]["outcome"] == "ok"


def test_wrong_secret_key(s3_site: Site) -> None:
    """A secret that is not the access key's: exit 12, and neither the right nor the wrong one is shown."""
    s3_site.env["WRONG"] = "wrong-s3-secret-77b0"
    s3_site.secrets.add("wrong-s3-secret-77b0")
    s3_site.config["store"]["secret_access_key"] = {"env": "WRONG"}
    s3_site("backup", "now").fails(12, "SignatureDoesNotMatch", hint="store.secret_access_key")
    assert s3_site("check").rc == 12


def test_unknown_access_key(s3_site: Site) -> None:
    """An access key that the store does not know: exit 12."""
    s3_site.config["store"]["access_key_id"] = "nobody-0000"
    s3_site("list").fails(12, "InvalidAccessKeyId", hint="store.access_key_id")


def test_read_only_identity(platform: Platform, s3_site: Site) -> None:
    """An identity that may only read: a backup names the refused right and object; list and verify --deep work."""
    s3_site("backup", "now").succeeds()
    before = keys(platform, s3_site)
    use_identity(platform, s3_site, "reader")
    failure = s3_site("backup", "now").fails(12, f"backup {REDIS}: ", "cannot write", "AccessDenied")
    assert "s3:PutObject" in failure.hint
    assert s3_site.config["store"]["bucket"] in failure.hint
    assert keys(platform, s3_site) == before
    assert len(s3_site("list", "--json").succeeds().json["backups"]) == 1
    s3_site("verify", "--deep").succeeds()
    check = s3_site("check")
    assert check.rc == 12, check.described
    assert "s3:PutObject" in check.out


def test_read_only_identity_before_the_first_backup(platform: Platform, s3_site: Site) -> None:
    """The same in an empty bucket: exit 12 before any source is touched."""
    use_identity(platform, s3_site, "reader")
    s3_site("backup", "now").fails(12, "cannot write drd.json", "AccessDenied", hint="s3:PutObject")
    assert keys(platform, s3_site) == set()


def test_write_only_identity(platform: Platform, s3_site: Site) -> None:
    """An identity that can neither read nor list what exists: exit 12, and the one right that is truly missing."""
    s3_site("backup", "now").succeeds()
    use_identity(platform, s3_site, "writer")
    s3_site("backup", "now").fails(12, "AccessDenied", hint="s3:ListBucket")


def test_store_away(s3_site: Site) -> None:
    """Nothing listens at the endpoint: exit 12 once the patience is over, with how long it was tried."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    s3_site.config["store"] |= {"endpoint_url": endpoint, "patience": "1s"}
    run = s3_site("list")
    run.fails(12, f"no connection to {endpoint}", "tried", hint="store.endpoint_url")
    assert run.duration_s < 30


def test_local_store_that_cannot_be_written(make_site: MakeSite) -> None:
    """A store path below a file: exit 12, with the path."""
    site = make_site(POSTGRES)
    (site.folder / "file").write_text("not a folder")
    site.config["store"]["path"] = str(site.folder / "file" / "store")
    site("backup", "now").fails(12, str(site.folder / "file" / "store"))


def test_folder_of_someone_else(make_site: MakeSite) -> None:
    """A folder that holds foreign files is not taken over: exit 2, and nothing is added to it."""
    site = make_site(REDIS)
    site.store_dir.mkdir()
    (site.store_dir / "holiday.jpg").write_bytes(b"mine")
    site("backup", "now").fails(2, "'holiday.jpg'", "nothing was written", hint="store")
    assert [path.name for path in site.store_dir.iterdir()] == ["holiday.jpg"]
