"""Load, check and show drd's configuration; the only reader of the environment.

A configuration is one YAML file, overlaid by ``DRD_SECTION__KEY`` environment variables, checked as a whole before
anything runs. Secrets are references, read when they are used: a host that only lists backups needs the store's
secrets and no database's password.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from drd.config_model import Config, S3StoreConfig
from drd.config_read import overlay, parse_yaml, read_document
from drd.config_report import error_of, problems_of
from drd.config_sources import ClickHouseConfig
from drd.config_values import SIZE_PATTERN, SecretRef, format_duration, format_size
from drd.errors import ConfigError
from drd.model import Secret

__all__ = [
    "Config",
    "SecretRef",
    "find_config_file",
    "load",
    "load_text",
    "masked",
    "read_text",
    "schema",
    "schema_text",
    "secret_from",
    "secret_refs",
]

# Looking for plugins of pydantic, which drd has none of, opens every distribution that is installed.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

CONFIG_VARIABLE = "DRD_CONFIG"
_HINT = "every key is explained in config/drd.example.yaml; drd config schema prints the JSON Schema"
_PLACES = (Path("drd.yaml"), Path("/etc/drd/drd.yaml"))


def find_config_file(explicit: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the configuration file: ``--config``, ``$DRD_CONFIG``, ``./drd.yaml``, ``/etc/drd/drd.yaml``.

    A file named by a person must exist; the others are tried in turn. Raises ConfigError naming every place.
    """
    for name, value in (("--config", explicit), (f"${CONFIG_VARIABLE}", environ.get(CONFIG_VARIABLE))):
        if value or (value is not None and value is explicit):  # --config "$UNSET" must not mean another file
            if not Path(value).is_file():
                raise ConfigError(
                    f"no configuration file {value or repr(value)} (from {name})",
                    hint="check the path, or leave it out",
                )
            return Path(value)
    for place in _PLACES:
        if place.is_file():
            return place
    places = ", ".join(
        ["--config", f"${CONFIG_VARIABLE}", *(f"./{p}" if not p.is_absolute() else str(p) for p in _PLACES)]
    )
    raise ConfigError(
        f"no configuration file; looked at {places}",
        hint="write ./drd.yaml (a commented example: config/drd.example.yaml)",
    )


def load(path: Path | str, environ: Mapping[str, str] = os.environ, *, check_references: bool = False) -> Config:
    """Read, overlay and validate a configuration file.

    Relative paths in it start at the file's folder. With ``check_references`` every secret is resolved and every named
    certificate file looked for, as ``drd config validate`` does; otherwise a secret is read when it is used.
    Raises one ConfigError that lists every problem: path, value (never a secret's), what is allowed.
    """
    path = Path(path)
    return load_text(read_text(path), path, environ, check_references=check_references)


def read_text(path: Path) -> str:
    """Read a configuration file; raises ConfigError."""
    return read_document(path, hint="check --config and the file's rights")


def load_text(
    text: str, path: Path, environ: Mapping[str, str] = os.environ, *, check_references: bool = False
) -> Config:
    """Do what :func:`load` does with a text that was read from ``path`` before: for a job of the daemon."""
    data, problems = parse_yaml(text, str(path))
    origins, more = overlay(data, environ)
    problems += more
    config: Config | None = None
    try:
        config = Config.model_validate(data, context={"environ": environ, "base": path.absolute().parent})
    except ValidationError as error:
        problems += problems_of(error, origins)
    if config is not None:
        config._warnings = tuple(_bind(config))  # noqa: SLF001 (the model is frozen for everyone else)
        if check_references:
            problems += _broken_references(config)
    if config is None or problems:
        raise error_of(path, problems, _HINT)
    return config


def secret_refs(config: Config) -> Iterator[tuple[str, SecretRef]]:
    """Yield every secret reference with its path, such as ``sources.trading-redis.password``."""
    for path, value in _leaves(config, ""):
        if isinstance(value, SecretRef):
            yield path, value


def secret_from(*, where: str, env: str = "", file: str = "", environ: Mapping[str, str] = os.environ) -> Secret:
    """Read a secret that the command line refers to, by variable or by file; errors as a configured one's."""
    ref = SecretRef("env", env, environ) if env else SecretRef("file", file, environ)
    ref.where = where
    return ref.resolve()


def masked(config: Config) -> dict[str, Any]:
    """Return the effective configuration, defaults included, as plain values without any secret."""
    return config.model_dump(mode="json")


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file."""
    generated = Config.model_json_schema(schema_generator=_Schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "drd.yaml",
        **{key: value for key, value in generated.items() if key != "title"},
    }


def schema_text() -> str:
    """Return :func:`schema` as the text of ``config/drd.schema.json``."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


class _Schema(GenerateJsonSchema):
    """Writes defaults as people would, and leaves out titles that only repeat the key."""

    def encode_default(self, dft: Any) -> Any:
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)

    def generate(self, schema: Any, mode: Any = "validation") -> dict[str, Any]:
        generated = super().generate(schema, mode)
        _tidy(generated)
        return generated


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _tidy(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    for ours, standard in _BOUNDS.items():
        if isinstance(node.get(ours), int | float):  # pydantic leaves them where a validator stands before the type
            node[standard] = node.pop(ours)
    if node.get("pattern") == SIZE_PATTERN and isinstance(node.get("default"), int):
        node["default"] = format_size(node["default"])
    for value in node.values():
        _tidy(value)


def _bind(config: Config) -> Iterator[str]:
    """Tell each secret its path, and yield a warning for each unwise choice."""
    if config.encryption is None:
        yield "encryption is not configured: whoever reads the store reads your data; see: drd keygen"
    locking = isinstance(config.store, S3StoreConfig) and config.store.object_lock is not None
    for name, source in config.sources.items():
        if not isinstance(source, ClickHouseConfig) or source.mode != "direct":
            continue
        if config.signing is not None:
            yield f"sources.{name}: mode direct: signatures cover names and sizes of what the server writes, no content"
        if locking:
            yield (
                f"sources.{name}: mode direct: store.object_lock locks nothing that the server writes itself; "
                "give the bucket a default retention, see docs/bucket-policies.md"
            )
    if config.daemon.token is None and not config.daemon.is_local:
        yield (
            f"daemon.listen {config.daemon.listen} can be reached from other machines, and daemon.token is not set: "
            "whoever connects reads the page"
        )
    for path, ref in secret_refs(config):
        ref.where = path
        if ref.kind == "inline" and not path.endswith("access_key_id"):
            yield f"{path}: the secret is written in the configuration; use {{env: NAME}} or {{file: PATH}}"


def secret_references(config: Config) -> list[SecretRef]:
    """Return every reference to a secret; each says where it stands in the configuration and where the secret is."""
    return [value for _, value in _leaves(config, "") if isinstance(value, SecretRef)]


def _broken_references(config: Config) -> Iterator[str]:
    for path, value in _leaves(config, ""):
        if isinstance(value, SecretRef):
            try:
                value.resolve()
            except ConfigError as error:
                yield error.message
        elif isinstance(value, Path) and path.endswith(("ca_file", "cert_file", "key_file")) and not value.is_file():
            yield f"{path}: no file {value}"
        elif isinstance(value, Path) and path.startswith("drills.") and path.endswith(".suite"):
            yield from _broken_suite(path, value)


def _broken_suite(path: str, file: Path) -> Iterator[str]:
    """Say what is wrong with a drill's suite, a line a problem."""
    from drd.config_suite import load_suite  # noqa: PLC0415 - models that nobody else needs

    try:
        load_suite(file)
    except ConfigError as error:
        first, *more = error.message.splitlines()
        yield f"{path}: {first}"
        yield from (f"{path}: {file}: {line.strip()}" for line in more)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, path if len(value) == 1 else f"{path}[{number}]")
    else:
        yield path, value
