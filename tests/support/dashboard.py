"""The shipped dashboard as its tests see it: panels, and queries with Grafana's variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "config" / "grafana" / "drd.json"


@dataclass(frozen=True)
class Query:
    """One query of a panel, as it stands there."""

    panel: str
    ref: str
    expression: str

    def filled(self, **variables: str) -> str:
        """Return the expression with variables in place of their names; one that is missing is a KeyError."""
        return re.sub(r"\$(\w+)", lambda found: variables[found[1]], self.expression)


def load() -> dict[str, Any]:
    """Return the dashboard."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Return the panels that show something, rows aside."""
    return [panel for panel in load()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Give every query of every panel, and those of annotations."""
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["refId"], target["expr"])
    for note in load()["annotations"]["list"]:
        yield Query(f"annotation {note['name']}", note["target"]["refId"], note["target"]["expr"])
