"""What drd tells the outside world: frozen events, bounded so that no receiver chokes on one. No I/O, no clock.

An event is a *report* (something that happened once, such as a drill) or a *state* (something that holds until it is
told otherwise, such as "backups of this source fail"). Labels say which one it is and where it belongs; annotations are
text for people. Neither ever holds a secret or a row. Whatever is put in, :class:`Event` keeps to the limits below.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Nature = Literal["report", "state"]
Severity = Literal["critical", "warning", "info"]
PeerOutcome = Literal["ok", "failed"]

MAX_LABELS = 16
MAX_LABEL_CHARACTERS = 128
MAX_ANNOTATIONS = 300
MAX_ANNOTATION_CHARACTERS = 16_000
MAX_EVENT_CHARACTERS = 200_000
"""Of all annotations together: a mail carries them twice, and mail servers refuse at 10 MB and more."""
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,62}")
RESERVED_LABELS = ("alertname", "backup", "drd", "drill", "engine", "run", "severity", "source", "verdict")
"""Labels that drd sets itself, so that a configuration must not."""
CUT = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing to tell. ``name`` is CamelCase with the prefix Drd; ``firing`` false means that a state is over.

    Two states with the same name and labels are the same state; a report's labels are unique, by its ``run``.
    ``run`` is the id of a drill run that a link can lead to, or empty. Labels and annotations without a value are left
    out. The annotation ``summary`` is one line; others may have several.
    """

    name: str
    nature: Nature
    severity: Severity
    at: datetime
    firing: bool = True
    run: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", _labels(self.labels))
        object.__setattr__(self, "annotations", _annotations(self.annotations))


@dataclass(frozen=True, slots=True)
class PeerResult:
    """How one receiver took the events; ``message`` says why not, one line, and ``attempts`` counts the tries."""

    peer: str
    outcome: PeerOutcome
    attempts: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How telling went: how many events, and each receiver's result in the order configured."""

    events: int = 0
    peers: tuple[PeerResult, ...] = ()

    @property
    def failures(self) -> tuple[PeerResult, ...]:
        """The receivers that were not told."""
        return tuple(peer for peer in self.peers if peer.outcome == "failed")


def one_line(text: str, limit: int = MAX_LABEL_CHARACTERS) -> str:
    """Return ``text`` as one printable line of at most ``limit`` characters, with a mark where it was cut."""
    return clipped(" ".join(_printable(text[: 4 * limit]).split()), limit)


def clipped(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of ``text``, the last one a mark when something is missing."""
    return text if len(text) <= limit else text[: limit - 1] + CUT


def _printable(text: str) -> str:
    """Return the text without what no mail should hold: control characters but tab and line feed, lone surrogates."""
    return "".join(c if c in "\t\n" or unicodedata.category(c)[0] != "C" else " " for c in text)


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    clean = {name: one_line(value) for name, value in labels.items() if LABEL_NAME.fullmatch(name)}
    return dict([(name, value) for name, value in clean.items() if value][:MAX_LABELS])


def _annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    out: dict[str, str] = {}
    left = MAX_EVENT_CHARACTERS
    for name, text in annotations.items():
        if left <= 0 or len(out) == MAX_ANNOTATIONS:
            break
        value = _printable(clipped(text, min(MAX_ANNOTATION_CHARACTERS, left)))
        if not LABEL_NAME.fullmatch(name) or not value.strip():
            continue
        out[name] = one_line(value, MAX_ANNOTATION_CHARACTERS) if name == "summary" else value
        left -= len(value)
    return out
