"""Write what of the chart follows from elsewhere: values.schema.json, the README's table. `make chart` runs it.

The schema is schema.yaml with drd's own (config/drd.schema.json) in it, without the form of a secret that is written
out: a release keeps its values. The table is made from the comments of values.yaml that begin with ``# --``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
CHART = HERE / "drd"
BEGIN, END = "<!-- values: begin, by make chart -->", "<!-- values: end -->"
_KEY = re.compile(r"( *)([A-Za-z]+):(?: (.*))?")
_MAX_DEFAULT = 60


def generated() -> dict[Path, str]:
    """Return every generated file of the chart with its text."""
    readme = CHART / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    table = values_table((CHART / "values.yaml").read_text(encoding="utf-8"))
    return {
        CHART / "values.schema.json": schema_text(),
        readme: f"{head}{BEGIN}\n\n{table}\n{END}{tail}",
    }


def schema_text() -> str:
    """Return values.schema.json."""
    chart = yaml.safe_load((HERE / "schema.yaml").read_text(encoding="utf-8"))
    drd = json.loads((ROOT / "config" / "drd.schema.json").read_text(encoding="utf-8"))
    models = drd.pop("$defs")
    document = {key: value for key, value in drd.items() if key not in {"$schema", "title", "required"}}
    chart["definitions"] |= {"drd.yaml": document, **models}
    # Refused by the template instead: a message of the schema would repeat what stands there, perhaps a secret key.
    models["EncryptionConfig"]["properties"]["recipients"]["items"].pop("pattern")
    models["SigningConfig"]["properties"]["public_keys"]["items"].pop("pattern")
    return json.dumps(_adapted(chart), indent=2, ensure_ascii=False) + "\n"


def _adapted(node: Any) -> Any:
    """Make objects strict, references and secrets as the chart wants them, and drop what draft 7 does not know."""
    if isinstance(node, list):
        return [_adapted(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return {"$ref": node["$ref"].replace("#/$defs/", "#/definitions/")}
    if "discriminator" in node:
        return _told_apart(node["discriminator"]["mapping"])
    out = {key: _adapted(value) for key, value in node.items() if key != "format"}
    if "://" in str(node.get("pattern")):
        del out["pattern"]  # a message would repeat the URL, perhaps with a password in it; drd itself checks it
    if isinstance(node.get("oneOf"), list):
        out["oneOf"] = [_adapted(item) for item in node["oneOf"] if "secret itself" not in item.get("description", "")]
    if node.get("type") == "object" and "properties" in node:
        out.setdefault("additionalProperties", False)
    return out


def _told_apart(kinds: dict[str, str]) -> dict[str, Any]:
    """Return models that their ``type`` tells apart, so that messages speak of the one that was meant alone."""
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(kinds)}},
        "allOf": [
            {
                "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
                "then": _adapted({"$ref": reference}),
            }
            for kind, reference in kinds.items()
        ],
    }


def values_table(text: str) -> str:
    """Return the README's table: each described value of values.yaml, its default, and its description."""
    values = yaml.safe_load(text)
    rows = ["| value | default | |", "|---|---|---|"]
    path: list[str] = []
    described = ""
    for line in text.splitlines():
        comment = re.fullmatch(r" *# -- (.*)", line)
        key = _KEY.match(line)
        if comment:
            described = comment[1]
        elif key and len(key[1]) % 2 == 0:
            path = [*path[: len(key[1]) // 2], key[2]]
            if described:
                rows.append(f"| `{'.'.join(path)}` | {_default(values, path)} | {described} |")
            described = ""
    return "\n".join(rows) + "\n"


def _default(values: Any, path: list[str]) -> str:
    for step in path:
        values = values[step]
    shown = json.dumps(values, ensure_ascii=False)
    return f"`{shown}`" if len(shown) <= _MAX_DEFAULT else "see values.yaml"


def main() -> int:
    """Write the files; with ``--check`` only say which are not current (exit 1)."""
    stale = [
        path for path, text in generated().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" not in sys.argv[1:]:
        for path, text in generated().items():
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(path.relative_to(ROOT))
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
