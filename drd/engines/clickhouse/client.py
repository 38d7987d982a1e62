"""SQL over HTTP to one ClickHouse server, with its errors told apart and cleaned of secrets.

clickhouse-connect is imported on first use: it costs a third of a second.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from drd.engines.clickhouse.settings import ClickHouseSettings
from drd.errors import (
    DrdError,
    IntegrityError,
    SourceError,
    SourceRefused,
    SourceUnreachable,
    TargetError,
)

ACCESS_DENIED = 497
_NOISE = re.compile(r"^(Received ClickHouse exception, code: \d+, server response: )?(Code: \d+\. )?(DB::Exception: )?")
_CODE = re.compile(r"[Cc]ode: (\d+)")


@dataclass(frozen=True)
class Side:
    """Which family of errors a server's trouble belongs to."""

    failed: type[DrdError]
    unreachable: type[DrdError]
    refused: type[DrdError]


SOURCE = Side(SourceError, SourceUnreachable, SourceRefused)
TARGET = Side(TargetError, TargetError, TargetError)


class ServerRefusal(Exception):
    """The server answered a statement with an error: its numeric code and a clean first line."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} (code {number})")
        self.number = number
        self.text = text


class Scrubber:
    """Replaces known secret values in text that came from elsewhere."""

    def __init__(self, *values: str) -> None:
        self._values = sorted({v for v in values if len(v) >= 3}, key=len, reverse=True)

    def add(self, *values: str) -> None:
        """Learn more secrets."""
        self._values = sorted({*self._values, *(v for v in values if len(v) >= 3)}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        for value in self._values:
            text = text.replace(value, "[HIDDEN]")
        return text


def clean(text: str, limit: int = 400) -> str:
    """Return the telling part of a server's error text as one line, without stack trace and version."""
    text = text.split(", Stack trace", 1)[0].split(" (for url ", 1)[0]
    text = _NOISE.sub("", text.strip())
    text = re.sub(r"\s*\(version [^)]*\)", "", text)
    text = " ".join(text.split()).rstrip(". ")
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Server:
    """A connection pool to one server; thread-safe. Raises :class:`ServerRefusal` and ``side.unreachable``.

    A server that accepts connections and says nothing is given up after ``answer_timeout_s`` without a byte; the first
    questions of a new connection are small, so they wait no longer than ``settings.look_timeout_s``.
    """

    def __init__(self, settings: ClickHouseSettings, side: Side, *, answer_timeout_s: float | None = None) -> None:
        self.settings = settings
        self._answer_timeout_s = answer_timeout_s or max(30.0, settings.stall_timeout_s)
        self._look_timeout_s = min(self._answer_timeout_s, settings.look_timeout_s)
        self.address = settings.address()
        self.side = side
        self.scrub = Scrubber(settings.password.reveal() if settings.password else "")
        self._client: Any = None
        self._lock = threading.Lock()

    def rows(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Run a SELECT-like statement and return its rows by column name."""
        with self._mapped():
            client = self._connect()
            result = client.query(sql, parameters=dict(parameters or {}), settings=self._known(settings))
            return list(result.named_results())

    def lines(self, sql: str, settings: Mapping[str, Any] | None = None, *, query_id: str = "") -> list[dict[str, Any]]:
        """Run a statement that is no SELECT but answers rows (CHECK TABLE) and return them by column name."""
        with self._mapped():
            client = self._connect()
            options = self._known(settings) | ({"query_id": query_id} if query_id else {})
            data = client.raw_query(sql, settings=options, fmt="JSONEachRow")
            return [json.loads(line) for line in data.splitlines() if line]

    def answer(self, sql: str) -> str:
        """Run a statement that answers one value and takes no FORMAT (CHECK GRANT)."""
        with self._mapped():
            data: bytes = self._connect().raw_query(sql)
            return data.decode("utf-8", "replace").strip()

    def execute(self, sql: str, *, settings: Mapping[str, Any] | None = None, query_id: str = "") -> None:
        """Run a statement whose result does not matter."""
        with self._mapped():
            client = self._connect()
            options = self._known(settings) | ({"query_id": query_id} if query_id else {})
            client.command(sql, settings=options)

    def version(self) -> str:
        """Return the server's version."""
        with self._mapped():
            return str(self._connect().server_version)

    def close(self) -> None:
        """Release the connections; idempotent."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _known(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """Keep the settings that this version of the server has."""
        have = self._client.server_settings
        return {k: v for k, v in (settings or {}).items() if k in have}

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                import clickhouse_connect  # noqa: PLC0415 - heavy, only when used
                from urllib3 import Timeout  # noqa: PLC0415 - the same

                connect_s = max(1, round(self.settings.connect_timeout_s))
                where, secret = self.address, self.settings.password
                client: Any = clickhouse_connect.get_client(
                    host=where.host,
                    port=where.port,
                    interface=where.scheme,
                    username=where.user,
                    password=secret.reveal() if secret else "",
                    connect_timeout=connect_s,
                    send_receive_timeout=max(1, round(self._look_timeout_s)),
                    ca_cert=str(self.settings.ca_file) if self.settings.ca_file else None,
                    autogenerate_session_id=False,
                    query_limit=0,
                    query_retries=0,
                    compress=False,
                )
                client.timeout = Timeout(connect=connect_s, read=self._answer_timeout_s)
                self._client = client
            return self._client

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn the driver's exceptions into ours."""
        from clickhouse_connect.driver.exceptions import ClickHouseError  # noqa: PLC0415 - the same
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - the same

        try:
            yield
        except (ClickHouseError, HTTPError, OSError) as error:
            text = self.scrub(str(error))
            if found := _CODE.search(text):
                raise ServerRefusal(int(found.group(1)), clean(text)) from None
            where = f"ClickHouse at {self.address.scheme}://{self.address.netloc}"
            if "read timed out" in text.lower():
                raise self.side.unreachable(
                    f"{where} accepts connections, but does not answer",
                    hint="is the server overloaded, or does something else listen there? see its log, and: drd check",
                ) from None
            raise self.side.unreachable(
                f"cannot reach {where}: {_network_reason(text)}",
                hint="is the server up, and is this its HTTP port (8123, https: 8443)? see: drd check",
            ) from None


def _network_reason(text: str) -> str:
    """Find the part of a urllib3 error that tells a person something."""
    for pattern in (r"\[Errno -?\d+\] ([^'\")]+)", r"(certificate verify failed[^'\"(]*)", r"([Tt]imed out)"):
        if found := re.search(pattern, text):
            return found.group(1).strip()
    return clean(text, 160)


_LACKING = re.compile(
    r"(?P<user>\S+): Not enough privileges\. .* the grant (?P<right>[A-Z ]+)(?:\(.*\))?(?: for .*)? ON (?P<where>\S+) "
)
_ALL_RIGHTS = "docs/replace.md lists all that drd needs"
# Source of the numbers: src/Common/ErrorCodes.cpp of ClickHouse; seen on 26.7 unless noted.
_HINTS: dict[int, tuple[str, str]] = {
    62: ("", "this drd speaks to ClickHouse 23.4 and newer; compare: SELECT version()"),
    81: ("", "compare the source's databases with: SHOW DATABASES"),
    115: ("", "the server is of another version than drd expects; see: drd check"),
    139: (
        "the backup holds Replicated tables and this server has no Keeper: ",
        "restore into a server with Keeper and macros, or create the tables as plain MergeTree first",
    ),
    192: ("", "set the user in the url and the password of this source"),
    193: ("", "set the password of this source"),
    194: ("", "set the password of this source"),
    497: (
        "the user lacks a right: ",
        f"GRANT BACKUP, SELECT ON *.* TO the user (a target needs more: {_ALL_RIGHTS})",
    ),
    516: ("wrong user or password: ", "set the user in the url and the password of this source"),
    598: (
        "the place of the backup is taken (a crashed run leaves a .lock there): ",
        "run it again: every run uses a place of its own",
    ),
    599: ("the server finds no complete backup there: ", "drd verify --deep shows what is missing"),
}
_REFUSED = frozenset({81, 192, 193, 194, 497, 516, 139, 318})


def as_drd_error(refusal: ServerRefusal, side: Side, doing: str = "") -> DrdError:
    """Map what the server answered to an error for people, which says what was being done where the verb does not."""
    number = refusal.number
    prefix, hint = _HINTS.get(number, ("", ""))
    if number == ACCESS_DENIED and (lacking := _LACKING.search(refusal.text)):
        # It is lacking also for the other tables, and for databases that have another name in each restore.
        named = lacking["where"].rstrip(".")
        where = "*" if lacking["right"] == "TABLE ENGINE" else "*.*" if {".", "`"} & set(named) else named
        hint = f"GRANT {lacking['right']} ON {where} TO {lacking['user']} ({_ALL_RIGHTS})"
    while_doing = f" while drd {doing}" if doing else ""
    if number in {40, 1009}:  # CHECKSUM_DOESNT_MATCH, sizes differ
        return IntegrityError(f"ClickHouse found damaged data{while_doing}: {refusal}", hint="see: drd verify --deep")
    if "disk" in refusal.text.lower() and "allow" in refusal.text.lower():
        hint = "allow it in the server's config: <backups><allowed_disk>NAME</allowed_disk></backups>"
    family = side.refused if number in _REFUSED else side.failed
    return family(f"{prefix or f'ClickHouse failed{while_doing}: '}{refusal}", hint=hint)


@contextmanager
def told(side: Side, doing: str = "") -> Iterator[None]:
    """Let a :class:`ServerRefusal` out of the block only as a drd error; ``doing`` goes on from "while drd"."""
    try:
        yield
    except ServerRefusal as refusal:
        raise as_drd_error(refusal, side, doing) from None
