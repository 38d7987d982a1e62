"""Who may ask what over HTTP: stands before the application, and adds what makes browsers careful.

Reading may need a token; probes never do. Changing needs a token of its own in the header ``Authorization: Bearer``,
which no other site can make a browser send: there are no cookies, and nothing allows other origins. A request for
another host's name is refused on loopback, since a name under an attacker's control may point there (DNS rebinding).
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drd.daemon.web.settings import MOST_HEAD_BYTES, Access
from drd.model import Secret

PROBES = frozenset({"/healthz", "/health", "/readyz", "/ready"})
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY_BYTES = 1024
_CHALLENGE = 'Basic realm="drd", charset="UTF-8", Bearer realm="drd"'
NOTHING_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Gate:
    """The middleware; asks ``access`` at each request, as a reload may change it."""

    def __init__(self, app: ASGIApp, access: Callable[[], Access]) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", NOTHING_POLICY)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if _head_bytes(scope) > MOST_HEAD_BYTES:  # h11 bounds only a head that comes in pieces
            await _answer(431, "the head of the request is too long", close=True)(scope, receive, guarded)
            return
        refusal = refuse(scope["method"], scope["path"], Headers(scope=scope), self._access(), scope["scheme"])
        scope.setdefault("state", {})["trusted"] = is_reader(Headers(scope=scope), self._access())
        await (refusal or self._app)(scope, receive, guarded)


def refuse(method: str, path: str, headers: Headers, access: Access, scheme: str) -> Response | None:
    """Return the answer to a request that is not let through, None for one that is."""
    if "transfer-encoding" in headers or not _is_small(headers.get("content-length", "0")):
        return _answer(413, "nothing here takes a body of any size", close=True)
    if path in PROBES and method in {"GET", "HEAD"}:
        return None
    if access.hosts is not None and _host_name(headers.get("host", "")) not in access.hosts:
        return _answer(421, "this server is not known by that name; see daemon.hosts in the configuration")
    if method in {"GET", "HEAD"}:
        return None if is_reader(headers, access) else _unauthorized("a token is needed to read this")
    if access.control_token is None:
        return _answer(403, "changing anything over HTTP is off; see daemon.control_token in the configuration")
    if not _same(_bearer(headers), access.control_token):
        return _unauthorized("the control token is needed to change anything, as Authorization: Bearer")
    if not _is_own_origin(headers, scheme):
        return _answer(403, "another site asked a browser to send this")
    return None


def is_reader(headers: Headers, access: Access) -> bool:
    """Whether a request may read: the token as bearer, or as the password of any user; or the control token."""
    if access.token is None:
        return True
    given = _bearer(headers)
    accepted = [access.token, *([access.control_token] if access.control_token else [])]
    # No shortcut: every comparison is made, so that the time tells nothing.
    return any([_same(given, one) for one in accepted] + [_same(_password(headers), access.token)])


def hosts_of(listen_host: str, more: Iterable[str]) -> frozenset[str] | None:
    """Return the names by which a server on that address may be asked for; None where any will do."""
    named = frozenset(_host_name(name) for name in more)
    if _host_name(listen_host) in LOOPBACK_HOSTS or listen_host.startswith("127."):
        return LOOPBACK_HOSTS | {_host_name(listen_host)} | named
    return LOOPBACK_HOSTS | {_host_name(listen_host)} | named if named else None


def _host_name(header: str) -> str:
    """Return the host of a ``Host`` header or an address, without port and brackets, in lower case."""
    text = header.strip().lower().rstrip(".")
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text if text.count(":") > 1 else text.partition(":")[0].rstrip(".")


def _bearer(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _password(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
    except ValueError:  # no Base64, no UTF-8, or not even ASCII
        return ""


def _same(given: str, secret: Secret) -> bool:
    """Compare in a time that depends on no content."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), secret.reveal().encode("utf-8"))


def _is_own_origin(headers: Headers, scheme: str) -> bool:
    """Whether a browser, if it was one, sent this for a page of ours; other programs send neither header."""
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:  # "http://["
        return False
    return parts.scheme == scheme and parts.netloc.lower() == headers.get("host", "").lower()


def _head_bytes(scope: Scope) -> int:
    fields = sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])
    return fields + len(scope["raw_path"]) + len(scope["query_string"])


def _is_small(length: str) -> bool:
    return length.isascii() and length.isdigit() and int(length) <= MAX_BODY_BYTES


def _unauthorized(message: str) -> Response:
    return _answer(401, message, {"www-authenticate": _CHALLENGE})


def _answer(status: int, message: str, headers: dict[str, str] | None = None, *, close: bool = False) -> Response:
    text = json.dumps({"error": {"code": f"http_{status}", "message": message}}) + "\n"
    more = {**(headers or {}), **({"connection": "close"} if close else {})}
    return Response(text, status, more, media_type="application/json")
