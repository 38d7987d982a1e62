"""Read YAML strictly, and lay environment variables over it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from drd.config_values import EnvironmentText
from drd.errors import ConfigError
from drd.wording import size

OVERRIDE_PREFIX = "DRD_"
NESTED = "__"


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that notes duplicate keys, refuses anything but text as a key, and knows no YAML 1.1 surprises.

    Only true, false, null, whole and decimal numbers are special: ``no``, ``12:30:00`` and dates stay text.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.problems: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002, ARG002 (the base's signature)
        """Build a mapping; its children are built at once, so that an alias to an ancestor is an error."""
        if not isinstance(node, yaml.MappingNode):
            return super().construct_mapping(node, deep=True)
        seen: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                self.problems.append(f"line {line}: keys are text; quote this one")
                continue
            name = key_node.value
            if name in seen:
                self.problems.append(
                    f"line {line}: {name} is given twice (first on line {seen[name]}); rename or remove one"
                )
            seen.setdefault(name, line)
        return super().construct_mapping(node, deep=True)


StrictLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?$", list("-+0123456789")),
    ("merge", r"^(?:<<)$", ["<"]),
):
    StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read_document(path: Path, *, called: str = "", hint: str, most_bytes: int | None = None) -> str:
    """Read a whole document; raises ConfigError, with ``hint`` when the file cannot be read or is over ``most_bytes``.

    ``called`` is what the message calls it before its path, such as ``the suite``.
    """
    named = f"{called} {path}".lstrip()
    try:
        with path.open("rb") as stream:
            raw = stream.read(-1 if most_bytes is None else most_bytes + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {named}: {error.strerror}", hint=hint) from error
    if most_bytes is not None and len(raw) > most_bytes:
        raise ConfigError(f"{named} is too large (over {size(most_bytes)})", hint=hint)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from error


def parse_yaml(text: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """Parse a document into a mapping and a list of problems such as duplicate keys.

    Raises ConfigError for a syntax error (with line and column) or when the document is not a mapping.
    """
    try:
        data, problems = _load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(
            f"{name}{where}: not valid YAML: {reason}", hint="check indentation, colons and quotes there"
        ) from error
    except yaml.YAMLError as error:  # a character YAML does not allow
        raise ConfigError(
            f"{name}: not valid YAML: {' '.join(str(error).split())}", hint="save it as UTF-8 text"
        ) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{name}: the document is a {_kind(data)}, not a mapping of sections", hint="start with store:"
        )
    return data, problems


def _load(text: str) -> tuple[Any, list[str]]:
    loader = StrictLoader(text)
    try:
        return loader.get_single_data(), loader.problems
    finally:
        loader.dispose()


def _kind(value: object) -> str:
    return "list" if isinstance(value, list) else "single value"


def overlay(data: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[tuple[str, ...], str], list[str]]:
    """Lay ``DRD_SECTION__KEY`` variables over ``data``, in place.

    A step matches a key whose dashes and dots are written as underscores, without regard to case. A value that begins
    with ``[`` or ``{`` is YAML, any other is text. Returns which variable set which path, and problems.
    """
    origins: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    for variable in sorted(environ):
        if not variable.startswith(OVERRIDE_PREFIX) or NESTED not in variable:
            continue
        steps = variable.removeprefix(OVERRIDE_PREFIX).lower().split(NESTED)
        if not all(steps):
            problems.append(f"{variable}: not a path of keys; write DRD_SECTION{NESTED}KEY")
            continue
        try:
            value = _value_of(variable, environ[variable])
            path = _place(data, steps, value)
        except ValueError as error:
            problems.append(f"{variable}: {error}")
            continue
        origins[path] = variable
    return origins, problems


def _value_of(variable: str, text: str) -> Any:
    if not text.startswith(("[", "{")):
        return EnvironmentText.of(variable, text)
    try:
        value, problems = _load(text)
    except yaml.YAMLError as error:
        raise ValueError("begins like a YAML list or mapping but is not one") from error
    if problems:
        raise ValueError("; ".join(problems))
    return value


def _place(data: dict[Any, Any], steps: list[str], value: Any) -> tuple[str, ...]:
    """Set ``value`` at ``steps``, making mappings on the way; return the path as the document spells it."""
    here: dict[Any, Any] = data
    path: list[str] = []
    for number, step in enumerate(steps, 1):
        fits = [key for key in here if isinstance(key, str) and key.lower().replace("-", "_").replace(".", "_") == step]
        if len(fits) > 1:
            raise ValueError(f"fits several keys: {', '.join(sorted(fits))}")
        key = fits[0] if fits else step
        path.append(key)
        if number == len(steps):
            here[key] = value
            break
        if here.get(key) is None:
            here[key] = {}
        below = here[key]
        if not isinstance(below, dict):
            raise ValueError(f"{'.'.join(path)} is not a mapping")  # noqa: TRY004 (the caller makes it a problem)
        here = below
    return tuple(path)
