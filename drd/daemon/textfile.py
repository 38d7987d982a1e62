"""Metrics in a file, for the textfile collector of Prometheus' node_exporter: there whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from drd.errors import ConfigError

_MODE = 0o644
"""For everybody to read: the collector is another user, and metrics hold no secret."""


def with_former(path: Path, data: bytes) -> bytes:
    """Return ``data`` with what an earlier run left in the file and this one does not know: a last success, say.

    A file that cannot be read or understood has nothing to say.
    """
    try:
        former = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return data
    fresh = {family.name: family for family in text_string_to_metric_families(data.decode("utf-8"))}
    for family in former:
        now = fresh.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        known = {(sample.name, tuple(sorted(sample.labels.items()))) for sample in now.samples}
        now.samples += [s for s in family.samples if (s.name, tuple(sorted(s.labels.items()))) not in known]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(fresh.values()))
    return generate_latest(registry)


class _Fixed(Collector):
    """Collects what it was given."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """Return it."""
        return self._families


def write_textfile(path: Path, data: bytes) -> None:
    """Replace the file by ``data`` in one step; raises ConfigError where that cannot be.

    The collector reads names that end in ``.prom`` alone, so it never meets the file that is being written.
    """
    under_way = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            descriptor = os.open(under_way, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _MODE)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                os.fchmod(stream.fileno(), _MODE)
            under_way.replace(path)
        finally:
            under_way.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be written to {path}: {error.strerror}",
            subject=str(path),
            hint="the folder must be there, and drd may write to it",
        ) from error
