"""S3 and what speaks like it: AWS, SeaweedFS, MinIO, Ceph and others, with put, get, list and delete rights alone.

boto3 is imported when a store is made, not with this module, for a quick start of the command line.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from drd.errors import ObjectMissing, StoreRefused, StoreUnavailable
from drd.model import CheckItem, ObjectInfo
from drd.protocols import BytesLike, Clock
from drd.repository.layout import is_history
from drd.stores.keys import check_delimiter, check_key, check_prefix, check_range
from drd.stores.ordering import ascending, walk_order
from drd.stores.s3_errors import Answer, store_error
from drd.stores.s3_settings import S3Settings
from drd.stores.times import ignore_skew, utc_now

if TYPE_CHECKING:
    from drd.stores.s3_client import S3Client

__all__ = ["S3Settings", "S3Store"]

_DELETE_BATCH = 1000  # S3's limit
_NO_BATCHES = frozenset({"MalformedXML", "MissingContentMD5", "InvalidRequest", "InvalidArgument", "405", "411", "501"})
_PAST_END = frozenset({"416"})
_ABSENT = frozenset({"NoSuchKey"})
_HELD = datetime.max.replace(tzinfo=UTC)  # a legal hold has no end
_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")


class S3Store:
    """Objects of a bucket below a prefix. Thread-safe. Each call tries once: wrap it in a RetryStore.

    A put sends Content-MD5, so that the store verifies what it received, and compares the ETag where that is the MD5
    too. The identity needs no more than s3:PutObject for puts. ``on_skew`` is told by how many seconds our clock is
    ahead of the store's.
    """

    def __init__(
        self, settings: S3Settings, *, clock: Clock = utc_now, on_skew: Callable[[float], None] = ignore_skew
    ) -> None:
        from drd.stores.s3_client import S3Client  # noqa: PLC0415  boto3 is slow to import

        self._settings = settings
        self._folder = settings.folder
        self._clock = clock
        self._client: S3Client = S3Client(settings, clock=clock, on_skew=on_skew)
        self._put_params = _put_params(settings)
        self._by_kms = settings.server_side_encryption == "aws:kms"
        self._may_stat = True
        self._may_batch = True

    def put(self, key: str, data: BytesLike, *, if_absent: bool = False) -> None:
        """Put with Content-MD5; raise ObjectExists when the store finds the key taken (If-None-Match)."""
        check_key(key)
        body = data if isinstance(data, bytes) else bytes(data)
        digest = hashlib.md5(body, usedforsecurity=False)
        params: dict[str, Any] = {"Key": self._folder + key, "Body": body, **self._put_params}
        params |= self._lock_params(key)
        params["ContentMD5"] = base64.b64encode(digest.digest()).decode()
        if if_absent:
            params["IfNoneMatch"] = "*"
        answer = self._client.call("put_object", key, **params) or {}
        self._verify(key, answer, digest.hexdigest(), len(body))

    def _lock_params(self, key: str) -> dict[str, Any]:
        """Return what locks an object of a backup; nothing for leases, pins and probes, which are rewritten."""
        lock = self._settings.object_lock
        if lock is None or not is_history(key):
            return {}
        until = self._clock() + timedelta(days=lock.days)
        return {"ObjectLockMode": lock.mode.upper(), "ObjectLockRetainUntilDate": until}

    def _verify(self, key: str, answer: dict[str, Any], md5: str, size_bytes: int) -> None:
        """Raise unless the store says it holds what was sent, as far as this identity may ask."""
        etag = str(answer.get("ETag", "")).strip('"').lower()
        by_kms = "kms" in str(answer.get("ServerSideEncryption", "")) or self._by_kms
        if _PLAIN_MD5.fullmatch(etag) and not by_kms:
            if etag != md5:
                raise _put_differs(key, f"its MD5 is {etag}, sent was {md5}")
            return
        if not self._may_stat:
            return
        try:
            found = self.stat(key).size_bytes
        except StoreRefused:
            self._may_stat = False  # a role that may only write; the store has checked Content-MD5
        except ObjectMissing as error:
            raise _put_differs(key, "it is not there") from error
        else:
            if found != size_bytes:
                raise _put_differs(key, f"it has {found} bytes, sent were {size_bytes}")

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Get the object or a range of it; raise ObjectMissing."""
        check_key(key)
        check_range(start, length)
        if start == 0 and length is None:
            whole = self._client.call("get_object", key, Key=self._folder + key) or {}
            return bytes(whole["Body"])
        end = "" if length is None else str(start + max(length, 1) - 1)
        answer = self._ranged(key, f"bytes={start}-{end}")
        if answer is None:
            return b""
        body = bytes(answer["Body"])
        if not answer.get("ContentRange") and (start > 0 or (length is not None and len(body) > length)):
            raise StoreRefused(
                f"cannot read a range of {key}: the store ignored the range and sent the whole object",
                op="read",
                subject=key,
                hint="drd needs range reads (HTTP 206): use a newer version of this store, or another",
            )
        return body if length != 0 else b""

    def _ranged(self, key: str, wanted: str) -> dict[str, Any] | None:
        """Get a range; None when it lies past the end of the object."""
        return self._client.call("get_object", key, expected=_PAST_END, Key=self._folder + key, Range=wanted)

    def stat(self, key: str) -> ObjectInfo:
        """Ask for the head; where it is refused, ask for one byte, since only that answer has a reason."""
        check_key(key)
        try:
            answer = self._client.call("head_object", key, Key=self._folder + key) or {}
        except (StoreRefused, ObjectMissing):
            found = self._ranged(key, "bytes=0-0")
            if found is None:  # an empty object
                return ObjectInfo(key, 0)
            total = str(found.get("ContentRange", "")).rpartition("/")[2]
            size_bytes = int(total) if total.isdigit() else int(found["ContentLength"])
            return ObjectInfo(key, size_bytes, found.get("LastModified"), self._locked_until(found))
        return ObjectInfo(key, int(answer["ContentLength"]), answer.get("LastModified"), self._locked_until(answer))

    def _locked_until(self, answer: dict[str, Any]) -> datetime | None:
        """Return when the lock ends, None where none holds (or this identity may not see it)."""
        until: datetime | None = answer.get("ObjectLockRetainUntilDate")
        if answer.get("ObjectLockLegalHoldStatus") == "ON":
            return _HELD
        return until.astimezone(UTC) if until is not None and until > self._clock() else None

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """List page by page as it is asked for, ascending also from stores that list folder by folder."""
        check_prefix(prefix)
        check_delimiter(delimiter)
        found = self._pages(prefix, delimiter)
        return found if self._settings.lists_in_order else ascending(found, prefix[: prefix.rfind("/") + 1])

    def _pages(self, prefix: str, delimiter: str) -> Iterator[ObjectInfo]:
        params: dict[str, Any] = {"Prefix": self._folder + prefix}
        if delimiter:
            params["Delimiter"] = delimiter
        token = ""
        while True:
            if token:
                params["ContinuationToken"] = token
            answer = self._client.call("list_objects_v2", self._folder + prefix, **params) or {}
            yield from self._entries(answer)
            if not answer.get("IsTruncated"):
                return
            previous, token = token, str(answer.get("NextContinuationToken", ""))
            if not token or token == previous:
                raise StoreRefused(
                    f"cannot list {prefix or 'everything'}: the store says there is more but not where to go on",
                    op="list",
                    subject=prefix,
                    hint="this store's ListObjectsV2 is broken: use a newer version of it, or another",
                )

    def _entries(self, answer: dict[str, Any]) -> Sequence[ObjectInfo]:
        cut = len(self._folder)
        objects = [
            ObjectInfo(entry["Key"][cut:], int(entry["Size"]), entry.get("LastModified"))
            for entry in answer.get("Contents", [])
            if not entry["Key"].endswith("/")  # a console's marker of an empty folder: no key of drd's ends so
        ]
        folders = [ObjectInfo(entry["Prefix"][cut:], 0) for entry in answer.get("CommonPrefixes", [])]
        if not folders:
            return objects
        in_order = self._settings.lists_in_order
        return sorted(objects + folders, key=(lambda info: info.key) if in_order else walk_order)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete in batches of a thousand, or one by one where the store refuses batches; errors name the key."""
        checked = iter([check_key(key) for key in keys])
        while batch := list(islice(checked, _DELETE_BATCH)):
            if len(batch) == 1 or not self._may_batch or not self._delete_batch(batch):
                for key in batch:
                    self._delete_one(key)

    def _delete_one(self, key: str) -> None:
        self._client.call("delete_object", key, expected=_ABSENT, Key=self._folder + key)

    def _delete_batch(self, batch: Sequence[str]) -> bool:
        """Delete many at once; return False when the store does not take this form of request."""
        wanted = {"Objects": [{"Key": self._folder + key} for key in batch], "Quiet": True}
        words = f"{len(batch)} objects from {batch[0]} on"
        answer = self._client.call("delete_objects", words, expected=_NO_BATCHES, Delete=wanted)
        if answer is None:
            self._may_batch = False
            return False
        failed = [entry for entry in answer.get("Errors", []) if entry.get("Code") != "NoSuchKey"]
        if failed:
            key, code = str(failed[0].get("Key", ""))[len(self._folder) :], str(failed[0].get("Code", ""))
            said = f"{failed[0].get('Message', '')} ({len(failed)} of {len(batch)} objects were not deleted)"
            reason = Answer(403 if code == "AccessDenied" else 400, code, said)
            raise store_error(reason, self._client.request("delete_objects", key or words))
        return True

    def check(self) -> Sequence[CheckItem]:
        """Reach the bucket, try everything with a probe object, and compare the clocks."""
        from drd.stores.s3_check import check_s3  # noqa: PLC0415  only checks need it

        return check_s3(self, self._client, self._settings, self._clock)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()


def _put_params(settings: S3Settings) -> dict[str, str]:
    """Return what every put of this store carries."""
    params: dict[str, str] = {}
    if settings.server_side_encryption != "none":
        params["ServerSideEncryption"] = settings.server_side_encryption
    if settings.kms_key_id is not None:
        params["SSEKMSKeyId"] = settings.kms_key_id
    if settings.storage_class is not None:
        params["StorageClass"] = settings.storage_class
    return params


def _put_differs(key: str, how: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store did not keep {key} as it was sent: {how}",
        op="write",
        subject=key,
        hint="if this stays, do not trust this store before its operator has found out why",
    )
