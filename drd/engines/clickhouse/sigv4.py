"""Is this S3 request signed by whom we gave the key to, just now, over exactly these headers?

The signature is recomputed with botocore's own signer, so client and server agree by construction.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from drd.engines.clickhouse.s3wire import Request, S3Failure

MAX_SKEW = timedelta(minutes=15)  # S3's own

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[A-Za-z0-9]{8,64})/(?P<day>\d{8})/(?P<region>[A-Za-z0-9-]{1,40})"
    r"/s3/aws4_request,\s*SignedHeaders=(?P<headers>[a-z0-9;_-]{4,1000}),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MUST_SIGN = frozenset({"host", "x-amz-date", "x-amz-content-sha256"})


@dataclass(frozen=True)
class Signer:
    """The one key pair that opens a gateway. :meth:`verify` is thread-safe."""

    access_key_id: str
    secret_access_key: str
    now: Callable[[], datetime]

    def verify(self, request: Request) -> str:
        """Return the SHA-256 that the body must have; raises :class:`S3Failure` 403 for every doubt.

        Refused: no or another signature, another key, a time more than 15 minutes off, an unsigned ``x-amz-``
        header, an unsigned or chunk-signed payload.
        """
        headers = request.headers
        found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if not found:
            raise S3Failure(403, "AccessDenied", "a SigV4 Authorization header is needed")
        if not hmac.compare_digest(found["key"], self.access_key_id):
            raise S3Failure(403, "InvalidAccessKeyId", "this key opens nothing here")
        signed = found["headers"].split(";")
        unsigned = {h for h in headers if h.startswith("x-amz-")} - set(signed)
        if not set(signed) >= _MUST_SIGN or unsigned or not set(signed) <= set(headers):
            raise S3Failure(403, "AccessDenied", "host and every x-amz- header must be signed")
        stamp, digest = headers["x-amz-date"], headers["x-amz-content-sha256"]
        self._check_time(stamp, found["day"])
        if not _SHA256.fullmatch(digest):
            raise S3Failure(403, "AccessDenied", "the payload's SHA-256 must be signed")
        expected = self._signature(request, signed, stamp, found["region"])
        if not hmac.compare_digest(expected, found["signature"]):
            raise S3Failure(403, "SignatureDoesNotMatch", "the signature is not the one this request must have")
        return digest

    def _check_time(self, stamp: str, day: str) -> None:
        try:
            at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise S3Failure(403, "AccessDenied", "not an x-amz-date") from None
        if abs(self.now() - at) > MAX_SKEW or not stamp.startswith(day):
            raise S3Failure(403, "RequestTimeTooSkewed", "the request's time is more than 15 minutes off")

    def _signature(self, request: Request, signed: list[str], stamp: str, region: str) -> str:
        query = f"?{request.query}" if request.query else ""
        plain = AWSRequest(
            method=request.method,
            url=f"http://{request.headers['host']}{request.path}{query}",
            headers={name: request.headers[name] for name in signed},
        )
        plain.context["timestamp"] = stamp
        auth = S3SigV4Auth(Credentials(self.access_key_id, self.secret_access_key), "s3", region)
        text = auth.string_to_sign(plain, auth.canonical_request(plain))
        return str(auth.signature(text, plain))
