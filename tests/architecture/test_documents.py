"""What the documents tell people to type and to write is what drd takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from drd.cli.main import build_parser
from drd.config import load

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def commands() -> Iterator[str]:
    """Give every command line of drd in a code block, without prompt, comment and redirection."""
    for document in DOCUMENTS:
        for _, block in BLOCK.findall(document.read_text(encoding="utf-8")):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                found = re.match(r"(?:\$ )?(drd [a-z].*)", line)
                if found and "…" not in line and "|" not in line:
                    yield found[1]


def test_there_are_documented_commands() -> None:
    """The search finds the two commands that carry drd, so an empty list below proves nothing by accident."""
    found = set(commands())
    assert {"drd backup now", 'drd restore --at "2026-11-22 12:00"'} <= found


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_documented_commands_are_understood(command: str) -> None:
    """Each command of a document parses: its verb and flags exist."""
    words = shlex.split(command, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    assert callable(build_parser().parse_args(words[1:]).run)


def test_the_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    """What the README shows as drd.yaml loads, once a recipient stands where it leaves one out."""
    texts = [block for kind, block in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if kind == "yaml"]
    (text,) = (text for text in texts if text.startswith("store:"))
    file = tmp_path / "drd.yaml"
    file.write_text(text.replace("age1…", RECIPIENT), encoding="utf-8")
    assert sorted(load(file, {}).sources) == ["market-data", "trading-postgres", "trading-redis"]
