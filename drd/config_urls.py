"""Addresses in a configuration: server URLs without passwords, and host:port pairs."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@?#\[\]]+):(?P<port>\d{1,5})")
# As greedy as can be: a password may hold any character, and what is shown must not hold a bit of it.
# Only what is surely a scheme is one: in admin://secret@host the secret would be taken for a user's name.
_SCHEME = re.compile(r"(?:postgres(?:ql)?|rediss?|https?|clickhouse|s3|tcp|unix)://", re.IGNORECASE)
_USERINFO_PASSWORD = re.compile(r"^([^:]*):.*@", re.DOTALL)
_SECRET_PARAMETERS = {"password", "sslpassword", "passwd", "pwd", "token"}


def mask_url(text: str) -> str:
    """Return ``text`` with the password of a URL, of its query or of a key=value list replaced by stars."""
    # in two steps: possessive quantifiers, which would do it in one, go wrong in the Python 3.11.2 of Debian 12
    scheme = found[0] if (found := _SCHEME.match(text)) else ""
    masked = scheme + _USERINFO_PASSWORD.sub(r"\1:***@", text[len(scheme) :])
    return re.sub(rf"(?i)\b((?:{'|'.join(sorted(_SECRET_PARAMETERS))})\s*=\s*)('[^']*'?|[^&#\s]*)", r"\1***", masked)


def _problem(text: str, allowed: str) -> PydanticCustomError:
    return PydanticCustomError(
        "masked", "got {shown}; allowed: {allowed}", {"shown": repr(mask_url(text)), "allowed": allowed}
    )


def _split(text: str, example: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError as error:
        raise _problem(text, f"a URL such as {example}") from error


def _refuse_password(text: str, parts: SplitResult) -> None:
    userinfo, _, _ = parts.netloc.rpartition("@")
    named = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if ":" in userinfo or named & _SECRET_PARAMETERS:
        raise PydanticCustomError(
            "masked",
            "{shown} holds a password; take it out of the URL and give it by its own key, as {remedy}",
            {"shown": mask_url(text), "remedy": "{env: NAME} or {file: PATH}"},
        )


def _hosts_are_usable(netloc: str) -> bool:
    """Whether each of a comma-separated list of hosts is a name or address with a sane port, if any."""
    hosts = netloc.rpartition("@")[2]
    for item in hosts.split(","):
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]*)(?::(\d{1,5}))?", item)
        if match is None or (match[2] and not 0 < int(match[2]) < 65536):
            return False
    return True


def _url_validator(
    schemes: tuple[str, ...], example: str, *, one_host: bool, path: bool, query: bool
) -> AfterValidator:
    allowed = f"a URL such as {example}"

    def check(text: str) -> str:
        parts = _split(text, example)
        _refuse_password(text, parts)
        wrong = (
            parts.scheme not in schemes
            or parts.fragment
            or not _hosts_are_usable(parts.netloc)
            or (one_host and (not parts.hostname or "," in parts.netloc))
            or (not path and parts.path not in {"", "/"})
            or (not query and parts.query)
            or "@" in parts.path  # most likely a slash in a password
        )
        if wrong:
            raise _problem(text, allowed)
        return text

    return AfterValidator(check)


def _no_userinfo(text: str) -> str:
    if "@" in urlsplit(text).netloc:
        raise _problem(text, "a URL without user; keys go to access_key_id and secret_access_key")
    return text


def _host_port(text: str) -> str:
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise _problem(text, "host:port, such as 127.0.0.1:0")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*|[A-Za-z0-9._-]+", text) or re.fullmatch(r"[^:]*:\d{1,5}", text):
        raise _problem(text, "a host name or address without port")
    return text


def _fixed_port(text: str) -> str:
    if text.rpartition(":")[2] == "0":
        raise _problem(text, "host:port with a port above 0")
    return text


PostgresUrl: TypeAlias = Annotated[
    str,
    _url_validator(
        ("postgresql", "postgres"), "postgresql://admin@127.0.0.1:5432/shop", one_host=False, path=True, query=True
    ),
    WithJsonSchema({"type": "string", "pattern": "^postgres(ql)?://", "format": "uri"}),
]
RedisUrl: TypeAlias = Annotated[
    str,
    _url_validator(
        ("redis", "rediss"),
        "redis://127.0.0.1:6379, or rediss:// for TLS (no /N: a backup holds every database)",
        one_host=True,
        path=False,
        query=False,
    ),
    WithJsonSchema({"type": "string", "pattern": "^rediss?://", "format": "uri"}),
]
HttpUrl: TypeAlias = Annotated[
    str,
    _url_validator(("http", "https"), "http://127.0.0.1:8123", one_host=True, path=True, query=False),
    WithJsonSchema({"type": "string", "pattern": "^https?://", "format": "uri"}),
]
ClickHouseUrl: TypeAlias = Annotated[
    str,
    _url_validator(("http", "https"), "http://admin@127.0.0.1:8123", one_host=True, path=True, query=True),
    WithJsonSchema({"type": "string", "pattern": "^https?://", "format": "uri"}),
]
KeylessHttpUrl: TypeAlias = Annotated[HttpUrl, AfterValidator(_no_userinfo)]
ListenAddress: TypeAlias = Annotated[
    str, AfterValidator(_host_port), WithJsonSchema({"type": "string", "pattern": "^.+:[0-9]{1,5}$"})
]
Host: TypeAlias = Annotated[str, AfterValidator(_host), WithJsonSchema({"type": "string", "minLength": 1})]
HostPort: TypeAlias = Annotated[ListenAddress, AfterValidator(_fixed_port)]
