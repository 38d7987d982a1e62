"""Read flat, repeated XML elements without trusting the document: no DTD, no entities, bounded depth and text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

MAX_DEPTH = 8
MAX_TEXT = 64 << 10


def _forbid(*_: Any) -> int:
    raise ExpatError("a document type or entity is not allowed here")


class FlatReader:
    """Push parser: ``row`` is called with each ``element``'s wanted child texts, ``single`` with other leaf texts."""

    def __init__(
        self,
        element: str,
        wanted: Iterable[str],
        row: Callable[[Mapping[str, str]], None],
        single: Callable[[str, str], None] = lambda _name, _text: None,
    ) -> None:
        self._element = element
        self._wanted = frozenset(wanted)
        self._row = row
        self._single = single
        self._path: list[str] = []
        self._texts: dict[str, str] | None = None
        self._text: list[str] = []
        self._size = 0
        parser = ParserCreate()
        parser.StartDoctypeDeclHandler = _forbid
        parser.EntityDeclHandler = _forbid
        parser.ExternalEntityRefHandler = _forbid
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        self._parser = parser

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Parse a piece; raises :class:`xml.parsers.expat.ExpatError` for anything unsound."""
        self._parser.Parse(data, last)

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise ExpatError("nested too deeply")
        if name == self._element:
            self._texts = {}
        self._text, self._size = [], 0

    def _data(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_TEXT:
            raise ExpatError("a text is too long")
        self._text.append(text)

    def _end(self, _name: str) -> None:
        name = self._path.pop()
        if self._texts is not None and name == self._element:
            texts, self._texts = self._texts, None
            self._row(texts)
        elif self._texts is not None and name in self._wanted:
            self._texts[name] = "".join(self._text)
        elif self._texts is None:
            self._single(name, "".join(self._text))
        self._text, self._size = [], 0


def read_texts(data: bytes, element: str, wanted: Iterable[str]) -> list[dict[str, str]]:
    """Return the wanted child texts of every ``element``; raises ``ExpatError``."""
    rows: list[dict[str, str]] = []
    FlatReader(element, wanted, lambda row: rows.append(dict(row))).feed(data, last=True)
    return rows
