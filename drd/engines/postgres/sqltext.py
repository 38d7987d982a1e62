"""The few forms of SQL text that drd reads and writes itself: names, COPY and setval of an archive, role scripts."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_IDENT = r'(?:"(?:[^"]|"")*"|[^\s",.();]+)'
_COPY = re.compile(rf"COPY {_IDENT}(?:\.{_IDENT})? ?(?:\(({_IDENT}(?:, {_IDENT})*)\))? FROM stdin;\s*", re.DOTALL)
_ONE_IDENT = re.compile(_IDENT, re.DOTALL)
_SETVAL = re.compile(r"SELECT pg_catalog\.setval\('(?:[^']|'')*', (-?\d{1,20}), (true|false)\);\s*", re.DOTALL)
_PIECES = re.compile(
    r"""(?P<skip>--[^\n]*|/\*.*?\*/)
      | (?P<text>[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*")
      | (?P<dollar>\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
      | (?P<end>;)""",
    re.DOTALL | re.VERBOSE,
)


def quoted(name: str) -> str:
    """Return a name as SQL writes it, in quotes only where needed for eyes (keywords are not looked up)."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def always_quoted(*names: str) -> str:
    """Join names into a qualified one that is safe as SQL, keywords included."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def dotted(*names: str) -> str:
    """Join names into a qualified one, such as ``trading.public."Order Book"``."""
    return ".".join(quoted(name) for name in names)


def unquoted(text: str) -> str:
    """Return the name that an identifier in SQL text means; folding to lower case has been done by who wrote it."""
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def copy_columns(statement: str) -> list[str] | None:
    """Return the columns of an archive's ``COPY … FROM stdin``; empty for a table without columns, None if not one."""
    found = _COPY.fullmatch(statement)
    if found is None:
        return None
    return [unquoted(name) for name in _ONE_IDENT.findall(found[1])] if found[1] else []


def sequence_state(definition: str) -> tuple[int, bool] | None:
    """Return ``(last_value, is_called)`` of an archive's setval statement, or None if it is none."""
    found = _SETVAL.fullmatch(definition)
    return (int(found[1]), found[2] == "true") if found else None


def statements(script: str) -> list[str]:
    """Split a script at its semicolons, heeding strings, quoted names, dollar quotes and comments.

    psql's own backslash commands (connect, restrict) are dropped: they stand alone on a line.
    """
    out: list[str] = []
    kept: list[str] = []
    at = 0
    script = re.sub(r"(?m)^\\(?:connect|restrict|unrestrict)\b.*$", "", script)
    for piece in _PIECES.finditer(script):
        kept.append(script[at : piece.start()])
        at = piece.end()
        if piece["end"]:
            out.append("".join(kept).strip())
            kept = []
        elif not piece["skip"]:
            kept.append(piece[0])
    kept.append(script[at:])
    out.append("".join(kept).strip())
    return [statement for statement in out if statement]


def list_items(value: str) -> list[str]:
    """Split a setting that is a list of names, such as search_path, as the server stores it."""
    return [unquoted(item) for item in re.findall(r'"(?:[^"]|"")*"|[^\s",]+', value)]
