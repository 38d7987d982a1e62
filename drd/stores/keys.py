"""The door of every store: what may be a key, a prefix, a delimiter or a range."""

from __future__ import annotations

from drd.errors import IntegrityError
from drd.repository.layout import validate_key

RESERVED_FOLDER = ".drd-tmp"
"""Top folder that no key may lie in: the local store keeps unfinished objects there."""

_HINT = "the manifest or the caller is wrong; nothing was read or written"


def check_key(key: str) -> str:
    """Return ``key`` if every store can hold it; raise :class:`~drd.errors.IntegrityError` otherwise."""
    validate_key(key)
    if key == RESERVED_FOLDER or key.startswith(f"{RESERVED_FOLDER}/"):
        raise IntegrityError(f"not a usable object key: {key[:120]!r} is reserved", hint=_HINT)
    try:
        key.encode("utf-8")
    except UnicodeEncodeError as error:
        raise IntegrityError(f"not a usable object key: {key[:120]!r} is not Unicode text", hint=_HINT) from error
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if a usable key could start with it; the empty one is fine, and it need not end a segment."""
    folder, slash, partial = prefix.rpartition("/")
    if slash and not folder:
        raise IntegrityError(f"not a usable key prefix: {prefix[:120]!r}", hint=_HINT)
    if folder:
        check_key(folder)
    if partial:
        check_key(f"x{partial}")  # "." and ".." are fine as the beginning of a longer name
    return prefix


def check_delimiter(delimiter: str) -> str:
    """Return ``delimiter`` if it is empty or a slash, the two that every store understands."""
    if delimiter not in {"", "/"}:
        raise IntegrityError(f"not a usable delimiter: {delimiter!r}", hint=_HINT)
    return delimiter


def check_range(start: int, length: int | None) -> None:
    """Raise :class:`~drd.errors.IntegrityError` for a range that begins before the object or ends before its start."""
    if start < 0 or (length is not None and length < 0):
        raise IntegrityError(f"not a usable range: start {start}, length {length}", hint=_HINT)
