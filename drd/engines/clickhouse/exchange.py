"""One S3 request at a gateway and its reply: who may, what it is, what the object space says."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape

from drd.engines.clickhouse.budget import Budget
from drd.engines.clickhouse.packindex import usable_key
from drd.engines.clickhouse.packing import PackingSpace
from drd.engines.clickhouse.s3wire import (
    Body,
    Disconnected,
    Request,
    S3Failure,
    byte_range,
    failure_xml,
    head_of,
    read_request,
)
from drd.engines.clickhouse.sigv4 import Signer
from drd.engines.clickhouse.spaces import BackupSpace
from drd.engines.clickhouse.xmltext import read_texts
from drd.errors import DrdError

MAX_DOCUMENT_BYTES = 4 << 20  # CompleteMultipartUpload with 10,000 parts is under 2 MB
_SMALL_BYTES = 256 << 10


@dataclass(frozen=True)
class Desk:
    """What every exchange of one gateway shares.

    ``fail`` takes a drd error to whoever waits for the server, ``admitted`` notes a
    request with a right signature, ``refused`` why one was turned away, ``count`` the bytes of a body.
    """

    bucket: str
    signer: Signer
    space: BackupSpace | PackingSpace
    budget: Budget
    now: Callable[[], datetime]
    admitted: Callable[[], None]
    count: Callable[[int], None]
    fail: Callable[[BaseException], None]
    refused: Callable[[S3Failure], None]


class Exchange:
    """One request and its reply."""

    def __init__(self, desk: Desk, peer: socket.socket, stream: io.BufferedReader) -> None:
        self._desk = desk
        self._space = desk.space
        self._peer = peer
        self._stream = stream
        self._body: Body | None = None
        self._replied = False
        self._admitted = False

    def serve(self) -> bool:
        """Answer the next request; return whether the connection may go on."""
        request: Request | None = None
        try:
            request = read_request(self._stream)
            if request is None:
                return False
            self._answer(request)
            return _keeps(request)
        except S3Failure as failure:
            if not self._admitted:
                self._desk.refused(failure)
            return self._refuse(failure, request)

    def _refuse(self, failure: S3Failure, request: Request | None) -> bool:
        """Send an error document; hang up when the request's body cannot be told from the next request."""
        if self._replied:
            raise Disconnected
        unread = self._body.left if self._body else 0
        announced = request is not None and request.headers.get("content-length", "0") != "0"
        hang_up = failure.hang_up or unread > 0 or (self._body is None and announced)
        document = failure_xml(failure, request.path if request else "")
        if request is not None and request.method == "HEAD":
            self._peer.sendall(head_of(failure.status, 0, {}, close=hang_up))
        else:
            head = head_of(failure.status, len(document), {"Content-Type": "application/xml"}, close=hang_up)
            self._peer.sendall(head + document)
        if hang_up and unread == 0:
            with suppress(OSError):
                self._peer.shutdown(socket.SHUT_WR)
        return not hang_up and request is not None and _keeps(request)

    def _answer(self, request: Request) -> None:
        digest = self._desk.signer.verify(request)
        self._admitted = True
        self._desk.admitted()
        length = request.length()
        bucket, _, key = request.key.partition("/")
        parameters = request.parameters()
        if bucket != self._desk.bucket:
            raise S3Failure(404, "NoSuchBucket", "no such bucket")
        if key and not usable_key(key):
            raise S3Failure(400, "InvalidURI", "not a usable key")
        self._body = Body(self._stream, length, digest, request.headers.get("content-md5", ""))
        with self._desk.budget.taking(length):
            if request.headers.get("expect", "").lower() == "100-continue":
                self._peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._dispatch(request, key, parameters)

    def _dispatch(self, request: Request, key: str, parameters: dict[str, str]) -> None:
        names = frozenset(parameters) - {"x-id"}
        verb = request.method
        try:
            if key and verb in {"GET", "HEAD"} and not names:
                self._get(request, key)
            elif key and verb == "PUT" and not names and "x-amz-copy-source" not in request.headers:
                self._put(key)
            elif key and verb == "PUT" and names == {"partNumber", "uploadId"}:
                self._put_part(key, parameters)
            elif key and verb == "POST" and names == {"uploads"}:
                self._bodyless()
                self._xml("InitiateMultipartUploadResult", f"<UploadId>{self._writable.begin(key)}</UploadId>", key)
            elif key and verb == "POST" and names == {"uploadId"}:
                self._complete(key, parameters["uploadId"])
            elif key and verb == "DELETE" and names in ({"uploadId"}, frozenset()):
                self._bodyless()
                self._delete(key, parameters.get("uploadId"))
            elif not key and verb == "POST" and names == {"delete"}:
                self._delete_many()
            elif not key and verb == "GET" and parameters.get("list-type") == "2":
                self._bodyless()
                self._list(parameters)
            else:
                raise S3Failure(405, "MethodNotAllowed", f"{verb} of this is not served here")
        except DrdError as error:
            self._desk.fail(error)
            raise S3Failure(500, "InternalError", "drd could not store or fetch this", hang_up=True) from error

    @property
    def _writable(self) -> PackingSpace:
        if not isinstance(self._space, PackingSpace):
            raise S3Failure(403, "AccessDenied", "a backup is read-only")
        return self._space

    def _bodyless(self) -> None:
        for _ in cast("Body", self._body).chunks():
            pass

    def _reply(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._replied = True
        self._peer.sendall(head_of(status, len(data), headers or {}, close=False) + data)

    def _xml(self, name: str, inner: str, key: str) -> None:
        document = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Bucket>{self._desk.bucket}</Bucket><Key>{escape(key)}</Key>{inner}</{name}>"
        ).encode()
        self._reply(200, document, {"Content-Type": "application/xml"})

    def _put(self, key: str) -> None:
        body = cast("Body", self._body)
        stat = self._writable.put(key, body)
        self._desk.count(body.length)
        self._reply(200, headers={"ETag": f'"{stat.etag}"'})

    def _put_part(self, key: str, parameters: dict[str, str]) -> None:
        number = parameters["partNumber"]
        if not (number.isascii() and number.isdigit() and 1 <= int(number[:7]) <= 1_000_000):
            raise S3Failure(400, "InvalidArgument", "not a part number", hang_up=True)
        body = cast("Body", self._body)
        stat = self._writable.put_part(parameters["uploadId"], key, int(number), body)
        self._desk.count(body.length)
        self._reply(200, headers={"ETag": f'"{stat.etag}"'})

    def _document(self, wanted: tuple[str, ...]) -> list[dict[str, str]]:
        """Parse the XML body into the texts of its repeated elements."""
        body = cast("Body", self._body)
        if body.length > MAX_DOCUMENT_BYTES:
            raise S3Failure(400, "EntityTooLarge", "the document is too large", hang_up=True)
        try:
            return read_texts(bytes(body.whole()), wanted[0], wanted[1:])
        except ExpatError as error:
            raise S3Failure(400, "MalformedXML", f"not the expected XML: {error}") from None

    def _complete(self, key: str, upload: str) -> None:
        entries = self._document(("Part", "PartNumber", "ETag"))
        try:
            parts = [(int(e["PartNumber"]), e["ETag"].strip().strip('"')) for e in entries]
        except (KeyError, ValueError):
            raise S3Failure(400, "MalformedXML", "a part lacks its number or ETag") from None
        stat = self._writable.complete(upload, key, parts)
        self._xml("CompleteMultipartUploadResult", f"<ETag>&quot;{stat.etag}&quot;</ETag>", key)

    def _delete(self, key: str, upload: str | None) -> None:
        if upload is None:
            self._writable.delete(key)
        else:
            self._writable.abandon(upload, key)
        self._reply(204)

    def _delete_many(self) -> None:
        gone = []
        for entry in self._document(("Object", "Key")):
            key = entry.get("Key", "")
            if not usable_key(key):
                raise S3Failure(400, "MalformedXML", "not a usable key")
            self._writable.delete(key)
            gone.append(f"<Deleted><Key>{escape(key)}</Key></Deleted>")
        document = f'<?xml version="1.0" encoding="UTF-8"?>\n<DeleteResult>{"".join(gone)}</DeleteResult>'
        self._reply(200, document.encode(), {"Content-Type": "application/xml"})

    def _get(self, request: Request, key: str) -> None:
        self._bodyless()
        stat = self._space.stat(key)
        if stat is None:
            raise S3Failure(404, "NoSuchKey", "no such key")
        headers = {"ETag": f'"{stat.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        headers["Last-Modified"] = self._desk.now().strftime("%a, %d %b %Y %H:%M:%S GMT")
        status, start, length = 200, 0, stat.size
        if wanted := request.headers.get("range"):
            start, length = byte_range(wanted, stat.size)
            status = 206
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{stat.size}"
        head = head_of(status, length, headers, close=False)
        if request.method == "HEAD":
            self._replied = True
            self._peer.sendall(head)
            return
        chunks = self._space.read(key, start, length) if length else iter(())
        if length <= _SMALL_BYTES:
            data = b"".join(chunks)
            self._replied = True
            self._peer.sendall(head + data)
        else:
            for number, chunk in enumerate(chunks):
                if number == 0:  # only now: the first read may raise, and then an error document must follow
                    self._replied = True
                    self._peer.sendall(head)
                self._peer.sendall(chunk)
        self._desk.count(length)

    def _list(self, parameters: dict[str, str]) -> None:
        after = parameters.get("continuation-token") or parameters.get("start-after", "")
        limit = parameters.get("max-keys", "1000")
        bound = min(1000, int(limit)) if limit.isascii() and limit.isdigit() and len(limit) < 6 else 1000
        keys = [k for k in self._space.keys(parameters.get("prefix", "")) if k > after]
        rows = "".join(
            f"<Contents><Key>{escape(k)}</Key><Size>{stat.size}</Size><ETag>&quot;{stat.etag}&quot;</ETag></Contents>"
            for k in keys[:bound]
            if (stat := self._space.stat(k))
        )
        more = len(keys) > bound
        token = f"<NextContinuationToken>{escape(keys[bound - 1])}</NextContinuationToken>" if more and bound else ""
        document = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{self._desk.bucket}</Name><KeyCount>{min(len(keys), bound)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
        )
        self._reply(200, document.encode(), {"Content-Type": "application/xml"})


def _keeps(request: Request) -> bool:
    """Whether the client wants the connection to go on."""
    return request.headers.get("connection", "").lower() != "close"
