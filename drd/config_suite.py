"""The shape of a drill suite (``restore_drills/*.yaml``): what a drill checks, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from drd.config_read import parse_yaml, read_document
from drd.config_report import error_of, problems_of
from drd.config_values import Section, Text, parse_duration, refuse
from drd.drills.suite import Comparison, Expectation, Suite, SuiteCheck
from drd.model import Cell, EngineKind, Question
from drd.repository.layout import is_source_name

_MAX_BYTES = 1 << 20
_MAX_CHECKS = 1000
_HINT = "every key is explained in docs/drills.md; editors complete them by restore_drills/suite.schema.json"


def _scalar(value: object) -> Cell:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError("allowed: text, a number, true, false or null")


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("allowed: a number")  # noqa: TRY004 (pydantic turns only ValueError into a problem)
    return value


def _within(value: object) -> float | Literal["rpo"]:
    return "rpo" if value == "rpo" else parse_duration(value).total_seconds()


def _source_name(value: str) -> str:
    if not is_source_name(value):
        raise ValueError("allowed: a name of a-z, 0-9, dash, dot and underscore, at most 63 characters")
    return value


_SCALAR_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
Scalar: TypeAlias = Annotated[Cell, PlainValidator(_scalar), WithJsonSchema(_SCALAR_SCHEMA)]
Number: TypeAlias = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
Within: TypeAlias = Annotated[
    float | Literal["rpo"],
    PlainValidator(_within),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["65m", "rpo"]}),
]
Words: TypeAlias = Annotated[tuple[Text, ...], Field(min_length=1)]
_QUESTIONS = ("sql", "redis", "keys", "command")
_EXPECTATIONS: tuple[Comparison, ...] = (
    "equals", "not_equals", "at_least", "at_most", "above", "below", "no_rows", "rows", "within",
)  # fmt: skip


class CheckConfig(Section):
    """One check: a question (sql, redis, keys or command) and what is expected of its answer."""

    name: Text = Field(description="What is checked, in words for the report.")
    sql: Text | None = Field(default=None, description="One statement that only reads; PostgreSQL and ClickHouse.")
    redis: Words | None = Field(default=None, description="A command that only reads, as a list of words.")
    keys: Text | None = Field(default=None, description="Redis: how many keys match this pattern.")
    command: Words | None = Field(
        default=None,
        description="A program to run beside the scratch server (DRD_SCRATCH_URL, DRD_SCRATCH_PASSWORD); 0 passes.",
    )
    database: Text | None = Field(
        default=None, description="PostgreSQL database, or number of the Redis one. Default: the only one, or 0."
    )
    equals: Scalar = Field(default=None, description="The one value must be this.")
    not_equals: Scalar = Field(default=None, description="The one value must not be this.")
    at_least: Number | None = Field(default=None, description="The one value must be this or more.")
    at_most: Number | None = Field(default=None, description="The one value must be this or less.")
    above: Number | None = Field(default=None, description="The one value must be more than this.")
    below: Number | None = Field(default=None, description="The one value must be less than this.")
    no_rows: Literal[True] | None = Field(default=None, description="There must be no row.")
    rows: tuple[tuple[Scalar, ...], ...] | None = Field(
        default=None, description="The rows must be exactly these, in this order: canaries."
    )
    within: Within | None = Field(
        default=None, description="The one value is a time, at most this long before the drill; rpo: its objective."
    )
    newest: bool = Field(
        default=False, description="With within: this time is that of the newest data, from which the RPO is counted."
    )

    @model_validator(mode="after")
    def _is_one_question(self) -> CheckConfig:
        problems: dict[str, str] = {}
        asked = [name for name in _QUESTIONS if getattr(self, name) is not None]
        expected = [name for name in _EXPECTATIONS if name in self.model_fields_set]
        if len(asked) != 1:
            problems[asked[1] if asked else "sql"] = f"allowed: exactly one of {', '.join(_QUESTIONS)}"
        elif asked == ["command"]:
            for name in (*expected, *(n for n in ("database",) if n in self.model_fields_set)):
                problems[name] = "has no effect on a command, which must end with 0"
        elif len(expected) != 1:
            problems[expected[1] if expected else "equals"] = f"allowed: exactly one of {', '.join(_EXPECTATIONS)}"
        if self.newest and expected != ["within"]:
            problems["newest"] = "has no effect without within"
        refuse(problems)
        return self

    def check(self) -> SuiteCheck:
        """Return the check as drills take it."""
        if self.command is not None:
            return SuiteCheck(self.name, command=self.command)
        if self.sql is not None:
            question = Question("sql", (self.sql,), self.database)
        elif self.redis is not None:
            question = Question("redis", self.redis, self.database)
        else:
            question = Question("keys", (self.keys or "*",), self.database)
        comparison = next(name for name in _EXPECTATIONS if name in self.model_fields_set)
        value = getattr(self, comparison)
        if comparison == "rows":
            question = Question(question.kind, question.words, question.database, max(100, len(value)))
            return SuiteCheck(self.name, question, Expectation("rows", rows=value))
        if comparison == "within" and value == "rpo":
            value = None
        return SuiteCheck(self.name, question, Expectation(comparison, value), newest=self.newest)


Checks: TypeAlias = Annotated[tuple[CheckConfig, ...], Field(max_length=_MAX_CHECKS)]


class SuiteConfig(Section):
    """A drill suite: checks that a drill makes of restored databases, besides those that every drill makes."""

    version: Literal[1] = Field(description="Version of this format.")
    description: Text | None = Field(default=None, description="What the suite is about.")
    show_rows: bool = Field(default=False, description="Whether reports may hold values and rows that checks found.")
    sources: dict[Annotated[str, AfterValidator(_source_name)], Checks] = Field(
        default_factory=dict, description="Checks of one source, by its name in drd.yaml."
    )
    engines: dict[EngineKind, Checks] = Field(
        default_factory=dict, description="Checks of every source of a kind: postgres, redis, clickhouse."
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> SuiteConfig:
        problems: dict[str, str] = {}
        for group, of in (("sources", self.sources), ("engines", self.engines)):
            for key, checks in of.items():
                names = [check.name for check in checks]
                for number, name in enumerate(names):
                    if name in names[:number]:
                        problems[f"{group}.{key}[{number}].name"] = f"got {name!r}; there is another check of that name"
        if not self.sources and not self.engines:
            problems["sources"] = "a suite needs checks, below sources or engines"
        refuse(problems)
        return self

    def suite(self, origin: str) -> Suite:
        """Return the suite as drills take it."""
        return Suite(
            by_source={name: tuple(c.check() for c in checks) for name, checks in self.sources.items()},
            by_engine={kind: tuple(c.check() for c in checks) for kind, checks in self.engines.items()},
            show_rows=self.show_rows,
            origin=origin,
        )


def load_suite(path: Path) -> Suite:
    """Read and check a suite file; raises ConfigError with a line for each problem."""
    text = read_document(path, called="the suite", hint="correct suite: of the drill", most_bytes=_MAX_BYTES)
    data, problems = parse_yaml(text, str(path))
    suite: SuiteConfig | None = None
    try:
        suite = SuiteConfig.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, {}, SuiteConfig)
    if suite is None or problems:
        raise error_of(path, problems, _HINT)
    return suite.suite(path.name)


def suite_schema_text() -> str:
    """Return the JSON Schema of a suite as the text of ``restore_drills/suite.schema.json``."""
    generated = SuiteConfig.model_json_schema()
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated, "title": "drd drill suite"}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
