"""Names and literals of ClickHouse, into and out of SQL and backup paths."""

from __future__ import annotations

import re
from urllib.parse import unquote

SYSTEM_DATABASES = frozenset({"system", "information_schema", "INFORMATION_SCHEMA"})

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}


def identifier(name: str) -> str:
    """Quote a name with backticks for SQL."""
    return "`" + "".join("\\`" if c == "`" else _ESCAPES.get(c, c) if c != "'" else c for c in name) + "`"


def literal(text: str) -> str:
    """Quote a string for SQL."""
    return "'" + "".join(_ESCAPES.get(c, c) for c in text) + "'"


def table(database: str, name: str) -> str:
    """Quote ``database.name`` for SQL."""
    return f"{identifier(database)}.{identifier(name)}"


def shown(database: str, name: str) -> str:
    """Spell ``database.name`` for people: bare where that is unambiguous, quoted otherwise."""
    return ".".join(n if _PLAIN.fullmatch(n) else identifier(n) for n in (database, name))


def from_file_name(escaped: str) -> str:
    """Undo ClickHouse's escapeForFileName: everything but letters, digits and ``_`` is ``%XX`` of its UTF-8."""
    return unquote(escaped, errors="surrogateescape")


def described_table(path: str) -> tuple[str, str] | None:
    """Return database and name of the table, view or dictionary that a file of a backup holds the CREATE statement of.

    It is ``metadata/<database>/<table>.sql``; None for any other file, and for those of the database ``system``.
    """
    words = path.split("/")
    if len(words) != 3 or words[0] != "metadata" or words[1] == "system" or not words[2].endswith(".sql"):
        return None
    return from_file_name(words[1]), from_file_name(words[2].removesuffix(".sql"))
