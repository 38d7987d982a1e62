"""Tell the log which secrets must never stand in it, whatever else goes wrong."""

from __future__ import annotations

from contextlib import suppress

from drd.config import Config, secret_references
from drd.errors import ConfigError
from drd.logs import masker


def mask_secrets(config: Config) -> None:
    """Have every secret of a configuration masked that can be read here; one that cannot can be logged by nobody."""
    for reference in secret_references(config):
        with suppress(ConfigError):
            masker.know([reference.resolve().reveal()])
