"""Connections to one server: by psycopg here, and described for the client tools so that both reach the same host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from drd.engines.postgres.settings import PostgresSettings
from drd.errors import ConfigError, DrdError, SourceError, SourceRefused, SourceUnreachable, TargetError
from drd.model import Secret

Side: TypeAlias = Literal["source", "target"]
Session: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

# What the text of a COPY stream depends on. pg_dump sets the date and float styles itself but takes these from the
# server's configuration, which differs between a source and a scratch server; so all sessions pin all of them.
TEXT_FORM = {"TimeZone": "UTC", "bytea_output": "hex", "lc_monetary": "C", "array_nulls": "on"}
_WRITABLE = {"default_transaction_read_only": "off"}  # a role or a server may have it on; drd knows what it writes
_OWN_SESSIONS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "synchronize_seqscans": "off",
    "row_security": "off",
    "search_path": "",
    "statement_timeout": "0",
    "lock_timeout": "60s",
    "idle_in_transaction_session_timeout": "0",
}
# A session waits idle for as long as the work of others takes; these came with later versions.
_PATIENCE = ((14, "idle_session_timeout"), (17, "transaction_timeout"))
_BUSY = ("starting up", "shutting down", "in recovery mode", "not yet accepting connections")
_REFUSALS = (
    ("password authentication failed", "check the password of this user"),
    ("no password supplied", "set the password of this source"),
    ("no pg_hba.conf entry", "allow this host and user in the server's pg_hba.conf"),
    ("authentication failed", "check the user and how the server authenticates it"),
    ("too many clients", "raise max_connections or wait until fewer sessions are open"),
    ("remaining connection slots", "raise max_connections or wait until fewer sessions are open"),
    ("permission denied for database", "grant CONNECT on the database to this user"),
    ("session is read-only", "every host of the url is a standby: name the primary, too"),
    ("certificate", "check sslmode, sslrootcert and the host name in the url"),
)


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to connect; ``parameters`` are libpq's, without any secret."""

    parameters: Mapping[str, str]
    password: Secret | None
    side: Side
    connect_timeout_s: float = 10.0

    @property
    def label(self) -> str:
        """Host and port for messages, such as ``127.0.0.1:5432``."""
        return f"{self.parameters.get('host') or 'local socket'}:{self.parameters.get('port') or '5432'}"

    @property
    def database(self) -> str | None:
        """The database the URL names, or None."""
        return self.parameters.get("dbname") or None

    def conninfo(self, database: str | None = None) -> str:
        """Return a connection string for a client tool: safe to show in a process list."""
        chosen = dict(self.parameters) | ({"dbname": database} if database is not None else {})
        chosen["options"] = _options(chosen.get("options", ""), TEXT_FORM | _WRITABLE)
        chosen["connect_timeout"] = str(max(2, round(self.connect_timeout_s)))  # libpq takes 1 as 2
        chosen.setdefault("application_name", "drd")
        return make_conninfo("", **chosen)

    def environment(self) -> dict[str, str]:
        """Return what a client tool needs besides :meth:`conninfo`: the password, for its eyes only."""
        found = {"LC_ALL": "C"}  # the tools' messages in English, so that they can be recognised
        if self.password is not None:
            found["PGPASSWORD"] = self.password.reveal()
        return found

    def connect(self, database: str | None = None, *, encoding: str | None = None) -> Session:
        """Open a session in autocommit mode whose COPY output equals pg_dump's; raises drd errors of this side."""
        chosen = dict(self.parameters) | ({"dbname": database} if database is not None else {})
        chosen["options"] = _options(chosen.get("options", ""), TEXT_FORM | _WRITABLE | _OWN_SESSIONS)
        if encoding is not None:
            chosen["client_encoding"] = encoding
        else:
            chosen.setdefault("client_encoding", "UTF8")
        if self.password is not None:
            chosen["password"] = self.password.reveal()
        chosen.setdefault("application_name", "drd")
        try:
            session = psycopg.connect(
                make_conninfo("", **chosen), autocommit=True, connect_timeout=max(2, round(self.connect_timeout_s))
            )
            for major, name in _PATIENCE:
                if session.info.server_version >= major * 10000:
                    session.execute(f"SET {name} = 0".encode())
        except psycopg.Error as error:
            raise self._refusal(error, database or self.database or "") from error
        return session

    def pinned(self, session: Session) -> Endpoint:
        """Return this endpoint bound to the one server that ``session`` reached.

        A snapshot is known only to the server that exported it, so tools must not choose among hosts again.
        """
        info = session.info
        chosen = {k: v for k, v in self.parameters.items() if k not in {"target_session_attrs", "load_balance_hosts"}}
        chosen |= {"host": info.host, "port": str(info.port), "user": info.user, "dbname": info.dbname}
        chosen["target_session_attrs"] = "any"  # or the environment would choose (PGTARGETSESSIONATTRS)
        chosen.pop("hostaddr", None)
        if info.hostaddr and not info.host.startswith("/"):
            chosen["hostaddr"] = info.hostaddr
        return replace(self, parameters=chosen)

    def _refusal(self, error: psycopg.Error, database: str) -> DrdError:
        text = first_line(str(error))
        lowered = str(error).lower()
        refused = SourceRefused if self.side == "source" else TargetError
        unreachable = SourceUnreachable if self.side == "source" else TargetError
        if "does not exist" in lowered:
            missing = f'database "{database}"' in lowered or "database" in lowered
            hint = "check the name of the database in the url" if missing else "check the user in the url"
            return refused(f"cannot connect to {self.label}: {text}", hint=hint)
        if any(word in lowered for word in _BUSY):
            return unreachable(f"{self.label} is not ready: {text}", hint="wait until the server accepts connections")
        for word, hint in _REFUSALS:
            if word in lowered:
                return refused(f"{self.label} refused the connection: {text}", hint=hint)
        return unreachable(
            f"cannot reach {self.label}: {text}", hint="check that the server runs and that host and port are right"
        )


def endpoint_of(settings: PostgresSettings, side: Side) -> Endpoint:
    """Take the settings apart; raises :class:`~drd.errors.ConfigError` for a URL that libpq does not understand."""
    try:
        parsed = conninfo_to_dict(settings.url)
    except psycopg.Error as error:
        raise ConfigError(
            f"the url of this PostgreSQL source is not understood: {first_line(str(error))}",
            hint="write it as postgresql://user@host:5432/database",
        ) from error
    parameters = {name: str(value) for name, value in parsed.items() if value is not None}
    if "sslpassword" in parameters:
        raise ConfigError(
            "the url holds an sslpassword, which client tools would show in the process list",
            hint="use a key file without a password, readable by drd alone",
        )
    if side == "target":  # a url that prefers standbys is right for backups; a restore writes, and reads what it wrote
        several = "," in parameters.get("host", "") + parameters.get("hostaddr", "")
        parameters["target_session_attrs"] = "read-write" if several else "any"
    inline = parameters.pop("password", None)
    password = settings.password or (Secret(inline) if inline else None)
    return Endpoint(parameters, password, side, settings.connect_timeout_s)


def join_snapshot(session: Session, snapshot: str) -> None:
    """Begin a transaction that sees what another one, still open, has exported."""
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    session.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))


def failure(side: Side, message: str, *, hint: str = "") -> DrdError:
    """Make the error of this side."""
    return (SourceError if side == "source" else TargetError)(message, hint=hint)


@contextmanager
def mapped(endpoint: Endpoint, doing: str) -> Iterator[None]:
    """Turn psycopg's errors inside the block into drd's, saying what was being done."""
    try:
        yield
    except psycopg.Error as error:
        text = first_line(str(error))
        state = error.sqlstate or ""
        gone = isinstance(error, psycopg.OperationalError) and (not state or state.startswith(("57P", "08")))
        gone = gone or (not state and "server closed the connection" in text)  # COPY: not an OperationalError
        if gone and endpoint.side == "source":
            raise SourceUnreachable(
                f"{doing}: lost the connection to {endpoint.label}: {text}", hint="see the server's log, then run again"
            ) from error
        if state == "42501" and endpoint.side == "source":
            raise SourceRefused(f"{doing}: {text}", hint=_grant(text)) from error
        hint = f"the disk of {endpoint.label} is full: free space there, then run again" if state == "53100" else ""
        if gone:
            hint = f"see the log of {endpoint.label}: a full disk or too little memory ends it; then run again"
        raise failure(endpoint.side, f"{doing}: {text}", hint=hint) from error


def _grant(refusal: str) -> str:
    """Say what the source's user lacks; what the server says decides, in English, else the most likely one."""
    if "row-level security" in refusal:
        return "the user needs BYPASSRLS, or to own the table, or to be superuser"
    if "for function" in refusal:
        return "grant EXECUTE on the function to this user, or use a superuser"
    return "grant pg_read_all_data (14 and later) or use a superuser"


def first_line(text: str) -> str:
    """Return the first line of a server's or tool's message that says something, without its prefix."""
    for line in text.splitlines():
        cleaned = line.strip()
        if "FATAL:" in cleaned:
            return cleaned.split("FATAL:", 1)[1].strip()
        if cleaned:
            return cleaned.removeprefix("ERROR:").strip()
    return "no message"


def _options(existing: str, settings: Mapping[str, str]) -> str:
    """Add ``-c name=value`` for each setting; backslash escapes what libpq would split at."""
    added = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return f"{existing} {added}".strip()
