"""Durations, sizes, paths and secrets as people write them in a configuration, parsed once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from drd.errors import ConfigError
from drd.model import Secret

MASK = "**********"
_SECRET_FILE_LIMIT_BYTES = 64 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION_PATTERN = r"^(\d+(\.\d+)?(d|h|m|s))+$"
_SIZES = {"tib": 1 << 40, "gib": 1 << 30, "mib": 1 << 20, "kib": 1 << 10}
_SIZES |= {"tb": 10**12, "gb": 10**9, "mb": 10**6, "kb": 10**3, "b": 1}
_MOST_LOCK_DAYS = 36500
SHARE_PATTERN = r"\d+(\.\d+)?%"
SIZE_PATTERN = r"^\d+(\.\d+)? ?([KMGTkmgt][Ii]?)?[Bb]?$"


class EnvironmentText(str):
    """A value that came from an environment variable, and knows which."""

    __slots__ = ("variable",)
    variable: str

    @classmethod
    def of(cls, variable: str, value: str) -> EnvironmentText:
        """Wrap ``value`` of ``variable``."""
        text = cls(value)
        text.variable = variable
        return text


def parse_amount(text: str) -> tuple[Literal["share", "seconds", "bytes"], float]:
    """Say what ``5%``, ``15m`` or ``10GiB`` is an amount of, and how much; raise ValueError for anything else.

    A share is above 0 and at most 1. A number alone is none: 5 is meant as 5% at least as often as five bytes.
    """
    if text.endswith("%"):
        share = float(text[:-1]) / 100
        if 0 < share <= 1:
            return "share", share
    elif text[-1:].isalpha() and text[-1:] not in "Bb":
        return "seconds", parse_duration(text).total_seconds()
    elif not text.isdigit() and (size := parse_size(text)) > 0:
        return "bytes", size
    raise ValueError("allowed: a share such as 5%, a size such as 10GiB, or a time such as 15m")


def parse_duration(value: object) -> timedelta:
    """Parse ``90s``, ``15m``, ``1h30m``, ``30d``; raise ValueError for anything else, a bare number included."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(_DURATION_PATTERN, value):
        raise ValueError("allowed: a duration such as 90s, 15m, 2h or 30d")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(\w)", value))
    if not 0 < seconds <= 36500 * 86400:
        raise ValueError("allowed: a duration above zero, 36500d at most")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration as :func:`parse_duration` reads it, in the largest unit that divides it."""
    seconds = value.total_seconds()
    unit = next((u for u, size in _SECONDS.items() if seconds % size == 0), "s")
    return f"{seconds / _SECONDS[unit]:g}{unit}" if seconds % 1 else f"{int(seconds) // _SECONDS[unit]}{unit}"


def parse_size(value: object) -> int:
    """Parse ``8MiB``, ``50MB`` or a plain number of bytes; raise ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", value) if isinstance(value, str) else None
    unit = _SIZES.get(match[2].lower() or "b") if match else None
    if match is None or unit is None:
        raise ValueError("allowed: a size such as 8MiB, 50MB or 1GiB")
    return int(float(match[1]) * unit)


def format_size(size_bytes: int) -> str:
    """Write a size as :func:`parse_size` reads it, exactly, in the largest binary unit that divides it."""
    unit = next((u for u in ("TiB", "GiB", "MiB", "KiB") if size_bytes and size_bytes % _SIZES[u.lower()] == 0), "B")
    return f"{size_bytes // _SIZES[unit.lower()]}{unit}"


def parse_share(value: object) -> float:
    """Parse ``30%`` into 0.3; raise ValueError for anything else, and unless it is above 0 and below 100 %."""
    if isinstance(value, float) and 0 < value < 1:
        return value
    text = value if isinstance(value, str) and re.fullmatch(SHARE_PATTERN, value) else "0%"
    share = float(text[:-1]) / 100
    if not 0 < share < 1:
        raise ValueError("allowed: a share between 0% and 100%, such as 30%")
    return share


def format_share(value: float) -> str:
    """Write a share as :func:`parse_share` reads it."""
    return f"{round(100 * value, 6):g}%"


def size_between(low_bytes: int, high_bytes: int) -> AfterValidator:
    """Make the validator of a size range, both ends included."""

    def check(value: int) -> int:
        if not low_bytes <= value <= high_bytes:
            raise ValueError(f"allowed: {format_size(low_bytes)} to {format_size(high_bytes)}")
        return value

    return AfterValidator(check)


def _from_base(value: Path, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base", Path.cwd())
    return base / value.expanduser()


def _auto_or_count(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,4}", value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 64:
        raise ValueError("allowed: auto, or 1 to 64")
    return number


def _lock_days(value: object) -> int | Literal["keep_within"]:
    if value == "keep_within":
        return "keep_within"
    number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,5}", value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST_LOCK_DAYS:
        raise ValueError(f"allowed: keep_within, or 1 to {_MOST_LOCK_DAYS} days")
    return number


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("allowed: a whole number")  # noqa: TRY004 (pydantic turns only ValueError into a problem)
    return value


class SecretRef:
    """Where a secret is: an environment variable, a file, or (discouraged) the configuration itself.

    It never shows the secret. :func:`drd.config.load` tells it its place in the configuration and the environment;
    nothing is read before :meth:`resolve`, so a host that never uses a secret need not have it.
    """

    __slots__ = ("_environ", "_value", "kind", "where")

    def __init__(self, kind: Literal["env", "file", "inline"], value: str, environ: Mapping[str, str]) -> None:
        self.kind = kind
        self.where = ""
        self._value = value
        self._environ = environ

    def __repr__(self) -> str:
        return f"SecretRef({self.shown()!r})"

    def shown(self) -> str | dict[str, str]:
        """Return the reference as it may be shown to anyone."""
        return MASK if self.kind == "inline" else {self.kind: self._value}

    def resolve(self) -> Secret:
        """Read the secret; raise ConfigError, naming key and variable or file, when it is unset, missing or empty."""
        match self.kind:
            case "env":
                value = self._from_environment()
            case "file":
                value = self._from_file()
            case "inline":
                value = self._value
        if not value:
            raise ConfigError(f"{self.where}: {self._described()} is empty", hint="give the secret or remove the key")
        return Secret(value)

    def _described(self) -> str:
        return {"env": f"environment variable {self._value}", "file": self._value, "inline": "the secret"}[self.kind]

    def _from_environment(self) -> str:
        if self._value not in self._environ:
            raise ConfigError(
                f"{self.where}: environment variable {self._value} is not set",
                hint=f"export {self._value}=…, or give the secret by a file",
            )
        return self._environ[self._value]

    def _from_file(self) -> str:
        hint = "make that file, readable by drd alone, or name another"
        try:
            with Path(self._value).open("rb") as stream:
                raw = stream.read(_SECRET_FILE_LIMIT_BYTES + 1)
            text = raw.decode()
        except OSError as error:
            raise ConfigError(f"{self.where}: cannot read {self._value}: {error.strerror}", hint=hint) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.where}: {self._value} is not UTF-8 text", hint=hint) from error
        if len(raw) > _SECRET_FILE_LIMIT_BYTES:
            raise ConfigError(f"{self.where}: {self._value} is too large for a secret (over 64 KiB)", hint=hint)
        return text.removesuffix("\n").removesuffix("\r")


def _parse_secret(value: object, info: ValidationInfo) -> SecretRef:
    """Accept the three forms of a secret; no message ever repeats what was given."""
    context = info.context or {}
    environ: Mapping[str, str] = context.get("environ", {})
    allowed = "allowed: {env: NAME} or {file: PATH}"
    match value:
        case SecretRef():
            return value
        case EnvironmentText() as text:
            return SecretRef("env", text.variable, environ)
        case str() as text:
            return SecretRef("inline", text, environ)
        case {"env": str() as name, **rest} if not rest:
            if not _VARIABLE.fullmatch(name):
                raise PydanticCustomError("secret", "env must name an environment variable (not hold the secret)")
            return SecretRef("env", name, environ)
        case {"file": str() as name, **rest} if not rest and name:
            return SecretRef("file", str(_from_base(Path(name), info)), environ)
        case bool() | int() | float():
            raise PydanticCustomError("secret", allowed + " (or quoted text; the value shown to drd was not text)")
        case _:
            raise PydanticCustomError("secret", allowed)


SECRET_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}
        for key in ("env", "file")
    ]
    + [{"type": "string", "description": "the secret itself; accepted with a warning"}]
}

Duration: TypeAlias = Annotated[
    timedelta,
    PlainValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["90s", "15m", "2h", "30d"]}),
]
Size: TypeAlias = Annotated[
    int,
    PlainValidator(parse_size),
    PlainSerializer(format_size),
    WithJsonSchema({"type": ["string", "integer"], "pattern": SIZE_PATTERN, "minimum": 0, "examples": ["8MiB"]}),
]
Share: TypeAlias = Annotated[
    float,
    PlainValidator(parse_share),
    PlainSerializer(format_share),
    WithJsonSchema({"type": "string", "pattern": f"^{SHARE_PATTERN}$", "examples": ["30%"]}),
]
Bandwidth: TypeAlias = Annotated[Size, size_between(64 << 10, 1 << 40)]
FilePath: TypeAlias = Annotated[Path, AfterValidator(_from_base), PlainSerializer(str)]
AutoOrCount: TypeAlias = Annotated[
    int | Literal["auto"],
    PlainValidator(_auto_or_count),
    WithJsonSchema({"oneOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 64}]}),
]
LockDays: TypeAlias = Annotated[
    int | Literal["keep_within"],
    PlainValidator(_lock_days),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _MOST_LOCK_DAYS},
                {"const": "keep_within", "type": "string"},
            ]
        }
    ),
]
Count: TypeAlias = Annotated[int, BeforeValidator(_no_bool)]
SecretField: TypeAlias = Annotated[
    SecretRef, PlainValidator(_parse_secret), PlainSerializer(SecretRef.shown), WithJsonSchema(SECRET_SCHEMA)
]
Text: TypeAlias = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A mapping of the configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        validate_default=True,
        defer_build=True,  # one validator is built, of the whole that is loaded, in place of one for every section too
    )


def its_defaults() -> Any:
    """Be the default of a section's key: nothing given, so that its own defaults are filled in with the whole."""
    return {}


def refuse(problems: Mapping[str, str]) -> None:
    """Raise one problem for each key of ``problems`` (key relative to the section); do nothing when there is none."""
    if problems:
        raise PydanticCustomError("section", "keys do not fit together", {"problems": dict(problems)})
