"""The HTTP/1.1 that an S3 client speaks: strict parsing of requests, bodies that verify themselves, replies.

Bounded everywhere: 8 KiB a line, 64 headers, no chunked bodies. Pure of any notion of buckets.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

MAX_LINE_BYTES = 8192
MAX_HEADERS = 64
MAX_BODY_BYTES = 5 << 30  # S3's own limit for one put
CHUNK_BYTES = 1 << 20

_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Payload Too Large",
    416: "Range Not Satisfiable",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class S3Failure(Exception):
    """A refusal in S3's terms: HTTP status, error code, text. ``hang_up`` ends the connection after it."""

    def __init__(self, status: int, code: str, text: str, *, hang_up: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.hang_up = hang_up


class Disconnected(Exception):
    """The peer went away in the middle of a message."""


@dataclass(frozen=True)
class Request:
    """The head of one request. ``path`` and ``query`` are as sent; header names are lower case, once each."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def key(self) -> str:
        """The decoded path without its leading slash; raises :class:`S3Failure` when it is not UTF-8."""
        try:
            return unquote(self.path[1:], errors="strict")
        except UnicodeDecodeError:
            raise S3Failure(400, "InvalidURI", "the key is not UTF-8") from None

    def parameters(self) -> dict[str, str]:
        """The decoded query."""
        try:
            return dict(parse_qsl(self.query, keep_blank_values=True, max_num_fields=32))
        except ValueError:
            raise S3Failure(400, "InvalidURI", "too many query parameters") from None

    def length(self) -> int:
        """Announced body size; raises :class:`S3Failure` on chunked, absurd or oversize ones."""
        if "transfer-encoding" in self.headers:
            raise S3Failure(501, "NotImplemented", "chunked bodies are not served", hang_up=True)
        text = self.headers.get("content-length", "")
        if not text:
            if self.method in {"PUT", "POST"}:
                raise S3Failure(411, "MissingContentLength", "a body needs Content-Length", hang_up=True)
            return 0
        if not (text.isascii() and text.isdigit()) or len(text) > 12:
            raise S3Failure(400, "InvalidRequest", "not a Content-Length", hang_up=True)
        if int(text) > MAX_BODY_BYTES:
            raise S3Failure(413, "EntityTooLarge", "the body is larger than 5 GiB", hang_up=True)
        return int(text)


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline(MAX_LINE_BYTES + 1)
    if not line.endswith(b"\n"):
        if len(line) > MAX_LINE_BYTES:
            raise S3Failure(400, "InvalidRequest", "a header line is too long", hang_up=True)
        raise Disconnected
    return line.rstrip(b"\r\n")


def read_request(stream: BinaryIO) -> Request | None:
    """Read the head of the next request, None when the peer closed in between.

    Raises :class:`S3Failure` (hang up after it) for anything malformed, :class:`Disconnected` for a cut-off head.
    """
    first = stream.readline(MAX_LINE_BYTES + 1)
    if not first:
        return None
    words = first.rstrip(b"\r\n").split(b" ")
    target = words[1] if len(words) == 3 else b""
    if not first.endswith(b"\n") or words[-1:] != [b"HTTP/1.1"] or not target.startswith(b"/") or not target.isascii():
        raise S3Failure(400, "InvalidRequest", "not an HTTP/1.1 request", hang_up=True)
    headers: dict[str, str] = {}
    while line := _line(stream):
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or len(headers) >= MAX_HEADERS:
            raise S3Failure(400, "InvalidRequest", "malformed headers", hang_up=True)
        lower = name.decode("ascii").lower()
        if lower in headers:
            raise S3Failure(400, "InvalidRequest", f"header {lower} is given twice", hang_up=True)
        headers[lower] = value.strip().decode("latin-1")
    path, _, query = target.decode("ascii").partition("?")
    return Request(words[0].decode("latin-1"), path, query, headers)


@dataclass
class Body:
    """One request body, read once; the end of :meth:`chunks` is reached only when its digests were right."""

    stream: io.BufferedIOBase
    length: int
    sha256: str
    content_md5: str = ""
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.length

    def chunks(self) -> Iterator[memoryview]:
        """Yield the body in pieces that are reused: each is to be used up before the next is asked for.

        Raises :class:`S3Failure` after the last piece when a digest differs.
        """
        yield from self._fill(memoryview(bytearray(min(self.length, CHUNK_BYTES))))

    def whole(self) -> memoryview:
        """Return the verified body; the caller bounds the length first."""
        # pages of their own go back at once; malloc keeps a heap for each of a gateway's threads
        data = memoryview(mmap.mmap(-1, self.length) if self.length >= CHUNK_BYTES else bytearray(self.length))
        for _ in self._fill(data):
            pass
        return data

    def _fill(self, buffer: memoryview) -> Iterator[memoryview]:
        """Read into ``buffer`` from its beginning, again and again, and check the digests at the end."""
        sha = hashlib.sha256()
        md5 = hashlib.md5(usedforsecurity=False) if self.content_md5 else None
        while self.left:
            target = buffer[: min(self.left, len(buffer))]
            filled = 0
            while filled < len(target):
                count = self.stream.readinto(target[filled : filled + CHUNK_BYTES])
                if not count:
                    raise Disconnected
                piece = target[filled : filled + count]
                sha.update(piece)
                if md5:
                    md5.update(piece)
                filled += count
                self.left -= count
            yield target
        if not hmac.compare_digest(sha.hexdigest(), self.sha256):
            raise S3Failure(400, "XAmzContentSHA256Mismatch", "the body is not what was signed")
        if md5 and base64.b64encode(md5.digest()).decode() != self.content_md5.strip():
            raise S3Failure(400, "BadDigest", "the body does not match Content-MD5")


def head_of(status: int, length: int, headers: Mapping[str, str], *, close: bool) -> bytes:
    """Spell the head of a reply."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", "Server: drd", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Connection: {'close' if close else 'keep-alive'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def failure_xml(failure: S3Failure, resource: str) -> bytes:
    """Spell S3's error document."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{failure.code}</Code>'
        f"<Message>{escape(failure.text)}</Message><Resource>{escape(resource[:300])}</Resource></Error>"
    ).encode()


def byte_range(text: str, size: int) -> tuple[int, int]:
    """Turn a Range header into (start, length) within ``size``; raises :class:`S3Failure` 416 when it lies outside."""
    found = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", text.strip())
    if not found or found.group(0) == "bytes=-":
        raise S3Failure(416, "InvalidRange", "only one range of bytes is served")
    first, last = found.group(1), found.group(2)
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if start >= size or end < start:
        raise S3Failure(416, "InvalidRange", "the range lies outside the object")
    return start, end - start + 1
