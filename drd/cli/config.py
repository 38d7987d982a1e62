"""``drd config show | validate | schema``."""

from __future__ import annotations

import argparse
from typing import Any

from drd.cli import documents, render
from drd.cli.session import Session


def add(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "config", help="show, validate, schema", parents=[common], description="Look at the configuration."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", parents=[common], help="the configuration in force, secrets masked")
    show.set_defaults(run=run_show)
    validate = actions.add_parser("validate", parents=[common], help="say whether it is right, secrets included")
    validate.set_defaults(run=run_validate)
    schema = actions.add_parser("schema", parents=[common], help="print the JSON Schema")
    schema.set_defaults(run=run_schema)


def run_show(_args: argparse.Namespace, session: Session) -> int:
    """Print the configuration in force, with defaults, without secrets."""
    from drd.config import masked

    document = masked(session.config)
    if session.as_json:
        documents.emit(document)
    else:
        import yaml

        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
    return 0


def run_validate(_args: argparse.Namespace, session: Session) -> int:
    """Validate the whole file and resolve every secret."""
    from drd.config import find_config_file, load

    path = find_config_file(session.config_path)
    config = load(path, check_references=True)
    if session.as_json:
        documents.emit({"outcome": "ok", "file": str(path), "warnings": list(config.warnings)})
    else:
        print(f"{render.mark('ok')} {path}: valid, {render.plural(len(config.sources), 'source')}, every secret found")
        for warning in config.warnings:
            print(f"{render.mark('warning')} {warning}")
    return 0


def run_schema(_args: argparse.Namespace, _session: Session) -> int:
    """Print the JSON Schema of the configuration."""
    from drd.config import schema

    documents.emit(schema())
    return 0
