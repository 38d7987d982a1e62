"""Say what is wrong with a configuration: one line a problem, with path, value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drd.config_model import Config
from drd.config_urls import mask_url
from drd.errors import PROBLEM, ConfigError

_SHOWN_CHARACTERS = 60


def problems_of(
    error: ValidationError, origins: Mapping[tuple[str, ...], str], root: type[BaseModel] = Config
) -> list[str]:
    """Return a line for each problem; ``origins`` says which paths an environment variable set.

    ``root`` is the model of the whole document.
    """
    lines: list[str] = []
    for details in error.errors(include_url=False):
        place = _walk(details["loc"], root)
        for where, message in _messages(place, details):
            origin = next((f" (from {v})" for p, v in origins.items() if f"{'.'.join(p)}.".startswith(f"{where}.")), "")
            lines.append(f"{where or 'the document'}{origin}: {message}")
    return sorted(set(lines))


def error_of(path: Path, problems: Sequence[str], hint: str) -> ConfigError:
    """Return the error that lists every problem of a document."""
    if len(problems) == 1:
        return ConfigError(f"{path}: {problems[0]}", hint=hint)
    return ConfigError(PROBLEM.join([f"{path}: {len(problems)} problems", *problems]), hint=hint)


@dataclass(frozen=True)
class _Place:
    """Where a problem is: the path as written, the model that holds its last step, the models allowed there."""

    path: str
    model: type[BaseModel]
    choices: tuple[type[BaseModel], ...]

    @property
    def key(self) -> str:
        return self.path.rpartition(".")[2]

    def below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _walk(loc: tuple[int | str, ...], root: type[BaseModel]) -> _Place:
    """Turn pydantic's location, which names union members and key positions too, into a place."""
    model = root
    annotation: Any = root
    path = ""
    for step in loc:
        choices = _models(annotation)
        if step == "[key]":
            continue
        if isinstance(step, int):
            path += f"[{step}]"
            continue
        if len(choices) > 1 and step in map(_tag, choices):
            annotation = model = next(m for m in choices if _tag(m) == step)
            continue
        path = f"{path}.{step}" if path else step
        if choices:
            model = choices[0]
            field = model.model_fields.get(step)
            annotation = field.annotation if field else None
        else:
            annotation = _value_type(annotation)
    return _Place(path, model, tuple(_models(annotation)))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models an annotation may be: itself, or the members of a union (optional or tagged)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [] if _value_type(annotation) is not None else [m for arg in get_args(annotation) for m in _models(arg)]


def _value_type(annotation: Any) -> Any:
    """Return the value type of a dict annotation, else None."""
    return get_args(annotation)[1] if get_origin(annotation) is dict else None


def _tag(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _messages(place: _Place, details: ErrorDetails) -> Iterator[tuple[str, str]]:
    context = details.get("ctx", {})
    match details["type"]:
        case "section":
            for key, message in context["problems"].items():
                yield place.below(key), message
        case "extra_forbidden":
            yield place.path, _unknown_key(place)
        case "missing":
            yield place.path, f"required: {(place.model.model_fields[place.key].description or '').rstrip('.')}"
        case "union_tag_not_found":
            yield place.below("type"), f"required; allowed: {_tags(place)}"
        case "union_tag_invalid":
            yield place.below("type"), f"got {_shown(context['tag'])}; allowed: {_tags(place)}"
        case "too_short" if details["input"]:
            return  # its items were wrong, and each has its own line
        case "secret" | "masked":
            yield place.path, details["msg"]
        case _:
            yield place.path, f"got {_shown(details['input'])}; {_allowed(details)}"


def _tags(place: _Place) -> str:
    return ", ".join(map(_tag, place.choices))


def _unknown_key(place: _Place) -> str:
    known = sorted(place.model.model_fields)
    close = difflib.get_close_matches(place.key.lower().replace("-", "_"), known, n=1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; allowed: {', '.join(known)}"


def _shown(value: object) -> str:
    """Show a value that is not a secret's, shortly; a URL's password and anything like a key is masked."""
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = mask_url(str(value))
    if "AGE-SECRET-KEY-" in text.upper():
        return "an age identity (a secret!)"
    text = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return repr(text) if isinstance(value, str) else text


def _allowed(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if details["input"] is None and kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "allowed: a mapping, or leave the key out"
    texts = {
        "string_type": "allowed: text (quote it)",
        "int_type": "allowed: a whole number",
        "int_parsing": "allowed: a whole number",
        "int_from_float": "allowed: a whole number",
        "dict_type": "allowed: a mapping",
        "model_type": "allowed: a mapping",
        "model_attributes_type": "allowed: a mapping",
        "tuple_type": "allowed: a list",
        "path_type": "allowed: a path",
        "string_too_short": "allowed: text that is not empty",
        "too_short": "allowed: a list that is not empty",
        "greater_than_equal": f"allowed: at least {context.get('ge')}",
        "less_than_equal": f"allowed: at most {context.get('le')}",
        "literal_error": "allowed: " + str(context.get("expected", "")).replace("'", "").replace(" or ", ", "),
        "string_pattern_mismatch": f"allowed: text that matches {context.get('pattern')}",
    }
    return texts.get(kind) or details["msg"].removeprefix("Value error, ")
