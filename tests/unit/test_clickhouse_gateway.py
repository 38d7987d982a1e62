"""The gateway's door: who gets in, what is served, what is refused; with a real S3 client and with raw sockets."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from drd.engines.clickhouse.arranging import PIECE_BYTES
from drd.engines.clickhouse.gateway import Gateway
from drd.engines.clickhouse.packindex import read_index, write_index
from drd.engines.clickhouse.packing import PackingSpace
from drd.engines.clickhouse.spaces import BackupSpace
from drd.errors import StoreUnavailable
from tests.support.artifacts import MemoryReader, MemorySink

LISTEN = ("127.0.0.1", 0)


def now() -> datetime:
    return datetime.now(UTC)


def client_of(gateway: Gateway, *, secret: str = "", key: str = ""):
    return boto3.client(
        "s3",
        endpoint_url=gateway.base_url,
        region_name="us-east-1",
        aws_access_key_id=key or gateway.access_key_id,
        aws_secret_access_key=secret or gateway.secret_access_key,
        config=Config(
            s3={"addressing_style": "path", "payload_signing_enabled": True},
            retries={"max_attempts": 0},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@pytest.fixture
def sink():
    """Where the gateway packs to."""
    return MemorySink()


@pytest.fixture
def gateway(sink):
    """A gateway that takes a backup."""
    made = Gateway(PackingSpace(sink, now), LISTEN, now)
    made.start()
    yield made
    made.stop()


def code_of(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def test_what_is_put_is_served_again_from_the_tar(gateway, sink):
    """Objects, a multipart object out of order, a lock and a deleted one: the index serves exactly what is left."""
    s3, bucket = client_of(gateway), gateway.bucket
    s3.put_object(Bucket=bucket, Key=".lock", Body=b"id")
    assert s3.get_object(Bucket=bucket, Key=".lock")["Body"].read() == b"id"
    s3.put_object(Bucket=bucket, Key="data/a b%2E/é.bin", Body=b"x" * 700)
    s3.put_object(Bucket=bucket, Key="gone", Body=b"y")
    s3.put_object(Bucket=bucket, Key="twice", Body=b"old")
    s3.put_object(Bucket=bucket, Key="twice", Body=b"newer")
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    parts = [bytes([n]) * 1000 for n in range(1, 4)]
    tags = {
        n: s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=n, Body=parts[n - 1])["ETag"]
        for n in (2, 3, 1)
    }
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="big",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": n, "ETag": tags[n]} for n in (1, 2, 3)]},
    )
    assert s3.head_object(Bucket=bucket, Key="big")["ContentLength"] == 3000
    s3.delete_object(Bucket=bucket, Key=".lock")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "gone"}]})
    space = gateway._desk.space
    gateway.stop()
    write_index(space.finish(), sink)
    reader = MemoryReader(sink.artifacts)
    served = Gateway(BackupSpace(read_index(reader), reader), LISTEN, now)
    served.start()
    try:
        s3, bucket = client_of(served), served.bucket
        listed = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        assert listed == sorted(["big", "data/a b%2E/é.bin", "empty", "twice"])
        assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == b"".join(parts)
        ranged = s3.get_object(Bucket=bucket, Key="big", Range="bytes=999-2000")
        assert ranged["Body"].read() == b"".join(parts)[999:2001]
        assert ranged["ContentRange"] == "bytes 999-2000/3000"
        assert s3.get_object(Bucket=bucket, Key="twice")["Body"].read() == b"newer"
        assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
        for refused in (
            lambda: s3.put_object(Bucket=bucket, Key="x", Body=b"1"),
            lambda: s3.delete_object(Bucket=bucket, Key="big"),
        ):
            with pytest.raises(ClientError) as caught:
                refused()
            assert code_of(caught.value) == "AccessDenied"
        with pytest.raises(ClientError) as caught:
            s3.get_object(Bucket=bucket, Key="big", Range="bytes=3000-")
        assert code_of(caught.value) == "InvalidRange"
    finally:
        served.stop()


def test_only_the_right_key_and_bucket_get_in(gateway):
    """Another secret, another key, another bucket, and calls that are not served, each with S3's own code."""
    refused = {
        "SignatureDoesNotMatch": lambda: client_of(gateway, secret="not-it").put_object(
            Bucket=gateway.bucket, Key="a", Body=b"1"
        ),
        "InvalidAccessKeyId": lambda: client_of(gateway, key="AKIAOTHER12345").put_object(
            Bucket=gateway.bucket, Key="a", Body=b"1"
        ),
        "NoSuchBucket": lambda: client_of(gateway).put_object(Bucket="other-bucket", Key="a", Body=b"1"),
        "MethodNotAllowed": lambda: client_of(gateway).put_object_acl(Bucket=gateway.bucket, Key="a", ACL="private"),
        "InvalidURI": lambda: client_of(gateway).put_object(Bucket=gateway.bucket, Key="a/./../b", Body=b"1"),
        "NoSuchUpload": lambda: client_of(gateway).upload_part(
            Bucket=gateway.bucket, Key="a", UploadId="nope", PartNumber=1, Body=b"1"
        ),
        "NoSuchKey": lambda: client_of(gateway).get_object(Bucket=gateway.bucket, Key="a"),
    }
    for code, call in refused.items():
        with pytest.raises(ClientError) as caught:
            call()
        assert code_of(caught.value) == code
    assert gateway._desk.space.keys("") == []


def signed(
    gateway: Gateway, method: str, key: str, body: bytes, *, at: datetime | None = None, digest: str = ""
) -> dict:
    """Sign a request by hand, so that a test can bend it."""
    import hashlib

    stamp = (at or now()).strftime("%Y%m%dT%H%M%SZ")
    host = gateway.base_url.removeprefix("http://")
    headers = {"Host": host, "X-Amz-Date": stamp, "X-Amz-Content-SHA256": digest or hashlib.sha256(body).hexdigest()}
    request = AWSRequest(method=method, url=f"{gateway.base_url}/{gateway.bucket}/{key}", headers=dict(headers))
    request.context["timestamp"] = stamp
    auth = S3SigV4Auth(Credentials(gateway.access_key_id, gateway.secret_access_key), "s3", "us-east-1")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        f"Signature={auth.signature(text, request)}"
    )
    return headers


def send(gateway: Gateway, method: str, target: str, headers: dict, body: bytes = b"") -> str:
    """Send one request and return the reply's first line and document."""
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as peer:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        peer.sendall(
            f"{method} {target} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        out = b""
        while piece := peer.recv(65536):
            out += piece
    return out.decode("utf-8", "replace")


def test_a_hand_signed_request_is_taken(gateway):
    """The control for the forgeries below."""
    assert " 200 " in send(gateway, "PUT", f"/{gateway.bucket}/k", signed(gateway, "PUT", "k", b"body"), b"body")


def test_forged_requests_are_refused(gateway):
    """Unsigned, expired, from the future, another body, another key, unsigned payload, extra header, chunk-signed."""
    target = f"/{gateway.bucket}/k"
    good = signed(gateway, "PUT", "k", b"body")
    forgeries = [
        ("AccessDenied", target, {"Host": good["Host"]}, b"body"),
        (
            "RequestTimeTooSkewed",
            target,
            signed(gateway, "PUT", "k", b"body", at=now() - timedelta(minutes=16)),
            b"body",
        ),
        (
            "RequestTimeTooSkewed",
            target,
            signed(gateway, "PUT", "k", b"body", at=now() + timedelta(minutes=16)),
            b"body",
        ),
        ("XAmzContentSHA256Mismatch", target, good, b"bodY"),
        ("SignatureDoesNotMatch", f"/{gateway.bucket}/other", good, b"body"),
        ("SignatureDoesNotMatch", target, good | {"Host": "elsewhere"}, b"body"),
        ("AccessDenied", target, signed(gateway, "PUT", "k", b"", digest="UNSIGNED-PAYLOAD"), b"body"),
        (
            "AccessDenied",
            target,
            signed(gateway, "PUT", "k", b"", digest="STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            b"body",
        ),
        ("AccessDenied", target, good | {"x-amz-acl": "public-read"}, b"body"),
        ("BadDigest", target, good | {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, b"body"),
        ("NotImplemented", target, good | {"Transfer-Encoding": "chunked"}, b""),
    ]
    for code, where, headers, body in forgeries:
        assert f"<Code>{code}</Code>" in send(gateway, "PUT", where, headers, body), code
    assert gateway._desk.space.keys("") == []
    assert " 404 " in send(gateway, "GET", target, signed(gateway, "GET", "k", b""))


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nbroken\r\n\r\n",
        b"PUT /a HTTP/1.1\r\n" + b"a: b\r\n" * 100 + b"\r\n",
        b"PUT /" + b"a" * 10000 + b" HTTP/1.1\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nx: " + b"a" * 10000 + b"\r\n\r\n",
        b"PUT /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_noise_gets_an_error_or_nothing_and_hurts_nobody(gateway, noise):
    """Malformed heads end their own connection only."""
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as peer:
        peer.sendall(noise)
        peer.shutdown(socket.SHUT_WR)
        reply = b""
        try:
            while piece := peer.recv(65536):
                reply += piece
        except ConnectionResetError:
            pass
    assert reply == b"" or b" 400 " in reply[:40] or b" 403 " in reply[:40]
    assert gateway.failure is None
    client_of(gateway).put_object(Bucket=gateway.bucket, Key="still", Body=b"serves")


def test_a_failing_sink_is_kept_as_the_failure():
    """The error of the store reaches whoever waits, and the gateway serves nothing more."""
    lost = StoreUnavailable("gone")
    gateway = Gateway(PackingSpace(MemorySink(fail_after_bytes=100, error=lost), now), LISTEN, now)
    gateway.start()
    try:
        with pytest.raises(Exception):  # noqa: B017 - a reply or a broken connection, both fine
            client_of(gateway).put_object(Bucket=gateway.bucket, Key="k", Body=b"x" * PIECE_BYTES)
        with pytest.raises(StoreUnavailable):
            gateway.raise_failure()
    finally:
        gateway.stop()


def test_stop_ends_idle_and_waiting_connections(gateway):
    """Connections in every state end with the gateway, quickly, and the port is free again."""
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    idle = socket.create_connection((host, int(port)))
    half = socket.create_connection((host, int(port)))
    half.sendall(b"PUT /x HTTP/1.1\r\nHost")
    client_of(gateway).put_object(Bucket=gateway.bucket, Key="k", Body=b"1")
    gateway.stop()
    for peer in (idle, half):
        assert peer.recv(10) == b""
        peer.close()
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), timeout=1)
