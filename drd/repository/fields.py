"""Writing, and strict reading, of the JSON objects that drd keeps: every type, bound and unknown key is checked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from drd.errors import IntegrityError
from drd.model import Json
from drd.repository import layout

_MAX_TEXT = 2000
_MAX_COUNT = 1 << 62
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_Choice = TypeVar("_Choice", bound=str)


class Malformed(Exception):
    """What is wrong with an object, to be said after its name: ``has no field id``. Mapped by every caller."""


def text_of_time(at: datetime) -> str:
    """Return a time as it is stored: UTC, microseconds, ``Z``. Raises ValueError for a naive one."""
    if at.tzinfo is None:
        raise ValueError(f"a time without a zone: {at}")
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def written(document: Mapping[str, object]) -> bytes:
    """Return a small document as it is stored: indented JSON in ASCII, for people who look."""
    return (json.dumps(document, indent=1) + "\n").encode("ascii")


def is_sha256(text: str) -> bool:
    """Whether ``text`` is a SHA-256 in lower-case hexadecimal."""
    return _SHA256.fullmatch(text) is not None


def is_usable_key(text: str) -> bool:
    """Whether ``text`` may be the key of an object."""
    try:
        layout.validate_key(text)
    except IntegrityError:
        return False
    return True


def parse_strictly(data: bytes) -> dict[str, Json]:
    """Return the one JSON object that ``data`` is: UTF-8, no key twice, no NaN, nothing infinite, no lone surrogate."""
    try:
        document = _DECODER.decode(data.decode("utf-8"))
        if b"\\u" in data:  # only an escape makes a lone surrogate, which nothing could print
            _ENCODER.encode(document).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Malformed(f"is not valid JSON ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise Malformed("is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # 1e999
        raise ValueError(text)
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
_ENCODER = json.JSONEncoder(ensure_ascii=False)


class Fields:
    """The fields of one JSON object; each is taken once, with its type, and none may be left over."""

    def __init__(self, document: dict[str, Json], what: str) -> None:
        self._left = dict(document)
        self._what = what

    def require_nothing_else(self) -> None:
        """Raise when a field was not taken: this version does not know it."""
        if self._left:
            raise Malformed(f"has an unknown field in its {self._what}: {min(self._left)[:120]!r}")

    def has(self, name: str) -> bool:
        """Whether a field that may be left out is there."""
        return name in self._left

    def text(self, name: str) -> str:
        """Take a printable string."""
        value = self._take(name)
        if type(value) is str and len(value) <= _MAX_TEXT and value.isprintable():
            return value  # at once: a large catalog has a million of them
        return self._text(value, name)

    def optional_text(self, name: str) -> str | None:
        """Take a printable string or null."""
        value = self._take(name)
        return None if value is None else self._text(value, name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Take a list of printable strings."""
        value = self._take(name)
        if not isinstance(value, list):
            self._wrong(name, "a list of strings")
        return tuple(self._text(item, name) for item in value)

    def text_map(self, name: str) -> dict[str, str]:
        """Take an object whose values are printable strings."""
        return {self._text(key, name): self._text(value, name) for key, value in self.json_map(name).items()}

    def json_map(self, name: str) -> dict[str, Json]:
        """Take an object of any content."""
        value = self._take(name)
        if not isinstance(value, dict):
            self._wrong(name, "an object")
        return value

    def optional_map(self, name: str) -> dict[str, Json] | None:
        """Take an object of any content, or null."""
        value = self._take(name)
        if value is not None and not isinstance(value, dict):
            self._wrong(name, "an object or null")
        return value

    def choice(self, name: str, allowed: Sequence[_Choice]) -> _Choice:
        """Take one of the allowed strings."""
        value = self._take(name)
        for choice in allowed:
            if choice == value:
                return choice
        return self._wrong(name, " or ".join(allowed))

    def flag(self, name: str) -> bool:
        """Take true or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            self._wrong(name, "true or false")
        return value

    def count(self, name: str) -> int:
        """Take a whole number, not negative."""
        value = self._take(name)
        return value if type(value) is int and 0 <= value <= _MAX_COUNT else self._count(value, name)

    def optional_count(self, name: str) -> int | None:
        """Take a whole number, not negative, or null."""
        value = self._take(name)
        return None if value is None else self._count(value, name)

    def time(self, name: str) -> datetime:
        """Take a time as :func:`text_of_time` writes it."""
        return self._time(self._take(name), name)

    def optional_time(self, name: str) -> datetime | None:
        """Take a time or null."""
        value = self._take(name)
        return None if value is None else self._time(value, name)

    def array(self, name: str) -> list[Json]:
        """Take a list of anything."""
        value = self._take(name)
        if not isinstance(value, list):
            self._wrong(name, "a list")
        return value

    def objects(self, name: str) -> list[Fields]:
        """Take a list of objects."""
        value = self._take(name)
        if not isinstance(value, list):
            self._wrong(name, "a list of objects")
        return [Fields(item, name) if isinstance(item, dict) else self._wrong(name, "an object") for item in value]

    def _take(self, name: str) -> Json:
        try:
            return self._left.pop(name)
        except KeyError:
            raise Malformed(f"has no field {name} in its {self._what}") from None

    def _text(self, value: Json, name: str) -> str:
        if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
            self._wrong(name, f"printable text of at most {_MAX_TEXT} characters")
        return value

    def _count(self, value: Json, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
            self._wrong(name, "a whole number, not negative")
        return value

    def _time(self, value: Json, name: str) -> datetime:
        if not isinstance(value, str) or not _TIME.fullmatch(value):
            self._wrong(name, "a time such as 2026-11-22T18:14:55.000000Z")
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            self._wrong(name, "a time that exists")

    def _wrong(self, name: str, expected: str) -> NoReturn:
        raise Malformed(f"has a bad {name} in its {self._what}: expected {expected}")
