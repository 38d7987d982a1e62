"""The generated schema and the commented example stay what the models say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from drd.config import load, masked, schema, schema_text
from drd.config_model import Config
from drd.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "drd.example.yaml"
COMMENTED_KEY = re.compile(r"(?m)^( *)#([a-z][a-z0-9_-]*:)")


def uncommented() -> list[str]:
    """Return the example with every commented key in force: once with the S3 store, once with the local one."""
    text = COMMENTED_KEY.sub(r"\1\2", EXAMPLE.read_text(encoding="utf-8"))
    stores = re.findall(r"(?m)^store:\n(?:(?:  .*)?\n)+", text)
    assert len(stores) == 2
    return [text.replace(store, "\n") for store in stores]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def key_paths(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Return every key path of a model; a member of a mapping or a tagged union is written with its type."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        found.add(path)
        models = models_in(field.annotation)
        for inner in models:
            kind = get_args(inner.model_fields["type"].annotation)[0] if len(models) > 1 else None
            found |= key_paths(inner, f"{path}({kind})." if kind else f"{path}.")
        if get_origin(field.annotation) is dict and not models:
            continue
    return found


def written_paths(data: dict[str, Any]) -> set[str]:
    """Return every key path a document writes, in the form of :func:`key_paths`."""

    def below(value: dict[str, Any], prefix: str) -> set[str]:
        found: set[str] = set()
        for name, item in value.items():
            found.add(f"{prefix}{name}")
            if isinstance(item, dict) and set(item) != {"env"} and set(item) != {"file"}:
                kind = f"({item['type']})" if "type" in item else ""
                found |= below(item, f"{prefix}{name}{kind}.")
        return found

    by_name = ("sources", "drills", "schedules")
    found = below({k: v for k, v in data.items() if k not in by_name}, "") | set(by_name)
    for name in ("drills", "schedules"):
        for value in data[name].values():
            found |= below(value, f"{name}.")
    for value in data["sources"].values():
        found |= below(value, f"sources({value['type']}).")
    return found


def test_the_schema_file_is_current():
    """config/drd.schema.json is what the models generate; make schema writes it."""
    assert (ROOT / "config" / "drd.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_schema_is_a_valid_schema():
    """It obeys the draft it names."""
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_example_loads_and_fits_the_schema():
    """The example as shipped is accepted by drd and by any JSON Schema validator."""
    config = load(EXAMPLE, {})
    jsonschema.validate(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), schema())
    assert config.warnings == ()


def test_the_example_with_every_key_in_force_loads_and_fits_the_schema(tmp_path):
    """Each commented key can be uncommented as it stands."""
    for number, text in enumerate(uncommented()):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        load(path, {})
        jsonschema.validate(yaml.safe_load(text), schema())


def test_the_example_explains_every_key():
    """No key of the models is missing from the example, and none is made up."""
    written = set().union(*(written_paths(yaml.safe_load(text)) for text in uncommented()))
    assert key_paths(Config) - written == set()
    named_by_people = {"labels", "images", "programs", "node_selector", "users"}
    assert {path for path in written if not named_by_people & set(path.split(".")[:-1])} - key_paths(Config) == set()


def test_every_key_has_a_description():
    """The schema explains each property, so that an editor can."""
    document = schema()
    for name, definition in {**document["$defs"], "Config": document}.items():
        for key, value in definition["properties"].items():
            assert value.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    "text",
    [
        "store: {type: s3, bukket: abc}",
        "store: {type: ftp}",
        "stores: {}",
        "store: {type: local}",
        "{store: {type: local, path: /b}, pipeline: {level: 20}}",
        "{store: {type: local, path: /b}, pipeline: {workers: 0}}",
        "{store: {type: local, path: /b}, retention: {keep_last: -1}}",
        "{store: {type: local, path: /b}, sources: {Shop: {type: redis, url: 'redis://h'}}}",
    ],
)
def test_the_schema_refuses_what_drd_refuses(text, tmp_path):
    """An editor that knows the schema marks the same mistakes."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())
    file = tmp_path / "drd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load(file, {})


def test_what_is_shown_can_be_loaded_again(tmp_path):
    """The output of config show is itself a configuration with the same meaning."""
    shown = masked(load(EXAMPLE, {}))
    path = tmp_path / "shown.yaml"
    path.write_text(yaml.safe_dump(shown, sort_keys=False), encoding="utf-8")
    assert masked(load(path, {})) == shown
