"""What pg_dump says when it fails or doubts, in words for people."""

from __future__ import annotations

import re

import psycopg

from drd.engines.children import Child
from drd.engines.postgres.connection import Endpoint, Session
from drd.engines.postgres.held import locked_tables
from drd.engines.postgres.tools import complaint
from drd.errors import DrdError, SourceError, SourceUnreachable, ToolError
from drd.model import Notice
from drd.protocols import WorkContext

_LOCKED = re.compile(r"lock timeout|could not obtain lock|statement timeout", re.IGNORECASE)


def warnings_of(text: str, database: str) -> list[Notice]:
    """Return what pg_dump left out or doubts, such as subscriptions that only a superuser may read."""
    found = [line.split("warning: ", 1)[1].strip() for line in text.splitlines() if "warning: " in line]
    said = [line for line in dict.fromkeys(found) if "circular foreign-key" not in line]  # keys are made after the rows
    if not said:
        return []
    more = f" and {len(said) - 3} more" if len(said) > 3 else ""
    return [Notice("pg-dump-warnings", f"{database}: pg_dump says: {'; '.join(said[:3])}{more}")]


def explain(child: Child, here: Endpoint, session: Session, ctx: WorkContext) -> DrdError:
    """Say why pg_dump failed, naming the table where a lock was in the way."""
    ctx.cancel.raise_if_cancelled()
    text = child.stderr_tail()
    why = complaint(text)
    if _LOCKED.search(text):
        tables = _locked_tables(session) or re.findall(r'relation "([^"]+)"', text)
        named = f" on {', '.join(tables[:3])}" if tables else ""
        return SourceError(
            f"pg_dump of {session.info.dbname} waited too long for a lock{named}: {why}",
            hint="somebody alters or truncates the table; run again when that is done, or raise the lock timeout",
        )
    if "No space left on device" in text:
        return ToolError(
            f"the spool {ctx.spool_dir} is full: {why}",
            hint="free space there or choose another spool; drd needs at most the spool limit",
        )
    if "permission denied" in text:
        return SourceError(
            f"pg_dump of {session.info.dbname} may not read everything: {why}",
            hint="grant pg_read_all_data (14 and later) or use a superuser",
        )
    if "row-level security" in text:
        return SourceError(
            f"pg_dump of {session.info.dbname}: {why}",
            hint="the user needs BYPASSRLS, or to own the table, or to be superuser",
        )
    lost = ("server closed the connection", "terminating connection", "Connection refused", "connection to server")
    if any(word in text for word in lost):
        return SourceUnreachable(
            f"pg_dump of {session.info.dbname} lost the server {here.label}: {why}",
            hint="see the server's log, then run again",
        )
    return ToolError(f"pg_dump of {session.info.dbname} failed: {why}", hint="see the server's log")


def _locked_tables(session: Session) -> list[str]:
    """Name the tables in the way; none when the server is gone as well: the lock is the failure to report."""
    try:
        return locked_tables(session)
    except psycopg.Error:
        return []
