"""What an S3 answer means: from HTTP status and S3 error code to drd's errors, for people.

Source of codes: Amazon S3 API reference, "Error responses"; SeaweedFS 4.48 and botocore, observed.
"""

from __future__ import annotations

from dataclasses import dataclass

from drd.errors import ObjectExists, ObjectMissing, StoreError, StoreForbidden, StoreRefused, StoreUnavailable

_PASSING_STATUS = {408, 425, 429}
_LASTING_SERVER_STATUS = {501, 505, 507}
_PASSING_CODES = {
    "BadDigest",  # damaged on the way
    "XAmzContentSHA256Mismatch",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "ConditionalRequestConflict",
    "RequestTimeout",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "KMS.ThrottlingException",
}
_REGION_CODES = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307", "308"}
_FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "403"}  # 403 alone: an answer without a body, as to HEAD
_RIGHTS = {
    "write": "s3:PutObject on arn:aws:s3:::{bucket}/{folder}*",
    "read": "s3:GetObject on arn:aws:s3:::{bucket}/{folder}*",
    "look at": "s3:GetObject on arn:aws:s3:::{bucket}/{folder}*",
    "delete": "s3:DeleteObject on arn:aws:s3:::{bucket}/{folder}*",
    "look at the object lock of": "s3:GetBucketObjectLockConfiguration on arn:aws:s3:::{bucket}",
    "list": "s3:ListBucket on arn:aws:s3:::{bucket}",
}
_HINTS = {
    "InvalidAccessKeyId": "the store does not know this access key: check store.access_key_id",
    "SignatureDoesNotMatch": "the secret does not belong to this access key: check store.secret_access_key",
    "RequestTimeTooSkewed": "the clocks here and at the store are over 15 minutes apart: check NTP (timedatectl)",
    "ExpiredToken": "the temporary credentials have expired: renew store.session_token",
    "InvalidToken": "the session token is not valid: check store.session_token",
    "TokenRefreshRequired": "the temporary credentials must be renewed: check store.session_token",
    "InvalidObjectState": "the object is in an archive class: restore it there first, then change store.storage_class",
    "InvalidStorageClass": "the store does not know this class: check store.storage_class",
    "InvalidBucketName": "check store.bucket",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of the store, in words for messages: ``verb`` is a key of the rights table."""

    verb: str
    key: str
    bucket: str
    folder: str
    endpoint: str
    conditional: bool = False
    locked: bool = False

    @property
    def subject(self) -> str:
        """The key, or the bucket where the request is about no single key."""
        return self.key or f"bucket {self.bucket}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An S3 error answer: ``code`` repeats the status where the answer had no body."""

    status: int
    code: str
    message: str


def store_error(answer: Answer, request: Request) -> StoreError:
    """Return the drd error for an error answer."""
    said = answer.code if answer.code != str(answer.status) else f"HTTP {answer.status}"
    if answer.message and answer.message.lower() != answer.code.lower():
        said = f"{said}: {' '.join(answer.message.split())[:300].rstrip('.')}"
    op, subject = request.verb, request.subject
    text = f"cannot {op} {subject}: {request.endpoint} answered {said}"
    if answer.status == 412 and request.verb == "write":
        return ObjectExists(f"{request.key} exists already", op=op, subject=subject)
    if answer.code == "NoSuchBucket":
        hint = "create the bucket, or correct store.bucket"
        message = f"cannot {op} {subject}: there is no bucket {request.bucket} at {request.endpoint}"
        return StoreRefused(message, op=op, subject=subject, hint=hint)
    if answer.status == 404 and request.verb in {"read", "look at"}:
        return ObjectMissing(f"{request.key} does not exist in bucket {request.bucket}", op=op, subject=subject)
    if _may_pass(answer, request):
        hint = f"the store is not well or asks for patience; see its state and try again ({request.endpoint})"
        return StoreUnavailable(text, op=op, subject=subject, hint=hint)
    kind = StoreForbidden if answer.code in _FORBIDDEN else StoreRefused
    return kind(text, op=op, subject=subject, hint=_hint(answer, request))


def _may_pass(answer: Answer, request: Request) -> bool:
    if answer.code in _PASSING_CODES or answer.status in _PASSING_STATUS:
        return True
    if request.verb == "write" and answer.status in {404, 409}:
        return True  # a conditional put met a put or deletion of the same key (S3 user guide, conditional writes)
    return answer.status >= 500 and answer.status not in _LASTING_SERVER_STATUS


def _hint(answer: Answer, request: Request) -> str:
    if answer.code in _HINTS:
        return _HINTS[answer.code]
    if answer.code in _REGION_CODES:
        return "the bucket is in another region: check store.region and store.endpoint_url"
    if answer.status == 501 and request.conditional:
        return (
            "the store has no conditional writes (If-None-Match), which drd needs: use a newer version or another store"
        )
    if answer.status == 501:
        return "the store does not know this request: check its version, store.server_side_encryption and storage_class"
    if answer.status == 507 or "Full" in answer.code:
        return "the store is full: add space, or prune old backups: drd prune"
    if request.locked and answer.status == 400 and answer.code == "InvalidRequest":
        return "store.object_lock needs a bucket that was made with object lock enabled; drd check tells"
    if answer.status in {401, 403}:
        right = _RIGHTS[request.verb].format(bucket=request.bucket, folder=request.folder)
        if request.verb == "delete":
            return f"give this identity the right {right}; an object lock refuses deletion as well"
        if request.verb == "write" and request.locked:
            return f"give this identity the rights {right} and s3:PutObjectRetention there (store.object_lock)"
        return f"give this identity the right {right}"
    if answer.status in {404, 405}:
        return "this address does not answer as S3 does: check store.endpoint_url and store.addressing_style"
    return "the store does not accept this request: check the store section (drd config show) and the store's own log"
