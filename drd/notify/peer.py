"""One receiver over HTTP, an Alertmanager first of all: a request, its answer, and what went wrong in words for people.

Source: Alertmanager's API v2 (api/v2/openapi.yaml): ``POST /api/v2/alerts`` answers 200 with nothing, 400 with a JSON
string (the valid alerts of the batch are stored all the same); ``GET /api/v2/status`` tells version and cluster.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drd import __version__
from drd.errors import ConfigError
from drd.events import one_line
from drd.model import Secret

MAX_ANSWER_BYTES = 8 << 20
NO_ALERTMANAGER = "is the URL that of Alertmanager (0.16 or newer), with its --web.route-prefix?"
_SAID_CHARACTERS = 200
_PATIENCE_CODES = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Access:
    """How all peers are reached. The secret is read at the time of use; a missing one raises ConfigError then.

    ``credentials`` are the password of ``username`` (basic authentication); without a user, a bearer token.
    ``section`` and ``address`` are the keys of the configuration that hints name.
    """

    timeout_s: float
    ca_file: Path | None = None
    username: str | None = None
    credentials: Callable[[], Secret] | None = None
    section: str = "alertmanager"
    address: str = "alertmanager.urls"

    def authorization(self) -> str | None:
        """Return the header's value, or None; raises ConfigError when the secret is missing."""
        if self.credentials is None:
            return None
        secret = self.credentials().reveal()
        if self.username is None:
            return f"Bearer {secret}"
        return "Basic " + base64.b64encode(f"{self.username}:{secret}".encode()).decode("ascii")


class PeerFault(Exception):
    """A request that did not succeed; ``retryable`` says whether the same one may succeed later."""

    def __init__(self, message: str, *, hint: str, retryable: bool) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retryable = retryable


def send(url: str, access: Access, method: str, path: str, document: Any = None, *, timeout_s: float) -> Any:
    """Make one request to the peer at ``url`` and return its answer's JSON, or None for an empty one.

    No redirect is followed and no proxy used. Raises :class:`PeerFault` for everything that can go wrong.
    """
    body = None if document is None else json.dumps(document).encode("ascii")
    status, data = exchange(url, access, method, path, body, "application/json", timeout_s=timeout_s)
    if status // 100 != 2:
        raise refusal(status, data, access, NO_ALERTMANAGER, "see the log of Alertmanager")
    return _json(data)


def exchange(
    url: str, access: Access, method: str, path: str, body: bytes | None, content_type: str, *, timeout_s: float
) -> tuple[int, bytes]:
    """Make one request and return the status and a bounded answer; raises :class:`PeerFault` where there is none."""
    try:
        return _exchange(url, access, method, path, body, content_type, timeout_s)
    except ConfigError as error:
        raise PeerFault(error.message, hint=error.hint, retryable=False) from error
    except ssl.SSLError as error:
        hint = f"check the https:// of the URL and {access.section}.ca_file"
        raise PeerFault(f"TLS failed: {error.reason or error}", hint=hint, retryable=False) from error
    except TimeoutError as error:
        hint = "is it overloaded, or behind a firewall?"
        raise PeerFault(f"no answer within {timeout_s:.0f} s", hint=hint, retryable=True) from error
    except socket.gaierror as error:
        hint = f"check the host name in {access.address}"
        raise PeerFault(f"its name is not known: {error.strerror}", hint=hint, retryable=True) from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "does it run, and is the address right?"
        raise PeerFault(f"cannot be reached: {one_line(why)}", hint=hint, retryable=True) from error


def _exchange(
    url: str, access: Access, method: str, path: str, body: bytes | None, content_type: str, timeout_s: float
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    headers = {"Accept": "application/json", "User-Agent": f"drd/{__version__}"}
    if (authorization := access.authorization()) is not None:
        if not (authorization.isascii() and authorization.isprintable()):
            hint = "the token must be one line of plain characters"
            raise PeerFault("its credentials cannot be sent", hint=hint, retryable=False)
        headers["Authorization"] = authorization
    if body is not None:
        headers["Content-Type"] = content_type
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, access, timeout_s)
    try:
        connection.request(method, parts.path.rstrip("/") + path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER_BYTES)
    except ssl.SSLError:  # one about a certificate is a ValueError too
        raise
    except ValueError as error:  # such as a host name of too long a label
        hint = f"check {access.address}"
        raise PeerFault("its address cannot be used", hint=hint, retryable=False) from error
    finally:
        connection.close()


def _connection(
    scheme: str, host: str, port: int | None, access: Access, timeout_s: float
) -> http.client.HTTPConnection:
    if scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        context = ssl.create_default_context(cafile=str(access.ca_file) if access.ca_file else None)
    except OSError as error:  # SSLError is one
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        hint = f"name a readable PEM file in {access.section}.ca_file"
        raise PeerFault(f"cannot use {access.ca_file}: {why}", hint=hint, retryable=False) from error
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def refusal(status: int, data: bytes, access: Access, elsewhere: str, otherwise: str) -> PeerFault:
    """Return what an answer that is no success means; ``elsewhere`` is the hint where the URL seems to be another's."""
    said = one_line(data.decode("utf-8", "replace").strip().strip('"'), _SAID_CHARACTERS)
    message = f"answered {status}" + (f": {said}" if said else "")
    if status in {401, 403}:
        hint = f"set {access.section}.username and credentials, or credentials alone for a token"
    elif status in {301, 302, 303, 307, 308, 404, 405}:
        hint = elsewhere
    else:
        hint = otherwise
    return PeerFault(message, hint=hint, retryable=status >= 500 or status in _PATIENCE_CODES)


def _json(data: bytes) -> Any:
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise PeerFault("answered something that is no JSON", hint=NO_ALERTMANAGER, retryable=False) from error
