"""S3 on a real server: identities, outages, and what is told of them."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devstack.s3 import Identity, SeaweedS3
from drd.cancel import CancelToken
from drd.errors import Cancelled, ObjectMissing, StoreError, StoreRefused, StoreUnavailable
from drd.model import Secret
from drd.repository.catalog import Catalog
from drd.stores.s3 import S3Settings, S3Store
from drd.stores.wrappers.faulty import FaultyStore
from drd.stores.wrappers.retry import Retry, RetryPolicy, RetryStore
from tests.support.backups import describe
from tests.support.certificates import self_signed

pytestmark = pytest.mark.integration


def store_as(server: SeaweedS3, bucket_name: str, who: Identity, **options: Any) -> S3Store:
    """Make a store for an identity."""
    settings: dict[str, Any] = {
        "bucket": bucket_name,
        "endpoint_url": server.url,
        "access_key_id": Secret(who.access_key_id),
        "secret_access_key": Secret(who.secret_access_key),
        "connect_timeout_s": 2.0,
        "read_timeout_s": 5.0,
    }
    return S3Store(S3Settings(**(settings | options)))


def every_call(store: S3Store) -> list[Callable[[], object]]:
    """Return one call of each method."""
    return [
        lambda: store.put("k", b"x"),
        lambda: store.put("k", b"x", if_absent=True),
        lambda: store.get("k"),
        lambda: store.get("k", start=1, length=2),
        lambda: store.stat("k"),
        lambda: list(store.list("")),
        lambda: store.delete(["k"]),
        lambda: store.delete(["k", "l"]),
    ]


def test_object_rights_are_enough(s3: SeaweedS3, bucket: str) -> None:
    """An identity that may put, get, list and delete, and no more, passes every line of the check."""
    found = store_as(s3, bucket, s3.objects, prefix="trading").check()
    assert [(item.name, item.detail) for item in found if item.outcome != "ok"] == []
    assert [item.name for item in found] == [
        "store: reach",
        "store: write",
        "store: read back",
        "store: conditional put",
        "store: list",
        "store: delete",
        "store: clock",
    ]
    assert s3.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("offset_s", [0, 300, -300])
def test_a_real_server_tells_how_far_the_clocks_are_apart(s3: SeaweedS3, bucket: str, offset_s: float) -> None:
    """By the date of each answer, be it a success, an object that is missing, or a refusal."""
    told: list[float] = []
    settings = store_as(s3, bucket, s3.objects)._settings
    store = S3Store(settings, clock=lambda: datetime.now(UTC) + timedelta(seconds=offset_s), on_skew=told.append)
    store.put("k", b"x")
    assert store.get("k") == b"x"
    with pytest.raises(ObjectMissing):
        store.get("l")
    assert list(store.list("m")) == []
    assert len(told) >= 4
    assert told == [pytest.approx(offset_s, abs=2)] * len(told)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"secret_access_key": Secret("wrong-secret-0123456789")}, "store.secret_access_key"),
        ({"access_key_id": Secret("nobody")}, "store.access_key_id"),
        ({"bucket": "no-such-bucket"}, "create the bucket"),
    ],
    ids=["wrong secret", "wrong access key", "missing bucket"],
)
def test_wrong_access_is_refused(
    s3: SeaweedS3, bucket: str, options: dict[str, Any], hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every method refuses at once with the remedy for what is wrong, and no secret is told, nor logged."""
    secrets = [s3.objects.secret_access_key, "wrong-secret-0123456789"]
    with caplog.at_level(logging.INFO):
        store = store_as(s3, bucket, s3.objects, **options)
        for call in every_call(store):
            with pytest.raises(StoreRefused) as caught:
                call()
            assert hint in caught.value.hint
            told = f"{caught.value.message} {caught.value.hint} {caught.value!r} {caught.value.__cause__!r}"
            assert not [secret for secret in secrets if secret in told]
        checked = store.check()
    assert [item.outcome for item in checked if item.name == "store: reach"] == ["failed"]
    assert not [secret for secret in secrets if secret in f"{caplog.text} {checked}"]


def test_reader(s3: SeaweedS3, bucket: str) -> None:
    """An identity that may only read reads, is refused to write and delete by name, and fails the check's write."""
    admin = store_as(s3, bucket, s3.admin)
    for key in ("a/1", "a/2"):
        admin.put(key, b"data")
    reader = store_as(s3, bucket, s3.reader)
    assert reader.get("a/1", start=1) == b"ata"
    assert reader.stat("a/1").size_bytes == 4
    assert [info.key for info in reader.list("a")] == ["a/1", "a/2"]
    with pytest.raises(ObjectMissing):
        reader.stat("a/3")
    refusals: list[tuple[Callable[[], None], str]] = [
        (lambda: reader.put("a/3", b"x"), "s3:PutObject"),
        (lambda: reader.delete(["a/1"]), "s3:DeleteObject"),
        (lambda: reader.delete(["a/1", "a/2"]), "s3:DeleteObject"),
    ]
    for call, right in refusals:
        with pytest.raises(StoreRefused) as caught:
            call()
        assert right in caught.value.hint
        assert "a/" in caught.value.subject
    outcomes = {item.name: item.outcome for item in reader.check()}
    assert outcomes["store: reach"] == "ok"
    assert outcomes["store: write"] == "failed"
    assert outcomes["store: list"] == "ok"
    assert [info.key for info in admin.list("")] == ["a/1", "a/2"]


def test_writer(s3: SeaweedS3, bucket: str) -> None:
    """An identity that may not read puts all the same, whole, and its check warns of what it cannot do."""
    writer = store_as(s3, bucket, s3.writer)
    writer.put("a/1", b"data")
    writer.put("a/2", b"data", if_absent=True)
    for call in (lambda: writer.get("a/1"), lambda: writer.stat("a/1"), lambda: list(writer.list(""))):
        with pytest.raises(StoreRefused):
            call()
    found = {item.name: item for item in writer.check()}
    assert not [item for item in found.values() if item.outcome == "failed"]
    assert found["store: read back"].outcome == "warning"
    assert found["store: list"].outcome == "warning"
    assert all(item.hint for item in found.values() if item.outcome == "warning")
    assert store_as(s3, bucket, s3.reader).get("a/2") == b"data"


def test_writer_under_opaque_etags(s3: SeaweedS3, bucket: str) -> None:
    """A role that may only put also works where the ETag could not be compared: it cannot ask, and says nothing."""
    writer = store_as(s3, bucket, s3.writer)
    writer._by_kms = True  # as under KMS, whose ETag is no MD5
    writer.put("a", b"data")
    writer.put("b", b"data")
    assert store_as(s3, bucket, s3.reader).get("b") == b"data"


@pytest.mark.parametrize(("encryption", "key_id"), [("AES256", None), ("aws:kms", "drd-key")])
def test_encryption_at_rest(s3: SeaweedS3, bucket: str, encryption: str, key_id: str | None) -> None:
    """A put with SSE-S3 or SSE-KMS and a storage class is stored so, and read back, whole and in part."""
    settings = {"server_side_encryption": encryption, "kms_key_id": key_id, "storage_class": "STANDARD_IA"}
    store = store_as(s3, bucket, s3.objects, **settings)
    store.put("k", b"data")
    assert (store.get("k"), store.get("k", start=1, length=2)) == (b"data", b"at")
    head = s3.client().head_object(Bucket=bucket, Key="k")
    assert (head["ServerSideEncryption"], head.get("SSEKMSKeyId")) == (encryption, key_id)
    assert head["StorageClass"] == "STANDARD_IA"
    assert [(item.name, item.detail) for item in store.check() if item.outcome != "ok"] == []


def test_tls_and_the_bucket_in_the_host_name(
    start_s3: Callable[..., SeaweedS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a private authority, with the bucket in path or host name, every line of the check is well."""
    certificate = self_signed(tmp_path, "s3.drd.test", "*.s3.drd.test")
    server = start_s3(certificate=certificate, domain="s3.drd.test")
    bucket = server.fresh_bucket()
    asked: set[str] = set()
    really = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        asked.add(host)
        return really("127.0.0.1" if str(host).endswith(".drd.test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    named = f"https://s3.drd.test:{server.port}"
    for style, host in (("path", "s3.drd.test"), ("virtual", f"{bucket}.s3.drd.test")):
        asked.clear()
        store = store_as(
            server, bucket, server.objects, endpoint_url=named, addressing_style=style, ca_file=certificate, prefix="p"
        )
        assert [(item.name, item.detail) for item in store.check() if item.outcome != "ok"] == []
        store.put(style, b"data")
        assert store.get(style) == b"data"
        store.close()
        assert asked == {host}
    assert {item["Key"] for item in server.client().list_objects_v2(Bucket=bucket)["Contents"]} == {
        "p/path",
        "p/virtual",
    }
    with pytest.raises(StoreRefused, match="certificate"):
        store_as(server, bucket, server.objects).get("p/path")


def test_prefixes_share_a_bucket(s3: SeaweedS3, bucket: str) -> None:
    """Two repositories in one bucket do not see each other, even when one prefix begins with the other."""
    one, two = (store_as(s3, bucket, s3.objects, prefix=prefix) for prefix in ("prod", "prod-2"))
    one.put("k", b"one")
    two.put("k", b"two")
    assert (one.get("k"), two.get("k")) == (b"one", b"two")
    one.delete(info.key for info in one.list(""))
    assert [info.key for info in two.list("")] == ["k"]


def test_an_index_of_heads_on_a_store_that_lists_emptied_folders(s3: SeaweedS3, bucket: str) -> None:
    """Lists read a handful of objects, and tell of a removed backup at no moment, though its folder may stay listed."""
    store = FaultyStore(store_as(s3, bucket, s3.objects))
    catalog = Catalog(store)
    ids = [f"202611{day:02d}T181455Z-aaaaaa" for day in range(1, 13)]
    for found in ids:
        catalog.publish(describe(backup_id=found))
    catalog.renew_index("src")
    store.calls.clear()
    assert [entry.id for entry in catalog.survey("src").entries] == ids
    assert len(store.calls) <= 4, store.calls
    for gone, found in enumerate(ids[:9], start=1):
        catalog.remove("src", found)
        assert [entry.id for entry in catalog.survey("src").entries] == ids[gone:]
    catalog.renew_index("src")
    catalog.tidy_index("src")
    assert [entry.id for entry in catalog.survey("src").entries] == ids[9:]
    assert list(store.list("heads/src/removed/")) == []


def test_server_down(start_s3: Callable[..., SeaweedS3]) -> None:
    """A server that is gone or does not answer is unavailable; one that comes back within the patience is survived."""
    server = start_s3()
    bucket = server.fresh_bucket()
    store = store_as(server, bucket, server.objects, read_timeout_s=1.0)
    store.put("k", b"before")
    server.pause()
    with pytest.raises(StoreUnavailable, match="in time"):
        store.get("k")
    server.resume()
    assert store.get("k") == b"before"
    server.kill()
    for call in every_call(store):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert server.objects.secret_access_key not in str(caught.value)
    assert [item.outcome for item in store.check()] == ["failed"]

    seen: list[Retry] = []
    policy = RetryPolicy(patience_s=60.0, base_delay_s=0.1, max_delay_s=0.5)
    patient = RetryStore(store, cancel=CancelToken(), policy=policy, on_retry=seen.append)
    failures: list[StoreError] = []

    def back_up() -> None:
        try:
            for number in range(5):
                patient.put(f"part/{number}", b"data" * 1000)
            patient.put("manifest", b"done", if_absent=True)
        except StoreError as error:
            failures.append(error)

    worker = threading.Thread(target=back_up)
    worker.start()
    time.sleep(0.5)
    server.start()
    worker.join(60)
    assert failures == []
    assert seen
    assert [info.key for info in patient.list("")] == ["k", "manifest", *(f"part/{n}" for n in range(5))]


def test_server_that_stays_away(start_s3: Callable[..., SeaweedS3]) -> None:
    """When the patience is at its end the error says for how long it was tried, and cancelling ends it sooner."""
    server = start_s3()
    bucket = server.fresh_bucket()
    store = store_as(server, bucket, server.objects)
    server.kill()
    cancel = CancelToken()
    policy = RetryPolicy(patience_s=1.0, base_delay_s=0.05, max_delay_s=0.2)
    with pytest.raises(StoreUnavailable, match="tried"):
        RetryStore(store, cancel=cancel, policy=policy).put("k", b"x")
    threading.Timer(0.3, cancel.cancel).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        RetryStore(store, cancel=cancel, policy=RetryPolicy(patience_s=60.0)).put("k", b"x")
    assert time.monotonic() - begun < 5
