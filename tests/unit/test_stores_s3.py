"""What S3 sends and understands, at the wire: no mock of S3, only answers written down."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from drd.errors import (
    ConfigError,
    ObjectExists,
    ObjectMissing,
    StoreError,
    StoreForbidden,
    StoreRefused,
    StoreUnavailable,
)
from drd.model import Secret
from drd.stores.s3 import S3Settings, S3Store
from tests.support.certificates import self_signed
from tests.support.scripted_http import Scripted, s3_error, scripted

ACCESS, SECRET, TOKEN = "AKIDVISIBLE", "sEcReTvAlUe0123456789", "tOkEnVaLuE9876543210"


def store_at(url: str | None, **options: Any) -> S3Store:
    """Make a store that does not wait long."""
    settings: dict[str, Any] = {
        "bucket": "backups",
        "endpoint_url": url,
        "access_key_id": Secret(ACCESS),
        "secret_access_key": Secret(SECRET),
        "session_token": Secret(TOKEN),
        "connect_timeout_s": 0.5,
        "read_timeout_s": 0.5,
    } | options
    ours = {name: settings.pop(name) for name in ("clock", "on_skew") if name in settings}
    return S3Store(S3Settings(**settings), **ours)


def md5_etag(data: bytes) -> dict[str, str]:
    """Make the ETag header of plain S3."""
    return {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}  # noqa: S324


class Body:
    """What botocore reads an answer's body from."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    def stream(self, **_: object) -> list[bytes]:
        return [self._data]

    def read(self, *_: object) -> bytes:
        return self._data

    def close(self) -> None:
        """Nothing to close."""


def captured(store: S3Store, headers: dict[str, str]) -> list[AWSPreparedRequest]:
    """Answer every request with 200 before it leaves, and collect the requests."""
    requests: list[AWSPreparedRequest] = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        requests.append(request)
        return AWSResponse(request.url, 200, HTTPHeaders.from_dict(headers), Body())

    store._client._client.meta.events.register("before-send.s3", answer)
    return requests


def test_put_carries_what_was_configured() -> None:
    """A put has Content-MD5, encryption, key, class and condition in its signed headers, and no newer checksum."""
    data = b"data"
    store = store_at(
        None,
        region="eu-central-1",
        prefix="trading",
        server_side_encryption="aws:kms",
        kms_key_id="key-1",
        storage_class="STANDARD_IA",
    )
    requests = captured(store, {"x-amz-server-side-encryption": "aws:kms", "content-length": "4"})
    store.put("a/b", data, if_absent=True)
    put, head = requests
    assert put.url == "https://backups.s3.eu-central-1.amazonaws.com/trading/a/b"
    raw: dict[str, Any] = dict(put.headers.items())
    sent = {name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in raw.items()}
    assert sent["content-md5"] == base64.b64encode(hashlib.md5(data).digest()).decode()  # noqa: S324
    assert sent["if-none-match"] == "*"
    assert sent["x-amz-server-side-encryption"] == "aws:kms"
    assert sent["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
    assert sent["x-amz-storage-class"] == "STANDARD_IA"
    assert not [name for name in sent if "checksum" in name or "trailer" in name]
    assert "content-md5" in sent["authorization"]
    assert head.method == "HEAD"  # under KMS the ETag is no MD5: the size is compared instead


@pytest.mark.parametrize(
    ("style", "endpoint", "expected"),
    [
        ("auto", "https://s3.example.com", "https://s3.example.com/backups/k"),
        ("path", "https://s3.example.com:9000", "https://s3.example.com:9000/backups/k"),
        ("virtual", "https://s3.example.com", "https://backups.s3.example.com/k"),
        ("auto", None, "https://backups.s3.us-east-1.amazonaws.com/k"),
        ("path", None, "https://s3.us-east-1.amazonaws.com/backups/k"),
    ],
)
def test_addressing(style: str, endpoint: str | None, expected: str) -> None:
    """The bucket goes into the path or the host name as configured; auto means path for any endpoint of one's own."""
    store = store_at(endpoint, addressing_style=style)
    requests = captured(store, md5_etag(b""))
    store.put("k", b"")
    assert [request.url for request in requests] == [expected]


def test_plain_put_is_one_request() -> None:
    """Where the ETag is the MD5, nothing but the put is asked for: a role that may only put is enough."""
    with scripted(Scripted(headers=md5_etag(b"x"))) as server:
        store_at(server.url).put("k", b"x")
        assert [(seen.method, seen.path) for seen in server.seen] == [("PUT", "/backups/k")]
        assert server.seen[0].body == b"x"


def test_put_that_stored_something_else() -> None:
    """An ETag that is the MD5 of other bytes is an error that is worth another try."""
    with scripted(Scripted(headers=md5_etag(b"y"))) as server, pytest.raises(StoreUnavailable, match="as it was sent"):
        store_at(server.url).put("k", b"x")


def test_put_with_opaque_etag_compares_the_size() -> None:
    """Where the ETag says nothing, the size does, if this identity may ask; a role that may only put asks once."""
    opaque = Scripted(headers={"ETag": '"opaque-1"'})
    with scripted(opaque, Scripted(missing_bytes=1)) as server:
        store_at(server.url).put("k", b"x")
        assert [seen.method for seen in server.seen] == ["PUT", "HEAD"]
    with (
        scripted(opaque, Scripted(missing_bytes=7)) as server,
        pytest.raises(StoreUnavailable, match="it has 7 bytes, sent were 1"),
    ):
        store_at(server.url).put("k", b"x")
    with scripted(opaque, Scripted(403), s3_error(403, "AccessDenied"), opaque) as server:
        store = store_at(server.url)
        store.put("k", b"x")
        store.put("k", b"x")
        assert [seen.method for seen in server.seen] == ["PUT", "HEAD", "GET", "PUT"]


@pytest.mark.parametrize(
    ("answer", "error", "hint"),
    [
        (s3_error(403, "InvalidAccessKeyId"), StoreRefused, "store.access_key_id"),
        (s3_error(403, "SignatureDoesNotMatch"), StoreRefused, "store.secret_access_key"),
        (s3_error(403, "RequestTimeTooSkewed"), StoreRefused, "NTP"),
        (s3_error(403, "AccessDenied"), StoreForbidden, "s3:PutObject on arn:aws:s3:::backups/"),
        (s3_error(400, "ExpiredToken"), StoreRefused, "store.session_token"),
        (s3_error(404, "NoSuchBucket"), StoreRefused, "create the bucket"),
        (s3_error(400, "AuthorizationHeaderMalformed"), StoreRefused, "store.region"),
        (s3_error(301, "PermanentRedirect"), StoreRefused, "store.region"),
        (s3_error(400, "InvalidStorageClass"), StoreRefused, "store.storage_class"),
        (s3_error(507, "XMinioStorageFull"), StoreRefused, "full"),
        (s3_error(412, "PreconditionFailed"), ObjectExists, ""),
        (s3_error(409, "ConditionalRequestConflict"), StoreUnavailable, ""),
        (s3_error(400, "BadDigest"), StoreUnavailable, ""),
        (s3_error(400, "RequestTimeout"), StoreUnavailable, ""),
        (s3_error(408, "RequestTimeout"), StoreUnavailable, ""),
        (s3_error(429, "TooManyRequests"), StoreUnavailable, ""),
        (s3_error(500, "InternalError"), StoreUnavailable, ""),
        (s3_error(503, "SlowDown"), StoreUnavailable, ""),
        (Scripted(502, b"<html>Bad gateway</html>"), StoreUnavailable, ""),
        (Scripted(404, b"<html>nothing here</html>"), StoreUnavailable, ""),
        (Scripted(405, b"no"), StoreRefused, "store.endpoint_url"),
        (Scripted(hang_up=True), StoreUnavailable, "store.endpoint_url"),
    ],
)
def test_what_answers_to_a_put_mean(answer: Scripted, error: type[StoreError], hint: str) -> None:
    """Each answer becomes the right error, tried once, on one line, with the key, a remedy, and no secret."""
    with scripted(answer) as server:
        with pytest.raises(error) as caught:
            store_at(server.url).put("a/key", b"x")
        assert len(server.seen) == 1
    assert type(caught.value) is error
    assert hint in caught.value.hint
    assert "a/key" in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    for secret in (SECRET, TOKEN):
        assert secret not in caught.value.message + caught.value.hint


def test_store_without_conditional_writes() -> None:
    """501 to a conditional put is a refusal that says what is missing."""
    with scripted(s3_error(501, "NotImplemented")) as server, pytest.raises(StoreRefused) as caught:
        store_at(server.url).put("k", b"x", if_absent=True)
    assert "conditional writes" in caught.value.hint


def test_secret_that_the_store_repeats_is_masked() -> None:
    """Even when an answer quotes a secret, the error does not."""
    with scripted(s3_error(403, "SignatureDoesNotMatch", f"signed with {SECRET} and {TOKEN}")) as server:
        with pytest.raises(StoreRefused) as caught:
            store_at(server.url).put("k", b"x")
        assert SECRET not in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert "**********" in str(caught.value)
        assert SECRET not in repr(store_at(server.url)._settings)


def test_truncated_body_may_be_tried_again() -> None:
    """A body that ends early is never returned."""
    with scripted(Scripted(body=b"half", missing_bytes=4)) as server, pytest.raises(StoreUnavailable):
        store_at(server.url).get("k")


def test_truncated_listing_may_be_tried_again() -> None:
    """A listing cut off in its XML is not taken for a short one."""
    cut = b"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a"
    with scripted(Scripted(body=cut)) as server, pytest.raises(StoreUnavailable):
        list(store_at(server.url).list(""))


def test_listing_that_does_not_advance_is_refused() -> None:
    """A store that says there is more but gives no way on does not hang drd."""
    page = b"<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>"
    for token in (b"", b"<NextContinuationToken>same</NextContinuationToken>"):
        with scripted(Scripted(body=page % token)) as server, pytest.raises(StoreRefused, match="where to go on"):
            list(store_at(server.url).list(""))


def test_listing_skips_folder_markers_and_cuts_the_prefix() -> None:
    """Objects that consoles make to show a folder are not listed, and keys come without the configured prefix."""
    entry = b"<Contents><Key>%s</Key><Size>%d</Size><LastModified>2026-11-22T18:00:00.000Z</LastModified></Contents>"
    entries = entry % (b"pre/fix/a/", 0) + entry % (b"pre/fix/a/b", 3)
    page = b"<ListBucketResult><IsTruncated>false</IsTruncated>" + entries + b"</ListBucketResult>"
    with scripted(Scripted(body=page)) as server:
        found = list(store_at(server.url, prefix="/pre/fix/").list("a/"))
        assert "prefix=pre%2Ffix%2Fa%2F" in server.seen[0].path
    assert [(info.key, info.size_bytes) for info in found] == [("a/b", 3)]
    assert found[0].modified_at == datetime(2026, 11, 22, 18, tzinfo=UTC)


def test_store_that_ignores_ranges_is_refused() -> None:
    """A whole object in answer to a range is not passed off as the range."""
    with scripted(Scripted(body=b"0123456789")) as server:
        store = store_at(server.url)
        with pytest.raises(StoreRefused, match="ignored the range"):
            store.get("k", start=2, length=3)
        with pytest.raises(StoreRefused, match="ignored the range"):
            store.get("k", start=0, length=3)
        assert store.get("k", start=0, length=10) == b"0123456789"


def test_head_without_reason_is_explained_by_a_get() -> None:
    """A head's bare 404 or 403 is resolved into missing object, missing bucket, or wrong secret."""
    cases = [
        (Scripted(404), s3_error(404, "NoSuchKey"), ObjectMissing),
        (Scripted(404), s3_error(404, "NoSuchBucket"), StoreRefused),
        (Scripted(403), s3_error(403, "SignatureDoesNotMatch"), StoreRefused),
    ]
    for head, get, error in cases:
        with scripted(head, get) as server, pytest.raises(error):
            store_at(server.url).stat("k")


def test_batch_deletion_sends_md5() -> None:
    """A batch deletion carries Content-MD5, which every S3 takes, and none of the newer checksums."""
    with scripted(Scripted(body=b"<DeleteResult></DeleteResult>")) as server:
        store_at(server.url).delete(f"k/{number}" for number in range(2500))
        assert [seen.method for seen in server.seen] == ["POST"] * 3
        for seen in server.seen:
            assert seen.headers["content-md5"] == base64.b64encode(hashlib.md5(seen.body).digest()).decode()  # noqa: S324
            assert not [name for name in seen.headers if "checksum" in name]
        assert [seen.body.count(b"<Key>") for seen in server.seen] == [1000, 1000, 500]


@pytest.mark.parametrize("refusal", [s3_error(501, "NotImplemented"), s3_error(400, "MalformedXML"), Scripted(405)])
def test_store_without_batch_deletion(refusal: Scripted) -> None:
    """Where a batch is refused, objects are deleted one by one, and the batch form is not tried again."""
    with scripted(refusal, Scripted(204)) as server:
        store = store_at(server.url)
        store.delete(["a", "b"])
        store.delete(["c", "d"])
        assert [seen.method for seen in server.seen] == ["POST", "DELETE", "DELETE", "DELETE", "DELETE"]


@pytest.mark.parametrize(
    ("code", "error"),
    [("AccessDenied", StoreRefused), ("InternalError", StoreUnavailable), ("SlowDown", StoreUnavailable)],
)
def test_one_failure_in_a_batch_names_its_key(code: str, error: type[StoreError]) -> None:
    """A batch that answers 200 with an error for one key raises, and names the key."""
    body = f"<DeleteResult><Error><Key>p/b</Key><Code>{code}</Code><Message>no</Message></Error></DeleteResult>"
    with scripted(Scripted(body=body.encode())) as server, pytest.raises(error) as caught:
        store_at(server.url, prefix="p").delete(["a", "b"])
    assert caught.value.subject == "b"
    assert "1 of 2" in caught.value.message


def test_missing_key_in_a_batch_is_fine() -> None:
    """Some stores report a missing key as an error of the batch, or of a single deletion."""
    body = b"<DeleteResult><Error><Key>b</Key><Code>NoSuchKey</Code></Error></DeleteResult>"
    with scripted(Scripted(body=body), s3_error(404, "NoSuchKey")) as server:
        store = store_at(server.url)
        store.delete(["a", "b"])
        store.delete(["b"])
        assert len(server.seen) == 2


def test_silent_and_absent_servers() -> None:
    """No listener and a listener that never answers are both worth another try."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreUnavailable, match="no connection"):
            store_at(url).get("k")
        silent.listen()
        with pytest.raises(StoreUnavailable, match="in time"):
            store_at(url).get("k")


def test_private_authority(tmp_path: Path) -> None:
    """A certificate of an unknown authority is refused at once with the remedy, and accepted with its ca_file."""
    path = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with scripted(Scripted(body=b"data"), tls=context) as server:
        with pytest.raises(StoreRefused, match="certificate") as caught:
            store_at(server.url).get("k")
        assert "store.ca_file" in caught.value.hint
        assert store_at(server.url, ca_file=path).get("k") == b"data"


def test_tls_to_a_plain_port() -> None:
    """TLS spoken to a server without it is refused with the remedy, not tried for two minutes."""
    with scripted(Scripted()) as server, pytest.raises(StoreRefused) as caught:
        store_at(server.url.replace("http:", "https:")).get("k")
    assert "http://" in caught.value.hint


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without keys anywhere the error says where they are looked for."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = store_at("http://127.0.0.1:9", access_key_id=None, secret_access_key=None, session_token=None)
    with pytest.raises(StoreRefused, match="no credentials") as caught:
        store.get("k")
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_keys_of_a_role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without keys of its own, drd becomes the role that its environment names, as pods of a cluster do."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    token = tmp_path / "token"
    token.write_text("who-i-am")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    keys = (
        "<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>role-secret</SecretAccessKey>"
        f"<SessionToken>role-token</SessionToken><Expiration>{until}</Expiration>"
    )
    body = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    )
    with scripted(Scripted(body=body.encode())) as sts, scripted(Scripted(body=b"data")) as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        store = store_at(s3.url, access_key_id=None, secret_access_key=None, session_token=None)
        assert store.get("k") == b"data"
        assert b"who-i-am" in sts.seen[0].body
        assert "Credential=ASIAROLE/" in s3.seen[0].headers["authorization"]
        assert s3.seen[0].headers["x-amz-security-token"] == "role-token"


@pytest.mark.parametrize(
    "options",
    [
        {"bucket": ""},
        {"bucket": "a/b"},
        {"prefix": "../up"},
        {"prefix": "a//b"},
        {"prefix": "x" * 124},
        {"endpoint_url": "127.0.0.1:9000"},
        {"endpoint_url": "http://"},
        {"endpoint_url": "http://user:hunter2@host"},
        {"endpoint_url": "http://host:99999"},
        {"secret_access_key": None},
        {"access_key_id": None, "secret_access_key": None},
        {"kms_key_id": "k"},
        {"ca_file": Path("/does/not/exist.pem")},
        {"read_timeout_s": 0},
        {"max_connections": 0},
    ],
    ids=str,
)
def test_settings_that_cannot_work(options: dict[str, Any]) -> None:
    """Settings that cannot work are refused before anything is tried, without repeating a password."""
    with pytest.raises(ConfigError) as caught:
        store_at(**({"url": options.pop("endpoint_url")} if "endpoint_url" in options else {"url": None}), **options)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset_s", "outcome"), [(0, "ok"), (-20, "warning"), (20, "warning"), (1200, "failed"), (-1200, "failed")]
)
def test_check_compares_the_clocks(offset_s: float, outcome: str) -> None:
    """A clock some seconds off is a warning, one beyond what S3 accepts a failure, both with their direction."""
    server_now = datetime.now(UTC) + timedelta(seconds=offset_s)
    refused = s3_error(403, "RequestTimeTooSkewed")
    answer = Scripted(403, refused.body, {"Date": format_datetime(server_now, usegmt=True)})
    with scripted(answer) as server:
        found = {item.name: item for item in store_at(server.url).check()}
    assert found["store: reach"].outcome == "failed"
    assert found["store: clock"].outcome == outcome
    if offset_s:
        assert ("behind" if offset_s > 0 else "ahead") in found["store: clock"].detail


@pytest.mark.parametrize(("offset_s", "expected"), [(-1200, 1200), (1200, -1200), (0, 0)])
def test_every_answer_tells_how_far_the_clocks_are_apart(offset_s: float, expected: float) -> None:
    """Also one that refuses the request for just that reason; without a date nothing is told."""
    told: list[float] = []
    now = datetime.now(UTC)
    date = {"Date": format_datetime(now + timedelta(seconds=offset_s), usegmt=True)}
    refused = Scripted(403, s3_error(403, "RequestTimeTooSkewed").body, date)
    undated = Scripted(404, s3_error(404, "NoSuchKey").body, {"Date": "yesterday"})
    with scripted(Scripted(200, b"data", date), refused, undated) as server:
        store = store_at(server.url, on_skew=told.append, clock=lambda: now)
        assert store.get("k") == b"data"
        with pytest.raises(StoreRefused):
            store.get("k")
        with pytest.raises(ObjectMissing):
            store.get("k")
    assert told == [pytest.approx(expected, abs=2), pytest.approx(expected, abs=2)]


def test_check_of_an_absent_server() -> None:
    """A store that cannot be reached is one failed line with a remedy."""
    found = store_at("http://127.0.0.1:9").check()
    assert [(item.name, item.outcome) for item in found] == [("store: reach", "failed")]
    assert found[0].hint


def test_module_does_not_import_boto3() -> None:
    """Importing the module costs nothing of boto3; making a store does."""
    code = "import sys, drd.stores.s3; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
