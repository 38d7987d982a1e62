"""Bring roles, memberships and role settings back without touching a role that is already there."""

from __future__ import annotations

import re

import psycopg

from drd.engines.postgres.connection import Endpoint, Session, mapped
from drd.engines.postgres.place import Rights
from drd.engines.postgres.sqltext import statements, unquoted
from drd.errors import TargetError
from drd.model import Notice

_IDENT = r'("(?:[^"]|"")*"|[^\s";]+)'
_CREATE = re.compile(rf"CREATE ROLE {_IDENT}")
_ABOUT_ROLE = re.compile(rf"(?:ALTER ROLE|COMMENT ON ROLE|SECURITY LABEL (?:FOR \S+ )?ON ROLE) {_IDENT}")
_MEMBERSHIP = re.compile(rf"GRANT {_IDENT} TO {_IDENT}")
_PARAMETER = re.compile(rf"GRANT .* ON PARAMETER .* TO {_IDENT}", re.DOTALL)
_TABLESPACE = re.compile(r"(?:CREATE|ALTER|COMMENT ON) TABLESPACE|(?:GRANT|REVOKE) .* ON TABLESPACE", re.DOTALL)
_GRANTED_BY = re.compile(rf" GRANTED BY {_IDENT}$")
# What may fail for reasons that leave the data whole: it exists meanwhile, we may not, this server does not know it.
_HARMLESS = {"42710": "exists", "42501": "not allowed", "42704": "unknown here", "42601": "not understood here"}


def restore_roles(endpoint: Endpoint, session: Session, script: str, may: Rights) -> list[Notice]:
    """Run what ``pg_dumpall --globals-only`` wrote, as far as it is about roles that the server lacks.

    Roles that exist keep their password, attributes and settings. Tablespaces are left out: their folders belong to
    another host. Raises :class:`~drd.errors.TargetError` for a failure that is not known to be harmless.
    """
    with mapped(endpoint, "list the roles"):
        present = {str(row[0]) for row in session.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()}
    parsed = statements(script)
    named = [unquoted(found[1]) for text in parsed if (found := _CREATE.match(text))]
    new = [name for name in named if name not in present]
    kept = [name for name in named if name in present]
    notices: list[Notice] = []
    if new and not may.create_role:
        return [
            Notice("roles-skipped", f"roles were not created, this user may not (CREATEROLE): {', '.join(new)}"),
        ]
    tablespaces = sum(1 for text in parsed if text.startswith("CREATE TABLESPACE"))
    if tablespaces:
        notices.append(
            Notice(
                "tablespaces-skipped", f"{tablespaces} tablespaces were not created; everything is in the default one"
            )
        )
    failed = [problem for text in parsed if _concerns(text, set(new)) and (problem := _run(endpoint, session, text))]
    if kept:
        notices.append(Notice("roles-kept", f"roles that existed were left as they are: {_some(kept)}"))
    if failed:
        notices.append(Notice("roles-incomplete", f"{len(failed)} role statements had no effect, first {failed[0]}"))
    return notices


def missing_roles(session: Session, names: set[str]) -> list[str]:
    """Return those of ``names`` that the server does not have."""
    present = {str(row[0]) for row in session.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()}
    return sorted(names - present)


def _concerns(text: str, new: set[str]) -> bool:
    if _TABLESPACE.match(text):
        return False
    if found := _CREATE.match(text) or _ABOUT_ROLE.match(text) or _PARAMETER.match(text):
        return unquoted(found[1]) in new
    if found := _MEMBERSHIP.match(text):
        return unquoted(found[1]) in new or unquoted(found[2]) in new
    return False  # SET statements of pg_dumpall's own session


def _run(endpoint: Endpoint, session: Session, text: str) -> str:
    """Run one statement; return what was harmless about its failure, empty when it worked."""
    try:
        session.execute(text.encode())
    except psycopg.Error as error:
        if _GRANTED_BY.search(text):  # the grantor of the source need not be able to grant here
            return _run(endpoint, session, _GRANTED_BY.sub("", text))
        why = _HARMLESS.get(error.sqlstate or "")
        subject = " ".join(text.split()[:3])  # never the whole: it may hold a password's hash
        if why is None:
            raise TargetError(f"{subject} failed: {error.diag.message_primary}", hint="see the server's log") from error
        return f"{subject} ({why}: {error.diag.message_primary})"
    return ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
